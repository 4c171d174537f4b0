"""What a run's report says of its network: `structure.json` in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune import atomic
from edgeprune.records.structure import Block, Frozen, Layer, Part, Structure

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured

__all__ = ["STRUCTURE", "structure_of", "write_structure"]

STRUCTURE = "structure.json"


def write_structure(run_dir: Path, captured: Captured, searched: Collection[str]) -> None:
    """Write the file; `searched` are the groups that the search may narrow. Raises StorageError."""
    record = structure_of(captured, searched)
    atomic.write_text(run_dir / STRUCTURE, json.dumps(record.to_json(), allow_nan=False) + "\n")


def structure_of(captured: Captured, searched: Collection[str]) -> Structure:
    """The layers in graph order: parameters that some group produces its units with."""
    parts: dict[tuple[str, int], list[Part]] = {}
    reasons: dict[tuple[str, int], str] = {}
    for group in captured.groups:
        for member in group.members:
            if member.role == "producer":
                part = Part(group.name, group.units, member.indices.shape[1])
                parts.setdefault((member.parameter, member.dim), []).append(part)
    for group in captured.frozen:
        for member in group.members:
            if member.role == "producer":
                reasons.setdefault((member.parameter, member.dim), group.frozen or "")
    layers = []
    for name, parameter in captured.module.named_parameters():
        for dim, width in enumerate(parameter.shape if parameter.dim() > 1 else ()):
            place = (name, dim)
            if place in parts or place in reasons:
                known = tuple(parts.get(place, ()))
                layers.append(Layer(_layer(name), width, known, "" if known else reasons[place]))
    return Structure(
        layers=tuple(layers),
        frozen=tuple(
            Frozen(
                group.name, group.units, group.frozen or "", tuple(dict.fromkeys(m.parameter for m in group.members))
            )
            for group in captured.frozen
        ),
        blocks=tuple(
            Block(block.name, block.params, block.macs_share, tuple(dict.fromkeys(map(_layer, block.parameters))))
            for block in captured.blocks
        ),
        ignored=tuple(group.name for group in captured.groups if group.name not in searched),
    )


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter
