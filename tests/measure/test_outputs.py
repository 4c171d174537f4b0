"""What a model computes on the device, against what it computes here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeprune.errors import TargetError, UsageError
from edgeprune.measure.outputs import device_outputs
from edgeprune.measure.session import Session
from edgeprune.records.profile import DeviceProfile
from edgeprune.targets.local import LocalTarget
from tests.onnx_models import chain_of_matmuls


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    with Session(LocalTarget(), DeviceProfile(name="bench")) as opened:
        yield opened


def test_the_device_computes_what_this_machine_does(session: Session, tmp_path: Path) -> None:
    path = chain_of_matmuls(tmp_path / "chain.onnx", width=32, layers=3).path
    model = session.target.upload(path, path.name)
    values = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    found = device_outputs(session._alive(), session.target, model, {"y0": values})
    here = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"y0": values})
    assert list(found) == ["y3"]
    assert np.abs(found["y3"] - here[0]).max() <= 1e-5 * np.abs(here[0]).max()
    assert "inputs.bin" not in {file.name for file in Path(session.target.folder).iterdir()}


def test_a_session_is_asked_for_the_outputs_of_an_artifact(session: Session, tmp_path: Path) -> None:
    artifact = chain_of_matmuls(tmp_path / "chain.onnx", width=32, layers=1)
    values = np.ones((2, 32), np.float32)
    found = session.outputs(artifact, {"y0": values})
    here = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"]).run(
        None, {"y0": values}
    )
    np.testing.assert_allclose(found["y1"], here[0], rtol=1e-5)


def test_failures_carry_their_outcome(session: Session, tmp_path: Path) -> None:
    path = chain_of_matmuls(tmp_path / "chain.onnx", width=32, layers=1).path
    model = session.target.upload(path, path.name)
    with pytest.raises(TargetError, match="Got: 31 Expected: 32") as caught:
        device_outputs(session._alive(), session.target, model, {"y0": np.zeros((1, 31), np.float32)})
    assert caught.value.outcome == "CRASHED"
    with pytest.raises(TargetError, match="cannot drive 'nothing'") as caught:
        device_outputs(
            session._alive(), session.target, model, {"y0": np.zeros((1, 32), np.float32)}, runtime="nothing"
        )
    assert caught.value.outcome == "NO_RUNTIME"
    with pytest.raises(UsageError, match="too large to be sent"):
        device_outputs(session._alive(), session.target, model, {"y0": np.zeros((5000, 32), np.float32)})
