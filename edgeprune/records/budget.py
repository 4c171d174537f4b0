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

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from edgeprune import units
from edgeprune.errors import ConfigError, UnitError
from edgeprune.records.figures import Figures

__all__ = ["Budget", "BudgetCheck", "Limit", "LimitCheck", "State"]

_LATENCY = ("p50", "p90", "p95", "p99", "mean")
_SCALARS: dict[str, units.Kind] = {"peak_memory": "size", "size": "size", "energy": "energy"}


class State(str, Enum):
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

    @property
    def figure(self) -> str:
        """The name of the figure that the limit is about."""
        return "accuracy" if self.metric.startswith("accuracy.") else self.metric

    @property
    def is_accuracy(self) -> bool:
        return self.figure == "accuracy"

    def bound(self, dense: Figures) -> float | None:
        """The absolute bound (a maximum, for accuracy a minimum), or None where the dense figure it needs is missing."""
        if self.drop is None and not self.relative:
            return self.value
        reference = dense.get(self.figure)
        if reference is None or reference.value is None:
            return None
        return self.drop.allowed(reference.value) if self.drop else self.value * reference.value


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """A limit against a figure. `headroom` is the unused share of the bound: negative where it is exceeded.

    For accuracy it is in units of the metric (0.012 = 1.2 points above the bound).
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
        """A budget as it is written in YAML; raises ConfigError (with `key`) or UnitError."""
        limits: list[Limit] = []
        for key, value in data.items():
            if key == "latency":
                for name, text in _table(value, key, _LATENCY, "{p95: 30ms}").items():
                    limits.append(_limit(f"latency.{name}", text, "duration"))
            elif key == "accuracy":
                for name, text in _table(value, key, ("max_drop", "min"), "{max_drop: 1.0pp}").items():
                    metric = f"accuracy.{name}"
                    try:
                        if name == "max_drop":
                            limits.append(Limit(metric, str(text), drop=units.parse_drop(text)))
                        else:
                            limits.append(Limit(metric, str(text), units.parse_share(text)))
                    except UnitError as error:
                        raise ConfigError(f"{metric}: {error.message}", key=metric, hint=error.hint) from error
            elif key in _SCALARS:
                limits.append(_limit(key, value, _SCALARS[key]))
            else:
                raise ConfigError(
                    f"unknown limit {key!r}", key=key, hint=f"limits: latency, accuracy, {', '.join(_SCALARS)}"
                )
        return cls(tuple(limits))

    def override(self, other: Budget) -> Budget:
        """This budget with the other's limits in place of or beside its own."""
        metrics = {limit.metric for limit in other.limits}
        return Budget(tuple(limit for limit in self.limits if limit.metric not in metrics) + other.limits)

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


def _table(value: Any, key: str, names: tuple[str, ...], example: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: {value!r} does not say which figure", key=key, hint=f"write it like {key}: {example}")
    for name in value:
        if name not in names:
            raise ConfigError(f"{key}: unknown figure {name!r}", key=f"{key}.{name}", hint=f"figures: {', '.join(names)}")
    return value


def _limit(metric: str, text: Any, kind: units.Kind) -> Limit:
    try:
        quantity = units.parse_quantity(text, kind)
    except UnitError as error:
        raise ConfigError(f"{metric}: {error.message}", key=metric, hint=error.hint) from error
    return Limit(metric, str(text), quantity.value, quantity.relative)


def _check(limit: Limit, figures: Figures, dense: Figures) -> LimitCheck:
    bound = limit.bound(dense)
    figure = figures.get(limit.figure)
    if figure is None or figure.value is None:
        reason = figure.missing if figure is not None and figure.missing else "not measured"
        return LimitCheck(limit, State.UNKNOWN, bound, None, None, None, reason)
    if bound is None:
        reason = "the dense model's figure is missing"
        return LimitCheck(limit, State.UNKNOWN, None, figure.value, figure.upper, None, reason)
    if limit.is_accuracy:
        headroom = figure.value - bound
        state = State.MET if headroom >= -1e-12 else State.VIOLATED  # 1e-12: 0.9 - 0.01 is not 0.89 in binary
        return LimitCheck(limit, state, bound, figure.value, figure.value, headroom)
    if figure.kind != "measured":
        return LimitCheck(limit, State.UNKNOWN, bound, figure.value, figure.upper, None, "only estimated, not measured")
    if figure.value > bound:
        state, reason = State.VIOLATED, ""
    elif figure.upper is None:
        state, reason = State.UNKNOWN, "no upper confidence bound"
    elif figure.upper > bound:
        state, reason = State.UNKNOWN, "inconclusive: the upper confidence bound exceeds the limit"
    else:
        state, reason = State.MET, ""
    worst = figure.value if figure.upper is None else figure.upper
    return LimitCheck(limit, state, bound, figure.value, figure.upper, 1 - worst / bound, reason)
