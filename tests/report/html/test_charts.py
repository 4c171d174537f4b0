"""What the charts draw is what was measured."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgeprune.report.html.axes import Scale
from edgeprune.report.html.front import front, undominated
from edgeprune.report.html.latency import latency, shares
from edgeprune.report.html.memory import memory, power, thinned
from edgeprune.report.html.quantised import quantised
from edgeprune.report.html.view import View, interval
from edgeprune.report.html.widths import frozen, widths
from tests.report.html.views import candidate, structure, view


@pytest.fixture(scope="module")
def run() -> View:
    return view(trials=12)


def test_the_front_holds_what_no_other_trial_beats() -> None:
    points = [(1.0, 0.9), (0.5, 0.8), (0.6, 0.8), (0.7, 0.7), (0.4, 0.5), (0.5, 0.79)]
    assert undominated(points) == [(0.4, 0.5), (0.5, 0.8), (1.0, 0.9)]
    assert undominated([]) == []


def test_every_measured_trial_is_a_point_at_its_figures(run: View) -> None:
    markup = front(run)
    assert markup is not None
    panel = markup.split('<div class="panel">')[1]
    points = re.findall(r'data-trial="(\d+)" data-x="([^"]+)" data-y="([^"]+)"', panel)
    measured = {
        trial.number: (trial.figures["latency.p50"].value, trial.figures["accuracy"].value)
        for trial in run.trials
        if trial.stage.is_measured and "latency.p50" in trial.figures
    }
    assert {int(number): (float(x), float(y)) for number, x, y in points} == measured
    assert 3 not in measured  # out of memory


def test_a_point_says_what_it_is_to_those_who_cannot_see_it(run: View) -> None:
    markup = front(run)
    assert markup is not None
    assert re.search(
        r'aria-label="dense, trial 0, recovered quickly: latency p50 1.00\d\xa0ms \(up to 1.0\d\d\xa0ms\), accuracy 92',
        markup,
    )
    assert re.search(r'href="#trial-10" class="point" aria-label="accepted, trial 10, fine-tuned wholly: ', markup)


def test_a_trial_below_the_range_is_drawn_on_its_edge_and_says_so(run: View) -> None:
    low = replace(
        run.trials[1],
        figures={**run.trials[1].figures, "accuracy": replace(run.trials[1].figures["accuracy"], value=0.1)},
    )
    markup = front(replace(run, trials=(*run.trials[:1], low, *run.trials[2:])))
    assert markup is not None
    (point,) = re.findall(r'<a href="#trial-1" .*?</a>', markup.split('<div class="panel">')[1])
    assert "accuracy 10.00\u00a0%, below the range of the chart" in point
    assert 'class="under"' in point


def test_the_shares_of_a_histogram_are_those_of_the_runs() -> None:
    scale = Scale(0.0, 4.0, 0, 100)
    assert shares([0.5, 0.6, 1.5, 3.9, 7.0], scale, bins=4) == ([0.4, 0.2, 0.0, 0.2], 1)


def test_the_latency_of_the_files_themselves_and_the_runs_in_turn_are_told_apart(run: View) -> None:
    best = run.result.best
    assert best is not None
    told = {"ssh://pi@camera": {"ratio": 0.5, "lower": 0.49, "upper": 0.51, "alone_ms": 0.62}}
    markup = latency(
        replace(run, result=replace(run.result, best=replace(best, details={**best.details, "in_turn": told})))
    )
    assert markup is not None
    assert "it takes 0.500 (0.490 to 0.510) of the dense median" in markup
    assert "By itself it took 0.620 ms." in markup
    assert "in turn" not in (latency(run) or "")


def test_an_interval_is_that_of_the_figure_and_not_of_another_measurement(run: View) -> None:
    figure, measured = run.result.dense.figures["latency.p50"], run.measurements[0]
    assert re.fullmatch(r"0\.98\d to 1\.02\d ms", interval("latency.p50", figure, measured))
    judged = replace(figure, upper=1.5)
    assert interval("latency.p50", judged, measured) == "up to 1.500 ms"
    assert interval("size", run.result.dense.figures["size"], measured) == ""


def test_layers_show_what_the_candidate_keeps(run: View) -> None:
    markup = widths(run)
    assert markup is not None
    rows = re.findall(r'data-layer="([^"]+)" data-before="(\d+)" data-after="(\d+)"', markup)
    assert rows[0] == ("stage0.0.conv", "16", "6")
    assert ("stage2.3.conv", "64", "0") in rows
    assert rows[-1] == ("classifier", "10", "10")
    assert 'class="dropped" data-layer="stage2.3.conv"' in markup
    assert "118 of 120 layers narrowed, 1 block dropped (stage2.3): " in markup
    assert widths(replace(run, structure=None)) is None


def test_frozen_groups_stand_under_their_reason(run: View) -> None:
    markup = frozen(run)
    assert markup is not None
    assert re.findall(r'<dt>([^<]+)<span class="quiet"> \((\d+)\)', markup) == [
        ("softmax mixes the dimension", "20"), ("is the model&#x27;s output", "1"),
    ]  # fmt: skip
    assert "and 8 more" in markup
    assert "left out by the project (search.ignored)</dt><dd><code>g3</code>" in markup


def test_what_a_layer_keeps_counts_all_its_groups() -> None:
    layer = structure().layers[0]
    assert layer.kept(candidate(0.25)) == 4
    assert layer.kept(candidate(1.0)) == 16


def test_a_long_trace_keeps_its_peaks() -> None:
    trace = [(i / 100, 2.0) for i in range(5000)]
    trace[3333] = (33.33, 9.0)
    kept = thinned(trace)
    assert len(kept) <= 500
    assert (33.33, 9.0) in kept
    assert kept == sorted(kept)
    assert thinned(trace[:10]) == trace[:10]


def test_power_shows_when_inferences_ran(run: View) -> None:
    markup = power(run)
    assert markup is not None
    assert re.findall(r'<rect x="([\d.]+)%" [^>]*width="([\d.]+)%"[^>]* class="window load">', markup)[0] == (
        "33.34",
        "33.34",
    )
    assert "net of 5.25 mJ that the idle device draws in the same time (gross 16 mJ)" in markup


def test_int8_tells_the_float_and_the_int8_file_and_the_schemes(run: View) -> None:
    assert quantised(run) is None
    best = run.result.best
    assert best is not None
    told = {"scheme": "u8s8", "sqnr_db": 34.24, "float_size_bytes": 2_000_000, "float_accuracy": 0.915}
    tried = [{"scheme": "u8s8", "ratio": 0.6, "lower": 0.58, "upper": 0.61}, {"scheme": "s8s8", "refused": "garbage"}]
    found = {**run.result.provenance, "int8": {"scheme": "u8s8", "calibrated_on": "128 inputs", "tried": tried}}
    result = replace(run.result, best=replace(best, details={"quantised": told}), provenance=found)
    markup = quantised(replace(run, result=result))
    assert markup is not None
    for shown in ("91.50 %", "34.2 dB", "2.00 MB", "0.600 ×", "0.580 to 0.610", "garbage", "chosen", "128 inputs"):
        assert shown in markup


def test_memory_is_split_and_shown_from_the_runtime_alone_to_the_peak(run: View) -> None:
    markup = memory(run)
    assert markup is not None
    assert (
        "23.00 MB (anonymous 14.00 MB, file-backed 9.00 MB, while running 700.00 kB, noise 400.00 kB, 3 processes)"
        in markup
    )
    assert re.findall(r'aria-label="(dense: [rm][^"]+)"', markup) == [
        "dense: runtime alone: 44.00 MB",
        "dense: model loaded: 67.00 MB",
    ]
    assert "limit of the budget" in markup
    first = run.measurements[0]
    assert first.memory is not None
    mapped = replace(first.memory, nvmap_peak_bytes=5_000_000, anonymous_peak_bytes=None, swapped_bytes=2_000_000)
    told = memory(replace(run, measurements={0: replace(first, memory=mapped)}))
    assert told is not None
    for shown in ("graphics 5.00 MB", "of either kind", "mapped by the graphics processor", "dense: 2.00 MB"):
        assert shown in told
