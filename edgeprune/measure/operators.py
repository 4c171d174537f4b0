"""What a device tells of single operators: a model's nodes under the runtime's profiler, and operators on their own."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeprune.errors import TargetError
from edgeprune.measure import results
from edgeprune.measure.link import DeviceLink, agent_inputs, check_unchanged
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Outcome
from edgeprune.records.operators import MicroModel, OperatorTiming, TimingPolicy
from edgeprune.records.runtime_profile import NodeTiming, RuntimeProfile

__all__ = ["OperatorSession"]

_GRACE_S = 30.0  # beyond the agent's own deadline
_LOAD_S = 2.0  # to load one micro model on a slow board
_WARMUP_LIMIT = 10  # as the agent has it: times `warmup_s`
_PASSES = 2
_MOST_NODES = 100_000


class OperatorSession(DeviceLink):
    """The two requests about single operators."""

    def runtime_profile(self, artifact: Artifact, *, runs: int = 200) -> RuntimeProfile:
        """Run a model `runs` times under its runtime's profiler, in a fresh worker. Failures are outcomes.

        Raises StorageError where the artifact cannot be read or is not what its record says.
        """
        check_unchanged(artifact)
        started = time.monotonic()
        started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        nodes: list[NodeTiming] = []
        try:
            with self._progress.step(f"profiling on {self.target.name}") as step:

                def on_beat(frame: Mapping[str, Any]) -> None:
                    if frame["type"] == "node" and len(nodes) < _MOST_NODES:
                        nodes.append(_node(frame))
                    else:
                        step.advance(0, f"{frame.get('elapsed_s', 0):.0f} s")

                client = self._alive()
                frame = client.request(
                    "profile",
                    timeout_s=(1 + self.policy.throttle_retries) * self.policy.deadline_s + _GRACE_S,
                    on_beat=on_beat,
                    model=self._sent(artifact),
                    discard=self._outdated(),
                    inputs=agent_inputs(artifact.inputs),
                    seed=self._seed,
                    deadline_s=self.policy.deadline_s,
                    policy={**self._policy(), **self._cooling(), "profile_runs": runs},
                ).frame
            if frame["outcome"] == Outcome.OK.value and frame["nodes"] != len(nodes):
                raise TargetError(f"{self.target.name}: {len(nodes)} of {frame['nodes']} nodes came", outcome="LOST")
        except TargetError as error:
            outcome, message = self._diagnose(error)
            frame = {"outcome": outcome.value, "message": message}
        found = Outcome(frame["outcome"])
        ok = found is Outcome.OK
        conditions = dict(frame.get("conditions") or {})
        return RuntimeProfile(
            artifact_sha256=artifact.sha256,
            outcome=found,
            provenance=self._provenance(started_at, {"latency": frame if ok else {}}),
            nodes=tuple(nodes) if ok else (),
            profiled_ns=frame["profiled_ns"] if ok else None,
            plain_ns=frame["plain_ns"] if ok else None,
            runs=frame["runs"] if ok else 0,
            conditions=conditions,
            warnings=tuple(results.condition_warnings(conditions, self._cpus)),
            message=str(frame.get("message", "")),
            seconds=time.monotonic() - started,
        )

    def operators(
        self, models: Mapping[str, MicroModel], *, timing: TimingPolicy | None = None
    ) -> dict[str, OperatorTiming]:
        """Time each model by itself, all in one worker, twice in different order; by key.

        A model that fails carries its error. Raises TargetError with the outcome where there are no figures at all: a
        model that ends the worker (CRASHED, OOM) takes the others with it.
        """
        if not models:
            return {}
        policy = timing or TimingPolicy()
        told: dict[str, list[Mapping[str, Any]]] = {key: [] for key in models}
        try:
            with self._progress.step(f"timing operators on {self.target.name}", _PASSES * len(models)) as step:

                def on_beat(frame: Mapping[str, Any]) -> None:
                    if frame["type"] != "timing":
                        step.advance(0, f"{frame.get('elapsed_s', 0):.0f} s")
                        return
                    if frame["key"] not in told:
                        raise TargetError(f"{self.target.name}: a figure for {frame['key']!r}", outcome="LOST")
                    told[frame["key"]].append(frame)
                    step.advance(1, str(frame["key"]).partition(" ")[0])

                client = self._alive()
                each_s = _PASSES * (_LOAD_S + 3 * policy.max_s + _WARMUP_LIMIT * policy.warmup_s)
                deadline_s = _GRACE_S + len(models) * each_s
                frame = client.request(
                    "operators",
                    timeout_s=deadline_s + self.policy.cool_down_s + _GRACE_S,
                    on_beat=on_beat,
                    file=self._sent_models(models),
                    seed=self._seed,
                    deadline_s=deadline_s,
                    # the file is gone after one attempt: whoever asks decides whether to ask again
                    policy={**self._policy(), **self._cooling(), **asdict(policy), "throttle_retries": 0},
                ).frame
        except TargetError as error:
            outcome, message = self._diagnose(error)
            raise TargetError(message, outcome=outcome.value) from error
        if frame["outcome"] != Outcome.OK.value:
            message = f"{self.target.name}: operators could not be timed: {frame.get('message')}"
            raise TargetError(message, outcome=str(frame["outcome"]))
        return {key: _timing(frames) for key, frames in told.items()}

    def _cooling(self) -> dict[str, Any]:
        policy = self.policy
        return {
            "start_below_c": policy.start_below_c,
            "cool_down_s": policy.cool_down_s,
            "throttle_retries": policy.throttle_retries,
        }

    def _sent_models(self, models: Mapping[str, MicroModel]) -> str:
        """All models as one file of JSON lines, which the agent reads one by one; its path on the device."""
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            path = Path(folder) / "operators.jsonl"
            digest = hashlib.sha256()
            with path.open("wb") as file:
                for key, model in models.items():
                    line = {
                        "key": key,
                        "suffix": model.suffix,
                        "inputs": agent_inputs(model.inputs),
                        "model": base64.b64encode(model.data).decode(),
                    }
                    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
                    digest.update(data)
                    file.write(data)
            return self.target.upload(path, f"operators-{digest.hexdigest()[:16]}.jsonl")


def _node(frame: Mapping[str, Any]) -> NodeTiming:
    return NodeTiming(
        name=frame["name"],
        op_type=frame["op_type"],
        provider=frame["provider"],
        ns=frame["ns"],
        runs=frame["runs"],
        input_shapes=tuple(tuple(shape) for shape in frame["inputs"]),
        output_shapes=tuple(tuple(shape) for shape in frame["outputs"]),
    )


def _timing(frames: list[Mapping[str, Any]]) -> OperatorTiming:
    errors = [str(frame["error"]) for frame in frames if "error" in frame]
    if errors:
        return OperatorTiming(error=errors[0])
    if len(frames) != _PASSES:
        return OperatorTiming(error=f"{len(frames)} of {_PASSES} passes came")
    best = min(frames, key=lambda frame: int(frame["p50_ns"]))
    kernels = [frame["kernel_ns"] for frame in frames if "kernel_ns" in frame]
    return OperatorTiming(
        run_ns=best["p50_ns"],
        kernel_ns=min(kernels, default=None),
        lower_quartile_ns=best["p25_ns"],
        runs=sum(frame["runs"] for frame in frames),
        medians_ns=tuple(frame["p50_ns"] for frame in frames),
    )
