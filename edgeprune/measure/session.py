"""A session with one device: the agent is started once, every artifact is sent once, each `measure` is one record."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeprune.agent.bundle import agent_sha256, write_agent
from edgeprune.agent.client import AgentClient, Reply
from edgeprune.errors import CannotMeasureError, StorageError, TargetError
from edgeprune.measure import comparison, results
from edgeprune.measure.energy_run import EnergyRun
from edgeprune.measure.waiting import waiting
from edgeprune.progress import SILENT, Progress, Step
from edgeprune.records.artifact import Artifact
from edgeprune.records.comparison import Comparison
from edgeprune.records.measurement import Measurement, Outcome, Provenance
from edgeprune.targets.base import Target

if TYPE_CHECKING:
    from edgeprune.measure.recording import Recording
    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy

__all__ = ["Session"]

_HELLO_S = 90.0  # a small board takes long to import its runtime
_GRACE_S = 30.0  # beyond the agent's own deadline
_RETRY_S = 2.0
_KEPT_ARTIFACTS = 4  # on the device, for measuring again: the dense model and the latest
_CACHED_S = 120.0  # to read a large file from a slow card
_NO_CAP = 10**8  # runs
_COMPARE_S = 2.5  # in each worker of a comparison
_TRUSTED_S = 10.0  # a link that was used so lately is taken for sound


class Session:
    """Measures artifacts on a target that it enters and leaves itself; use it in a `with` statement.

    `wait_s` is how long to wait for another user's measurement to end, `reconnect_s` how long to try to reach a device
    again whose link broke, to learn whether it rebooted; `energy` asks for energy as well, where the policy leaves
    that open. Entering raises TargetError where no session can be had.
    """

    def __init__(
        self,
        target: Target,
        profile: DeviceProfile,
        *,
        policy: MeasurementPolicy | None = None,
        progress: Progress = SILENT,
        wait_s: float = 30.0,
        reconnect_s: float = 60.0,
        seed: int = 0,
        energy: bool = False,
    ) -> None:
        self.target = target
        self.profile = profile
        self.policy = policy or profile.measurement
        self._progress = progress
        self._wait_s = wait_s
        self._reconnect_s = reconnect_s
        self._seed = seed
        self._energy = energy
        self._client: AgentClient | None = None
        self._hello: Mapping[str, Any] = {}
        self._uploaded: dict[str, str] = {}
        self._last_use = 0.0

    def __enter__(self) -> Session:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def machine(self) -> Mapping[str, Any]:
        """The device's fingerprint, as the agent saw it at the start."""
        return dict(self._hello.get("machine", {}))

    @property
    def runtimes(self) -> Mapping[str, Any]:
        """What the agent found: by name its version, or why it is missing."""
        return dict(self._hello.get("runtimes", {}))

    @property
    def connected(self) -> bool:
        """False where the link broke and the device did not come back."""
        return self._client is not None

    def probe(self) -> Mapping[str, Any]:
        """The machine and its present conditions; raises TargetError."""
        return self._alive().request("probe", timeout_s=_GRACE_S).frame

    def measure(
        self, artifact: Artifact, *, sustained_s: float | None = None, recording: Recording | None = None
    ) -> Measurement:
        """Measure one artifact. Every failure of the device or the link is an outcome in the record.

        With `sustained_s` the runs go on for that long, and throttling is not a failure but what is looked for. All
        that the device says goes into `recording`. Raises StorageError where the artifact itself cannot be read or is
        not what its record says.
        """
        _check_unchanged(artifact)
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
            with self._progress.step(f"measuring on {self.target.name}") as step, energy:
                request = self._request(artifact, energy, policy, sustained=sustained_s is not None)
                reply = self._asked(request, step, energy, policy, recording)
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
        """What the agent is asked for; sends the artifact where it is not there yet."""
        self._alive()
        return {
            "model": self._sent(artifact),
            "discard": self._outdated(),
            "inputs": _inputs(artifact),
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
        request: Mapping[str, Any],
        step: Step,
        energy: EnergyRun,
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
        reply = self._alive().request("measure", timeout_s=timeout_s, on_beat=on_beat, **request)
        if recording is not None:
            recording.hello, recording.request = self._hello, request
            recording.frames, recording.samples_ns = [*frames, reply.frame], reply.samples_ns
        return reply

    def compare(self, artifact: Artifact, against: Artifact, *, workers: int = 8) -> Comparison:
        """Run two artifacts in turn in `workers` fresh processes. Failures are outcomes in the record.

        Raises StorageError as `measure` does.
        """
        _check_unchanged(artifact)
        _check_unchanged(against)
        started = time.monotonic()
        started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        sha256s = artifact.sha256, against.sha256
        try:
            with self._progress.step(f"comparing on {self.target.name}") as step:
                frame = (
                    self._alive()
                    .request(
                        "compare",
                        timeout_s=self.policy.deadline_s + _GRACE_S,
                        on_beat=lambda beat: step.advance(0, f"{beat.get('elapsed_s', 0):.0f} s"),
                        arms=[{"model": self._sent(one), "inputs": _inputs(one)} for one in (artifact, against)],
                        discard=self._outdated(),
                        seed=self._seed,
                        workers=workers,
                        deadline_s=self.policy.deadline_s,
                        policy={**self._policy(), "compare_s": _COMPARE_S},
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

    def _sent(self, artifact: Artifact) -> str:
        """The artifact's path on the device; sent where it is not there yet."""
        if artifact.sha256 not in self._uploaded:
            name = f"{artifact.sha256[:32]}{artifact.path.suffix}"
            kept = self._kept(artifact, name) if self.policy.keep_artifacts_bytes else None
            self._uploaded[artifact.sha256] = kept or self.target.upload(artifact.path, name)
        self._uploaded[artifact.sha256] = model = self._uploaded.pop(artifact.sha256)  # the latest
        return model

    def _kept(self, artifact: Artifact, name: str) -> str | None:
        """Its path in the cache that stays on the device, sent there where it is not; None where it would not fit."""
        folder = f"{self.target.home}/artifacts"
        size = artifact.path.stat().st_size
        limit = self.policy.keep_artifacts_bytes
        file = {"folder": folder, "name": name, "sha256": artifact.sha256, "size": size, "limit": limit}
        found = self._alive().request("cached", timeout_s=_CACHED_S, deadline_s=_CACHED_S, file=file).frame
        if found["outcome"] != Outcome.OK.value:
            raise TargetError(f"{self.target.name}: {found.get('message')}", outcome=str(found["outcome"]))
        if found["found"]:
            return f"{folder}/{name}"
        return self.target.upload(artifact.path, name, folder) if found["keep"] else None

    def _outdated(self) -> list[str]:
        """Artifacts on the device that are not wanted any more: all but the latest."""
        return [self._uploaded.pop(sha256) for sha256 in list(self._uploaded)[:-_KEPT_ARTIFACTS]]

    def _policy(self) -> dict[str, Any]:
        """What the agent needs to know of the policy for every kind of measurement."""
        policy = self.policy
        return {
            "runtime": policy.runtime,
            "threads": policy.threads,
            "cores": policy.cores,
            "warmup_runs": policy.warmup_runs,
            "warmup_s": policy.warmup_s,
            "ci_share": policy.ci_share,
        }

    @property
    def _cpus(self) -> int:
        return int(self.machine.get("usable_cpus") or 1)

    def _provenance(self, started_at: str, frame: Mapping[str, Any]) -> Provenance:
        timed = frame.get("latency") or {}
        runtime = timed.get("runtime", self.policy.runtime)
        version = timed.get("version") or (self.runtimes.get(runtime) or {}).get("version", "")
        return Provenance(
            target=self.target.name,
            profile=self.profile.name,
            machine=self.machine,
            runtime=runtime,
            runtime_version=str(version),
            threads=self.policy.threads,
            agent_sha256=str(self._hello.get("sha256", "")),
            started_at=started_at,
            cores=tuple(timed.get("cores", ())),
        )

    # --- the link

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            self.target.__enter__()
            stack.callback(self._close)
            with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
                file = write_agent(Path(folder))
                agent = self.target.upload(file, file.name)
            owner = f"{getpass.getuser()}@{socket.gethostname()}"
            channel = self.target.start(
                [
                    self.target.python, "-B", agent,
                    "--folder", self.target.folder,
                    "--owner", owner,
                    "--wait-s", f"{self._wait_s:g}",
                ]
            )  # fmt: skip
            self._client = AgentClient(channel, self.target.name)
            with waiting(self.target.name, self._wait_s, self._progress) as on_wait:
                self._hello = self._client.hello(_HELLO_S + self._wait_s, on_wait)
            if self._hello.get("sha256") != agent_sha256():
                raise TargetError(f"{self.target.name}: the agent there is not the one sent", outcome="LOST")
            stack.pop_all()

    def _close(self) -> None:
        client, self._client = self._client, None
        self._uploaded.clear()
        try:
            if client is not None:
                client.close()
        finally:
            self.target.__exit__(None, None, None)

    def _alive(self) -> AgentClient:
        """The agent; started anew where the link broke, before this or while nothing was asked of it."""
        if self._client is not None and time.monotonic() - self._last_use > _TRUSTED_S:
            try:
                self._client.request("probe", timeout_s=_GRACE_S)
            except TargetError:
                self._close()
        if self._client is None:
            self._open()
        self._last_use = time.monotonic()
        if self._client is None:
            raise TargetError(f"{self.target.name}: no agent", outcome="LOST")
        return self._client

    def _diagnose(self, error: TargetError) -> tuple[Outcome, str]:
        """The outcome that a broken request stands for. The link is given up; the next request makes a new one."""
        outcome = Outcome(error.outcome or Outcome.LOST)
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        if outcome in {Outcome.NO_SPACE, Outcome.BUSY, Outcome.NO_RUNTIME}:
            return outcome, message  # the device answered: the link is sound
        before = self.machine.get("boot_id")
        self._close()
        for _ in _attempts(self._reconnect_s):
            with contextlib.suppress(CannotMeasureError):
                self._open()
                if before and self.machine.get("boot_id") not in {None, "", before}:
                    return Outcome.REBOOTED, f"{self.target.name}: the device rebooted during the measurement"
                return outcome, f"{message}; the device is reachable again"
        return outcome, message


def _inputs(artifact: Artifact) -> list[dict[str, Any]]:
    """What the agent makes inputs from: a dimension that is not fixed is 1."""
    return [
        {"name": spec.name, "dtype": spec.dtype, "shape": [n if isinstance(n, int) else 1 for n in spec.shape]}
        for spec in artifact.inputs
    ]


def _attempts(seconds: float) -> Iterator[int]:
    """Try at once, then every few seconds while the time lasts."""
    end = time.monotonic() + seconds
    number = 0
    while True:
        yield number
        number += 1
        if time.monotonic() + _RETRY_S > end:
            return
        time.sleep(_RETRY_S)


def _check_unchanged(artifact: Artifact) -> None:
    try:
        with artifact.path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"cannot read the artifact {artifact.path}: {error.strerror}") from error
    if digest.hexdigest() != artifact.sha256:
        raise StorageError(
            f"{artifact.path} is not the file that its record describes (sha256 differs)", hint="export it again"
        )
