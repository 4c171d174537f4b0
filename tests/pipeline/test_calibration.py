"""Files of examples: what they may hold, how they are cut into batches, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import UsageError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.pipeline.calibration import load_calibration


class Tokens(nn.Module):
    """Two inputs, of integers and of floats."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
        return self.table(ids).sum(1) * scale


@pytest.fixture(scope="module")
def linear() -> Captured:
    return capture(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(2, 3))


@pytest.fixture(scope="module")
def tokens() -> Captured:
    return capture(Tokens(), (torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 1)))


def numbers(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def test_one_array_is_cut_into_batches_in_order(linear: Captured, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", numbers(70, 3, dtype=np.float64))
    batches = load_calibration(tmp_path / "x.npy", linear)
    assert [len(x) for (x,) in batches] == [8] * 8 + [6]
    assert torch.cat([x for (x,) in batches]).equal(torch.arange(210.0).reshape(70, 3))
    np.savez(tmp_path / "x.npz", anything=numbers(1000, 3))
    assert {len(x) for (x,) in load_calibration(tmp_path / "x.npz", linear)} == {32, 1000 % 32}


def test_several_inputs_are_found_by_their_names(tokens: Captured, tmp_path: Path) -> None:
    ids = numbers(9, 5, dtype=np.int32) % 10
    np.savez(tmp_path / "x.npz", scale=numbers(9, 1), ids=ids, labels=np.zeros(9))
    batches = load_calibration(tmp_path / "x.npz", tokens)
    assert len(batches) == 9
    assert batches[3][0].tolist() == ids[3:4].tolist()
    assert batches[3][0].dtype == torch.int64
    assert batches[3][1].tolist() == [[3.0]]


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(4, 3).sum(0)

    fixed = capture(Fixed(), torch.zeros(4, 3))
    assert not fixed.batch_dynamic
    np.save(tmp_path / "x.npy", numbers(10, 3))
    batches = load_calibration(tmp_path / "x.npy", fixed)
    assert [x[:, 0].tolist() for (x,) in batches] == [[0, 3, 6, 9], [12, 15, 18, 21]]
    np.save(tmp_path / "x.npy", numbers(3, 3))
    with pytest.raises(UsageError, match="3 examples, and the network takes 4 at a time"):
        load_calibration(tmp_path / "x.npy", fixed)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (numbers(5, 4), r"shape \[5, 4\]"),
        (numbers(5), r"shape \[5\]"),
        (numbers(5, 3, dtype=np.uint8), "of type uint8"),
        (numbers(5, 3, dtype=np.complex64), "of type complex64"),
        (np.full((5, 3), "a"), "of type <U1"),
        (np.full((5, 3), np.nan, np.float32), "not finite"),
        (np.full((5, 3), 1e300), "not finite"),
        (numbers(0, 3), "0 examples"),
        (np.full((5, 3), None), "not a readable file of arrays: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(array: Any, says: str, linear: Captured, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UsageError, match=says) as refused:
        load_calibration(tmp_path / "x.npy", linear)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"ids": numbers(5, 5, dtype=np.int64) % 10}, "no array for the input scale; the file has arrays ids"),
        ({"ids": numbers(5, 5, dtype=np.int64) % 10, "scale": numbers(4, 1)}, "ids 5, scale 4"),
        ({"ids": numbers(5, 5, dtype=np.int64) + 9, "scale": numbers(5, 1)}, "cannot be computed on batch 0"),
        ({"ids": numbers(5, 5, dtype=np.float32), "scale": numbers(5, 1)}, "ids is of type float32"),
        ({"ids": np.full((5, 5), 2**64 - 1, np.uint64), "scale": numbers(5, 1)}, "ids do not fit into torch.int64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(arrays: Any, says: str, tokens: Captured, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UsageError, match=says) as refused:
        load_calibration(tmp_path / "x.npz", tokens)
    assert refused.value.hint


def test_what_is_no_file_of_arrays_is_refused(linear: Captured, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.csv: calibration data is an \.npz or \.npy file"):
        load_calibration(tmp_path / "x.csv", linear)
    with pytest.raises(UsageError, match="there is no file"):
        load_calibration(tmp_path / "x.npz", linear)
    for name in ("x.npz", "x.npy"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 junk")
        with pytest.raises(UsageError, match="not a readable file of arrays"):
            load_calibration(tmp_path / name, linear)
