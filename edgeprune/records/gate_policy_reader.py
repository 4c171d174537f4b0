"""Reads the budget file of a gate.

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

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgeprune.errors import ConfigError, did_you_mean
from edgeprune.records.budget import Budget, Limit
from edgeprune.records.budget_field import BudgetLimits
from edgeprune.records.gate_policy import LEVELS, Level, Policy, parse_regression
from edgeprune.records.yaml_reader import Entry, read_document

__all__ = ["read_policy"]


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
