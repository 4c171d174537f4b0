"""A session with one device: the agent is started once, every artifact is sent once, each `measure` is one record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from edgeprune.agent.client import AgentClient, Reply
from edgeprune.errors import TargetError
from edgeprune.measure import comparison, results
from edgeprune.measure.energy_run import EnergyRun
from edgeprune.measure.link import agent_inputs, check_unchanged
from edgeprune.measure.operators import OperatorSession
from edgeprune.measure.outputs import device_outputs
from edgeprune.progress import Step
from edgeprune.records.artifact import Artifact
from edgeprune.records.comparison import Comparison
from edgeprune.records.measurement import Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeprune.measure.recording import Recording
    from edgeprune.records.profile import MeasurementPolicy

__all__ = ["Session"]

_GRACE_S = 30.0  # beyond the agent's own deadline
_NO_CAP = 10**8  # runs
_COMPARE_S = 2.5  # in each worker of a comparison


class Session(OperatorSession):
    """Measures artifacts on a target that it enters and leaves itself; use it in a `with` statement.

    The arguments are those of DeviceLink. Entering raises TargetError where no session can be had.
    """

    def measure(
        self, artifact: Artifact, *, sustained_s: float | None = None, recording: Recording | None = None
    ) -> Measurement:
        """Measure one artifact. Every failure of the device or the link is an outcome in the record.

        With `sustained_s` the runs go on for that long, and throttling is not a failure but what is looked for. All
        that the device says goes into `recording`. Raises StorageError where the artifact itself cannot be read or is
        not what its record says.
        """
        check_unchanged(artifact)
        started = time.monotonic()
        started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        policy = self.policy
        if sustained_s is not None:
            policy = replace(
                policy,
                min_s=sustained_s,
                max_s=sustained_s,
                max_runs=_NO_CAP,
                deadline_s=policy.deadline_s + 2 * sustained_s,  # the samples must come over as well
            )
        energy = EnergyRun(self.profile, self.policy, self._energy)
        try:
            with self._progress.step(f"measuring on {self.target.name}") as step:
                client = self._alive()  # one that has what is sent: another one would begin in a folder of its own
                self._sent(artifact)  # before a meter begins to read
                with energy:
                    request = self._request(artifact, energy, policy, sustained=sustained_s is not None)
                    reply = self._asked(client, request, step, energy, policy=policy, recording=recording)
        except TargetError as error:
            outcome, message = self._diagnose(error)
            return results.failed(
                artifact.sha256,
                outcome,
                message,
                provenance=self._provenance(started_at, {}),
                seconds=time.monotonic() - started,
            )
        measured = results.measurement(
            artifact.sha256,
            reply.frame,
            reply.samples_ns,
            provenance=self._provenance(started_at, reply.frame),
            energy=energy,
            cpus=self._cpus,
            seconds=time.monotonic() - started,
        )
        if recording is not None:
            asked, cpus = self._energy, self._cpus
            recording.finish(measured, profile=self.profile, policy=self.policy, energy=energy, asked=asked, cpus=cpus)
        return measured

    def _request(
        self, artifact: Artifact, energy: EnergyRun, policy: MeasurementPolicy, *, sustained: bool
    ) -> dict[str, Any]:
        """What the agent is asked for."""
        return {
            "model": self._sent(artifact),
            "discard": self._outdated(),
            "inputs": agent_inputs(artifact.inputs),
            "seed": self._seed,
            "deadline_s": policy.deadline_s,
            "sustained": sustained,
            "policy": {
                **self._policy(),
                "min_s": policy.min_s,
                "max_s": policy.max_s,
                "min_runs": policy.min_runs,
                "max_runs": policy.max_runs,
                "memory_workers": policy.memory_workers,
                "start_below_c": policy.start_below_c,
                "cool_down_s": policy.cool_down_s,
                "throttle_retries": policy.throttle_retries,
                "energy": energy.request,
            },
        }

    def _asked(
        self,
        client: AgentClient,
        request: Mapping[str, Any],
        step: Step,
        energy: EnergyRun,
        *,
        policy: MeasurementPolicy,
        recording: Recording | None,
    ) -> Reply:
        attempt_s = policy.deadline_s + energy.seconds + policy.cool_down_s
        frames: list[Mapping[str, Any]] = []

        def on_beat(beat: Mapping[str, Any]) -> None:
            frames.append(beat)
            if not energy.take(beat):
                step.advance(0, f"{beat.get('stage', '')}, {beat.get('elapsed_s', 0):.0f} s")

        timeout_s = (1 + policy.throttle_retries) * attempt_s + _GRACE_S
        reply = client.request("measure", timeout_s=timeout_s, on_beat=on_beat, **request)
        if recording is not None:
            recording.hello, recording.request = self._hello, request
            recording.frames, recording.samples_ns = [*frames, reply.frame], reply.samples_ns
        return reply

    def compare(
        self, artifact: Artifact, against: Artifact, *, workers: int = 8, seconds: float = _COMPARE_S
    ) -> Comparison:
        """Run two artifacts in turn in `workers` fresh processes, for `seconds` in each. Failures are outcomes.

        Each is warmed up for a third of that, or the policy's `warmup_s` where that is less: what is left of warming up
        both have in common.

        Raises StorageError as `measure` does.
        """
        check_unchanged(artifact)
        check_unchanged(against)
        started = time.monotonic()
        started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        sha256s = artifact.sha256, against.sha256
        warmup_s = min(self.policy.warmup_s, seconds / 3)
        try:
            with self._progress.step(f"comparing on {self.target.name}") as step:
                frame = (
                    self._alive()
                    .request(
                        "compare",
                        timeout_s=self.policy.deadline_s + _GRACE_S,
                        on_beat=lambda beat: step.advance(0, f"{beat.get('elapsed_s', 0):.0f} s"),
                        arms=[
                            {"model": self._sent(one), "inputs": agent_inputs(one.inputs)}
                            for one in (artifact, against)
                        ],
                        discard=self._outdated(),
                        seed=self._seed,
                        workers=workers,
                        deadline_s=self.policy.deadline_s,
                        policy={**self._policy(), "compare_s": seconds, "warmup_s": warmup_s},
                    )
                    .frame
                )
        except TargetError as error:
            outcome, message = self._diagnose(error)
            frame = {"outcome": outcome.value, "message": message}
        return comparison.comparison(
            sha256s,
            frame,
            provenance=self._provenance(started_at, frame),
            warnings=results.condition_warnings(frame.get("conditions") or {}, self._cpus),
            seconds=time.monotonic() - started,
        )

    def outputs(self, artifact: Artifact, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What the device computes for these inputs, by the output's name; raises what `device_outputs` does."""
        check_unchanged(artifact)
        policy = self.policy
        return device_outputs(
            self._alive(),
            self.target,
            self._sent(artifact),
            inputs,
            runtime=policy.runtime,
            threads=policy.threads,
            deadline_s=policy.deadline_s,
        )
