"""What the search loop says: of a trial, of why it ended, of what stood in the way."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.errors import EdgepruneError
from edgeprune.records.budget import BudgetCheck, LimitCheck, State
from edgeprune.records.explanation import Explanation
from edgeprune.records.figures import format_figure
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Trial

__all__ = ["blind_message", "bound_by", "first_upper", "infeasible_message", "trial_line", "with_hint"]


def trial_line(trial: Trial) -> str:
    """A trial in one line, for whoever looks on."""
    names = ("accuracy", "latency.p50", "peak_memory", "size")
    shown = [
        f"{name.removeprefix('latency.')} {format_figure(name, figure.value)}"
        for name in names
        if (figure := trial.figures.get(name)) is not None and figure.value is not None
    ]
    if trial.outcome != Outcome.OK.value:
        shown.append(f"{trial.outcome}: {trial.message}")
    title = "dense" if trial.number == 0 else trial.stage.value
    return f"trial {trial.number} ({title}): {', '.join(shown)}"


def with_hint(error: EdgepruneError) -> str:
    """The message of an error, and what to do."""
    return error.message if error.hint is None else f"{error.message} ({error.hint})"


def blind_message(blind: tuple[LimitCheck, ...], dense: Trial) -> str:
    """Why there is nothing to search for: limits that nothing can show to be met."""
    if dense.outcome == Outcome.OOM.value:
        names = ", ".join(f"{entry.limit.metric} ({entry.limit.text})" for entry in blind)
        return f"the dense model does not fit the device's memory, so limits relative to it mean nothing: {names}"
    reasons = "; ".join(f"{entry.limit.metric}: {entry.reason}" for entry in blind)
    return f"limits that cannot be measured here and so never be met: {reasons}"


def infeasible_message(check: BudgetCheck | None, reached: Mapping[str, tuple[float, int]]) -> str:
    """What was missed, and how near it came: per figure the value reached and its trial."""
    parts = []
    for entry in check.limits if check is not None else ():
        name, bound = entry.limit.figure, entry.bound
        limit = entry.limit.text if bound is None else f"{entry.limit.text} ({format_figure(name, bound)})"
        if entry.state is not State.MET and name in reached:
            value, number = reached[name]
            best = "the highest within the device's limits" if entry.limit.is_accuracy else "the smallest reached"
            parts.append(f"{entry.limit.metric} {limit}: {best} is {format_figure(name, value)} (trial {number})")
        elif entry.reason:
            parts.append(f"{entry.limit.metric} {limit}: {entry.reason}")
    return "No candidate meets the budget. " + "; ".join(parts) + "."


def bound_by(explanation: Explanation | None) -> str:
    """What stood in the way of more accuracy, and what nobody could plan for."""
    if explanation is None:
        return ""
    bound = f"; what binds: {', '.join(explanation.binding)}" if explanation.binding else ""
    blind = f"; held by measurement alone: {', '.join(explanation.unplanned)}" if explanation.unplanned else ""
    return bound + blind


def first_upper(text: str) -> str:
    """The text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]
