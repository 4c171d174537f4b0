"""A budget as a value of a configuration file: Budget.parse with the place of what it refuses, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune import units
from edgeprune.errors import ConfigError
from edgeprune.records.budget import LATENCY_FIGURES, SCALAR_LIMITS, Budget
from edgeprune.records.fields import NUMBER_PATTERN, Schema, or_null
from edgeprune.records.yaml_reader import Entry

__all__ = ["BudgetLimits"]


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """A budget, as Budget.parse reads it."""

    def read(self, entry: Entry) -> Budget:
        """The budget."""
        entries = entry.table()
        try:
            return Budget.parse(entry.plain())
        except ConfigError as error:
            first, _, second = (error.key or "").partition(".")
            place = entries.get(first, entry)
            if second and isinstance(place.content, dict):
                place = place.content.get(second, place)
            is_name = "unknown" in error.message
            line, column = (place.key_line, place.key_column) if is_name else (place.line, place.column)
            key = f"{entry.key}.{error.key}" if entry.key and error.key else error.key or entry.key
            message = f"{entry.key}: {error.message}" if entry.key else error.message
            raise ConfigError(message, path=entry.path, line=line, column=column, key=key, hint=error.hint) from error

    def schema(self) -> Schema:
        """An object with the limits; absolute ones with a unit, relative ones in percent of dense."""
        properties: Schema = {
            "latency": _limits(dict.fromkeys(LATENCY_FIGURES, _limit_schema("duration"))),
            **{key: or_null(_limit_schema(kind)) for key, kind in SCALAR_LIMITS.items()},
            "accuracy": _limits(
                {
                    "max_drop": {"type": "string", "pattern": rf"^{NUMBER_PATTERN}\s*(pp|%)\s*$"},
                    "min": {"type": "string", "pattern": rf"^{NUMBER_PATTERN}\s*%\s*$"},
                }
            ),
        }
        return {"type": "object", "properties": properties, "additionalProperties": False}


def _limits(properties: Mapping[str, Schema]) -> Schema:
    return or_null(
        {
            "type": "object",
            "properties": {key: or_null(rule) for key, rule in properties.items()},
            "additionalProperties": False,
            "minProperties": 1,
        }
    )


def _limit_schema(kind: units.Kind) -> Schema:
    names = "|".join(units.unit_names(kind))
    return {"type": "string", "pattern": rf"^{NUMBER_PATTERN}\s*({names}|%\s+of\s+dense)\s*$"}
