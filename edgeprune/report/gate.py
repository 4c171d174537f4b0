"""What a gate found, in words: one message per check, where the figures are from, and all of it as text.

FAILED: 1 of 2 limits is not met
  VIOLATED  latency.p95 30ms: 31.200 ms (up to 33.000 ms) is over 30.000 ms, headroom -10.0 %
  met       size 4MB: 3.21 MB is within 4.00 MB, headroom +19.8 %
"""

from __future__ import annotations

from edgeprune.records.budget import LimitCheck, State
from edgeprune.records.figures import format_figure
from edgeprune.records.gate import NOT_MEASURED, Gate, GateCheck, Origin, Reading
from edgeprune.report import measured_on
from edgeprune.report.table import table
from edgeprune.units import format_points

__all__ = [
    "bound_text",
    "headroom_text",
    "message",
    "provenance",
    "render",
    "since",
    "state_text",
    "summary",
    "title",
    "value_text",
]


def render(gate: Gate) -> str:
    """All of it, as plain text."""
    rows = [[state_text(check), message(check)] for check in gate.checks]
    lines = [title(gate), *(f"  {line}" for line in table(rows)), *provenance(gate)]
    return "\n".join(lines) + "\n"


def summary(gate: Gate) -> list[str]:
    """The verdict, and what is not met."""
    return [title(gate), *(f"{state_text(check)}: {message(check)}" for check in gate.checks if not check.is_met)]


def title(gate: Gate) -> str:
    """The verdict in a line."""
    failing = [check for check in gate.checks if check.fails]
    warned = sum(not check.is_met and not check.fails for check in gate.checks)
    also = f", {_count(warned, 'warning')}" if warned else ""
    origin = gate.reading.origin
    if gate.status == "passed":
        met = sum(check.is_met for check in gate.checks)
        return f"PASSED: {_count(met, 'limit')} met{also}"
    if not gate.is_measured:
        return f"NOT MEASURED: {origin.outcome}: {origin.message}{also}"
    if origin.outcome not in ("OK", NOT_MEASURED):
        return f"FAILED: {origin.outcome}: {origin.message}{also}"
    word = "FAILED" if gate.status == "failed" else "NOT KNOWN"
    all_of = sum(check.level == "error" for check in gate.checks)
    verb = "is" if len(failing) == 1 else "are"
    return f"{word}: {len(failing)} of {_count(all_of, 'limit')} {verb} not met{also}"


def message(check: GateCheck) -> str:
    """Metric, limit, value, bound and headroom of one check."""
    entry = check.entry
    what = _what(check)
    if entry.state is State.UNKNOWN and (entry.value is None or entry.bound is None):
        value = "" if entry.value is None else f"{value_text(entry)}; "
        return f"{what}: unknown: {value}{entry.reason}"
    relation = _relation(check)
    said = f"; {entry.reason}" if entry.reason else ""
    return f"{what}: {value_text(entry)} {relation} {bound_text(entry)}, headroom {headroom_text(entry)}{said}"


def state_text(check: GateCheck) -> str:
    """met, VIOLATED, UNKNOWN; a warning is marked as one."""
    if check.is_met:
        return "met"
    return check.entry.state.value.upper() if check.fails else f"warning: {check.entry.state.value}"


def value_text(entry: LimitCheck) -> str:
    """The figure, and the upper end of its interval, which is what the limit is held against."""
    if entry.value is None:
        return "missing"
    name = entry.limit.figure
    text = format_figure(name, entry.value, entry.bound)
    upper = text if entry.upper is None else format_figure(name, entry.upper, entry.bound or entry.value)
    return text if upper == text else f"{text} (up to {upper})"


def bound_text(entry: LimitCheck) -> str:
    """What is allowed, as an absolute figure."""
    return "?" if entry.bound is None else format_figure(entry.limit.figure, entry.bound)


def headroom_text(entry: LimitCheck) -> str:
    """What is left of the bound: a share of it, for accuracy percentage points."""
    if entry.headroom is None:
        return "unknown"
    if entry.limit.is_accuracy and entry.value is not None and entry.bound is not None:
        return format_points(entry.value - entry.bound)
    return f"{entry.headroom * 100:+.1f} %"


def provenance(gate: Gate) -> list[str]:
    """What was looked at, when and where it was measured, what it was compared with, and what else is to be known."""
    reading = gate.reading
    lines = [f"artifact: {reading.file}, sha256 {reading.sha256}", when(reading.origin)]
    if reading.origin.device:
        lines.append(on(reading.origin))
    if gate.baseline is not None:
        lines.append(f"baseline: {_baseline(gate.baseline)}")
    lines += [f"note: {note}" for note in gate.notes]
    return lines + [f"warning: {warning}" for warning in reading.origin.warnings]


def when(origin: Origin) -> str:
    """Measured now or recorded, at what time, and how long ago that is."""
    if not origin.started_at:
        return "not measured"
    if origin.source == "measured":
        return f"measured now, at {origin.started_at}"
    age = "" if origin.age_s is None else f", {since(origin.age_s)}"
    return f"recorded by the run at {origin.started_at}{age}"


def on(origin: Origin) -> str:
    """Machine, runtime, threads, profile and target, in a line."""
    device = {**origin.device, "profile": origin.profile, "target": ", ".join(origin.targets)}
    return measured_on.of_run(device)[0]


def since(seconds: float) -> str:
    """ "3 days ago"."""
    if seconds < 0:
        return f"in the future by {_span(-seconds)}"
    return f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    for unit_s, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit_s:
            return _count(int(seconds // unit_s), name)
    return _count(int(seconds), "second")


def _what(check: GateCheck) -> str:
    if check.kind == "budget":
        return f"{check.entry.limit.metric} {check.entry.limit.text}"
    reference = "" if check.reference is None else f"'s {format_figure(check.name, check.reference)}"
    return f"{check.name} {check.entry.limit.text} against the baseline{reference}"


def _relation(check: GateCheck) -> str:
    entry = check.entry
    if entry.state is State.UNKNOWN:
        return "is not shown to be within"
    if entry.limit.is_accuracy:
        return "is at least" if entry.state is State.MET else "is below"
    return "is within" if entry.state is State.MET else "is over"


def _baseline(reading: Reading) -> str:
    where = f" on {', '.join(reading.origin.targets)}" if reading.origin.targets else ""
    time = reading.origin.started_at or "an unknown time"
    return f"{reading.file}, sha256 {reading.sha256[:16]}…, {reading.origin.source} at {time}{where}"


def _count(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
