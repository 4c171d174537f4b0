from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.errors import StorageError
from edgeprune.records import codec
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.result import Result
from edgeprune.records.trial import Stage, Trial
from edgeprune.report.text import render

BUDGET = Budget.parse({"latency": {"p50": "60% of dense"}, "size": "500kB", "accuracy": {"max_drop": "2pp"}})
DENSE = Trial(
    0,
    Stage.MEASURE,
    Candidate(),
    "OK",
    {
        "accuracy": Figure(0.973, 0.973),
        "latency.p50": Figure(0.5, 0.51),
        "latency.p95": Figure(None, missing="needs 130 runs, there were 80"),
        "peak_memory": Figure(3_000_000.0, 3_100_000.0),
        "size": Figure(1_000_000.0, 1_000_000.0),
        "energy": Figure(None, missing="no power sensor"),
    },
    details={"params": 250_000, "macs": 4_000_000},
)
PRUNED = Trial(
    7,
    Stage.FINAL,
    Candidate({"conv1": (0, 1)}),
    "OK",
    {
        **DENSE.figures,
        "accuracy": Figure(0.9655, 0.9655),
        "latency.p50": Figure(0.25, 0.27),
        "size": Figure(250_000.0, 250_000.0),
    },
    details={"params": 62_500, "macs": 1_000_000},
)


def result(trial: Trial | None, status: str = "accepted", **changes: object) -> dict[str, object]:
    record = Result(
        status=status,  # type: ignore[arg-type]
        budget=BUDGET,
        dense=DENSE,
        best=trial,
        check=None if trial is None else BUDGET.check(trial.figures, DENSE.figures),
        trials=9,
        seed=3,
        strategy="uniform",
        seconds=61.6,
        provenance={"files": {"artifact": "best/model.onnx"}} if status == "accepted" else {"files": {}},
    )
    return codec.to_json(replace(record, **changes))  # type: ignore[arg-type]


def line(text: str, start: str) -> list[str]:
    """The cells of the one line that starts so."""
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in found.split("  ") if cell.strip()]


def test_dense_and_pruned_stand_side_by_side() -> None:
    text = render(result(PRUNED))
    assert line(text, "figure") == ["figure", "dense", "pruned", "change"]
    assert line(text, "accuracy ") == ["accuracy", "97.30 % measured", "96.55 % measured", "-0.75 pp"]
    assert line(text, "latency p50") == [
        "latency p50",
        "0.500 ms (up to 0.510 ms) measured",
        "0.250 ms (up to 0.270 ms) measured",
        "0.500 x",
    ]
    assert line(text, "size  ") == ["size", "1.00 MB measured", "0.250 MB measured", "0.250 x"]
    assert line(text, "macs") == ["macs", "4,000,000 counted", "1,000,000 counted", "0.250 x"]


def test_what_is_missing_says_why() -> None:
    text = render(result(PRUNED))
    assert line(text, "energy") == ["energy", "missing", "missing"]
    assert "missing energy: no power sensor\n" in text
    assert "missing latency.p95: needs 130 runs, there were 80\n" in text


ON = {
    "target": "ssh://pi@camera:22", "profile": "raspberry-pi-4b", "board": "", "cpu": "0xd08", "cpus": 4,
    "arch": "aarch64", "memory_bytes": 4_000_000_000, "runtime": "onnxruntime", "runtime_version": "1.20.1",
    "threads": 1, "differences": ["processors: 4 here, 2 in the profile"],
}  # fmt: skip


def test_what_was_measured_on_is_said() -> None:
    lines = render(result(PRUNED, provenance={"measured_on": ON})).splitlines()
    assert (
        "measured on: Cortex-A72 (4 processors, 4.00 GB of memory, aarch64), onnxruntime 1.20.1, 1 thread, "
        "profile raspberry-pi-4b, target ssh://pi@camera:22"
    ) in lines
    assert "warning: not as the profile 'raspberry-pi-4b' says: processors: 4 here, 2 in the profile" in lines
    assert "measured on" not in render(result(PRUNED))  # of an earlier version


def test_why_a_figure_is_missing_is_said_once() -> None:
    budget = Budget.parse({"energy": "1mJ", "latency": {"p99": "1ms"}})
    figures = {**PRUNED.figures, "latency.p99": Figure(None, missing="needs 662 runs")}
    trial = replace(PRUNED, figures=figures)
    check = budget.check(figures, figures)
    for message in ("No candidate meets the budget.", "limits that cannot be measured: no power sensor"):
        text = render(result(trial, "infeasible", message=message, budget=budget, check=check))
        assert text.count("no power sensor") == 1
        assert text.count("needs 662 runs") == 1
        assert line(text, "energy 1mJ") == ["energy 1mJ", "<= 1 mJ", "missing", "UNKNOWN"]


def test_the_brackets_are_explained_where_there_are_some() -> None:
    assert "(up to: the upper end of the 95 % confidence interval" in render(result(PRUNED))
    exact = {name: replace(figure, upper=figure.value) for name, figure in PRUNED.figures.items()}
    dense, best = replace(DENSE, figures=exact), replace(PRUNED, figures=exact)
    assert "up to" not in render(result(PRUNED, dense=dense, best=best, check=BUDGET.check(exact, exact)))


def test_what_the_device_could_not_run_is_named() -> None:
    text = render(result(PRUNED, ruled_out=((5, "it crashed the runtime, twice: signal 11"),)))
    assert "ruled out: trial 5: it crashed the runtime, twice: signal 11" in text.splitlines()


def test_an_estimate_is_called_one() -> None:
    estimated = replace(PRUNED, figures={**PRUNED.figures, "energy": Figure(12.0, kind="estimated")})
    assert line(render(result(estimated)), "energy")[2] == "12 mJ estimated"


def test_limits_have_headroom_and_the_binding_one_is_named() -> None:
    text = render(result(PRUNED))
    row = ["latency.p50 60% of dense", "<= 0.300 ms", "up to 0.270 ms", "+10.0%", "met (the binding limit)"]
    assert line(text, "latency.p50") == row
    assert line(text, "size 500kB") == ["size 500kB", "<= 500.00 kB", "250.00 kB", "+50.0%", "met"]
    # 62 % of the allowed drop is unused, but only 10 % of the latency: that binds.
    assert line(text, "accuracy.max_drop") == ["accuracy.max_drop 2pp", ">= 95.30 %", "96.55 %", "+1.25 pp", "met"]


def test_the_end_says_trials_and_paths(tmp_path: Path) -> None:
    text = render(result(PRUNED), run_dir=tmp_path)
    assert text.startswith("ACCEPTED")
    assert "trials: 9 (uniform, seed 3, 62 s of work on trials, without loading, planning and waiting)" in text
    assert f"accepted: trial 7, candidate {PRUNED.candidate.id}" in text
    assert f"artifact: {tmp_path}/best/model.onnx" in text
    assert f"result: {tmp_path}/result.json" in text
    assert "artifact: best/model.onnx" in render(result(PRUNED))


def test_infeasible_says_what_was_reachable() -> None:
    slow = replace(PRUNED, figures={**PRUNED.figures, "latency.p50": Figure(0.4, 0.41)})
    text = render(
        result(slow, "infeasible", message="No candidate meets the budget.", reachable={"latency.p50": (0.4, 7)})
    )
    assert text.startswith("INFEASIBLE\nNo candidate meets the budget.")
    assert line(text, "figure")[2] == "closest (trial 7)"
    assert line(text, "latency.p50")[-1] == "VIOLATED (the binding limit)"
    assert line(text, "latency.p50")[-2] == "-36.7%"
    assert "reachable: latency.p50 0.400 ms (the smallest measured, trial 7)" in text
    assert "accepted:" not in text
    assert "artifact:" not in text


def test_an_inconclusive_limit_is_unknown_with_its_reason() -> None:
    noisy = replace(PRUNED, figures={**PRUNED.figures, "latency.p50": Figure(0.29, 0.31)})
    state = line(render(result(noisy, "infeasible")), "latency.p50")[-1]
    assert state == "UNKNOWN (inconclusive: the upper confidence bound exceeds the limit; the binding limit)"


def test_without_a_pruned_trial_there_is_one_column() -> None:
    text = render(result(DENSE, "unmeasurable", message="trial 1 could not be measured: LOST"))
    assert text.startswith("NOT MEASURED: the budget could not be checked\ntrial 1 could not be measured: LOST")
    assert line(text, "figure") == ["figure", "dense"]
    assert line(text, "size  ") == ["size", "1.00 MB measured"]


def test_a_result_without_a_check_has_no_limits() -> None:
    text = render(result(None, "unmeasurable"))
    assert "headroom" not in text
    assert line(text, "accuracy") == ["accuracy", "97.30 % measured"]


def test_a_figure_without_a_counterpart_has_no_change() -> None:
    bare = replace(PRUNED, figures={"accuracy": Figure(0.9)})
    assert line(render(result(bare)), "peak_memory")[-1] == "missing"


def test_int8_says_how_far_it_is_from_float() -> None:
    told = {"scheme": "per-tensor", "calibrated_on": "8 training batches", "sqnr_db": 36.19, "float_accuracy": 0.9702}
    int8 = replace(PRUNED, details={**PRUNED.details, "quantised": told})
    text = render(result(int8))
    assert line(text, "figure") == ["figure", "dense", "pruned, int8", "change"]
    assert "int8 per-tensor, calibrated on 8 training batches; signal to quantisation noise 36.2 dB; " in text
    assert "accuracy in float 97.02 %" in text
    assert line(render(result(replace(int8, candidate=Candidate()))), "figure")[2] == "int8"


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(StorageError, match="not the result of a run, but a trial"):
        render(codec.to_json(DENSE))
    with pytest.raises(StorageError, match="unknown schema"):
        render({})


def test_an_accepted_network_shows_the_drift_and_what_its_measurement_warns_of(tmp_path: Path) -> None:
    drift = "The device drifted: the dense model's median changed (after trial 4, on the device: +9.1%)."
    told = result(PRUNED, message=f"trial 7 meets every limit by measurement. {drift}")
    assert f"warning: {drift}" in render(told).splitlines()
    warnings = ("the device was busy before the start", "it was hot", "the clock fell", "the fan stopped")
    (tmp_path / "best").mkdir()
    for target, said in (("a", warnings), ("b", warnings[:1])):
        record = Measurement("0" * 64, Outcome.OK, None, warnings=said)
        (tmp_path / f"best/measurement-{target}.json").write_text(json.dumps(codec.to_json(record)))
    shown = [line for line in render(told, run_dir=tmp_path).splitlines() if line.startswith("warning: ")]
    assert shown == [f"warning: {text}" for text in (drift, *warnings[:3], "and 1 more, in the report as HTML")]
    assert "warning" not in render(result(PRUNED))
    (tmp_path / "best/measurement-a.json").write_text("{")
    assert f"warning: {tmp_path}/best/measurement-a.json cannot be read" in render(told, run_dir=tmp_path)
