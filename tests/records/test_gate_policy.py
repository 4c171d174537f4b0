"""Limits and allowed regressions, by level: from a budget file, and from options."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import ConfigError, UnitError, UsageError
from edgeprune.records.budget import Budget
from edgeprune.records.gate_policy import Policy, parse_age, parse_regression, regression_option
from edgeprune.records.gate_policy_reader import read_policy

FILE = """
budget:
  latency: {p95: 30ms, p50: {warn: 20ms, error: 25ms}}
  size: {warn: 3MB}
  accuracy: {max_drop: 1.0pp}
regression:
  latency.p95: +5%
  size: {warn: +2%, error: 10%}
  accuracy: -0.5pp
  latency: {p50: {warn: +1%}}
"""


def texts(budget: Budget) -> dict[str, str]:
    return {limit.metric: limit.text for limit in budget.limits}


def read(folder: Path, text: str) -> Policy:
    path = folder / "budget.yaml"
    path.write_text(text)
    return read_policy(path)


def test_a_file_has_errors_and_warnings(tmp_path: Path) -> None:
    policy = read(tmp_path, FILE)
    assert texts(policy.budget["error"]) == {
        "latency.p95": "30ms",
        "latency.p50": "25ms",
        "accuracy.max_drop": "1.0pp",
    }
    assert texts(policy.budget["warn"]) == {"latency.p50": "20ms", "size": "3MB"}
    assert texts(policy.regression["error"]) == {
        "latency.p95": "+5%",
        "size": "10%",
        "accuracy.max_drop": "-0.5pp",
    }
    assert texts(policy.regression["warn"]) == {"size": "+2%", "latency.p50": "+1%"}
    assert len(policy.limits) == 10


def test_a_file_with_one_part_has_nothing_of_the_other(tmp_path: Path) -> None:
    policy = read(tmp_path, "regression: {energy: +1%}")
    assert policy.budget == {"error": Budget(), "warn": Budget()}
    assert texts(policy.regression["error"]) == {"energy": "+1%"}


def test_a_regression_is_relative_to_the_baseline() -> None:
    worse = parse_regression("latency.p95", "+5%")
    assert worse.relative
    assert worse.value == 1.05
    drop = parse_regression("accuracy", "-0.5pp").drop
    assert drop is not None
    assert drop.allowed(0.9) == pytest.approx(0.895)
    assert parse_regression("size", "+0%").value == 1
    assert regression_option("size = +2%") == parse_regression("size", "+2%")


@pytest.mark.parametrize(
    ("figure", "text", "message"),
    [
        ("latency.p95", "-5%", "asks for an improvement"),
        ("accuracy", "+0.5pp", "asks for an improvement"),
        ("latency.p95", "+5ms", "not a percentage"),
        ("latency.p95", "+inf%", "not a quantity"),
        ("latency.p95", 5, "is not a change"),
        ("latency.p95", "+1e999%", "out of range"),
        ("latency.p96", "+5%", "unknown figure 'latency.p96'"),
        ("accuracy", "-0.5", "needs pp or %"),
        ("accuracy.max_drop", "-0.5pp", "unknown figure"),
    ],
)
def test_what_is_no_regression(figure: str, text: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_regression(figure, text)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("budget: {size: {warn: 3MB, eror: 4MB}}", 1, "budget.size.eror: unknown level"),
        ("budget: {size: 4M}\n", 1, "budget: size: '4M': 'M' is ambiguous"),
        ("budget:\n  latency: {p96: 3ms}", 2, "unknown figure 'p96'"),
        ("budget:\n  latency:\n    p95: {error: 3}", 3, "a bare number"),
        ("limits: {size: 4MB}", 1, "limits: unknown key"),
        ("regression:\n  size: +2\n", 2, "regression.size: "),
        ("regression:\n  sise: +2%\n", 2, "regression.sise: unknown figure 'sise'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)
    assert raised.value.line == line


def test_an_option_makes_a_limit_a_warning(tmp_path: Path) -> None:
    policy = read(tmp_path, FILE).only_warned(["latency.p95", "accuracy.max_drop"])
    assert texts(policy.budget["error"]) == {"latency.p50": "25ms"}
    assert texts(policy.budget["warn"])["latency.p95"] == "30ms"
    assert texts(policy.regression["error"]) == {"size": "10%"}
    assert policy.only_warned(["regression"]).regression["error"] == Budget()
    with pytest.raises(UsageError, match="nothing is limited under the name 'latency'"):
        policy.only_warned(["latency"])
    with pytest.raises(UsageError, match="nothing is limited"):
        Policy.of(Budget()).only_warned(["regression"])


def test_ages() -> None:
    assert [parse_age(text) for text in ("30d", "12h", "2w", "90min", "1.5d")] == [
        2592000,
        43200,
        1209600,
        5400,
        129600,
    ]
    for text in ("30", "30 days", "-1d", "1s", ""):
        with pytest.raises(UnitError, match="is not an age") as caught:
            parse_age(text)
        assert caught.value.hint == "write a number with min, h, d or w (weeks), like 90min or 30d"


def test_a_regression_option_without_a_figure() -> None:
    with pytest.raises(UsageError, match="names no figure"):
        regression_option("+5%")
    with pytest.raises(UsageError, match="--regression: unknown figure 'p95'"):
        regression_option("p95=+5%")
