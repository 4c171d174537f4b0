"""Artifacts that stay on the device between sessions: real sessions on this machine, in a home of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from edgeprune.targets.local import LocalTarget
from tests.onnx_models import chain_of_matmuls

POLICY = MeasurementPolicy(
    warmup_s=0.05, min_s=0.05, max_s=0.5, min_runs=20, memory_workers=0, keep_artifacts_bytes=1 << 20
)


class Counted(LocalTarget):
    """This machine; `sent` names what was uploaded but the agent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def upload(self, source: Path, name: str, folder: str | None = None) -> str:
        if not name.endswith(".pyz"):
            self.sent.append(name)
        return super().upload(source, name, folder)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    return tmp_path / "cache" / "edgeprune"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return chain_of_matmuls(tmp_path / "small.onnx", width=64, layers=2)  # 33 kB


def measured(artifact: Artifact, **changes: Any) -> list[str]:
    """What a session had to send to measure the artifact."""
    target = Counted()
    with Session(target, DeviceProfile("bench", measurement=replace(POLICY, **changes))) as session:
        assert session.measure(artifact).outcome is Outcome.OK
    return target.sent


def test_a_second_session_sends_nothing(artifact: Artifact, home: Path) -> None:
    name = f"{artifact.sha256[:32]}.onnx"
    assert measured(artifact) == [name]
    assert measured(artifact) == []
    kept = home / "artifacts" / name
    assert kept.read_bytes() == artifact.path.read_bytes()
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_stays_where_it_was_not_asked_for(artifact: Artifact, home: Path) -> None:
    assert len(measured(artifact, keep_artifacts_bytes=0)) == 1
    assert len(measured(artifact, keep_artifacts_bytes=0)) == 1
    assert not (home / "artifacts").exists()


@pytest.mark.parametrize("damage", ["changed", "shortened", "link"])
def test_a_damaged_file_is_never_used(artifact: Artifact, home: Path, tmp_path: Path, damage: str) -> None:
    measured(artifact)
    kept = home / "artifacts" / f"{artifact.sha256[:32]}.onnx"
    if damage == "changed":
        kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    elif damage == "shortened":
        kept.write_bytes(kept.read_bytes()[:100])
    else:
        kept.rename(tmp_path / "elsewhere")
        kept.symlink_to(tmp_path / "elsewhere")
    assert measured(artifact) == [kept.name]
    assert not kept.is_symlink()
    assert kept.read_bytes() == artifact.path.read_bytes()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, home: Path) -> None:
    models = [chain_of_matmuls(tmp_path / f"{n}.onnx", width=64 + 8 * n, layers=2) for n in range(3)]
    sizes = [model.path.stat().st_size for model in models]
    for model in (models[0], models[1], models[0], models[2]):  # the second is the one not used for longest
        measured(model, keep_artifacts_bytes=sizes[0] + sizes[2] + 100)
    assert sorted(path.name for path in (home / "artifacts").iterdir()) == sorted(
        f"{model.sha256[:32]}.onnx" for model in (models[0], models[2])
    )


def test_what_does_not_fit_is_measured_all_the_same(artifact: Artifact, home: Path) -> None:
    assert len(measured(artifact, keep_artifacts_bytes=1000)) == 1
    assert list((home / "artifacts").iterdir()) == []


def test_a_folder_that_others_may_use_is_refused(artifact: Artifact, home: Path) -> None:
    (home / "artifacts").mkdir(parents=True)
    home.chmod(0o700)
    (home / "artifacts").chmod(0o777)
    with Session(LocalTarget(), DeviceProfile("bench", measurement=POLICY)) as session:
        found = session.measure(artifact)
    assert found.outcome is Outcome.LOST
    assert "not a folder that only this user may use" in found.message
