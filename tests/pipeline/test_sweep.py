"""sweep, on the digits project, measured here by ONNX Runtime: points, pictures, resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.errors import UsageError
from edgeprune.pipeline.sweep import dominated_by
from edgeprune.pipeline.sweep_request import parse_over, parse_ratios
from edgeprune.pipeline.trials import Trials
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.report import front_plot
from tests.pipeline.small_project import write_project


@pytest.fixture(scope="module", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A lock and a cache of our own."""
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPRUNE_LOCK", str(folder / "device.lock"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project")).parent


@pytest.fixture(scope="module")
def swept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A sweep that was interrupted in its third measurement, and gone on with."""
    run_dir = tmp_path_factory.mktemp("sweep") / "one"
    picture = run_dir.parent / "front.svg"
    command = ["sweep", str(folder), "--over", "size=80%,50%,0.1%", "--plot", str(picture), "--run-dir", str(run_dir)]
    real = Trials.__call__

    def interrupted(self: Trials, candidate: Candidate, stage: Stage, number: int) -> Trial:
        if number == 2:
            raise KeyboardInterrupt
        return real(self, candidate, stage, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trials, "__call__", interrupted)
        assert run_cli(command) == 130
    journal = (run_dir / "journal.jsonl").read_text()
    assert journal.count('"kind":"trial"') == 2
    assert not picture.exists()
    assert run_cli([*command, "--resume"]) == 0
    assert (run_dir / "journal.jsonl").read_text().startswith(journal)
    return json.loads((run_dir / "sweep.json").read_text()), picture


def test_every_point_is_measured_and_near_its_aim(swept: tuple[dict[str, Any], Path]) -> None:
    sweep, _ = swept
    dense = sweep["dense"]["measured"]["size"]["value"]
    assert [point["aim"] for point in sweep["points"]] == ["80% of dense", "50% of dense", "0.1% of dense"]
    assert [point["trial"] for point in sweep["points"]] == [1, 2, 3]
    for point, share in zip(sweep["points"][:2], (0.8, 0.5), strict=True):
        assert point["reachable"]
        assert point["limit"] == pytest.approx(share * dense)
        measured, predicted = point["measured"]["size"], point["predicted"]["size"]
        assert (measured["kind"], predicted["kind"]) == ("measured", "estimated")
        assert measured["value"] == pytest.approx(predicted["value"], rel=0.03)
        assert (share - 0.2) * dense < measured["value"] < share * dense * 1.03
        assert point["recovery"] == "batch-norm re-estimation"
        assert {"accuracy", "latency.p50", "peak_memory"} <= set(point["measured"])
    last = sweep["points"][2]
    assert not last["reachable"]  # then it is the smallest network
    assert last["measured"]["size"]["value"] < 0.1 * dense
    assert last["measured"]["accuracy"]["value"] < sweep["points"][0]["measured"]["accuracy"]["value"]


def test_dominated_points_are_those_that_another_beats(swept: tuple[dict[str, Any], Path]) -> None:
    sweep, _ = swept
    places = {0: sweep["dense"]["measured"]} | {point["trial"]: point["measured"] for point in sweep["points"]}
    for point in sweep["points"]:
        mine = places[point["trial"]]
        for figure, number in point["dominated_by"].items():
            beaten = [
                other
                for other, place in places.items()
                if place["accuracy"]["value"] >= mine["accuracy"]["value"]
                and place[figure]["value"] <= mine[figure]["value"]
                and other != point["trial"]
            ]
            assert (number in beaten) if beaten else number is None
    assert sweep["points"][2]["dominated_by"]["size"] is None  # nothing is smaller


def test_the_picture_is_drawn_the_same_again(swept: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    sweep, picture = swept
    front_plot.draw(sweep, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == picture.read_bytes()
    assert picture.read_text().lstrip().startswith("<?xml")
    front_plot.draw(sweep, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_another_sweep_does_not_go_on_in_the_folder(
    swept: tuple[dict[str, Any], Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = swept[1].parent / "one"
    command = ["sweep", str(folder), "--over", "size=70%", "--run-dir", str(run_dir)]
    assert run_cli([*command, "--resume"]) == 2
    assert "sweep.limits was" in capsys.readouterr().err


def test_ratios_are_uniform_and_fine_tuned_where_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["sweep", str(folder), "--ratios", "0.5", "--finetune", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (point,) = report["points"]
    assert {name: len(units) for name, units in point["candidate"]["kept"].items()} == {"0": 16, "3": 24}
    assert point["predicted"] == {}
    assert point["recovery"].startswith(("fine-tuning", "batch-norm re-estimation; fine-tuning lowered"))
    assert Path(report["run_dir"]).parent == folder / "sweeps"
    assert (Path(report["run_dir"]) / point["artifact"]).is_file()
    assert not (folder / "runs").exists()  # which `report` looks into


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --over or --ratios"),
        (["--over", "latency=90%", "--ratios", "0.5"], "give --over or --ratios"),
        (["--over", "speed=90%"], "there is no figure 'speed'"),
        (["--over", "accuracy.min=90%"], "accuracy is what is looked for"),
        (["--over", "latency"], "names no values"),
        (["--over", "latency=90%,...,30%"], "an ellipsis that says nothing"),
        (["--over", "latency=90%,80%,...,35%"], "do not lead from 80% to 35%"),
        (["--over", "latency=5"], "has no unit"),
        (["--ratios", "0.5,2"], "a ratio is a share"),
        (["--ratios", "half"], "could not convert"),
        (["--ratios", "0.5", "--plot", "front.gif"], "a picture is a .png or .svg file"),
        (["--ratios", "0.5", "--plot", "nowhere/front.png"], "there is no folder"),
        (["--ratios", "0.5", "--resume"], "there is no sweep in"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path)
    assert run_cli(["sweep", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweeps").exists()


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path)
    monkeypatch.setattr(front_plot, "find_spec", lambda _: None)
    assert run_cli(["sweep", str(tmp_path), "--ratios", "0.5", "--plot", str(tmp_path / "front.png")]) == 2
    assert "pip install 'edgeprune[plot]'" in capsys.readouterr().err


def test_an_ellipsis_goes_on_in_its_step() -> None:
    texts = [limit.text for limit in parse_over("latency=90%,80%,...,30%").limits]
    assert texts == [f"{share}% of dense" for share in (90, 80, 70, 60, 50, 40, 30)]
    assert [limit.value for limit in parse_over("size=1MB,800kB").limits] == [1e6, 8e5]
    assert [limit.text for limit in parse_over("latency.p95=10ms,8ms,...,2ms").limits] == [
        "10ms", "8ms", "6ms", "4ms", "2ms",
    ]  # fmt: skip
    assert parse_over("memory=50%").figure == "peak_memory"
    assert parse_over("latency=50%").figure == "latency.p50"
    assert parse_ratios("0.1, 0.3").ratios == (0.1, 0.3)
    with pytest.raises(UsageError):
        parse_over("latency=90%,90%,...,30%")


def test_domination() -> None:
    def trial(number: int, accuracy: float | None, size: float | None) -> Trial:
        figures = {"accuracy": Figure(accuracy, accuracy), "size": Figure(size, size)}
        return Trial(number, Stage.MEASURE, Candidate(), "OK", figures)

    trials = [trial(0, 0.9, 100), trial(1, 0.8, 60), trial(2, 0.85, 50), trial(3, 0.85, 50), trial(4, None, 10)]
    assert [dominated_by(each, trials, "size") for each in trials] == [None, 2, None, None, None]
