"""The summary in Markdown."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.records.gate import Origin
from edgeprune.report import markdown
from tests.gates import FIGURES, ORIGIN, gate, reading


def test_verdict_table_and_what_fails() -> None:
    found = gate({"latency": {"p95": "19ms"}}, {"size": "3MB"}, {"accuracy": "-1pp"}, baseline=reading())
    lines = markdown.render(found).splitlines()
    assert lines[0] == "### edgeprune check: FAILED: 1 of 2 limits is not met, 1 warning"
    assert lines[2:7] == [
        "| limit | value | bound | headroom | |",
        "|---|---|---|---|---|",
        "| latency.p95 19ms | 20.000 ms (up to 21.000 ms) | 19.000 ms | -10.5 % | ❌ VIOLATED |",
        "| size 3MB | 4.00 MB | 3.00 MB | -33.3 % | ⚠️ warning: violated |",
        "| accuracy -1pp against the baseline | 90.00 % | 89.00 % | +1.00 pp | ✅ met |",
    ]
    assert "- latency.p95 19ms: 20.000 ms (up to 21.000 ms) is over 19.000 ms, headroom -10.5 %" in lines
    assert "- measured now, at 2026-11-21T12:00:00+00:00" in lines
    assert lines[-1] == "</details>"


def test_what_a_device_says_is_text() -> None:
    said = "<img src=x> | a\n\n# b `c` [d](e) &amp; \\"
    found = gate({"size": "5MB"}, now=reading(FIGURES, origin=replace(ORIGIN, warnings=(said,))))
    line = next(line for line in markdown.render(found).splitlines() if line.startswith("- warning"))
    assert line == r"- warning: &lt;img src=x&gt; \| a \# b \`c\` \[d\](e) &amp;amp; \\"


def test_an_unknown_figure_and_a_device_that_is_away() -> None:
    away = reading({}, origin=Origin("measured", "LOST", "no route"))
    lines = markdown.render(gate({"energy": "1mJ"}, now=away)).splitlines()
    assert lines[0] == "### edgeprune check: NOT MEASURED: LOST: no route"
    assert lines[4] == "| energy 1mJ | missing | 1 mJ | unknown | ❓ UNKNOWN |"
