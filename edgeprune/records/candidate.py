"""A candidate: what to keep of a model. Plain data; the same candidate always has the same id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SCHEMA", "Candidate"]

SCHEMA = "edgeprune.candidate/1"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Per channel group the kept units (ascending indices), the dropped blocks, per weight a sparsity pattern.

    A group that is not named keeps all its units: `Candidate()` is the dense model.
    """

    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dropped_blocks: tuple[str, ...] = ()
    sparsity: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON form."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_dense(self) -> bool:
        return not (self.kept or self.dropped_blocks or self.sparsity)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kept": {name: list(units) for name, units in sorted(self.kept.items())},
            "dropped_blocks": sorted(self.dropped_blocks),
            "sparsity": dict(sorted(self.sparsity.items())),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        return cls(
            kept={name: tuple(units) for name, units in data.get("kept", {}).items()},
            dropped_blocks=tuple(data.get("dropped_blocks", ())),
            sparsity=dict(data.get("sparsity", {})),
        )
