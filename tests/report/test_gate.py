"""A gate in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeprune.records.figures import Figure
from edgeprune.records.gate import Origin
from edgeprune.report.gate import message, render, since, summary, title
from tests.gates import FIGURES, ORIGIN, gate, reading

WHY = "inconclusive: the upper confidence bound exceeds the limit"
AGAINST = "against the baseline's 20.000 ms:"
LEFT = f"headroom -1.0 %; {WHY}"


def test_messages_name_metric_limit_value_bound_and_headroom() -> None:
    found = gate(
        {"latency": {"p95": "20.5ms"}, "accuracy": {"max_drop": "1pp", "min": "95%"}, "peak_memory": "1MiB"},
        regression={"latency.p95": "+4%", "energy": "+1%"},
        baseline=reading(),
    )
    assert [message(check) for check in found.checks] == [
        f"latency.p95 20.5ms: 20.000 ms (up to 21.000 ms) is not shown to be within 20.500 ms, headroom -2.4 %; {WHY}",
        "accuracy.max_drop 1pp: 90.00 % is at least 89.00 %, headroom +1.00 pp",
        "accuracy.min 95%: 90.00 % is below 95.00 %, headroom -5.00 pp",
        "peak_memory 1MiB: unknown: not measured",
        f"latency.p95 +4% {AGAINST} 20.000 ms (up to 21.000 ms) is not shown to be within 20.800 ms, {LEFT}",
        "energy +1% against the baseline: unknown: no power sensor",
    ]
    assert title(found) == "FAILED: 5 of 6 limits are not met"
    assert len(summary(found)) == 6


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("OK", "NOT KNOWN: 1 of 1 limit is not met"),
        ("LOST", "NOT MEASURED: LOST: no route"),
        ("OOM", "FAILED: OOM: no route"),
        ("NOT_MEASURED", "NOT KNOWN: 1 of 1 limit is not met"),
    ],
)
def test_titles(outcome: str, words: str) -> None:
    now = reading(origin=replace(ORIGIN, outcome=outcome, message="no route"))
    assert title(gate({"energy": "1mJ"}, now=now)) == words


def test_text_says_where_the_figures_are_from() -> None:
    recorded = replace(ORIGIN, source="recorded", age_s=3 * 86400.0, warnings=("it was hot",))
    lines = render(gate({"size": "4MB"}, now=reading(origin=recorded), baseline=reading())).splitlines()
    assert lines[:2] == ["PASSED: 1 limit met", "  met  size 4MB: 4.00 MB is within 4.00 MB, headroom +0.0 %"]
    assert "recorded by the run at 2026-11-21T12:00:00+00:00, 3 days ago" in lines
    assert lines[-2].startswith("baseline: model.onnx, sha256 abababababababab…, measured at 2026-11-21T12:00:00+00:00")
    assert lines[-1] == "warning: it was hot"
    away = reading({"size": FIGURES["size"]}, origin=Origin("measured", "LOST", "no route"))
    assert "not measured" in render(gate({"size": "4MB"}, now=away)).splitlines()


def test_a_figure_without_a_bound_shows_no_interval() -> None:
    check = gate({"latency": {"p95": "30ms"}}, now=reading({"latency.p95": Figure(20.0)})).checks[0]
    assert message(check) == (
        "latency.p95 30ms: 20.000 ms is not shown to be within 30.000 ms, headroom +33.3 %; no upper confidence bound"
    )


def test_spans() -> None:
    assert [since(seconds) for seconds in (1, 59.9, 60, 7200, 86400 * 2.5, -3700)] == [
        "1 second ago",
        "59 seconds ago",
        "1 minute ago",
        "2 hours ago",
        "2 days ago",
        "in the future by 1 hour",
    ]
