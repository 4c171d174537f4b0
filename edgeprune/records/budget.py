"""A budget: a set of limits, each met, violated or unknown; what is unknown never passes.

What its user writes:

    budget:
      latency: {p95: 30ms}          # or {p50: 60% of dense}
      peak_memory: 50MiB
      size: 4MB
      energy: 120mJ
      accuracy: {max_drop: 1.0pp}   # or {min: 90%}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from edgeprune import units
from edgeprune.errors import ConfigError, UnitError, did_you_mean
from edgeprune.records.figures import Figure, Figures

__all__ = [
    "ACCURACY_LIMITS",
    "LATENCY_FIGURES",
    "SCALAR_LIMITS",
    "Budget",
    "BudgetCheck",
    "Limit",
    "LimitCheck",
    "State",
]

LATENCY_FIGURES = ("p50", "p90", "p95", "p99", "mean")
ACCURACY_LIMITS = ("max_drop", "min")
SCALAR_LIMITS: dict[str, units.Kind] = {"peak_memory": "size", "size": "size", "energy": "energy"}
_TABLES = {"latency": (LATENCY_FIGURES, "{p95: 30ms}"), "accuracy": (ACCURACY_LIMITS, "{max_drop: 1.0pp}")}
_ROUND_OFF = 1e-12  # 0.9 - 0.01 is not 0.89 in binary


class State(str, Enum):
    """What a limit or a budget is. What is unknown never passes."""

    MET = "met"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. `metric` is "latency.p95", "peak_memory", "size", "energy", "accuracy.max_drop" or "accuracy.min".

    `value` is in ms, bytes, mJ or a fraction; where `relative`, a factor of the dense model's figure.
    `text` is what the user wrote. A drop is kept in `drop`.
    """

    metric: str
    text: str
    value: float = 0.0
    relative: bool = False
    drop: units.Drop | None = None

    @classmethod
    def parse(cls, metric: str, text: Any) -> Limit:
        """The limit on a metric that `text` ("30ms", "60% of dense", "1.0pp") says; raises ConfigError with `key`."""
        try:
            if metric == "accuracy.max_drop":
                return cls(metric, str(text), drop=units.parse_drop(text))
            if metric == "accuracy.min":
                return cls(metric, str(text), _fraction(text))
            kind = "duration" if metric.startswith("latency.") else SCALAR_LIMITS[metric]
            quantity = units.parse_quantity(text, kind)
        except UnitError as error:
            raise ConfigError(f"{metric}: {error.message}", key=metric, hint=error.hint) from error
        return cls(metric, str(text), quantity.value, quantity.relative)

    @property
    def figure(self) -> str:
        """The name of the figure that the limit is about."""
        return "accuracy" if self.metric.startswith("accuracy.") else self.metric

    @property
    def is_accuracy(self) -> bool:
        """True for a limit that the model's metric is held against, False for what the device measures."""
        return self.figure == "accuracy"

    def bound(self, dense: Figures) -> float | None:
        """The absolute bound: a maximum, for accuracy a minimum.

        None where it is relative to a dense figure that is missing, not measured, or nothing to take a share of.
        """
        if self.drop is None and not self.relative:
            return self.value
        reference = dense.get(self.figure)
        if reference is None or _unusable(reference) or reference.value is None:
            return None
        if self.drop is None and reference.value <= 0:
            return None
        return self.drop.allowed(reference.value) if self.drop else self.value * reference.value

    def absolute(self, dense: Figures) -> Limit:
        """The limit with its bound in place of a share or a drop; as it is where the dense figure cannot tell."""
        bound = self.bound(dense)
        return self if bound is None else replace(self, value=bound, relative=False, drop=None)


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """A limit against a figure. `headroom` is the unused share of what is allowed: negative where it is exceeded.

    Of a maximum, the share of the bound; of an accuracy, the share of the allowed drop (of a `min`, of what lies
    between it and 100 %): 1 is as good as the dense model, and more than that is better.
    """

    limit: Limit
    state: State
    bound: float | None
    value: float | None
    upper: float | None
    headroom: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    """All limits of a budget against one model's figures."""

    limits: tuple[LimitCheck, ...]

    @property
    def state(self) -> State:
        """VIOLATED if any limit is, else UNKNOWN if any is, else MET."""
        states = {check.state for check in self.limits}
        for state in (State.VIOLATED, State.UNKNOWN):
            if state in states:
                return state
        return State.MET

    @property
    def binding(self) -> LimitCheck | None:
        """The limit with the least headroom, among those that have one."""
        known = [check for check in self.limits if check.headroom is not None]
        return min(known, key=lambda check: check.headroom or 0.0, default=None)

    def only(self, accuracy: bool) -> BudgetCheck:
        """The limits on accuracy, or those on everything else (what the device measures)."""
        return BudgetCheck(tuple(c for c in self.limits if c.limit.is_accuracy == accuracy))


@dataclass(frozen=True, slots=True)
class Budget:
    """A set of limits, at most one per metric."""

    limits: tuple[Limit, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Budget:
        """A budget as it is written in YAML; raises ConfigError, whose `key` is that of the limit."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"{data!r} is no budget", hint="write limits by name, like {latency: {p95: 30ms}}")
        limits: list[Limit] = []
        for key, value in data.items():
            if key in _TABLES:
                limits.extend(Limit.parse(f"{key}.{name}", text) for name, text in _table(value, key).items())
            elif key in SCALAR_LIMITS:
                limits.append(Limit.parse(key, value))
            else:
                hint = did_you_mean(str(key), (*_TABLES, *SCALAR_LIMITS))
                raise ConfigError(f"unknown limit {key!r}", key=str(key), hint=hint)
        return cls(tuple(limits))

    def override(self, other: Budget) -> Budget:
        """This budget with the other's limits in place of or beside its own."""
        metrics = {limit.metric for limit in other.limits}
        return Budget(tuple(limit for limit in self.limits if limit.metric not in metrics) + other.limits)

    def absolute(self, dense: Figures) -> Budget:
        """The budget with nothing in it that is relative to the dense model."""
        return Budget(tuple(limit.absolute(dense) for limit in self.limits))

    def check(self, figures: Figures, dense: Figures) -> BudgetCheck:
        """Compare the upper confidence bounds of `figures` with the limits; `dense` resolves relative ones."""
        return BudgetCheck(tuple(_check(limit, figures, dense) for limit in self.limits))

    def to_json(self) -> dict[str, Any]:
        """The mapping that `parse` reads."""
        data: dict[str, Any] = {}
        for limit in self.limits:
            first, _, second = limit.metric.partition(".")
            if second:
                data.setdefault(first, {})[second] = limit.text
            else:
                data[first] = limit.text
        return data


def _table(value: Any, key: str) -> Mapping[str, Any]:
    names, example = _TABLES[key]
    if not isinstance(value, Mapping) or not value:
        what = f"{value!r} does not say which figure" if value else "no limit is given"
        raise ConfigError(f"{key}: {what}", key=key, hint=f"write it like {key}: {example}")
    for name in value:
        if name not in names:
            hint = did_you_mean(str(name), names)
            raise ConfigError(f"{key}: unknown figure {name!r}", key=f"{key}.{name}", hint=hint)
    return value


def _fraction(text: Any) -> float:
    share = units.parse_share(text)
    if not 0 <= share <= 1:
        raise UnitError(f"{text!r} is out of range", hint="an accuracy lies between 0% and 100%")
    return share


def _check(limit: Limit, figures: Figures, dense: Figures) -> LimitCheck:
    bound = limit.bound(dense)
    figure = figures.get(limit.figure)
    if figure is None or (reason := _unusable(figure)) or figure.value is None:
        reason = "not measured" if figure is None else reason
        value, upper = (None, None) if figure is None else (figure.value, figure.upper)
        return LimitCheck(limit, State.UNKNOWN, bound, value, upper, None, reason)
    if bound is None:
        reason = _no_bound(dense.get(limit.figure))
        return LimitCheck(limit, State.UNKNOWN, None, figure.value, figure.upper, None, reason)
    if limit.is_accuracy:
        above = figure.value - bound
        state = State.MET if above >= -_ROUND_OFF else State.VIOLATED
        reference = dense[limit.figure].value if limit.drop else 1.0
        allowed = (reference or 0.0) - bound
        return LimitCheck(
            limit, state, bound, figure.value, figure.value, above / allowed if allowed > _ROUND_OFF else above
        )
    upper = figure.upper if figure.upper is not None and math.isfinite(figure.upper) else None
    worst = figure.value if upper is None else max(figure.value, upper)
    if figure.value > bound:
        state, reason = State.VIOLATED, ""
    elif upper is None:
        state, reason = State.UNKNOWN, "no upper confidence bound"
    elif worst > bound:
        state, reason = State.UNKNOWN, "inconclusive: the upper confidence bound exceeds the limit"
    else:
        state, reason = State.MET, ""
    return LimitCheck(limit, state, bound, figure.value, upper, 1 - worst / bound, reason)


def _unusable(figure: Figure) -> str:
    """Why no limit can be held against the figure; empty where one can."""
    if figure.value is None:
        return figure.missing or "not measured"
    if not math.isfinite(figure.value):
        return f"the figure is {figure.value}"
    return "" if figure.kind == "measured" else "only estimated, not measured"


def _no_bound(reference: Figure | None) -> str:
    if reference is None or reference.value is None:
        why = f": {reference.missing}" if reference is not None and reference.missing else ""
        return f"the dense model's figure is missing{why}"
    why = _unusable(reference) or f"it is {reference.value:g}"
    return f"no share can be taken of the dense model's figure: {why}"
