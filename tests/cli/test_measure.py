"""`edgeprune measure` in its other forms: against another file, over time, recorded and replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeprune.cli.main import run_cli
from tests.onnx_models import chain_of_matmuls


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    small = chain_of_matmuls(folder / "small.onnx", width=256, layers=2).path
    return small, chain_of_matmuls(folder / "large.onnx", width=256, layers=12).path


def test_against_another_file(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeprune.measure.session._COMPARE_S", 0.3)
    small, large = files
    assert run_cli(["measure", str(small), "--against", str(large)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "small.onnx against large.onnx: faster"
    assert lines[1].startswith("latency ratio: 0.")
    assert lines[4].endswith("pairs of blocks in 8 processes")


def test_over_time(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["measure", str(files[0]), "--sustained", "3s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["sustained"]) == 2
    assert sum(window["runs"] for window in found["sustained"]) == found["latency"]["samples"]
    total_s = sum(window["seconds"] for window in found["sustained"])
    assert 2.5 < total_s <= 3.5
    assert found["sustained"][1]["start_s"] == pytest.approx(total_s / 2)


def test_a_recording_tells_the_same_again(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle.zip"
    assert run_cli(["measure", str(files[0]), "--record", str(bundle), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run_cli(["measure", "--replay", str(bundle), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["latency"] == first["latency"]
    assert again["memory"] == first["memory"]
    p50 = first["latency"]["upper_ms"]["p50"]
    assert run_cli(["measure", "--replay", str(bundle), "--max-latency", f"{2 * p50}ms"]) == 0
    assert run_cli(["measure", "--replay", str(bundle), "--max-latency", f"{p50 / 2}ms"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give a file to measure, or --replay a recording"),
        (["FILE", "--replay", "b.zip"], "give a file to measure, or --replay a recording"),
        (["--replay", "b.zip", "--sustained", "1s"], "--replay measures nothing"),
        (["FILE", "--against", "FILE", "--record", "b.zip"], "--against goes with neither"),
        (["FILE", "--sustained", "10"], "10"),
    ],
)
def test_what_does_not_go_together(
    files: tuple[Path, Path], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["measure", *(str(files[0]) if option == "FILE" else option for option in options)]) == 2
    assert message in capsys.readouterr().err


def test_a_recording_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["measure", "--replay", "absent.zip"]) == 2
    assert "cannot read absent.zip" in capsys.readouterr().err
