"""The solver against brute force."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from edgeprune.search.base import BlockSpace, GroupSpace, SearchSpace
from edgeprune.search.costs import CostModel, MetricModel, Sum, Term
from edgeprune.search.options import Options
from edgeprune.search.problem import Choice, Infeasible, Problem, Solution
from edgeprune.search.solve import solve
from tests.search.problems import best, choices, small_space, value

DENSE = Choice({f"g{i}": 32 for i in range(4)})


def problem(seed: int, share: float, minimise: str = "loss", blocks: int = 1) -> Problem:
    space = small_space(np.random.default_rng(seed), blocks=blocks)
    assert space.costs is not None
    dense = space.costs.predict(space.candidate({}))
    return Problem(space, space.costs.metrics, {f: share * v for f, v in dense.items()}, minimise)


@pytest.mark.parametrize("minimise", ["loss", "latency.p50", "peak_memory", "relaxation"])
@pytest.mark.parametrize("seed", range(4))
def test_finds_what_brute_force_finds(seed: int, minimise: str) -> None:
    # "relaxation" is asked under limits that cannot be met, the others under limits that can.
    posed = problem(seed, 0.02 if minimise == "relaxation" else 0.5, minimise, blocks=seed % 3)
    found = solve(posed, gap=0.0)
    assert isinstance(found, Solution)
    assert found.value == pytest.approx(best(posed), rel=1e-6)
    assert found.gap <= 1e-6
    if minimise != "relaxation":
        assert all(value(posed, figure, found.choice) <= limit * (1 + 1e-6) for figure, limit in posed.limits.items())


def test_a_limit_on_the_loss_is_held() -> None:
    posed = problem(1, 0.9, "latency.p50")
    posed = Problem(posed.space, posed.metrics, {"loss": 0.3}, "latency.p50")
    found = solve(posed, gap=0.0)
    assert isinstance(found, Solution)
    assert found.value == pytest.approx(best(posed), rel=1e-6)
    assert value(posed, "loss", found.choice) <= 0.3 + 1e-6


def test_what_cannot_be_is_proved_so() -> None:
    posed = problem(0, 0.02)
    assert best(posed) is None
    assert solve(posed) == Infeasible(proved=True)


def test_caps_hold_where_limits_are_relaxed() -> None:
    posed = problem(0, 0.02, "relaxation", blocks=0)
    relaxed = solve(posed, gap=0.0)
    assert isinstance(relaxed, Solution)
    # Size is capped well above the smallest; it must hold while latency alone is relaxed.
    cap = 1.5 * min(value(posed, "size", choice) for choice in choices(posed.space))
    latency = {"latency.p50": posed.limits["latency.p50"]}
    capped = solve(Problem(posed.space, posed.metrics, latency, "relaxation", {"size": cap}), gap=0.0)
    assert isinstance(capped, Solution)
    assert value(posed, "size", capped.choice) <= cap * (1 + 1e-6)
    least = min(value(posed, "latency.p50", choice) for choice in choices(posed.space))
    assert capped.value == pytest.approx(least / latency["latency.p50"] - 1)


def test_excluded_solutions_are_as_far_away_as_was_asked() -> None:
    posed = problem(2, 0.5, blocks=0)
    first = solve(posed)
    assert isinstance(first, Solution)
    apart = solve(Problem(posed.space, posed.metrics, posed.limits, excluded=(first.choice,), distance=3))
    assert isinstance(apart, Solution)
    assert sum(apart.choice.widths[g] != w for g, w in first.choice.widths.items()) >= 3
    assert apart.value >= first.value - 1e-9
    near = solve(Problem(posed.space, posed.metrics, posed.limits, excluded=(first.choice,)), gap=0.0)
    assert isinstance(near, Solution)
    assert near.choice != first.choice
    assert near.value <= apart.value + 1e-9


def test_a_block_that_was_dropped_counts_as_a_difference() -> None:
    posed = problem(1, 0.5)
    first = solve(posed)
    assert isinstance(first, Solution)
    other = solve(Problem(posed.space, posed.metrics, posed.limits, excluded=(first.choice,)))
    assert isinstance(other, Solution)
    assert other.choice != first.choice


def test_too_large_means_narrower_somewhere() -> None:
    posed = problem(2, 1.0, blocks=0)
    assert solve(posed) == Solution(DENSE, 0.0, 0.0)
    large = Choice({"g0": 32, "g1": 24, "g2": 32, "g3": 16})
    found = solve(Problem(posed.space, posed.metrics, posed.limits, too_large=(large,)))
    assert isinstance(found, Solution)
    assert any(found.choice.widths[g] < w for g, w in large.widths.items())


def test_options_that_another_one_beats_are_left_out() -> None:
    widths = (8, 16, 24, 32)
    group = GroupSpace("g", 32, tuple(range(32)), widths, (0.4, 0.2, 0.1, 0.0))
    stairs = Term("op", "conv", ("g",), (widths,), np.asarray([1.0, 1.0, 2.0, 2.0]))
    space = SearchSpace((group,), lambda _: {})
    posed = Problem(space, {"latency.p50": MetricModel("latency.p50", (stairs,))}, {"latency.p50": 1.5})
    assert Options.of(posed).widths("g") == (16, 32)
    found = solve(posed)
    assert isinstance(found, Solution)
    assert found.choice == Choice({"g": 16})


def test_a_term_gated_by_two_blocks_is_gone_with_either() -> None:
    widths = (8, 16)
    group = GroupSpace("g", 16, tuple(range(16)), widths, (0.3, 0.0))
    blocks = (BlockSpace("a", 0.2), BlockSpace("b", 0.1))
    both = Term("op", "conv", ("g", "g"), (widths, widths), np.asarray([[1.0, 9.0], [9.0, 4.0]]), ("a", "b"))
    space = SearchSpace((group,), lambda _: {}, blocks)
    metrics = {"size": MetricModel("size", (both,), offset=1.0)}
    posed = Problem(space, metrics, {"size": 1.5})
    found = solve(posed)
    assert isinstance(found, Solution)
    assert found.choice == Choice({"g": 16}, frozenset({"b"}))
    assert found.value == pytest.approx(0.1)


def test_a_group_of_a_dropped_block_that_costs_outside_of_it_stays_dense() -> None:
    # As CostModel.predict has it: a candidate does not name the groups of its dropped blocks.
    widths = (8, 16)
    group = GroupSpace("g", 16, tuple(range(16)), widths, (0.5, 0.0))
    inside = Term("in", "conv", ("g",), (widths,), np.asarray([5.0, 10.0]), ("a",))
    outside = Term("out", "conv", ("g",), (widths,), np.asarray([1.0, 2.0]))
    space = SearchSpace((group,), lambda _: {}, (BlockSpace("a", 0.1, ("g",)),), None)
    metrics = {"size": MetricModel("size", (inside, outside))}
    found = solve(Problem(space, metrics, {}, "size"))
    assert isinstance(found, Solution)
    assert found.choice.dropped == {"a"}
    assert found.value == pytest.approx(2.0)
    assert CostModel(metrics).predict(space.candidate(found.choice.widths, found.choice.dropped))["size"] == 2.0


@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_cost_over_a_sum_of_groups_is_exact(seed: int, blocks: int) -> None:
    random = np.random.default_rng(seed)
    space = small_space(random, blocks=blocks)
    assert space.costs is not None
    widths = {group.name: group.widths for group in space.groups}
    two = Sum("g0+2g1+3", (("g0", 1, widths["g0"]), ("g1", 2, widths["g1"])), 3)
    three = Sum("g1+g2+g3", tuple((f"g{i}", 1, widths[f"g{i}"]) for i in (1, 2, 3)))
    latency = space.costs.metrics["latency.p50"]
    stairs = (  # no sum of tables per group could say this
        Term("stairs", "sum", ("g0+2g1+3",), (two.widths,), random.permutation(len(two.widths)).astype(np.float64)),
        Term("product", "sum", ("g1+g2+g3", "g0"), (three.widths, widths["g0"]),
             random.random((len(three.widths), len(widths["g0"]))) * 2),
    )  # fmt: skip
    metric = replace(latency, terms=(*latency.terms, *stairs), sums=(two, three))
    metrics = {**space.costs.metrics, "latency.p50": metric}
    space = replace(space, costs=CostModel(metrics))
    limit = 0.5 * metric.predict(space.candidate({}))
    for posed in (
        Problem(space, metrics, {"latency.p50": limit}, "loss"),
        Problem(space, metrics, {}, "latency.p50"),
    ):
        found = solve(posed, gap=0.0)
        wanted = best(posed)
        assert isinstance(found, Solution) == (wanted is not None)
        if isinstance(found, Solution):
            assert found.value == pytest.approx(wanted, rel=1e-6)
            assert value(posed, "latency.p50", found.choice) <= posed.limits.get("latency.p50", np.inf) * (1 + 1e-6)


def test_what_a_sum_can_be() -> None:
    total = Sum("s", (("a", 1, (8, 16)), ("b", 2, (4, 8))), 10)
    assert total.widths == (26, 34, 42)
    assert total.at({"a": 8}) == 34
    assert total.at({}) == total.widths[-1]


@pytest.mark.parametrize("minimise", ["loss", "relaxation"])
def test_a_large_problem_is_solved_near_its_relaxation(monkeypatch: pytest.MonkeyPatch, minimise: str) -> None:
    # Every problem counts as large here: what is found is within its gap of the optimum, and the gap is told.
    monkeypatch.setattr("edgeprune.search.solve._LARGE", 0)
    for seed in range(4):
        posed = problem(seed, 0.02 if minimise == "relaxation" else 0.5, minimise, blocks=seed % 3)
        found = solve(posed, gap=0.0)
        optimum = best(posed)
        assert isinstance(found, Solution)
        assert optimum is not None
        assert optimum - 1e-9 <= found.value <= optimum / (1 - found.gap) + 1e-9
        more = 1 + (found.value if minimise == "relaxation" else 0.0) + 1e-6
        assert all(value(posed, figure, found.choice) <= limit * more for figure, limit in posed.limits.items())
    assert solve(problem(0, 0.02)) == Infeasible(proved=True)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    libc = ctypes.CDLL(None)

    def chatty(*_: Any, **__: Any) -> Any:
        libc.puts(b"transformNewIntegerFeasibleSolution tmpSolver.run();")  # as HiGHS does now and then
        return original(*_, **__)

    original = scipy.optimize.milp
    monkeypatch.setattr(scipy.optimize, "milp", chatty)
    sys.stdout.write("before\n")
    assert isinstance(solve(problem(0, 0.5)), Solution)
    sys.stdout.write("after\n")
    assert capfd.readouterr().out == "before\nafter\n"
