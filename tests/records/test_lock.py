from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.lock import from_json, lock_of, to_json
from edgeprune.records.result import Result
from edgeprune.records.trial import Stage, Trial

ARTIFACT = Artifact(
    path=Path("best/model.onnx"),
    format="onnx",
    sha256="ab" * 32,
    size_bytes=1234,
    inputs=(TensorSpec("x", "int8", ("batch", 3), scale=0.1, zero_point=-7),),
    outputs=(TensorSpec("y", "float32", ("batch", 2)),),
    provenance={"exporter": "a test"},
)
CANDIDATE = Candidate(kept={"conv": (0, 2)})


def trial(number: int, candidate: Candidate, **details: object) -> Trial:
    figures = {"latency.p50": Figure(1.5 - number, 1.75 - number), "energy": Figure(None, missing="no sensor")}
    return Trial(number, Stage.FINAL, candidate, "OK", figures, details=details)


@pytest.fixture
def result() -> Result:
    return Result(
        status="accepted",
        budget=Budget.parse({"latency": {"p50": "2ms"}}),
        dense=trial(0, Candidate(), sources={"task.py": "c" * 64}),
        best=trial(1, CANDIDATE, params=10, macs=20, peak_activation_bytes=30),
        check=None,
        trials=2,
        provenance={
            "inputs": {
                "task": {"name": "src/task.py:Digits", "trainable": True},
                "model": "d" * 64,
                "versions": {"edgeprune": "0.1.0", "torch": "2.13.0"},
                "search": {"seed": 0},
            },
            "measured_on": {"target": "ssh://pi@10.0.0.7", "profile": "raspberry-pi-5", "cpu": "A76", "threads": 1},
            "machine": {"hostname": "kitchen"},
        },
    )


def test_what_was_chosen_from_what(result: Result) -> None:
    lock = lock_of(result, ARTIFACT)
    assert (lock.name, lock.candidate) == ("Digits", CANDIDATE.id)
    assert lock.budget == {"latency": {"p50": "2ms"}}
    assert lock.figures["latency.p50"] == Figure(0.5, 0.75)
    assert lock.dense["latency.p50"] == Figure(1.5, 1.75)
    assert (lock.params, lock.macs, lock.activation_bytes) == (10, 20, 30)
    assert lock.edgeprune == "0.1.0"
    assert lock.device == {"profile": "raspberry-pi-5", "cpu": "A76", "threads": 1}
    assert set(lock.inputs) == {"settings", "model", "source/task.py"}
    assert lock.inputs["source/task.py"] == "c" * 64


def test_no_address_of_a_device_and_no_name_of_a_machine_is_in_it(result: Result) -> None:
    text = json.dumps(to_json(lock_of(result, ARTIFACT)))
    assert "10.0.0.7" not in text
    assert "kitchen" not in text


def test_other_settings_are_another_digest(result: Result) -> None:
    changed = {**result.provenance, "inputs": {**result.provenance["inputs"], "search": {"seed": 1}}}
    first, second = lock_of(result, ARTIFACT), lock_of(replace(result, provenance=changed), ARTIFACT)
    assert first.inputs["settings"] != second.inputs["settings"]
    assert first.inputs["model"] == second.inputs["model"]


def test_round_trip(result: Result) -> None:
    lock = lock_of(result, ARTIFACT)
    assert from_json(json.loads(json.dumps(to_json(lock)))) == lock


def test_a_result_without_provenance_has_a_lock_too(result: Result) -> None:
    lock = lock_of(replace(result, provenance={}), ARTIFACT)
    assert (lock.name, lock.edgeprune) == ("model", "unknown")


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "../best/model.onnx", "best/../../x", "best\\model.onnx", "a b", "*/", ""]
)
def test_a_lock_that_leads_elsewhere_is_refused(result: Result, file: str) -> None:
    data = to_json(lock_of(result, ARTIFACT))
    data["artifact"]["file"] = file
    with pytest.raises(UsageError, match="names a file outside its folder"):
        from_json(data, "run/edgeprune.lock")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edgeprune.lock/9"}, r"run/edgeprune\.lock is not a lock of schema edgeprune\.lock/1: 'edgeprune"),
        ({"artifact": None}, r"run/edgeprune\.lock is damaged: TypeError"),
        ({"figures": {"energy": {"volts": 3}}}, "is damaged: TypeError"),
        ({"candidate": ...}, "is damaged: KeyError: 'candidate'"),
    ],
)
def test_a_damaged_lock_is_named(result: Result, change: dict[str, object], message: str) -> None:
    data = to_json(lock_of(result, ARTIFACT)) | change
    data = {name: value for name, value in data.items() if value is not ...}
    with pytest.raises(UsageError, match=message):
        from_json(data, "run/edgeprune.lock")


def test_a_digest_that_is_none_is_refused(result: Result) -> None:
    data = to_json(lock_of(result, ARTIFACT))
    data["artifact"]["sha256"] = "*/ evil"
    with pytest.raises(UsageError, match="is not a sha256"):
        from_json(data)


@pytest.mark.parametrize("data", [None, [], "text", {}])
def test_what_is_no_lock_at_all(data: object) -> None:
    with pytest.raises(UsageError, match="is not a lock of schema"):
        from_json(data)
