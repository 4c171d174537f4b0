"""The report's verdict in a sentence, and what a budget's limits say in words."""

from __future__ import annotations

from edgeprune.records.budget import LimitCheck, State
from edgeprune.records.figures import format_figure
from edgeprune.records.trial import Trial
from edgeprune.report.html.view import View, label, latency_figure, signed, unbroken, value_of

__all__ = ["asked", "change", "headroom", "status", "verdict"]

_STATUS = {"accepted": "Accepted", "infeasible": "Infeasible", "unmeasurable": "Not measured"}
_TENTH = 0.1


def status(view: View) -> str:
    """In a word or two."""
    return _STATUS[view.result.status]


def verdict(view: View) -> str:
    """What came of the run, in one sentence; numbers stay with their units."""
    return unbroken(_verdict(view))


def _verdict(view: View) -> str:
    result, best = view.result, view.best
    if result.status == "accepted" and best is not None:
        parts = [text for name in _told(view) if (text := _gain(name, result.dense, best))]
        return (
            f"Every limit is met by measurement: {', '.join(parts) or 'with the network of trial ' + str(best.number)}."
        )
    if result.status == "accepted":
        return "Every limit is met by measurement, by the dense network as it is."
    if result.status == "infeasible":
        missed = [entry for entry in result.check.limits if entry.state is not State.MET] if result.check else []
        what = " and ".join(f"{label(entry.limit.figure)} ({_reached(entry)})" for entry in missed)
        closest = "" if not what or result.best is None else f": the closest, trial {result.best.number}, misses {what}"
        return f"No network that was tried meets the budget{closest}."
    return "The budget could not be checked: what it limits could not be measured."


def asked(entry: LimitCheck) -> tuple[str, str]:
    """A limit in absolute terms, and as its user wrote it where that is relative: "≤ 0.551 ms", "60% of dense"."""
    relation = "≥" if entry.limit.is_accuracy else "≤"
    if entry.bound is None:
        return f"{relation} {entry.limit.text}", ""
    bound = f"{relation} {format_figure(entry.limit.figure, entry.bound)}"
    if entry.limit.drop is not None:
        return bound, f"at most {entry.limit.text} lost"
    return bound, entry.limit.text if entry.limit.relative else ""


def headroom(entry: LimitCheck) -> str:
    """What is left of a limit: "+12.6 %", of an accuracy in points; "" where it is not known."""
    if entry.headroom is None:
        return ""
    if entry.limit.is_accuracy and entry.value is not None and entry.bound is not None:
        return f"{signed((entry.value - entry.bound) * 100, 2)} pp"
    return f"{signed(entry.headroom * 100, 1)} %"


def change(name: str, dense: float | None, best: float | None) -> str:
    """Pruned over dense, of an accuracy the difference: "0.515 ×", "−0.22 pp"."""
    if dense is None or best is None:
        return ""
    if name == "accuracy":
        return f"{signed((best - dense) * 100, 2)} pp"
    return f"{best / dense:.3f} ×" if dense else ""


def _told(view: View) -> tuple[str, ...]:
    limited = [limit.figure for limit in view.result.budget.limits if not limit.is_accuracy]
    return tuple(dict.fromkeys((*limited, latency_figure(view.result), "size", "accuracy")))


def _gain(name: str, dense: Trial, best: Trial) -> str:
    before, after = value_of(dense.figures, name), value_of(best.figures, name)
    if before is None or after is None or not before:
        return ""
    if name == "accuracy":
        return f"accuracy {change(name, before, after)}"
    ratio = after / before
    return (
        f"{ratio * 100:.0f} % of the {label(name)}" if ratio >= _TENTH else f"{ratio * 100:.1f} % of the {label(name)}"
    )


def _reached(entry: LimitCheck) -> str:
    if entry.value is None:
        return entry.reason or "not measured"
    reached = format_figure(entry.limit.figure, entry.value, entry.bound)
    return reached if entry.bound is None else f"{reached}, {format_figure(entry.limit.figure, entry.bound)} is asked"
