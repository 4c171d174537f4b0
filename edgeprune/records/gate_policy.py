"""What a gate holds a model against: limits, and how much worse than a baseline it may be, each an error or a warning.

What its user writes, in a file of its own:

    budget:
      latency: {p95: 30ms}
      size: {warn: 3MB, error: 4MB}     # a warning is told, and fails nothing
      accuracy: {max_drop: 1.0pp}
    regression:                          # against the baseline's figure
      latency.p95: +5%
      size: {warn: +2%}
      accuracy: -0.5pp
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgeprune import units
from edgeprune.errors import ConfigError, UnitError, UsageError, did_you_mean
from edgeprune.records.budget import LATENCY_FIGURES, SCALAR_LIMITS, Budget, Limit
from edgeprune.records.budget_field import BudgetLimits
from edgeprune.records.yaml_reader import Entry, read_document

__all__ = ["LEVELS", "Level", "Policy", "parse_age", "parse_regression", "read_policy", "regression_option"]

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


def read_policy(path: Path) -> Policy:
    """The limits of a budget file; raises ConfigError with its place."""
    entries = read_document(path).table()
    for key, entry in entries.items():
        if key not in ("budget", "regression"):
            raise entry.key_error("unknown key", hint=did_you_mean(key, ("budget", "regression")))
    budget: dict[Level, Budget] = {}
    regression: dict[Level, Budget] = {}
    for level in LEVELS:
        found = {key: part for key, entry in entries.items() if (part := _of_level(entry, level)) is not None}
        budget[level] = BudgetLimits().read(found["budget"]) if "budget" in found else Budget()
        regression[level] = Budget(tuple(_regressions(found["regression"]))) if "regression" in found else Budget()
    return Policy(budget, regression)


def _of_level(entry: Entry, level: Level) -> Entry | None:
    """What of an entry belongs to the level: {warn: .., error: ..} is split up, all else is an error."""
    if not isinstance(entry.content, dict):
        return entry if level == "error" else None
    if any(key in LEVELS for key in entry.content):
        for key, child in entry.content.items():
            if key not in LEVELS:
                raise child.key_error("unknown level", hint=did_you_mean(key, LEVELS))
        return entry.content.get(level)
    if not entry.content:
        return entry if level == "error" else None
    parts = {key: part for key, child in entry.content.items() if (part := _of_level(child, level)) is not None}
    return replace(entry, content=parts) if parts else None


def _regressions(entry: Entry, prefix: str = "") -> Iterable[Limit]:
    for key, child in entry.table().items():
        figure = f"{prefix}.{key}" if prefix else key
        if isinstance(child.content, dict):
            yield from _regressions(child, figure)
            continue
        try:
            yield parse_regression(figure, child.content)
        except ConfigError as error:
            unknown = "unknown figure" in error.message
            text = error.message.removeprefix(f"{figure}: ")
            raise (child.key_error if unknown else child.error)(text, hint=error.hint) from error


def _warned(budgets: Mapping[Level, Budget], name: str) -> Mapping[Level, Budget]:
    """The limits under that name moved to the warnings; "" names all of them."""
    moved = tuple(limit for limit in budgets["error"].limits if name in ("", limit.metric, limit.figure))
    if not moved:
        return budgets
    left = tuple(limit for limit in budgets["error"].limits if limit not in moved)
    return {"error": Budget(left), "warn": budgets["warn"].override(Budget(moved))}
