"""Limits on the command line: units are kept, the option is named, and the project decides which latency is meant."""

from __future__ import annotations

import pytest

from edgeprune.cli.options import limits
from edgeprune.errors import UsageError
from edgeprune.records.budget import Budget


def test_all_options_together() -> None:
    budget = limits(
        {"max_latency": "30ms", "max_memory": "50MiB", "max_size": "4MB", "max_energy": "12mJ", "max_drop": "1pp"}
    )
    assert {limit.metric: limit.value for limit in budget.limits if limit.drop is None} == {
        "latency.p50": 30.0,
        "peak_memory": 50 * 1024**2,
        "size": 4e6,
        "energy": 12.0,
    }
    (drop,) = [limit.drop for limit in budget.limits if limit.drop is not None]
    assert (drop.value, drop.relative) == (1.0, False)


def test_none_is_no_limit() -> None:
    assert limits({"max_latency": None, "max_size": None}) == Budget()


@pytest.mark.parametrize("text", ["p95=30ms", "p95:30ms", " p95 = 30ms"])
def test_a_latency_may_name_its_percentile(text: str) -> None:
    assert limits({"max_latency": text}) == Budget.parse({"latency": {"p95": "30ms"}})


def test_a_latency_means_what_the_project_limits() -> None:
    base = Budget.parse({"latency": {"p95": "60% of dense"}, "size": "4MB"})
    given = limits({"max_latency": "1us"}, base=base)
    assert given == Budget.parse({"latency": {"p95": "1us"}})
    assert [limit.text for limit in base.override(given).limits] == ["4MB", "1us"]


def test_a_latency_that_could_mean_two_is_asked_about() -> None:
    base = Budget.parse({"latency": {"p50": "10ms", "p95": "30ms"}})
    with pytest.raises(UsageError, match="limits p50 and p95: which of them") as caught:
        limits({"max_latency": "1ms"}, base=base)
    assert caught.value.hint == "write it like --max-latency p50=1ms"
    assert limits({"max_latency": "p95=1ms"}, base=base) == Budget.parse({"latency": {"p95": "1ms"}})


@pytest.mark.parametrize(
    ("name", "text", "option"),
    [
        ("max_latency", "30", "--max-latency"),
        ("max_memory", "50MB?", "--max-memory"),
        ("max_size", "4KB", "--max-size"),
        ("max_energy", "12ms", "--max-energy"),
        ("max_drop", "1", "--max-drop"),
    ],
)
def test_a_wrong_quantity_names_the_option(name: str, text: str, option: str) -> None:
    with pytest.raises(UsageError, match=f"^{option}: ") as caught:
        limits({name: text})
    assert caught.value.hint
