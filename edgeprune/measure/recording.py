"""A measurement as one file: everything that the device said, from which every figure follows again without it.

A bundle is a zip of `recording.json` (what was asked, by whom, of what), `transcript.jsonl` (the agent's frames as they
came), `measurement.json` (the record), and `SHA256SUMS` of these. `replay` works the figures out anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeprune import atomic
from edgeprune.errors import StorageError, UnreadableError
from edgeprune.measure import results
from edgeprune.measure.energy_run import EnergyRun
from edgeprune.records import codec
from edgeprune.records.measurement import Measurement, Provenance
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy, PowerSensor

__all__ = ["SCHEMA", "Recording", "read", "replay"]

SCHEMA = "edgeprune.recording/1"
_SUMS = "SHA256SUMS"
_NAMES = ("recording.json", "transcript.jsonl", "measurement.json")
_CHUNK = 500  # samples in one line of the transcript
_LIMIT = 1 << 30  # bytes of all parts
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(slots=True)
class Recording:
    """Filled by a session while it measures one artifact."""

    hello: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    frames: list[Mapping[str, Any]] = field(default_factory=list)  # heartbeats, power, the result at last
    samples_ns: Sequence[int] = ()
    context: dict[str, Any] = field(default_factory=dict)
    measurement: Measurement | None = None

    def finish(
        self,
        measurement: Measurement,
        *,
        profile: DeviceProfile,
        policy: MeasurementPolicy,
        energy: EnergyRun,
        asked: bool,
        cpus: int,
    ) -> None:
        """Keep what the figures follow from beside the frames."""
        self.measurement = measurement
        self.context = {
            "profile": profile.name,
            "power_sensors": [asdict(sensor) for sensor in profile.power_sensors],
            "policy": asdict(policy),
            "energy_asked": asked,
            "meter": energy.host_samples(),
            "cpus": cpus,
        }

    def write(self, path: Path) -> None:
        """The bundle; raises StorageError, also where nothing was measured."""
        if self.measurement is None or not self.frames:
            raise StorageError("there is nothing to record: the device gave no answer")
        parts = {
            "recording.json": _json(
                {"schema": SCHEMA, "hello": self.hello, "request": self.request, "context": self.context}
            ),
            "transcript.jsonl": b"".join(_json(frame) for frame in self.transcript()),
            "measurement.json": _json(codec.to_json(self.measurement)),
        }
        sums = "".join(f"{hashlib.sha256(parts[name]).hexdigest()}  {name}\n" for name in _NAMES)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {**parts, _SUMS: sums.encode()}.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
        atomic.write_bytes(path, buffer.getvalue())

    def transcript(self) -> Iterator[Mapping[str, Any]]:
        """The frames as they came, samples in chunks before the result."""
        *before, last = self.frames
        yield from before
        for first in range(0, len(self.samples_ns), _CHUNK):
            yield {"type": "samples", "ns": list(self.samples_ns[first : first + _CHUNK])}
        yield last


def read(path: Path) -> Recording:
    """A bundle; raises UnreadableError where it is not one, or where a byte of it was changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sorted(archive.namelist()) != sorted((*_NAMES, _SUMS)):
                raise UnreadableError(f"{path} is no recording: it holds {', '.join(archive.namelist()[:5])}")
            if sum(info.file_size for info in archive.infolist()) > _LIMIT:
                raise UnreadableError(f"{path} holds more than {_LIMIT} bytes")
            parts = {name: archive.read(name) for name in (*_NAMES, _SUMS)}
    except OSError as error:
        raise UnreadableError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UnreadableError(
            f"{path} is no recording: {error}", hint="make one: edgeprune measure --record"
        ) from error
    listed = parts[_SUMS].decode("utf-8", "replace").splitlines()
    for name in _NAMES:
        if f"{hashlib.sha256(parts[name]).hexdigest()}  {name}" not in listed:
            raise UnreadableError(f"{path}: {name} is not what was recorded (sha256 differs)")
    try:
        head = json.loads(parts["recording.json"])
        if head["schema"] != SCHEMA:
            raise UnreadableError(f"{path}: unknown schema {head['schema']!r}", hint="by another version of edgeprune?")
        frames = [json.loads(line) for line in parts["transcript.jsonl"].splitlines()]
        samples = [int(value) for frame in frames if frame["type"] == "samples" for value in frame["ns"]]
        record = codec.from_json(json.loads(parts["measurement.json"]))
        if not isinstance(record, Measurement):
            raise UnreadableError(f"{path}: its record is no measurement")
        return Recording(
            hello=head["hello"],
            request=head["request"],
            frames=[frame for frame in frames if frame["type"] != "samples"],
            samples_ns=samples,
            context=head["context"],
            measurement=record,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError(f"{path} is a damaged recording: {type(error).__name__}: {error}") from error


def replay(recording: Recording) -> Measurement:
    """The record, worked out anew from what the device said; raises UnreadableError where the recorded one differs."""
    recorded, context = recording.measurement, recording.context
    if recorded is None:
        raise UnreadableError("this recording holds no measurement")
    try:
        policy = MeasurementPolicy(**{**context["policy"], "cores": _cores(context["policy"]["cores"])})
        sensors = tuple(PowerSensor(**{**s, "rails": tuple(s["rails"])}) for s in context["power_sensors"])
        profile = DeviceProfile(name=context["profile"], power_sensors=sensors, measurement=policy)
        energy = EnergyRun(profile, policy, bool(context["energy_asked"]))
        for frame in recording.frames:
            energy.take(frame)
        energy.take_host_samples(context["meter"])
        provenance = recorded.provenance
        if not isinstance(provenance, Provenance):
            raise UnreadableError("this recording does not say where it comes from")
        again = results.measurement(
            recorded.artifact_sha256,
            recording.frames[-1],
            recording.samples_ns,
            provenance=provenance,
            energy=energy,
            cpus=int(context["cpus"]),
            seconds=recorded.seconds,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnreadableError(f"a damaged recording: {type(error).__name__}: {error}") from error
    if codec.to_json(again) != codec.to_json(recorded):
        raise UnreadableError("the recorded figures do not follow from what the device said")
    return again


def _cores(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode() + b"\n"
