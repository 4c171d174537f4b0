"""The host's part of an energy pass: whether one is asked for, what arrives while it goes on, the record in the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeprune import registry
from edgeprune.measure.energy import NotMeasuredError, Trace, energy, plan
from edgeprune.measure.meters import MeterError, device_times
from edgeprune.records.measurement import Energy
from edgeprune.records.profile import DEVICE_SENSORS

if TYPE_CHECKING:
    from edgeprune.measure.meters import Meter
    from edgeprune.records.profile import DeviceProfile, MeasurementPolicy, PowerSensor

__all__ = ["EnergyRun"]


class EnergyRun:
    """One measurement's energy: `request` goes to the agent (None: no energy pass), its frames come to `take`.

    In a `with` statement a meter on the host reads, where the profile names one: it goes before the device's sensors.
    """

    def __init__(self, profile: DeviceProfile, policy: MeasurementPolicy, asked: bool) -> None:
        self._policy = policy
        self._meters = [sensor for sensor in profile.power_sensors if sensor.kind not in DEVICE_SENSORS]
        self._sensors = [sensor for sensor in profile.power_sensors if sensor.kind in DEVICE_SENSORS]
        self._meter: Meter | None = None
        self._meter_fault = ""
        self._metered: list[tuple[float, float]] = []
        self._clocks: list[Mapping[str, float]] = []
        self._ns: list[int] = []
        self._values: list[float] = []
        self.missing = _why_not(profile, policy, asked)
        self.request: Mapping[str, Any] | None = None
        if not self.missing:
            self.request = plan([] if self._meters else self._sensors, policy)

    @property
    def seconds(self) -> float:
        """How long the pass may take."""
        return 0.0 if self.request is None else float(self.request["deadline_s"])

    def __enter__(self) -> EnergyRun:
        if self.request is not None and self._meters:
            try:
                self._meter = registry.resolve("power_sensors", self._meters[0].kind)(self._meters[0].source)
                self._meter.start()
            except MeterError as error:
                self._meter, self.request, self.missing = None, None, f"{self._meters[0].name}: {error}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        meter, self._meter = self._meter, None
        if meter is not None:
            try:
                self._metered = list(meter.stop())
            except MeterError as fault:
                self._meter_fault = str(fault)

    def take(self, frame: Mapping[str, Any]) -> bool:
        """True for a frame of the energy pass, which is kept."""
        if frame.get("type") == "power":
            self._ns.extend(int(value) for value in frame["ns"])
            self._values.extend(float(value) for value in frame["values"])
        elif frame.get("type") == "clock":
            self._clocks.append({"ns": float(frame["ns"]), "wall": time.time(), "monotonic": time.monotonic()})
        return frame.get("type") in {"power", "clock"}

    def host_samples(self) -> dict[str, Any]:
        """What a meter on the host read, and when the device's clock was heard; for a recording."""
        return {"metered": self._metered, "clocks": self._clocks, "fault": self._meter_fault, "missing": self.missing}

    def take_host_samples(self, data: Mapping[str, Any]) -> None:
        """The same, of a recording, in place of what was read and heard here."""
        self._metered = [(float(at), float(watts)) for at, watts in data["metered"]]
        self._clocks = list(data["clocks"])
        self._meter_fault = str(data["fault"])

    def result(self, told: Mapping[str, Any]) -> Energy | None:
        """The record of what the agent `told`; None with the reason in `missing`. After the `with` statement."""
        if self.missing or self.request is None:
            return None
        self.missing = str(told.get("missing") or "")
        if self.missing:
            return None
        try:
            sensor = self._meters[0] if self._meters else self._sensors[int(told["sensor"])]
            return energy(self._trace(sensor, told), told, sensor, self._policy)
        except NotMeasuredError as error:
            self.missing = str(error)
            return None

    def _trace(self, sensor: PowerSensor, told: Mapping[str, Any]) -> Trace:
        if not self._meters:
            return Trace(self._ns, self._values, str(told["quantity"]), float(told["interval_s"]), dict(told["failed"]))
        try:
            if self._meter_fault:
                raise MeterError(self._meter_fault)
            ns, watts = device_times(self._metered, self._clocks)
        except MeterError as error:
            raise NotMeasuredError(f"{sensor.name}: {error}") from error
        return Trace(ns, watts, "power", 1 / self._policy.energy_rate_hz, {})


def _why_not(profile: DeviceProfile, policy: MeasurementPolicy, asked: bool) -> str:
    """Why no energy is measured, or ""."""
    if not profile.power_sensors:
        return (
            f"no power sensor: the profile {profile.name!r} names none; "
            "measure on a board with one, or add it to the profile (power_sensors)"
        )
    if policy.energy is False:
        return "the measurement policy says energy: false"
    if not asked and policy.energy == "auto":
        return "not asked for, as it takes half a minute: a limit on energy asks for it, or --energy, or energy: true"
    return ""
