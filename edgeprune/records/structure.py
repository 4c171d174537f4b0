"""The layers of a network as a run sees them: their widths, which groups narrow them, what is frozen and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.errors import StorageError
from edgeprune.records.candidate import Candidate

__all__ = ["SCHEMA", "Block", "Frozen", "Layer", "Part", "Structure"]

SCHEMA = "edgeprune.structure/1"


@dataclass(frozen=True, slots=True)
class Part:
    """The outputs of a layer that belong to one group: `channels` for each of its units."""

    group: str
    units: int
    channels: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights, and how many outputs (channels, features) it has. Outputs in no part are never removed."""

    name: str
    width: int
    parts: tuple[Part, ...] = ()
    frozen: str = ""  # why none of its outputs can go

    def kept(self, candidate: Candidate) -> int:
        """The outputs that a candidate leaves; a block that is dropped goes beside that."""
        gone = (
            (part.units - len(candidate.kept[part.group])) * part.channels
            for part in self.parts
            if part.group in candidate.kept
        )
        return self.width - sum(gone)


@dataclass(frozen=True, slots=True)
class Frozen:
    """A group that cannot be narrowed, with the reason and the parameters in it."""

    name: str
    units: int
    reason: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block that can be dropped, the names of its layers, and its share of the multiply-accumulates."""

    name: str
    params: int
    macs_share: float
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Structure:
    """Layers in graph order. `ignored` are the groups that the project leaves out of the search."""

    layers: tuple[Layer, ...]
    frozen: tuple[Frozen, ...] = ()
    blocks: tuple[Block, ...] = ()
    ignored: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data with a schema version."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Structure:
        """What `to_json` wrote; raises StorageError."""
        if data.get("schema") != SCHEMA:
            raise StorageError(
                f"unknown schema {data.get('schema')!r}", hint="written by another version of edgeprune?"
            )
        try:
            return cls(
                layers=tuple(
                    Layer(**{**layer, "parts": tuple(Part(**p) for p in layer["parts"])}) for layer in data["layers"]
                ),
                frozen=tuple(Frozen(**{**entry, "parameters": tuple(entry["parameters"])}) for entry in data["frozen"]),
                blocks=tuple(Block(**{**entry, "layers": tuple(entry["layers"])}) for entry in data["blocks"]),
                ignored=tuple(data["ignored"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"a damaged record of {SCHEMA}: {type(error).__name__}: {error}") from error
