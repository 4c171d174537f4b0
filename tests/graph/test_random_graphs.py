"""Random networks, pruned at random, compute what an independent reference says."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graph.random_checks import check
from tests.graph.random_programs import generate


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_pruned_random_networks_equal_the_reference(tmp_path_factory, data) -> None:
    program = generate(lambda options: data.draw(st.sampled_from(list(options))), steps=data.draw(st.integers(1, 7)))
    seed = data.draw(st.integers(0, 9))
    check(program, seed, tmp_path_factory.mktemp("saved") if seed == 0 else None, candidates=2)
