"""device setup, check and remove on this machine, with a package that only looks like a runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.measure.session import Session
from edgeprune.pipeline.golden import golden_model
from edgeprune.records.profile import load_profile
from edgeprune.targets.local import LocalTarget
from tests.agent.wheel_files import make_wheel

FAKE = """
__version__ = "9.9"

class SessionOptions: pass

class InferenceSession:
    def __init__(self, model, options, providers): pass
    def run(self, names, feeds):
        import numpy
        return [numpy.array({outputs}, numpy.float32)]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeprune"


def wheelhouse(folder: Path, outputs: object) -> str:
    folder.mkdir()
    source = FAKE.format(outputs=str(outputs).replace("nan", "float('nan')")).encode()
    make_wheel(folder, "onnxruntime", {"onnxruntime/__init__.py": source}, version="9.9")
    return str(folder)


def right(error: float = 0.0) -> list[float]:
    values = [value for row in golden_model().outputs for value in row]
    return [value + error * max(map(abs, values)) for value in values]


def test_setup_proves_and_remove_leaves_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheels = wheelhouse(tmp_path / "wheels", right(5e-5))
    assert run_cli(["device", "setup", "local", "--wheelhouse", wheels, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["runtime"], done["version"], done["installed_now"]) == ("onnxruntime", "9.9", True)
    assert done["golden_error"] == pytest.approx(5e-5, rel=0.01)
    assert done["folder"] == str(home)
    assert run_cli(["device", "setup", "local", "--wheelhouse", wheels]) == 0
    assert "onnxruntime 9.9 was installed already" in capsys.readouterr().out
    assert run_cli(["device", "remove", "local"]) == 0
    assert f"{home} is removed" in capsys.readouterr().out
    assert not home.parent.exists()
    assert run_cli(["device", "remove", "local"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize("outputs", [right(2e-4), [*right()[:-1], float("nan")], right()[:-1]])
def test_a_runtime_that_computes_wrong_does_not_stay(
    outputs: list[float], home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = wheelhouse(tmp_path / "wheels", outputs)
    assert run_cli(["device", "setup", "local", "--wheelhouse", wheels]) == 3
    err = capsys.readouterr().err
    assert "ONNX Runtime 9.9 there computes something else than here" in err
    assert "--runtime onnxruntime==VERSION" in err
    assert not home.exists()


def test_the_check_is_of_the_runtime_that_is_used(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["device", "check", "--json"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["runtime"]["state"] == "ok"
    assert list(findings)[:6] == ["reachable", "lock", "runtime", "space", "clock", "heat"]
    assert not home.exists()
    wheels = wheelhouse(tmp_path / "wheels", right())
    assert run_cli(["device", "setup", "local", "--wheelhouse", wheels]) == 0
    (package,) = home.glob("site-*/onnxruntime/__init__.py")
    package.write_text(FAKE.format(outputs=right(1.0)))
    capsys.readouterr()
    assert run_cli(["device", "check"]) == 3
    out = capsys.readouterr().out
    assert "failed   runtime    local: ONNX Runtime 9.9 there computes something else" in out
    assert "edgeprune device setup" in out


def test_the_check_of_a_device_that_is_measured_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Session(LocalTarget(), load_profile("host")):
        assert run_cli(["device", "check", "local", "--json"]) == 3
    data = json.loads(capsys.readouterr().out)
    assert [(finding["name"], finding["state"]) for finding in data["findings"]] == [
        ("reachable", "ok"),
        ("lock", "failed"),
    ]
    assert "is being measured on by" in data["findings"][1]["message"]
    assert data["findings"][1]["fix"]


def test_the_check_of_a_device_out_of_reach(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_cli(["device", "check", "ssh://nobody@127.0.0.1:9", "--json"]) == 3
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["name"], finding["state"]) == ("reachable", "failed")
    assert finding["fix"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--runtime", "onnxruntime>1"], 2, "is not a runtime"),
        (["--runtime", "tensorflow"], 2, "not a runtime that can be installed"),
        (["--runtime", "ncnn"], 3, "edgeprune has no test network to prove it with yet"),
        (["--wheelhouse", "none"], 2, "no such folder"),
    ],
)
def test_what_cannot_be_set_up(
    arguments: list[str], code: int, said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["device", "setup", "local", *arguments]) == code
    assert said in capsys.readouterr().err
    assert not home.exists()
