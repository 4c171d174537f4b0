"""A candidate is plain data with an id of its own."""

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.records.candidate import Candidate


def test_the_candidate_that_names_nothing_is_the_dense_model() -> None:
    assert Candidate().is_dense
    for pruned in (Candidate({"conv": (0,)}), Candidate(dropped_blocks=("b",)), Candidate(sparsity={"w": "2:4"})):
        assert not pruned.is_dense


def test_the_id_does_not_depend_on_order_and_tells_candidates_apart() -> None:
    one = Candidate({"a": (0, 1), "b": (2,)}, dropped_blocks=("x", "y"))
    other = Candidate({"b": (2,), "a": (0, 1)}, dropped_blocks=("y", "x"))
    assert one.id == other.id
    assert len(one.id) == 16
    assert one.id != Candidate({"a": (0, 2), "b": (2,)}, dropped_blocks=("x", "y")).id
    assert one.id != Candidate({"a": (0, 1), "b": (2,)}).id


names = st.text(min_size=1, max_size=8)


@given(
    kept=st.dictionaries(names, st.lists(st.integers(0, 99), unique=True).map(sorted).map(tuple), max_size=4),
    blocks=st.lists(names, unique=True, max_size=3).map(sorted).map(tuple),
    sparsity=st.dictionaries(names, st.sampled_from(["2:4", "1x4"]), max_size=3),
)
def test_a_candidate_survives_its_json_form(
    kept: dict[str, tuple[int, ...]], blocks: tuple[str, ...], sparsity: dict[str, str]
) -> None:
    candidate = Candidate(kept, blocks, sparsity)
    assert Candidate.from_json(candidate.to_json()) == candidate
    assert Candidate.from_json(candidate.to_json()).id == candidate.id
