"""When a gate passes: what is missing, inconclusive or not comparable never does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from edgeprune.errors import StorageError
from edgeprune.records import gate as gates
from edgeprune.records.budget import State
from edgeprune.records.figures import Figure
from edgeprune.records.gate import Origin
from tests.gates import DEVICE, FIGURES, ORIGIN, gate, reading


@pytest.mark.parametrize(
    ("budget", "warn", "status", "exit_code"),
    [
        ({"latency": {"p95": "21ms"}, "size": "4MB"}, {}, "passed", 0),
        ({"latency": {"p95": "19ms"}}, {}, "failed", 1),
        ({"latency": {"p95": "20.5ms"}}, {}, "unknown", 3),  # between the value and its upper bound
        ({"energy": "1mJ"}, {}, "unknown", 3),
        ({"peak_memory": "1MiB"}, {}, "unknown", 3),
        ({"energy": "1mJ", "size": "3MB"}, {}, "failed", 1),
        ({"size": "4MB"}, {"latency": {"p95": "19ms"}, "energy": "1mJ"}, "passed", 0),
    ],
)
def test_what_passes(budget: dict[str, Any], warn: dict[str, Any], status: str, exit_code: int) -> None:
    found = gate(budget, warn)
    assert (found.status, found.exit_code) == (status, exit_code)


def test_a_device_that_is_away_passes_nothing() -> None:
    away = reading(origin=Origin("measured", "LOST", message="no route"))
    assert gate({"size": "4MB"}, now=away).exit_code == 3
    assert gate({"size": "3MB"}, now=away).exit_code == 1  # what is known to be wrong is
    too_large = reading(origin=replace(ORIGIN, outcome="OOM"))
    assert gate({"size": "4MB"}, now=too_large).exit_code == 1


@pytest.mark.parametrize(
    ("before", "state"),
    [
        (Figure(20.0, 20.1), State.MET),  # 21 ms with an upper bound of 21
        (Figure(19.9, 20.1), State.UNKNOWN),
        (Figure(19.0, 20.1), State.VIOLATED),
        (Figure(None, missing="CRASHED: sorry"), State.UNKNOWN),
        (Figure(20.0, 20.1, kind="estimated"), State.UNKNOWN),
        (Figure(0.0, 0.0), State.UNKNOWN),
    ],
)
def test_regressions_are_judged_like_limits(before: Figure, state: State) -> None:
    baseline = reading({"latency.p95": before})
    check = gate({}, regression={"latency.p95": "+5%"}, baseline=baseline).checks[0]
    assert check.entry.state is state
    assert check.reference == before.value
    assert check.name == "latency.p95"
    assert "dense" not in check.entry.reason


def test_accuracy_may_fall_by_so_much() -> None:
    baseline = reading({"accuracy": Figure(0.904, 0.904)})
    for text, state in (("-0.5pp", State.MET), ("-0.3pp", State.VIOLATED), ("-0.4pp", State.MET)):
        check = gate({}, regression={"accuracy": text}, baseline=baseline).checks[0]
        assert (check.entry.state, check.name) == (state, "accuracy")


def test_devices_that_differ_are_not_compared() -> None:
    other = replace(ORIGIN, device={**DEVICE, "cpu": "Cortex-A76", "runtime_version": "1.19.0"})
    baseline = reading({**FIGURES, "latency.p95": Figure(100.0, 100.0)}, origin=other)
    found = gate({}, regression={"latency.p95": "+5%", "size": "+0%", "accuracy": "-0pp"}, baseline=baseline)
    latency, size, accuracy = found.checks
    assert latency.entry.state is State.UNKNOWN
    assert "cpu was 'Cortex-A76', is 'Cortex-A72'" in latency.entry.reason
    assert "runtime version was '1.19.0', is '1.20.1'" in latency.entry.reason
    assert (size.entry.state, accuracy.entry.state) == (State.MET, State.MET)
    assert found.exit_code == 3
    unnamed = reading(origin=replace(ORIGIN, device={}))
    check = gate({}, regression={"latency.p95": "+5%"}, baseline=unnamed).checks[0]
    assert check.entry.reason == "the baseline does not say what it was measured on"


def test_json_is_the_next_baseline() -> None:
    found = gate({"latency": {"p95": "21ms"}, "accuracy": {"max_drop": "1pp"}}, {"size": "3MB"}, baseline=reading())
    data = json.loads(json.dumps(gates.to_json(found), allow_nan=False))
    assert data["schema"] == "edgeprune.gate/1"
    assert (data["status"], data["exit_code"]) == ("passed", 0)
    assert [(c["kind"], c["level"], c["name"], c["state"]) for c in data["checks"]] == [
        ("budget", "error", "latency.p95", "met"),
        ("budget", "error", "accuracy.max_drop", "met"),
        ("budget", "warn", "size", "violated"),
    ]
    assert data["checks"][2]["headroom"] == pytest.approx(-1 / 3)
    assert gates.from_json(data) == found.reading


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(schema="edgeprune.result/1"), "but edgeprune.result/1"),
        (lambda data: data["reading"].pop("origin"), "damaged record of edgeprune.gate/1: KeyError"),
        (lambda data: data["reading"]["figures"]["size"].update(value="4MB"), "'4MB' is no figure"),
        (lambda data: data["reading"]["origin"].update(secret=1), "damaged record"),
        (lambda data: data["reading"]["origin"].update(device=["cpu"]), "is no device"),
    ],
)
def test_what_is_no_baseline(change: Any, message: str) -> None:
    data = gates.to_json(gate({"size": "4MB"}))
    change(data)
    with pytest.raises(StorageError, match=message):
        gates.from_json(data)
    with pytest.raises(StorageError, match="something else"):
        gates.from_json([data])
