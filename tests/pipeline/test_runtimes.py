from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import ParityError, TargetError, UsageError
from edgeprune.export.runner import open_runner
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.measure.session import Session
from edgeprune.pipeline import runtimes
from edgeprune.pipeline.export import export
from edgeprune.pipeline.planning import device_timer
from edgeprune.pipeline.runtimes import check_outputs, local_options, missing_runtime_hint, use_runtime_for
from edgeprune.records.artifact import Artifact
from edgeprune.records.operators import ConvSignature
from edgeprune.records.profile import MeasurementPolicy, load_profile
from edgeprune.targets.parse import open_target
from tests.export.tflite_models import needed


@dataclass
class Device:
    """What is asked of a session; `factor` is by how much it computes something else."""

    runtimes: Mapping[str, Any] = field(default_factory=dict)
    policy: MeasurementPolicy = field(default_factory=MeasurementPolicy)
    factor: float | None = 1.0
    target: Any = field(default_factory=lambda: SimpleNamespace(name="ssh://pi@camera"))

    def outputs(self, artifact: Artifact, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self.factor is None:
            raise UsageError("the outputs are too large to be sent")
        found = open_runner(artifact)(inputs)
        return {spec.name: array * self.factor for spec, array in zip(artifact.outputs, found, strict=True)}


THERE = {
    "onnxruntime": {"version": "1.2"},
    "tflite-runtime": {"version": "2.14.0"},
    "ai-edge-litert": {"missing": "no"},
}


def test_a_session_measures_with_a_runtime_that_takes_the_format() -> None:
    device = Device(THERE)
    use_runtime_for(device, "onnx")  # type: ignore[arg-type]
    assert device.policy.runtime == "onnxruntime"
    use_runtime_for(device, "tflite:layout=nhwc")  # type: ignore[arg-type]
    assert device.policy.runtime == "tflite-runtime"
    device = Device({**THERE, "ai-edge-litert": {"version": "2.3.0"}})
    use_runtime_for(device, "tflite")  # type: ignore[arg-type]
    assert device.policy.runtime == "ai-edge-litert"
    device.policy = replace(device.policy, runtime="tflite-runtime")  # what the profile chose stays
    use_runtime_for(device, "tflite")  # type: ignore[arg-type]
    assert device.policy.runtime == "tflite-runtime"


def test_a_device_without_one_is_told_with_the_fix() -> None:
    device = Device({"onnxruntime": {"version": "1.2"}})
    with pytest.raises(TargetError, match=r"ssh://pi@camera: no runtime for tflite files") as caught:
        use_runtime_for(device, "tflite")  # type: ignore[arg-type]
    assert caught.value.outcome == "NO_RUNTIME"
    assert caught.value.hint == (
        "pip install ai-edge-litert there, in any interpreter, and name that: 'ssh://pi@camera?python=/path/to/python'"
    )
    assert missing_runtime_hint("local", "ai-edge-litert").startswith("edgeprune doctor --install tflite; or ")
    assert missing_runtime_hint("ssh://x", "onnxruntime") == "edgeprune device setup ssh://x"
    assert missing_runtime_hint("ssh://x?a=b&c=d", "onnxruntime") == "edgeprune device setup 'ssh://x?a=b&c=d'"


def test_local_means_the_environment_that_has_the_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPRUNE_TFLITE_PYTHON", sys.executable)
    monkeypatch.setattr(runtimes, "installed", lambda _: "")
    assert local_options("local", "tflite:layout=nhwc") == {"python": sys.executable}
    assert local_options("local://?python=/my/python", "tflite") == {}  # the user's word
    assert local_options("ssh://pi@camera", "tflite") == {}
    assert local_options("local", "onnx") == {}
    monkeypatch.setattr(runtimes, "installed", lambda name: "2.3.0" if name == "ai-edge-litert" else "")
    assert local_options("local", "tflite") == {}
    monkeypatch.setattr(runtimes, "installed", lambda _: "")
    monkeypatch.delenv("EDGEPRUNE_TFLITE_PYTHON")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert local_options("local", "tflite") == {}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Captured, Artifact]:
    torch.manual_seed(0)
    captured = capture(nn.Sequential(nn.Linear(4, 3), nn.Tanh()).eval(), (torch.randn(2, 4),))
    return captured, export(captured, tmp_path_factory.mktemp("exported") / "net.onnx")


def test_outputs_of_the_device_are_compared(exported: tuple[Captured, Artifact]) -> None:
    captured, artifact = exported
    assert check_outputs(Device(), artifact, captured) == 0.0  # type: ignore[arg-type]
    found = check_outputs(Device(factor=1.0005), artifact, captured)  # type: ignore[arg-type]
    assert found == pytest.approx(5e-4, rel=0.01)
    assert check_outputs(Device(factor=None), artifact, captured) is None  # type: ignore[arg-type]
    for factor in (1.01, np.nan):
        with pytest.raises(ParityError, match=r"net\.onnx: onnxruntime on ssh://pi@camera computes something else"):
            check_outputs(Device(factor=factor), artifact, captured)  # type: ignore[arg-type]


def test_operators_are_timed_in_the_runtime_that_runs_the_format(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed("tflite")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    wide, narrow = ConvSignature(8, 64, (24, 24), (3, 3), padding=(1, 1)), ConvSignature(8, 8, (24, 24), (1, 1))
    turned = ConvSignature(3, 5, (8, 8), (3, 3), transposed=True)
    with Session(open_target("local", **local_options("local", "tflite")), load_profile("host")) as session:
        use_runtime_for(session, "tflite")
        assert session.policy.runtime == "ai-edge-litert"
        found = device_timer(session)((wide, narrow, turned))
    assert "transposed" in found[turned.key].error
    assert found[wide.key].run_ns > 2 * found[narrow.key].run_ns > 0  # type: ignore[operator]
