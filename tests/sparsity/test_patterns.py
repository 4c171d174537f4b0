"""Patterns: which weights go, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import UsageError
from edgeprune.sparsity.patterns import Blocks, NOfM, masks, parse


def weight(rows: list[list[float]]) -> dict[str, np.ndarray]:
    """One linear layer: (outputs, 1, inputs)."""
    return {"w": np.asarray(rows, np.float64)[:, None, :]}


def kept(scores: dict[str, np.ndarray], pattern: str, ratio: float = 0.0, scope: str = "layer") -> list[list[int]]:
    return masks(scores, parse(pattern), ratio, scope)["w"][:, 0, :].astype(int).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("unstructured", Blocks(1, 1)), ("2:4", NOfM(2, 4)), ("1:3", NOfM(1, 3)),
        ("block 1x4", Blocks(1, 4)), ("4x4", Blocks(4, 4)), ("Block 4×2", Blocks(4, 2)),
    ],
)  # fmt: skip
def test_parse(text: str, pattern: object) -> None:
    assert parse(text) == pattern


@pytest.mark.parametrize("text", ["4:4", "0:4", "5:4", "block", "1x0", "2.4", ""])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no pattern of sparsity"):
        parse(text)


def test_two_of_four_and_the_rest_stays_dense() -> None:
    scores = weight([[1, 4, 2, 3, 9, 8], [5, 5, 5, 5, 0, 0]])
    assert kept(scores, "2:4") == [[0, 1, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1]]


def test_two_of_four_runs_along_the_inputs_at_each_tap() -> None:
    scores = np.zeros((1, 2, 4))
    scores[0, 0], scores[0, 1] = [4, 3, 2, 1], [1, 2, 3, 4]
    found = masks({"w": scores}, NOfM(2, 4), 0, "layer")["w"].astype(int)
    assert found.tolist() == [[[1, 1, 0, 0], [0, 0, 1, 1]]]


def test_unstructured_by_layer_and_by_row() -> None:
    scores = weight([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert kept(scores, "unstructured", 0.5) == [[0, 0, 0, 0], [1, 1, 1, 1]]
    assert kept(scores, "unstructured", 0.5, "row") == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_global_leaves_no_layer_empty() -> None:
    scores = {"a": np.full((1, 1, 4), 0.1), "b": np.asarray([[[1.0, 2.0, 3.0, 4.0]]])}
    found = masks(scores, Blocks(), 0.5, "global")
    assert found["a"].astype(int).tolist() == [[[1, 0, 0, 0]]]
    assert found["b"].all()


def test_blocks_go_whole_and_are_smaller_at_the_edge() -> None:
    scores = weight([[1, 1, 9, 9, 5], [1, 1, 9, 9, 0]])
    # Means of the 1 x 2 blocks: 1, 9, 5 and 1, 9, 0. Half of the ten weights: 0 (one), 1 (two), 1 (two).
    assert kept(scores, "1x2", 0.5) == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 0]]
    assert kept(scores, "2x2", 0.4) == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_no_ratio_removes_nothing() -> None:
    assert kept(weight([[0, 0, 0]]), "unstructured", 0.0) == [[1, 1, 1]]
