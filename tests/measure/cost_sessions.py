"""Stand-ins for a session that times operators, and the caches that keep what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgeprune.errors import TargetError
from edgeprune.export.micro import micro_model
from edgeprune.measure.cost_cache import CostCache, timings
from edgeprune.records.operators import LinearSignature, MicroModel, OperatorTiming, TimingPolicy
from edgeprune.records.profile import MeasurementPolicy

MACHINE = {"board": "Raspberry Pi 5", "cpu": "0xd0b", "cpus": 4, "arch": "aarch64", "hostname": "pi", "boot_id": "1"}
SETTING: dict[str, Any] = {"runtime": "onnxruntime", "version": "1.20", "threads": 1, "cores": (2, 3)}


def opened(folder: Path, machine: Mapping[str, Any] = MACHINE, **changes: Any) -> CostCache:
    return CostCache.open(machine, **{**SETTING, **changes}, folder=folder)


class FakeSession:
    """Answers as a session does, from a script of what each request comes to."""

    def __init__(self, *, deadly: str = "", unstable: int = 0, lost_after: int = 99, throttled: int = 0) -> None:
        self.asked: list[list[str]] = []
        self.deadly, self.unstable, self.lost_after, self.throttled = deadly, unstable, lost_after, throttled
        self.policy = MeasurementPolicy(throttle_retries=1)
        self.target = SimpleNamespace(name="fake")
        self.agent_sha256 = "f00d"
        self.connected = True

    def operators(
        self, models: Mapping[str, MicroModel], *, timing: TimingPolicy | None = None
    ) -> dict[str, OperatorTiming]:
        if models:
            self.asked.append(list(models))
        if len(self.asked) > self.lost_after:
            raise TargetError("gone", outcome="LOST")
        if self.throttled:
            self.throttled -= 1
            raise TargetError("hot", outcome="THROTTLED")
        if any(self.deadly and self.deadly in key for key in models):
            raise TargetError("the worker ended", outcome="OOM")
        self.unstable -= bool(models)
        spread = 1.5 if self.unstable >= 0 else 1.0
        return {key: OperatorTiming(10.0, None, 9.0, 40, (10.0, 10.0 * spread)) for key in models}


LINEARS = [LinearSignature(1, 8, width) for width in range(1, 101)]


def run(session: FakeSession, cache: CostCache | None, signatures: list[LinearSignature]) -> dict[str, OperatorTiming]:
    return timings(session, signatures, cache, build=micro_model)  # type: ignore[arg-type]  # stands in for one
