"""A measurement of this machine, recorded, replayed without it, tampered with."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from edgeprune.errors import StorageError
from edgeprune.measure.recording import Recording, read, replay
from edgeprune.measure.session import Session
from edgeprune.records import codec
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from edgeprune.targets.local import LocalTarget
from edgeprune.testing.replay import ReplayTarget
from tests.onnx_models import chain_of_matmuls

PROFILE = DeviceProfile(
    "bench", measurement=MeasurementPolicy(warmup_s=0.1, min_s=0.1, max_s=1.0, min_runs=250, memory_workers=1)
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact, Measurement]:
    folder = tmp_path_factory.mktemp("recording")
    artifact = chain_of_matmuls(folder / "small.onnx", width=64, layers=2)
    recording = Recording()
    with Session(LocalTarget(), PROFILE) as session:
        measured = session.measure(artifact, recording=recording)
    assert measured.outcome is Outcome.OK
    recording.write(folder / "bundle.zip")
    return folder / "bundle.zip", artifact, measured


def rewritten(bundle: Path, path: Path, changes: dict[str, bytes], *, sums: bool) -> Path:
    with zipfile.ZipFile(bundle) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts.update(changes)
    if sums:
        lines = [
            f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in parts.items() if name != "SHA256SUMS"
        ]
        parts["SHA256SUMS"] = "".join(lines).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def part(bundle: Path, name: str) -> bytes:
    with zipfile.ZipFile(bundle) as archive:
        return archive.read(name)


def test_every_figure_follows_again_without_the_device(recorded: tuple[Path, Artifact, Measurement]) -> None:
    bundle, _, measured = recorded
    again = replay(read(bundle))
    assert codec.to_json(again) == codec.to_json(measured)
    assert again.latency is not None
    assert len(again.latency.raw_ms) >= 250
    assert again.memory is not None


def test_a_session_with_the_recording_gives_its_figures(recorded: tuple[Path, Artifact, Measurement]) -> None:
    bundle, artifact, measured = recorded
    with Session(ReplayTarget(read(bundle)), PROFILE) as session:
        again = session.measure(artifact)
    assert again.latency == measured.latency
    assert again.memory == measured.memory
    assert session.target.name == "replay"


def test_a_changed_byte_is_noticed(recorded: tuple[Path, Artifact, Measurement], tmp_path: Path) -> None:
    bundle = recorded[0]
    transcript = part(bundle, "transcript.jsonl")
    changed = rewritten(bundle, tmp_path / "b.zip", {"transcript.jsonl": transcript + b" "}, sums=False)
    with pytest.raises(StorageError, match=r"transcript\.jsonl is not what was recorded"):
        read(changed)


def test_figures_that_do_not_follow_are_refused(recorded: tuple[Path, Artifact, Measurement], tmp_path: Path) -> None:
    """Also where somebody set the sums right."""
    bundle = recorded[0]
    record = json.loads(part(bundle, "measurement.json"))
    record["latency"]["percentile_ms"]["p50"] *= 0.5
    changed = rewritten(bundle, tmp_path / "b.zip", {"measurement.json": json.dumps(record).encode()}, sums=True)
    with pytest.raises(StorageError, match="do not follow from what the device said"):
        replay(read(changed))


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil"])
def test_foreign_parts_are_refused(recorded: tuple[Path, Artifact, Measurement], tmp_path: Path, name: str) -> None:
    changed = rewritten(recorded[0], tmp_path / "b.zip", {name: b"x"}, sums=True)
    with pytest.raises(StorageError, match="is no recording"):
        read(changed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip"]


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK not a zip")
    with pytest.raises(StorageError, match="is no recording"):
        read(tmp_path / "x.zip")
    with pytest.raises(StorageError, match="cannot read"):
        read(tmp_path / "absent.zip")


def test_nothing_measured_is_nothing_to_record(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing to record"):
        Recording().write(tmp_path / "b.zip")
    assert list(tmp_path.iterdir()) == []
