"""Layers on disk and back, and what a candidate leaves of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeprune.errors import StorageError
from edgeprune.records.candidate import Candidate
from edgeprune.records.structure import Block, Frozen, Layer, Part, Structure

QKV = Layer("attention.qkv", 192, (Part("heads", 4, 32), Part("inner", 16, 4)))
KNOWN = Structure(
    (QKV, Layer("head", 10, (), "is the model's output")),
    (Frozen("head", 10, "is the model's output", ("head.weight", "head.bias")),),
    (Block("layers.1", 5000, 0.25, ("layers.1.conv",)),),
    ("stem",),
)


def test_a_structure_comes_back_as_it_was() -> None:
    assert Structure.from_json(json.loads(json.dumps(KNOWN.to_json()))) == KNOWN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edgeprune.structure/9"}, "unknown schema 'edgeprune.structure/9'"),
        ({"layers": [{"name": "conv"}]}, "a damaged record of edgeprune.structure/1: KeyError"),
        ({"frozen": None}, "a damaged record of edgeprune.structure/1: TypeError"),
    ],
)
def test_what_is_no_structure_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StorageError, match=message):
        Structure.from_json({**KNOWN.to_json(), **change})


def test_a_layer_loses_the_channels_of_every_group_in_it() -> None:
    assert QKV.kept(Candidate()) == 192
    assert QKV.kept(Candidate({"heads": (0, 2), "elsewhere": ()})) == 192 - 2 * 32
    assert QKV.kept(Candidate({"heads": (0,), "inner": tuple(range(10))})) == 192 - 3 * 32 - 6 * 4
