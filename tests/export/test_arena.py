from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.export.arena import planned_bytes

# Of a .tflite file of the exporter, for which TFLite Micro itself reports a head of its arena of 3488 bytes.
TWO_INPUTS = [
    *[(432, 0, 1), (8, 0, 6), (1152, 1, 2), (1152, 2, 11), (1152, 3, 4), (20, 4, 5), (20, 5, 12), (8, 6, 7)],
    *[(64, 7, 8), (64, 8, 9), (32, 9, 10), (32, 10, 11), (1152, 11, 12), (1152, 12, 12)],
]


def test_tensors_take_turns_as_in_tflite_micro() -> None:
    assert planned_bytes(TWO_INPUTS) == 3488


def test_a_chain_needs_two_at_a_time() -> None:
    assert planned_bytes([(100, 0, 1), (200, 1, 2), (50, 2, 3), (200, 3, 4)]) == 112 + 208


def test_what_lives_all_along_is_never_shared() -> None:
    assert planned_bytes([(16, 0, 9), (32, 0, 9), (48, 4, 4)]) == 96


def test_nothing_needs_nothing() -> None:
    assert planned_bytes([]) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 8), st.integers(0, 8))))
def test_at_least_what_lives_at_once_and_at_most_everything(drawn: list[tuple[int, int, int]]) -> None:
    lifetimes = [(size, min(a, b), max(a, b)) for size, a, b in drawn]
    aligned = [-(-size // 16) * 16 for size, _, _ in lifetimes]
    at_once = max(
        (sum(size for size, (_, a, b) in zip(aligned, lifetimes, strict=True) if a <= step <= b) for step in range(9)),
        default=0,
    )
    assert at_once <= planned_bytes(lifetimes) <= sum(aligned)
