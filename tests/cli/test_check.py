"""`edgeprune check` on a real run, measured on this machine, over SSH, and on a device that is away."""

from __future__ import annotations

import json
import os
import shutil
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.records.trial import Stage
from edgeprune.testing.sshd import Sshd, sshd_missing

BUDGET = """
budget:
  latency: {p95: {warn: 1ns, error: 10s}}
  size: 1MB
  accuracy: {max_drop: 50pp}
regression: {size: +1%, accuracy: -1pp}
"""


@pytest.fixture
def run(accepted_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(accepted_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port that is bound, so that nobody else gets it, and does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def of_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code = run_cli(["check", *map(str, arguments), "--json"])
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert data["exit_code"] == code
    return code, data


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_measured_now_against_the_runs_own_budget(
    accepted_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeprune.pipeline.in_turn._EFFORT", {Stage.FINAL: (3, 0.2)})
    began = datetime.now(timezone.utc) - timedelta(seconds=1)
    code, found = of_json(capsys, accepted_run, "--max-latency", "70% of dense")
    latency = next(check for check in found["checks"] if check["name"] == "latency.p50")
    assert found["schema"] == "edgeprune.gate/1"
    assert code == {"met": 0, "violated": 1, "unknown": 3}[latency["state"]]
    assert latency["bound"] == pytest.approx(0.7 * found["dense"]["latency.p50"]["value"])
    recorded = json.loads((accepted_run / "result.json").read_text())["dense"]["figures"]
    assert found["dense"]["latency.p50"] != recorded["latency.p50"]  # the dense model was measured again
    assert found["dense"]["accuracy"] == recorded["accuracy"]
    assert "latency.p50" not in found["reading"]["lower"]  # it is that of runs in turn
    assert "latency.p95" in found["reading"]["lower"]
    assert found["reading"]["origin"]["source"] == "measured"
    assert datetime.fromisoformat(found["reading"]["origin"]["started_at"]) >= began
    assert {check["name"]: check["state"] for check in found["checks"]}["size"] == "met"
    assert "the accuracy is as the run evaluated it" in found["notes"]


def test_as_recorded_with_age_and_provenance(accepted_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["check", str(accepted_run), "--recorded"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    measurement = json.loads((accepted_run / "best/measurement.json").read_text())
    assert lines[0] == "PASSED: 2 limits met"
    when = next(line for line in lines if line.startswith("recorded by the run at "))
    assert when.startswith(f"recorded by the run at {measurement['provenance']['started_at']}, ")
    assert when.endswith(" ago")
    assert any(line.startswith("measured on: ") and line.endswith("profile quick, target local") for line in lines)
    assert captured.err == ""  # nothing was measured


def test_a_project_is_its_latest_run_under_its_own_budget(
    accepted_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = accepted_run.parents[1]
    tight = project / "tight.yaml"
    tight.write_text((project / "edgeprune.yaml").read_text().replace("size: 50% of dense", "size: 1kB"))
    code, found = of_json(capsys, tight, "--recorded")
    assert code == 1
    assert found["checks"][0]["limit"]["text"] == "1kB"
    assert run_cli(["check", str(tight), "--recorded"]) == 1
    assert f"tight.yaml has other limits than the run was held to; for those: check {accepted_run}" in (
        capsys.readouterr().err
    )
    assert of_json(capsys, project, "--recorded")[0] == 0


def test_a_run_whose_file_is_gone_does_not_pass(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "best/model.onnx").unlink()  # it lies in the trial's folder as well
    assert run_cli(["check", str(run), "--recorded"]) == 2
    assert "best/model.onnx" in capsys.readouterr().err


def test_a_result_that_was_changed_does_not_pass(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads((run / "result.json").read_text())
    data["best"]["figures"]["accuracy"]["value"] = 0.9999
    (run / "result.json").write_text(json.dumps(data))
    assert run_cli(["check", str(run), "--recorded"]) == 2
    assert "result.json says something else than edgeprune.lock: figures" in capsys.readouterr().err


def test_a_file_has_the_measurement_beside_it_and_no_accuracy(
    accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = accepted_run / "best/model.onnx"
    code, found = of_json(capsys, model, "--recorded", "--max-latency", "10s", "--max-drop", "1pp")
    assert code == 3
    assert [check["state"] for check in found["checks"]] == ["met", "unknown"]
    assert found["checks"][1]["reason"] == "a file alone has no accuracy: name the run that made it"
    shutil.copy(model, tmp_path / "alone.onnx")
    code, found = of_json(capsys, tmp_path / "alone.onnx", "--recorded", "--max-latency", "10s", "--max-size", "1MB")
    assert code == 3
    assert [check["state"] for check in found["checks"]] == ["unknown", "met"]
    assert "no measurement is recorded" in found["checks"][0]["reason"]
    assert of_json(capsys, tmp_path / "alone.onnx", "--recorded", "--max-size", "1MB")[0] == 0  # needs no device
    assert run_cli(["check", str(model), "--max-latency", "50% of dense"]) == 2
    assert "relative to the dense model" in capsys.readouterr().err
    assert run_cli(["check", str(model)]) == 2
    assert "no limit is given" in capsys.readouterr().err


def test_a_measurement_of_another_file_counts_for_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run / "best/measurement.json", artifact_sha256="0" * 64)
    code, found = of_json(capsys, run, "--recorded", "--max-latency", "10s")
    assert code == 3
    assert {check["name"]: check["state"] for check in found["checks"]}["latency.p50"] == "unknown"
    (run / "best/model.onnx").write_bytes(b"another file")
    assert run_cli(["check", str(run), "--recorded"]) == 2
    assert "is not the file that its manifest describes" in capsys.readouterr().err


def test_a_summary_is_written_anew(accepted_run: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    for _ in range(2):
        assert run_cli(["check", str(accepted_run), "--recorded", "--markdown", str(summary)]) == 0
    assert summary.read_text().count("### edgeprune check: PASSED: 2 limits met") == 1
    assert "- recorded by the run at " in summary.read_text()


def test_how_old_a_measurement_may_be(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "best/measurement.json"
    provenance = json.loads(path.read_text())["provenance"]
    options = ("--recorded", "--max-latency", "10s", "--max-age", "30d")
    assert of_json(capsys, run, *options)[0] == 0
    for days, text in ((31, "it was measured 31 days ago, and --max-age allows 30 days"), (-2, "in the future")):
        old = datetime.now(timezone.utc) - timedelta(days=days, minutes=1)
        change(path, provenance={**provenance, "started_at": old.isoformat(timespec="seconds")})
        code, found = of_json(capsys, run, *options)
        states = {check["name"]: (check["state"], check["reason"]) for check in found["checks"]}
        assert code == 3
        assert states["size"][0] == "met"
        assert states["latency.p50"][0] == "unknown"
        assert text in states["latency.p50"][1]
    change(path, provenance={**provenance, "started_at": "yesterday"})
    assert of_json(capsys, run, *options)[0] == 3


def test_a_run_that_recorded_a_failure_passes_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run / "best/measurement.json", outcome="CRASHED", message="segmentation fault", latency=None)
    code, found = of_json(capsys, run, "--recorded")
    assert code == 3
    assert found["reading"]["origin"]["outcome"] == "CRASHED"


def test_against_a_baseline(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget, main = tmp_path / "budget.yaml", tmp_path / "main.json"
    budget.write_text(BUDGET)
    code, baseline = of_json(capsys, run, "--recorded", "--budget", str(budget))
    assert code == 0  # the warning fails nothing
    assert "regressions were not checked: there is no --baseline" in baseline["notes"]
    main.write_text(json.dumps(baseline))
    options = ("--recorded", "--budget", str(budget), "--baseline", str(main))
    code, found = of_json(capsys, run, *options, "--regression", "latency.p50=+50%")
    regressions = {check["name"]: check["state"] for check in found["checks"] if check["kind"] == "regression"}
    assert code == 0
    assert regressions == {"size": "met", "accuracy": "met", "latency.p50": "met"}

    baseline["reading"]["figures"]["size"]["value"] *= 0.5
    baseline["reading"]["origin"]["device"]["cpu"] = "Cortex-A72"
    main.write_text(json.dumps(baseline))
    code, found = of_json(capsys, run, *options, "--regression", "latency.p50=+50%")
    regressions = {check["name"]: check for check in found["checks"] if check["kind"] == "regression"}
    assert code == 1
    assert regressions["size"]["state"] == "violated"
    assert regressions["size"]["headroom"] == pytest.approx(1 - 2 / 1.01, abs=1e-3)
    assert regressions["latency.p50"]["state"] == "unknown"
    assert "cpu was 'Cortex-A72', is " in regressions["latency.p50"]["reason"]
    assert of_json(capsys, run, *options, "--warn", "regression")[0] == 0


def test_a_device_that_is_away(
    accepted_run: Path, tmp_path: Path, closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    junit, figures = tmp_path / "gate.xml", tmp_path / "figures.json"
    away = ["check", str(accepted_run), "--target", f"ssh://nobody@127.0.0.1:{closed_port}"]
    code = run_cli([*away, "--max-latency", "10s", "--junit", str(junit), "--benchmark", str(figures)])
    captured = capsys.readouterr()
    assert code == 3
    assert captured.out.startswith("NOT MEASURED: ")
    error = ET.parse(junit).find(".//testcase[@classname='edgeprune.measurement']/error")
    assert error is not None
    assert str(closed_port) in (error.get("message") or "")
    # What is known without the device is there, and nothing else.
    assert {entry["name"] for entry in json.loads(figures.read_text())} == {"size", "error rate"}
    assert run_cli([*away, "--max-size", "1kB"]) == 1


def test_the_dense_model_is_gone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "trials/0000")
    assert run_cli(["check", str(run), "--max-latency", "50% of dense"]) == 3
    assert "trials/0000/model.onnx is gone" in capsys.readouterr().err


def test_over_ssh_and_gone_when_asked_again(accepted_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if missing := sshd_missing():
        pytest.skip(missing)
    with Sshd({"EDGEPRUNE_LOCK": os.environ["EDGEPRUNE_LOCK"]}) as server:
        options = ("--target", server.url, "--profile", str(accepted_run.parents[1] / "quick.yaml"))
        code, found = of_json(capsys, accepted_run, *options, "--max-latency", "10s")
        assert code == 0
        assert found["reading"]["origin"]["targets"][0].startswith(f"ssh://{server.user}@127.0.0.1")
    code, found = of_json(capsys, accepted_run, *options, "--max-latency", "10s")
    assert code == 3
    assert found["reading"]["origin"]["outcome"] == "LOST"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recorded", "--target", "local"], "--recorded measures nothing"),
        (["--max-age", "30d"], "--max-age is about recorded measurements"),
        (["--recorded", "--max-age", "30"], "is not an age"),
        (["--regression", "size=+1%"], "--regression compares with a baseline"),
        (["--recorded", "--baseline", "absent.json"], "there is no baseline absent.json"),
        (["--recorded", "--baseline", "RESULT", "--regression", "size=+1%"], "but edgeprune.result/1"),
        (["--recorded", "--warn", "energy"], "nothing is limited under the name 'energy'"),
        (["--recorded", "--budget", "absent.yaml"], "no such file"),
    ],
)
def test_what_does_not_go(
    accepted_run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(accepted_run / "result.json") if option == "RESULT" else option for option in options]
    assert run_cli(["check", str(accepted_run), *named]) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["check", str(tmp_path)]) == 2
    assert f"there is no result in {tmp_path}" in capsys.readouterr().err
    (tmp_path / "journal.jsonl").write_text("")
    assert run_cli(["check", str(tmp_path)]) == 2
    assert "the run was not finished; go on with" in capsys.readouterr().err
    (tmp_path / "result.json").write_text("[1]")
    assert run_cli(["check", str(tmp_path)]) == 2
    assert "is damaged" in capsys.readouterr().err
