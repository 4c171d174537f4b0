"""The kinds of value that a configuration file has: each reads an entry, and says its rule as JSON Schema.

One declaration of a table thus gives the reader and the published schema, which cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from edgeprune import registry, units
from edgeprune.errors import UnitError, did_you_mean
from edgeprune.records.yaml_reader import Entry

__all__ = [
    "NUMBER_PATTERN",
    "Boolean",
    "Choice",
    "Count",
    "Field",
    "Kind",
    "ListOf",
    "MapOf",
    "Number",
    "Quantity",
    "Registered",
    "Share",
    "Table",
    "Text",
    "or_null",
]

Schema = dict[str, Any]

NUMBER_PATTERN = r"\s*\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


class Kind(Protocol):
    """How one value is read and described."""

    def read(self, entry: Entry) -> Any:
        """The value; raises ConfigError with its place."""

    def schema(self) -> Schema:
        """The JSON Schema (2020-12) of the value."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text that is not empty, and fits `pattern` where there is one."""

    example: str = ""
    pattern: str = ""

    def read(self, entry: Entry) -> str:
        """The text."""
        if not isinstance(entry.content, str):
            quoted = f'write it in quotes: "{entry.written}"' if entry.written else self._hint()
            raise entry.error(f"expected text, not {entry.description}", hint=quoted)
        if not entry.content.strip():
            raise entry.error("the text is empty", hint=self._hint())
        if self.pattern and not re.fullmatch(self.pattern, entry.content):
            raise entry.error(f"{entry.content!r} does not fit", hint=self._hint())
        return entry.content

    def schema(self) -> Schema:
        """A string."""
        return {"type": "string", "pattern": f"^{self.pattern}$" if self.pattern else r"\S"}

    def _hint(self) -> str | None:
        return f"write it like {self.example}" if self.example else None


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false."""

    def read(self, entry: Entry) -> bool:
        """The truth value."""
        if not isinstance(entry.content, bool):
            raise entry.error(f"expected true or false, not {entry.description}")
        return entry.content

    def schema(self) -> Schema:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number, at least `minimum`."""

    minimum: int = 1

    def read(self, entry: Entry) -> int:
        """The number."""
        if isinstance(entry.content, bool) or not isinstance(entry.content, int):
            raise entry.error(f"expected a whole number, not {entry.description}")
        if entry.content < self.minimum:
            raise entry.error(f"{entry.content} is too small", hint=f"at least {self.minimum}")
        return entry.content

    def schema(self) -> Schema:
        """An integer."""
        return {"type": "integer", "minimum": self.minimum}


@dataclass(frozen=True, slots=True)
class Number:
    """A number without a unit, between `low` and `high`; `low` itself is allowed unless `above`."""

    low: float = 0.0
    high: float | None = None
    above: bool = False

    def read(self, entry: Entry) -> float:
        """The number."""
        if isinstance(entry.content, bool) or not isinstance(entry.content, (int, float)):
            raise entry.error(f"expected a number, not {entry.description}", hint=self._range())
        value = float(entry.content)
        too_low = value <= self.low if self.above else value < self.low
        if too_low or value == float("inf") or (self.high is not None and value > self.high):
            raise entry.error(f"{entry.written} is out of range", hint=self._range())
        return value

    def schema(self) -> Schema:
        """A number with its bounds."""
        bounds: Schema = {"exclusiveMinimum" if self.above else "minimum": self.low}
        return {"type": "number", **bounds, **({} if self.high is None else {"maximum": self.high})}

    def _range(self) -> str:
        start = f"{'more than' if self.above else 'at least'} {self.low:g}"
        return start if self.high is None else f"{start} and at most {self.high:g}"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with a unit: durations become seconds, sizes bytes, frequencies MHz."""

    kind: Literal["duration", "size", "frequency"]
    minimum: str = ""

    def read(self, entry: Entry) -> float:
        """The value in the unit that records carry."""
        try:
            value = self._parse(entry.content)
        except UnitError as error:
            raise entry.error(error.message, hint=error.hint) from error
        if self.minimum and value < self._parse(self.minimum):
            raise entry.error(f"{entry.written} is too small", hint=f"at least {self.minimum}")
        return value

    def schema(self) -> Schema:
        """A string with one of the units; `minimum` is left to the reader."""
        names = "|".join(units.unit_names(self.kind))
        return {"type": "string", "pattern": rf"^{NUMBER_PATTERN}\s*({names})\s*$"}

    def _parse(self, content: Any) -> float:
        if self.kind == "duration":
            return units.parse_duration(content) / 1000
        return units.parse_size(content) if self.kind == "size" else units.parse_frequency(content)


@dataclass(frozen=True, slots=True)
class Share:
    """A percentage, more than 0 % and at most 100 %, as a fraction."""

    def read(self, entry: Entry) -> float:
        """The fraction."""
        try:
            share = units.parse_share(entry.content)  # type: ignore[arg-type]  # refuses what is no text
        except UnitError as error:
            raise entry.error(error.message, hint=error.hint) from error
        if not 0 < share <= 1:
            raise entry.error(f"{entry.written} is out of range", hint="more than 0% and at most 100%")
        return share

    def schema(self) -> Schema:
        """A string in percent; the range is left to the reader."""
        return {"type": "string", "pattern": rf"^{NUMBER_PATTERN}\s*%\s*$"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few names or numbers."""

    values: tuple[str | int, ...]

    def read(self, entry: Entry) -> Any:
        """The choice."""
        if isinstance(entry.content, bool) or entry.content not in self.values:
            hint = did_you_mean(entry.written, [str(value) for value in self.values])
            raise entry.error(f"{entry.description} is not among the choices", hint=hint)
        return entry.content

    def schema(self) -> Schema:
        """An enumeration."""
        return {"enum": list(self.values)}


@dataclass(frozen=True, slots=True)
class Registered:
    """A name of an extension point of edgeprune.registry; nothing is imported."""

    point: str

    def read(self, entry: Entry) -> str:
        """The name."""
        names = registry.names(self.point)
        if entry.content not in names:
            hint = did_you_mean(entry.written, names)
            raise entry.error(f"{entry.description} is not among the {self.point}", hint=hint)
        return str(entry.content)

    def schema(self) -> Schema:
        """An enumeration of the names that are installed now."""
        return {"enum": list(registry.names(self.point))}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one kind."""

    item: Kind

    def read(self, entry: Entry) -> tuple[Any, ...]:
        """The items."""
        if not isinstance(entry.content, tuple):
            raise entry.error(f"expected a list, not {entry.description}")
        return tuple(self.item.read(child) for child in entry.content)

    def schema(self) -> Schema:
        """An array."""
        return {"type": "array", "items": self.item.schema()}


@dataclass(frozen=True, slots=True)
class MapOf:
    """Free keys with values of one kind."""

    value: Kind

    def read(self, entry: Entry) -> dict[str, Any]:
        """The values by key."""
        return {key: self.value.read(child) for key, child in entry.table().items()}

    def schema(self) -> Schema:
        """An object with any keys."""
        return {"type": "object", "additionalProperties": or_null(self.value.schema())}


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table: the kind of its value, and the name that the builder takes it by (default: the key)."""

    kind: Kind
    attribute: str = ""
    required: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Fixed keys; `build` is called with the values of those that are there."""

    build: Callable[..., Any]
    fields: Mapping[str, Field]

    def read(self, entry: Entry) -> Any:
        """What `build` makes of the values; unknown and missing keys are refused."""
        entries = entry.table()
        for key, child in entries.items():
            if key not in self.fields:
                raise child.key_error("unknown key", hint=did_you_mean(key, list(self.fields)))
        for key, field in self.fields.items():
            if field.required and key not in entries:
                raise entry.error(f"the key {key!r} is missing", hint=field.description or None)
        return self.build(
            **{self.fields[key].attribute or key: self.fields[key].kind.read(child) for key, child in entries.items()}
        )

    def schema(self) -> Schema:
        """An object without other keys; a key that is not required may be null (it removes an inherited value)."""
        properties: Schema = {}
        for key, field in self.fields.items():
            rule = field.kind.schema()
            if not field.required:
                rule = or_null(rule)
            properties[key] = {**rule, "description": field.description} if field.description else rule
        required = [key for key, field in self.fields.items() if field.required]
        return {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **({"required": required} if required else {}),
        }


def or_null(rule: Schema) -> Schema:
    """The rule, or null, which removes an inherited value."""
    return {"anyOf": [rule, {"type": "null"}]}
