"""A gate as a Markdown summary, as `$GITHUB_STEP_SUMMARY` and merge requests show it."""

from __future__ import annotations

import re

from edgeprune.records.budget import State
from edgeprune.records.gate import Gate, GateCheck
from edgeprune.report.gate import bound_text, headroom_text, message, provenance, state_text, title, value_text

__all__ = ["render"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~!])")
_MARKS = {State.MET: "✅", State.VIOLATED: "❌", State.UNKNOWN: "❓"}


def render(gate: Gate) -> str:
    """Verdict, a table of all limits, what fails in words, and where the figures are from."""
    lines = [f"### edgeprune check: {_escaped(title(gate))}", ""]
    if gate.checks:
        lines += ["| limit | value | bound | headroom | |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join(_escaped(cell) for cell in _row(check))} |" for check in gate.checks]
        lines.append("")
    lines += [f"- {_escaped(message(check))}" for check in gate.checks if not check.is_met]
    if lines[-1]:
        lines.append("")
    lines += ["<details><summary>where the figures are from</summary>", ""]
    lines += [f"- {_escaped(line)}" for line in provenance(gate)]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def _row(check: GateCheck) -> list[str]:
    entry = check.entry
    of = " against the baseline" if check.kind == "regression" else ""
    mark = _MARKS[entry.state] if check.is_met or check.fails else "⚠️"
    limit = f"{check.name} {entry.limit.text}{of}"
    return [limit, value_text(entry), bound_text(entry), headroom_text(entry), f"{mark} {state_text(check)}"]


def _escaped(text: str) -> str:
    """Plain text: no Markdown, no HTML, one line."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", flat)
