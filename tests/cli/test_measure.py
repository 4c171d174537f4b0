"""`edgeprune measure`: of one file, against another, over time, recorded and replayed."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from edgeprune.cli.main import run_cli
from edgeprune.units import format_size
from tests.onnx_models import chain_of_matmuls


@pytest.fixture(scope="module")
def artifact(saved_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "dense.onnx"
    assert run_cli(["export", str(saved_model), str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    small = chain_of_matmuls(folder / "small.onnx", width=256, layers=2).path
    return small, chain_of_matmuls(folder / "large.onnx", width=256, layers=12).path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_measure_gives_figures_and_checks_limits(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["measure", str(artifact), "--max-latency", "1s", "--max-size", "1GB", "--json"]
    assert run_cli(command) == 0
    data = printed(capsys)
    assert data["outcome"] == "OK"
    assert 0 < data["latency"]["percentile_ms"]["p50"] < 1000
    assert [entry["state"] for entry in data["check"]["limits"]] == ["met", "met"]


def test_a_limit_that_is_not_met_is_exit_code_1(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["measure", str(artifact), "--max-size", "10B"]) == 1
    out = capsys.readouterr().out
    assert "limit size 10B: violated" in out
    assert "latency.p50: " in out


def test_what_was_measured_on_is_said_and_a_foreign_profile_refused(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text("name: tiny\nextends: host\nram: 1KiB\nmeasurement: {min_time: 50ms}\n")
    assert run_cli(["measure", str(artifact), "--profile", str(tmp_path / "tiny.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (on,) = [line for line in lines if line.startswith("measured on: ")]
    assert on.endswith(f"onnxruntime {onnxruntime.__version__}, 1 thread, profile tiny, target local")
    assert any(line.startswith("warning: not as the profile 'tiny' says: memory: ") for line in lines)
    other = "x86-64" if platform.machine().startswith(("arm", "aarch64")) else "armv8.0-a"
    (tmp_path / "board.yaml").write_text(f"name: board\nisa: {other}\n")
    assert run_cli(["measure", str(artifact), "--profile", str(tmp_path / "board.yaml")]) == 2
    err = capsys.readouterr().err
    assert "local is not a device of the profile 'board'" in err
    assert "--target ssh://user@host" in err


def test_what_is_exact_or_missing_is_said_once(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["measure", str(artifact), "--max-energy", "1J"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert f"size: {format_size(artifact.stat().st_size)}" in lines
    (memory,) = [line for line in lines if line.startswith("peak_memory: ")]
    assert re.fullmatch(r"peak_memory: [\d.]+ MB( \(up to [\d.]+ MB\))?", memory)  # where the noise is to be seen
    assert sum("no power sensor" in line for line in lines) == 1
    assert "limit energy 1J: unknown: missing" in lines


def test_an_energy_that_no_sensor_measures_is_unknown_and_no_success(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["measure", str(artifact), "--max-energy", "1J", "--json"]) == 3
    data = printed(capsys)
    assert data["energy"] is None
    assert [entry["state"] for entry in data["check"]["limits"]] == ["unknown"]
    assert data["missing"]["energy"]


@pytest.mark.parametrize("option", [("--max-latency", "60% of dense"), ("--max-drop", "1pp")])
def test_limits_that_need_the_dense_model_are_refused(
    option: tuple[str, str], artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["measure", str(artifact), *option]) == 2
    assert "needs the dense model" in capsys.readouterr().err


def test_a_missing_artifact_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["measure", "nothing.onnx"]) == 2
    assert "there is no file nothing.onnx" in capsys.readouterr().err


def test_an_unknown_target_is_a_usage_error(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["measure", str(artifact), "--target", "lokal"]) == 2
    assert "'lokal' is not a target" in capsys.readouterr().err


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


def test_where_the_time_goes(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["measure", str(files[1]), "--operators", "--json"]) == 0
    data = printed(capsys)
    assert (data["schema"], data["outcome"]) == ("edgeprune.runtime_profile/1", "OK")
    assert [node["op_type"] for node in data["nodes"]] == ["MatMul"] * 12
    assert all(node["output_shapes"] == [[1, 256]] for node in data["nodes"])
    assert all(node["runs"] == data["runs"] == 200 for node in data["nodes"])
    assert data["plain_ns"] > 0
    assert run_cli(["measure", str(files[0]), "--operators"]) == 0
    first, *nodes, together, on = capsys.readouterr().out.splitlines()[:5]
    assert re.fullmatch(r"one run: p50 [\d.]+ .?s, [\d.]+ .?s under the profiler \(200 runs\)", first)
    pattern = r" *([\d.]+)% +[\d.]+ .?s  MatMul  \S+ -> 1x256"
    shares = [float(match[1]) for line in nodes if (match := re.fullmatch(pattern, line))]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert together == "together: MatMul 100.0%"
    assert on.startswith("measured on: ")


@pytest.mark.parametrize(
    "options", [["--energy"], ["--sustained", "1s"], ["--max-latency", "1s"], ["--record", "x.zip"]]
)
def test_where_the_time_goes_is_told_alone(
    files: tuple[Path, Path], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["measure", str(files[0]), "--operators", *options]) == 2
    assert "--operators tells where the time goes, and nothing else" in capsys.readouterr().err


def test_a_file_that_the_runtime_cannot_run_has_no_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = chain_of_matmuls(tmp_path / "odd.onnx", width=8, layers=1).path
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)
    assert run_cli(["measure", str(path), "--operators"]) == 3
    assert re.match(r"outcome: [A-Z_]+: .*NoSuchOperator", capsys.readouterr().out)
