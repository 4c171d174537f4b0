"""What a gate holds a model against: limits, and how much worse than a baseline it may be, by level."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from edgeprune import units
from edgeprune.errors import ConfigError, UnitError, UsageError, did_you_mean
from edgeprune.records.budget import LATENCY_FIGURES, SCALAR_LIMITS, Budget, Limit

__all__ = ["LEVELS", "Level", "Policy", "parse_age", "parse_regression", "regression_option"]

Level = Literal["error", "warn"]
LEVELS: tuple[Level, ...] = ("error", "warn")

_FIGURES = (*(f"latency.{name}" for name in LATENCY_FIGURES), *SCALAR_LIMITS, "accuracy")
_SIGNED = re.compile(r"\s*([+-]?)\s*(\S.*)")
_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(min|h|d|w)")
_AGE_S = {"min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and allowed regressions by level. A regression is a limit relative to the baseline in place of dense."""

    budget: Mapping[Level, Budget]
    regression: Mapping[Level, Budget]

    @classmethod
    def of(cls, budget: Budget) -> Policy:
        """The limits of a run: each an error."""
        return cls({"error": budget, "warn": Budget()}, {"error": Budget(), "warn": Budget()})

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Of every kind and level."""
        parts = [part[level] for part in (self.budget, self.regression) for level in LEVELS]
        return tuple(limit for part in parts for limit in part.limits)

    @property
    def is_of_dense(self) -> bool:
        """True where a limit is a share of the dense model's figure."""
        return any(limit.relative for level in LEVELS for limit in self.budget[level].limits)

    def only_warned(self, names: Iterable[str]) -> Policy:
        """What is said of these figures is a warning; "regression" stands for all regressions. Raises UsageError."""
        policy = self
        for name in names:
            budget = _warned(policy.budget, name)
            regression = _warned(policy.regression, "" if name == "regression" else name)
            if (budget, regression) == (policy.budget, policy.regression):
                known = {text for limit in policy.limits for text in (limit.metric, limit.figure)}
                hint = did_you_mean(name, sorted(known)) if known else None
                raise UsageError(f"--warn: nothing is limited under the name {name!r}", hint=hint)
            policy = Policy(budget, regression)
        return policy


def parse_regression(figure: str, text: object) -> Limit:
    """How much worse than the baseline a figure may be: "+5%", for accuracy "-0.5pp"; raises ConfigError with `key`."""
    if figure not in _FIGURES:
        raise ConfigError(f"unknown figure {figure!r}", key=figure, hint=did_you_mean(figure, _FIGURES))
    worse = "-" if figure == "accuracy" else "+"
    example = "-0.5pp" if figure == "accuracy" else "+5%"
    match = _SIGNED.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"{figure}: {text!r} is not a change", key=figure, hint=f"write it like {example}")
    if match[1] not in ("", worse):
        what = "a metric gets worse when it falls" if worse == "-" else "more is worse"
        raise ConfigError(f"{figure}: {text!r} asks for an improvement: {what}", key=figure, hint=f"like {example}")
    try:
        if figure == "accuracy":
            return Limit("accuracy.max_drop", str(text), drop=units.parse_drop(match[2]))
        growth = units.parse_share(match[2])
        if not 0 <= growth < float("inf"):
            raise UnitError(f"{text!r} is out of range")
    except UnitError as error:
        raise ConfigError(f"{figure}: {error.message}", key=figure, hint=f"write it like {example}") from error
    return Limit(figure, str(text), 1 + growth, relative=True)


def regression_option(text: str) -> Limit:
    """The limit that `--regression latency.p95=+5%` says; raises UsageError."""
    name, equals, change = text.partition("=")
    if not equals:
        raise UsageError(f"--regression: {text!r} names no figure", hint="write it like latency.p95=+5%")
    try:
        return parse_regression(name.strip(), change.strip())
    except ConfigError as error:
        raise UsageError(f"--regression: {error.message}", hint=error.hint) from error


def parse_age(text: str) -> float:
    """Seconds of "30d", "12h", "2w", "90min"; raises UnitError."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise UnitError(f"{text!r} is not an age", hint="write a number with min, h, d or w (weeks), like 90min or 30d")
    return float(match[1]) * _AGE_S[match[2]]


def _warned(budgets: Mapping[Level, Budget], name: str) -> Mapping[Level, Budget]:
    """The limits under that name moved to the warnings; "" names all of them."""
    moved = tuple(limit for limit in budgets["error"].limits if name in ("", limit.metric, limit.figure))
    if not moved:
        return budgets
    left = tuple(limit for limit in budgets["error"].limits if limit not in moved)
    return {"error": Budget(left), "warn": budgets["warn"].override(Budget(moved))}
