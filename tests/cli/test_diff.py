"""`edgeprune diff` of a real run with files, findings of `check`, packages, and a run that was begun otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import run_cli


def of_json(capsys: pytest.CaptureFixture[str], a: Path, b: Path) -> dict[str, Any]:
    assert run_cli(["diff", str(a), str(b), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


@pytest.fixture
def other(accepted_run: Path, tmp_path: Path) -> Path:
    """A run of another network, from other settings: fewer channels in the first layer, and the dense model's file."""
    folder = tmp_path / "other"
    shutil.copytree(accepted_run, folder)
    result = json.loads((folder / "result.json").read_text())
    result["best"]["candidate"]["kept"]["0"] = [0, 1, 2, 3]
    result["best"]["figures"]["accuracy"]["value"] -= 0.02
    result["provenance"]["inputs"]["search"]["seed"] = 7
    result["provenance"]["inputs"]["versions"]["torch"] = "2.14.0"
    result["dense"]["details"]["sources"]["task.py"] = "c" * 64
    (folder / "result.json").write_text(json.dumps(result))
    for name in ("model.onnx", "model.onnx.manifest.json", "measurement.json"):
        shutil.copy(folder / "trials/0000" / name, folder / "best" / name)
    return folder


def test_two_runs(accepted_run: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = of_json(capsys, accepted_run, other)
    before = json.loads((accepted_run / "result.json").read_text())
    assert found["schema"] == "edgeprune.difference/1"
    figures = by_name(found["figures"])
    sizes = [
        (accepted_run / "trials/0000/model.onnx").stat().st_size,
        (accepted_run / "best/model.onnx").stat().st_size,
    ]
    assert figures["size"]["change"] == pytest.approx(sizes[0] / sizes[1])
    assert figures["size"]["verdict"] == "more"
    assert figures["accuracy"]["change"] == pytest.approx(-0.02)
    assert figures["accuracy"]["verdict"] == "lower"
    assert figures["energy"]["reason"] == "not in both"
    assert by_name(found["inputs"]) == {
        "search.seed": {"name": "search.seed", "a": 0, "b": 7},
        "versions.torch": {
            "name": "versions.torch",
            "a": before["provenance"]["inputs"]["versions"]["torch"],
            "b": "2.14.0",
        },
        "source/task.py": {
            "name": "source/task.py",
            "a": before["dense"]["details"]["sources"]["task.py"],
            "b": "c" * 64,
        },
    }
    first = {"name": "0", "a": len(before["best"]["candidate"]["kept"]["0"]), "b": 4}
    assert found["per"] == "layer"
    assert found["widths"] == [first]
    assert found["device"] == []
    (other / "structure.json").unlink()  # a run of an earlier version
    found = of_json(capsys, accepted_run, other)
    assert (found["per"], found["widths"]) == ("group", [first])


def test_text_names_what_differs(accepted_run: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["diff", str(accepted_run), str(other)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["figure", str(accepted_run), str(other), "change"]
    assert "-2.00 pp: lower" in text
    assert "  search.seed     0 " in text
    assert "-> cccccccccccccccc…" in text
    assert "width per layer" in text


def test_the_same_run_differs_in_nothing(accepted_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = of_json(capsys, accepted_run, accepted_run)
    assert {entry["verdict"] for entry in found["figures"] if entry["change"] is not None} == {"no difference"}
    assert [found[part] for part in ("artifact", "candidate", "widths", "inputs", "device")] == [[]] * 5


def test_a_finding_of_check_on_another_device(
    accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["check", str(accepted_run), "--recorded", "--json"]) == 0
    gate = json.loads(capsys.readouterr().out)
    main = tmp_path / "main.json"
    main.write_text(json.dumps(gate))
    figures = by_name(of_json(capsys, main, accepted_run)["figures"])
    assert figures["latency.p50"]["verdict"] == "no difference"
    assert figures["latency.p50"]["interval"][0] <= 1 <= figures["latency.p50"]["interval"][1]
    gate["reading"]["origin"]["device"]["cpu"] = "Cortex-A72"
    main.write_text(json.dumps(gate))
    found = of_json(capsys, main, accepted_run)
    figures = by_name(found["figures"])
    assert (figures["latency.p50"]["verdict"], figures["latency.p50"]["reason"]) == ("", "measured on other devices")
    assert figures["size"]["verdict"] == "no difference"
    assert by_name(found["device"])["cpu"]["a"] == "Cortex-A72"


def test_a_package_and_a_file(accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / "package"
    assert run_cli(["package", str(accepted_run), "--for", "tar", "-o", str(package)]) == 0
    capsys.readouterr()
    found = of_json(capsys, package, accepted_run)
    figures = by_name(found["figures"])
    assert figures["size"]["verdict"] == figures["accuracy"]["verdict"] == "no difference"
    assert figures["latency.p50"]["reason"] == "an interval is not known"
    assert found["inputs"] == found["artifact"] == found["device"] == []
    figures = by_name(of_json(capsys, accepted_run / "trials/0000/model.onnx", package)["figures"])
    assert figures["size"]["verdict"] == "less"
    assert figures["accuracy"]["reason"] == "not in both"
    data = json.loads((package / "manifest.json").read_text())
    (package / "manifest.json").write_text(json.dumps({**data, "models": data["models"] * 2}))
    assert run_cli(["diff", str(package), str(accepted_run)]) == 2
    assert "holds several models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("absent.json", None, 2, "there is no file"),
        ("absent.onnx", None, 2, "there is no file"),
        ("text.json", "{", 2, "cannot be read"),
        ("list.json", "[]", 2, "not what `check --json` writes"),
    ],
)
def test_what_cannot_be_compared(
    accepted_run: Path,
    tmp_path: Path,
    *,
    name: str,
    content: str | None,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert run_cli(["diff", str(accepted_run), str(tmp_path / name)]) == code
    assert message in capsys.readouterr().err
