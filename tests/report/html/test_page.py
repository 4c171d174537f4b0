"""The page as a whole: safe, self-contained, complete, and the same for the same run."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import pytest

from edgeprune.records.explanation import Explanation, Infeasibility, Reach
from edgeprune.records.figures import Figure, format_figure
from edgeprune.records.result import Status
from edgeprune.records.trial import Stage, Trial
from edgeprune.report.html.page import page
from edgeprune.report.html.view import View
from tests.report.html.test_markup import read
from tests.report.html.views import LAYERS, candidate, view


@pytest.fixture(scope="module")
def large() -> View:
    return view()


@pytest.fixture(scope="module")
def text(large: View) -> str:
    return page(large)


def headings(text: str) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", text)


def test_a_large_run_has_every_section_and_stays_small(text: str) -> None:
    assert headings(text) == [
        "Asked and reached", "What binds", "Accuracy against cost", "Layers, before and after",
        "Latency of single inferences", "Memory", "Power", "Frozen, and why", "Trials (45)", "Provenance",
    ]  # fmt: skip
    assert len(text.encode()) < 400_000
    assert text.count("s of work on trials, without loading, planning and waiting") == 2
    rows = [attributes for name, attributes in read(text).seen if name == "li" and "data-layer" in attributes]
    assert len(rows) == LAYERS


def test_the_policy_allows_the_style_and_the_script_by_their_sums_and_nothing_else(text: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (style,), (script,) = (re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL) for name in ("style", "script"))
    sums = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    assert policy.replace("&#x27;", "'").split("; ") == [
        "default-src 'none'", f"style-src 'sha256-{sums[0]}'", f"script-src 'sha256-{sums[1]}'", "base-uri 'none'",
        "form-action 'none'",
    ]  # fmt: skip


def test_nothing_comes_from_elsewhere_and_nothing_is_styled_or_scripted_inline(text: str) -> None:
    for name, attributes in read(text).seen:
        assert name not in {"link", "img", "iframe", "object", "embed", "form", "base"}
        assert not {"src", "style", "srcset"} & attributes.keys()
        assert not [key for key in attributes if key.startswith("on")]
        if "href" in attributes:
            href = attributes["href"] or ""
            assert href.startswith("#") or href in {"best/model.onnx", "result.json"}  # not ../.., not https:
    assert not re.search(r"url\(|@import|https?://(?!example\.org/)", text)


def test_what_a_task_or_a_device_says_cannot_break_out(text: str) -> None:
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in text
    assert "&lt;busy&gt;" in text
    assert "&lt;by the kernel&gt;" in text
    assert "secret-name" not in text  # the host's name is of no use to a reader


def test_the_same_run_gives_the_same_page(large: View, text: str) -> None:
    assert page(view()) == text
    assert page(large) == text


def test_every_id_is_there_once_and_every_link_leads_somewhere(text: str) -> None:
    seen = read(text).seen
    ids = [attributes["id"] for _, attributes in seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    inside = [
        (attributes.get("href") or "")[1:] for _, attributes in seen if (attributes.get("href") or "").startswith("#")
    ]
    assert len(inside) > 40
    assert set(inside) <= set(ids)


def test_all_figures_are_those_of_the_record_to_the_last_bit(large: View, text: str) -> None:
    best = large.result.best
    assert best is not None
    trials = {"dense": large.result.dense, "accepted": best}
    cells = re.findall(r'data-figure="([^"]+)" data-trial="(\w+)" data-value="([^"]+)">([^<]+)<', text)
    assert len(cells) == 2 * 8
    for name, which, value, shown in cells:
        figure = trials[which].figures.get(name)
        known = trials[which].details[name] if figure is None else figure.value
        assert float(value) == known
        like = large.result.dense.figures[name].value if figure is not None else None
        assert shown == (f"{known:,}" if figure is None else format_figure(name, known, like))


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("accepted", "Every limit is met by measurement: 50\u00a0% of the latency p50, "),
        ("infeasible", "No network that was tried meets the budget: the closest, trial 43, misses accuracy (89.26"),
        ("unmeasurable", "The budget could not be checked: what it limits could not be measured."),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(status: Status, verdict: str) -> None:
    text = page(view(status, trials=45))
    (heading,) = re.findall(r"<h1>(.*?)</h1>", text)
    assert heading.startswith(verdict)
    assert status == "accepted" or "A message with &lt;tags&gt; &amp; signs" in text


def test_an_infeasible_run_says_what_was_in_reach_as_estimated_and_as_measured() -> None:
    reach = Reach("size", 2.5e6, alone=1.2e6, together=3.1e6, measured=3.2e6, trial=5, relaxed=3.4e6)
    run = view("infeasible", trials=8)
    why = Explanation(
        binding=("size",), unplanned=("energy",), infeasibility=Infeasibility(True, (reach,), relaxation=0.36)
    )
    text = page(replace(run, result=replace(run.result, explanation=why)))
    section = text[text.index('id="binds"') : text.index('id="front"')]
    assert "<strong>size</strong> held the search back" in section
    assert "Nothing predicts energy here" in section
    assert "With all limits 36.0 % wider it would be feasible." in section
    assert re.findall(r'>([0-9.]+ MB)</span> <span class="kind (\w+)"', section) == [
        ("1.20 MB", "estimated"), ("3.10 MB", "estimated"), ("3.20 MB", "measured"), ("3.40 MB", "estimated"),
    ]  # fmt: skip


def test_what_a_run_lacks_is_left_out_and_said() -> None:
    run = view(trials=6)
    bare = replace(run, measurements={}, structure=None, notes=("The network's layers could not be read",))
    text = page(bare)
    assert headings(text) == ["Asked and reached", "What binds", "Accuracy against cost", "Trials (6)", "Provenance"]
    assert "<li>The network&#x27;s layers could not be read</li>" in text


def test_a_run_whose_dense_model_is_all_there_is() -> None:
    run = view(trials=6)
    failed = {"latency.p50": Figure(None, missing="OOM: no memory"), "accuracy": Figure(0.9, 0.9)}
    dense = Trial(0, Stage.MEASURE, candidate(1.0), "OOM", failed, "no memory")
    result = replace(
        run.result,
        status="unmeasurable",
        dense=dense,
        best=None,
        check=None,
        provenance={},
        budget=type(run.result.budget)(),
    )
    text = page(View("run", result, (dense,)))
    assert headings(text) == ["Asked and reached", "What binds", "Trials (1)", "Provenance"]
    assert "OOM: no memory" in text


def test_what_is_only_estimated_says_so_and_is_no_point_of_the_front(large: View) -> None:
    best = large.result.best
    assert best is not None
    figures = {**best.figures, "size": Figure(1e6, None, "estimated")}
    changed = replace(best, figures=figures)
    trials = tuple(changed if trial is best else trial for trial in large.trials)
    text = page(replace(large, trials=trials, result=replace(large.result, best=changed)))
    assert re.search(
        r'data-figure="size" data-trial="accepted" data-value="1000000.0">1.00 MB</span> <span class="kind estimated">',
        text,
    )
    panels = text.split('<div class="panel">')[1:]
    counts = [panel.count('class="point"') for panel in panels]
    assert counts[1] == counts[0] - 1  # size, against latency


def test_a_pool_tells_what_each_of_its_devices_had() -> None:
    run = view(trials=6)
    assert run.result.best is not None
    devices = {"ssh://pi@a": {"latency.p50": 0.5, "energy": None}, "ssh://pi@b": {"latency.p50": 0.75, "energy": None}}
    details = {**run.result.best.details, "pool": {"judge": "worst", "devices": devices, "outcomes": {}}}
    text = page(replace(run, result=replace(run.result, best=replace(run.result.best, details=details))))
    assert "Devices of the pool, judged by worst (trial 4)" in text
    table = text[text.index("Devices of the pool") :]
    assert re.findall(r'<th scope="row">(ssh[^<]+)</th><td class="number">([^<]+)</td></tr>', table) == [
        ("ssh://pi@a", "0.500 ms"),
        ("ssh://pi@b", "0.750 ms"),
    ]


def test_what_details_hold_is_shown_whatever_it_is() -> None:
    run = view(trials=6)
    details = {"quantised": {"sqnr_db": 34.25, "scheme": "u8s8"}, "epochs": 3, "new_thing": [1, 2], "flag": True}
    trials = (*run.trials[:1], replace(run.trials[1], details=details), *run.trials[2:])
    text = page(replace(run, trials=trials))
    for name, value in (
        ("quantised: SQNR, dB", "34.25"),
        ("quantised: scheme", "u8s8"),
        ("new thing", "1, 2"),
        ("flag", "yes"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text


def test_what_a_device_could_not_tell_does_not_keep_the_page_from_being_written() -> None:
    run = view(trials=6)
    first, best = run.measurements[0], run.result.best
    assert first.latency is not None
    assert best is not None
    coarse = replace(
        first.latency, raw_ms=(0.0,) * 50, min_ms=0.0, max_ms=0.0, lower_ms={}, upper_ms={}, percentile_ms={}
    )
    before = {"load": [None, "?"], "temperature_c": {"cpu": None}, "governor": ["ondemand"], "throttled": None}
    bare = replace(first, latency=coarse, conditions={"before": before, "memory_workers": [{}]}, provenance=None)
    told = {"ratio": 0.5, "lower": None, "upper": None, "alone_ms": None}
    dry = replace(best, details={"in_turn": {"": told, "b": {"outcome": "OOM"}}, "quantised": {}, "pool": {}})
    result = replace(run.result, best=dry, provenance={"int8": {}, "dense_again": {"1": {"": {"outcome": "LOST"}}}})
    text = page(replace(run, result=result, measurements={0: bare}))
    assert headings(text)[0] == "Asked and reached"
    assert "The dense network again after trial 1: LOST: " in text
    assert ">None ?<" in text
