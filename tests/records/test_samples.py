"""Samples survive being packed bit for bit, in little space."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.records.samples import pack, unpack


@given(st.lists(st.integers(0, 2**50), max_size=300))
def test_whole_nanoseconds_come_back_bit_for_bit(ns: list[int]) -> None:
    values = tuple(value / 1e6 for value in ns)
    assert unpack(json.loads(json.dumps(pack(values)))) == values


def test_other_values_are_kept_as_they_are() -> None:
    values = (0.1234567890123, 1 / 3)
    assert pack(values) == list(values)
    assert unpack(list(values)) == values


def test_ten_thousand_samples_take_a_few_bytes_each() -> None:
    random = np.random.default_rng(0)
    values = [float(v) / 1e6 for v in np.rint(1e6 * random.lognormal(0, 0.01, 10_000))]
    packed = pack(values)
    assert isinstance(packed, str)
    assert len(packed) < 3.5 * len(values)
    assert len(packed) < len(json.dumps(values)) / 2.5


@pytest.mark.parametrize("text", ["x", "delta-zlib-ns:!!", "delta-zlib-ns:AAAA", "npz:AAAA"])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"samples|base64|padding|[Ii]nvalid|Only"):
        unpack(text)
