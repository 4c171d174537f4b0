"""A budget's limits: met, violated or unknown; what is unknown never passes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import units
from edgeprune.errors import ConfigError
from edgeprune.records.budget import Budget, State
from edgeprune.records.figures import Figure

DENSE = {
    "latency.p50": Figure(10.0, 10.1),
    "latency.p95": Figure(12.0, 12.4),
    "size": Figure(4e6, 4e6),
    "peak_memory": Figure(8e6, 8.2e6),
    "accuracy": Figure(0.915, 0.915),
}


def check(data: dict[str, Any], dense: dict[str, Figure] | None = None, **figures: Figure) -> Any:
    named = {name.replace("latency_", "latency."): figure for name, figure in figures.items()}
    return Budget.parse(data).check(named, DENSE if dense is None else dense)


def test_a_limit_is_met_only_by_the_upper_confidence_bound() -> None:
    limit = {"latency": {"p50": "6ms"}}
    met = check(limit, latency_p50=Figure(5.0, 5.9)).limits[0]
    assert (met.state, met.bound, met.value, met.upper) == (State.MET, 6.0, 5.0, 5.9)
    assert met.headroom == pytest.approx(1 - 5.9 / 6.0)

    inconclusive = check(limit, latency_p50=Figure(5.9, 6.1)).limits[0]
    assert inconclusive.state is State.UNKNOWN
    assert "inconclusive" in inconclusive.reason

    violated = check(limit, latency_p50=Figure(6.1, 6.2)).limits[0]
    assert violated.state is State.VIOLATED
    assert violated.headroom == pytest.approx(1 - 6.2 / 6.0)


def test_a_figure_exactly_at_the_limit_meets_it() -> None:
    assert check({"size": "4MB"}, size=Figure(4e6, 4e6)).state is State.MET
    assert check({"size": "4MB"}, size=Figure(4e6 + 1, 4e6 + 1)).state is State.VIOLATED


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        (None, "not measured"),
        (Figure(None), "not measured"),
        (Figure(None, missing="no power sensor: none in /sys"), "no power sensor: none in /sys"),
        (Figure(5.0, None), "no upper confidence bound"),
        (Figure(5.0, math.nan), "no upper confidence bound"),
        (Figure(5.0, math.inf), "no upper confidence bound"),
        (Figure(math.nan, math.nan), "the figure is nan"),
        (Figure(-math.inf, 1.0), "the figure is -inf"),
        (Figure(5.0, 5.0, kind="estimated"), "only estimated, not measured"),
        (Figure(500.0, 500.0, kind="estimated"), "only estimated, not measured"),
    ],
)
def test_what_is_not_known_is_unknown_with_its_reason(figure: Figure | None, reason: str) -> None:
    figures = {} if figure is None else {"energy": figure}
    result = check({"energy": "12mJ"}, **figures)
    assert result.state is State.UNKNOWN
    assert result.limits[0].reason == reason


def test_relative_limits_are_shares_of_the_dense_figure() -> None:
    limit = {"latency": {"p50": "60% of dense"}, "size": "50% of dense"}
    result = check(limit, latency_p50=Figure(5.5, 5.9), size=Figure(2.1e6, 2.1e6))
    latency, size = result.limits
    assert (latency.bound, latency.state) == (pytest.approx(6.0), State.MET)
    assert (size.bound, size.state) == (pytest.approx(2e6), State.VIOLATED)
    assert result.state is State.VIOLATED


@pytest.mark.parametrize(
    ("dense", "reason"),
    [
        ({}, "the dense model's figure is missing"),
        ({"peak_memory": Figure(None, missing="OOM: killed")}, "the dense model's figure is missing: OOM: killed"),
        ({"peak_memory": Figure(0.0, 0.0)}, "no share can be taken of the dense model's figure: it is 0"),
        ({"peak_memory": Figure(math.nan)}, "no share can be taken of the dense model's figure: the figure is nan"),
        (
            {"peak_memory": Figure(1e6, 1e6, kind="estimated")},
            "no share can be taken of the dense model's figure: only estimated, not measured",
        ),
    ],
)
def test_a_relative_limit_without_a_dense_figure_is_unknown(dense: dict[str, Figure], reason: str) -> None:
    result = check({"peak_memory": "50% of dense"}, dense=dense, peak_memory=Figure(1.0, 1.0))
    assert (result.state, result.limits[0].bound, result.limits[0].reason) == (State.UNKNOWN, None, reason)


def test_accuracy_may_drop_in_points_or_in_percent() -> None:
    points = {"accuracy": {"max_drop": "1.0pp"}}
    assert check(points, accuracy=Figure(0.905, 0.905)).limits[0].bound == pytest.approx(0.905)
    assert check(points, accuracy=Figure(0.905, 0.905)).state is State.MET  # round-off does not count
    assert check(points, accuracy=Figure(0.9049, 0.9049)).state is State.VIOLATED
    percent = {"accuracy": {"max_drop": "2%"}}
    assert check(percent, accuracy=Figure(0.8967, 0.8967)).state is State.MET
    assert check(percent, accuracy=Figure(0.8966, 0.8966)).state is State.VIOLATED
    least = {"accuracy": {"min": "90%"}}
    assert check(least, accuracy=Figure(0.9, 0.9)).limits[0].headroom == pytest.approx(0.0)
    assert check(least, accuracy=Figure(0.899, 0.899)).state is State.VIOLATED


@pytest.mark.parametrize("figure", [Figure(math.nan, math.nan), Figure(0.99, 0.99, kind="estimated"), Figure(None)])
def test_an_accuracy_that_is_not_measured_never_passes_nor_fails(figure: Figure) -> None:
    assert check({"accuracy": {"min": "90%"}}, accuracy=figure).state is State.UNKNOWN


def test_state_of_all_limits_and_the_binding_one() -> None:
    limit = {"latency": {"p50": "6ms", "p95": "13ms"}, "size": "3MB", "energy": "1J", "accuracy": {"max_drop": "2pp"}}
    result = check(
        limit,
        latency_p50=Figure(3, 3),
        latency_p95=Figure(12.6, 12.9),
        size=Figure(2e6, 2e6),
        accuracy=Figure(0.91, 0.91),
    )
    assert result.state is State.UNKNOWN  # energy is missing
    assert result.binding is not None
    assert result.binding.limit.metric == "latency.p95"
    assert result.only(accuracy=True).state is State.MET
    assert [c.limit.metric for c in result.only(accuracy=True).limits] == ["accuracy.max_drop"]
    worse = check(limit, size=Figure(3.5e6, 3.5e6))
    assert worse.state is State.VIOLATED  # even though the rest is unknown
    assert worse.binding is not None
    assert worse.binding.limit.metric == "size"


@pytest.mark.parametrize(
    ("limit", "accuracy", "headroom"),
    [
        ({"max_drop": "2pp"}, 0.91, 0.5),  # the dense model has 92 %: one of two points is unused
        ({"max_drop": "2pp"}, 0.93, 1.5),
        ({"max_drop": "2pp"}, 0.88, -1.0),
        ({"max_drop": "0pp"}, 0.92, 0.0),
        ({"min": "90%"}, 0.92, 0.2),
    ],
)
def test_headroom_of_accuracy_is_a_share_of_what_is_allowed(
    limit: dict[str, str], accuracy: float, headroom: float
) -> None:
    dense = {"accuracy": Figure(0.92, 0.92)}
    (entry,) = Budget.parse({"accuracy": limit}).check({"accuracy": Figure(accuracy, accuracy)}, dense).limits
    assert entry.headroom == pytest.approx(headroom)


def test_an_empty_budget_is_met_and_binds_nothing() -> None:
    result = Budget().check({}, {})
    assert result.state is State.MET
    assert result.binding is None


@pytest.mark.parametrize(
    ("data", "key", "message", "hint"),
    [
        ({"latncy": {"p95": "30ms"}}, "latncy", "unknown limit 'latncy'", "did you mean 'latency'?"),
        ({"PeakMemory": "4MB"}, "PeakMemory", "unknown limit", "valid here: latency, accuracy, peak_memory"),
        ({1: "4MB"}, "1", "unknown limit 1", "valid here"),
        ({"latency": "30ms"}, "latency", "latency: '30ms' does not say which figure", "latency: {p95: 30ms}"),
        ({"latency": {}}, "latency", "latency: no limit is given", "{p95: 30ms}"),
        ({"latency": None}, "latency", "latency: no limit is given", "{p95: 30ms}"),
        ({"latency": {"p59": "30ms"}}, "latency.p59", "latency: unknown figure 'p59'", "did you mean 'p"),
        ({"latency": {"p95": 30}}, "latency.p95", "latency.p95: 30 is a bare number", '"30ms"'),
        ({"latency": {"p95": "30MB"}}, "latency.p95", "unknown unit 'MB' for a duration", "units: ns"),
        ({"latency": {"p95": "60%"}}, "latency.p95", "percent of what", '"60% of dense"'),
        ({"size": "4KB"}, "size", "size: '4KB': 'KB' is ambiguous", "4kB or 4KiB"),
        ({"size": 4_000_000}, "size", "bare number", "4MB"),
        ({"energy": None}, "energy", "energy: the quantity is missing", "12mJ"),
        ({"accuracy": {"max_drop": "1"}}, "accuracy.max_drop", "needs pp or %", "one percentage point"),
        ({"accuracy": {"max_drop": 0.01}}, "accuracy.max_drop", "bare number", "1.0pp"),
        ({"accuracy": {"min": "150%"}}, "accuracy.min", "out of range", "between 0% and 100%"),
        ({"accuracy": {"min": 0.9}}, "accuracy.min", "bare number", "35%"),
        ({"accuracy": "1pp"}, "accuracy", "does not say which figure", "max_drop"),
    ],
)
def test_wrong_budgets_are_refused_with_key_and_hint(data: Any, key: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Budget.parse(data)
    assert message in caught.value.message
    assert caught.value.key == key
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("data", [None, [], "latency", 5])
def test_what_is_no_mapping_is_no_budget(data: Any) -> None:
    with pytest.raises(ConfigError, match="is no budget"):
        Budget.parse(data)


def test_override_replaces_a_limit_and_adds_others() -> None:
    base = Budget.parse({"latency": {"p50": "9ms", "p95": "30ms"}, "size": "4MB"})
    merged = base.override(Budget.parse({"latency": {"p95": "20ms"}, "energy": "1J"}))
    assert merged.to_json() == {"latency": {"p50": "9ms", "p95": "20ms"}, "size": "4MB", "energy": "1J"}
    assert base.to_json()["latency"]["p95"] == "30ms"


number = st.floats(0.01, 1e6).map(lambda value: f"{value:.6g}")


def quantities(kind: units.Kind) -> st.SearchStrategy[str]:
    absolute = st.tuples(number, st.sampled_from(units.unit_names(kind))).map("".join)
    big_enough = absolute.filter(lambda text: kind != "size" or not text.endswith("B") or text[-2].isalpha())
    return big_enough | number.map(lambda text: f"{text}% of dense")


budgets = st.fixed_dictionaries(
    {},
    optional={
        "latency": st.dictionaries(
            st.sampled_from(["p50", "p90", "p95", "p99", "mean"]), quantities("duration"), min_size=1
        ),
        "peak_memory": quantities("size"),
        "size": quantities("size"),
        "energy": quantities("energy"),
        "accuracy": st.fixed_dictionaries(
            {"max_drop": st.tuples(st.integers(0, 100).map(str), st.sampled_from(["pp", "%"])).map("".join)},
            optional={"min": st.integers(0, 100).map(lambda value: f"{value}%")},
        ),
    },
)


@given(data=budgets)
def test_a_budget_survives_its_json_form(data: dict[str, Any]) -> None:
    budget = Budget.parse(data)
    assert budget.to_json() == data
    assert Budget.parse(budget.to_json()) == budget
    assert budget.override(budget).to_json() == data


figures = st.builds(
    Figure,
    st.none() | st.floats(allow_nan=True),
    st.none() | st.floats(allow_nan=True),
    st.sampled_from(["measured", "estimated"]),
)
NAMES = ("latency.p50", "latency.p95", "peak_memory", "size", "energy", "accuracy")
some_figures = st.dictionaries(st.sampled_from(NAMES), figures)


@given(data=budgets, mine=some_figures, dense=some_figures)
def test_a_met_limit_always_rests_on_a_finite_measured_figure_within_its_bound(
    data: dict[str, Any], mine: dict[str, Figure], dense: dict[str, Figure]
) -> None:
    result = Budget.parse(data).check(mine, dense)
    for one in result.limits:
        if one.state is State.UNKNOWN:
            assert one.reason
            continue
        figure = mine[one.limit.figure]
        assert figure.kind == "measured"
        assert figure.value is not None
        assert math.isfinite(figure.value)
        assert one.bound is not None
        if one.limit.is_accuracy:
            assert (one.state is State.MET) == (figure.value >= one.bound - 1e-12)
        elif one.state is State.MET:
            assert figure.upper is not None
            assert max(figure.value, figure.upper) <= one.bound
            assert one.headroom is not None
            assert one.headroom >= 0
        else:
            assert figure.value > one.bound
    if result.state is State.MET:
        assert all(one.state is State.MET for one in result.limits)
