from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import StorageError
from edgeprune.records import codec
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Energy, Latency, Measurement, Memory, Modes, Outcome, Provenance, Window
from edgeprune.records.result import Result
from edgeprune.records.trial import Stage, Trial

numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-6, max_value=1e12)
sizes = st.integers(min_value=0, max_value=2**50)
words = st.text(max_size=12)
values = st.none() | st.booleans() | sizes | numbers | words | st.lists(sizes, max_size=3)
plain = st.dictionaries(words, values, max_size=3)
kept_units = st.lists(sizes, max_size=5, unique=True).map(lambda units: tuple(sorted(units)))
per_percentile = st.dictionaries(st.sampled_from(["p50", "p90", "p95", "p99"]), numbers, max_size=4)

candidates = st.builds(
    Candidate,
    kept=st.dictionaries(words, kept_units, max_size=3),
    dropped_blocks=st.lists(words, max_size=3, unique=True).map(lambda names: tuple(sorted(names))),
    sparsity=st.dictionaries(words, words, max_size=2),
)
figures = st.dictionaries(
    st.sampled_from(["accuracy", "size", "latency.p50", "peak_memory", "energy"]),
    st.builds(
        Figure,
        value=st.none() | numbers,
        upper=st.none() | numbers,
        kind=st.sampled_from(["measured", "estimated"]),
        missing=words,
    ),
)
trials = st.builds(
    Trial,
    number=sizes,
    stage=st.sampled_from(Stage),
    candidate=candidates,
    outcome=st.sampled_from([outcome.value for outcome in Outcome]),
    figures=figures,
    message=words,
    seconds=numbers,
    artifact=st.none() | words,
    details=plain,
)
measurements = st.builds(
    Measurement,
    artifact_sha256=words,
    outcome=st.sampled_from(Outcome),
    provenance=st.none()
    | st.builds(
        Provenance,
        target=words,
        profile=words,
        machine=plain,
        runtime=words,
        runtime_version=words,
        threads=sizes,
        agent_sha256=words,
        started_at=words,
        clock=words,
        cores=st.lists(st.integers(0, 255)).map(tuple),
    ),
    latency=st.none()
    | st.builds(
        Latency,
        samples=sizes,
        mean_ms=numbers,
        std_ms=numbers,
        min_ms=numbers,
        max_ms=numbers,
        percentile_ms=per_percentile,
        lower_ms=per_percentile,
        upper_ms=per_percentile,
        refused=st.dictionaries(words, words, max_size=2),
        raw_ms=st.lists(numbers, max_size=6).map(tuple),
        warmup_runs=sizes,
        converged=st.booleans(),
        modes=st.none() | st.builds(Modes, numbers, numbers, numbers, numbers),
    ),
    memory=st.none()
    | st.builds(
        Memory,
        model_peak_bytes=sizes,
        process_peak_bytes=sizes,
        idle_bytes=sizes,
        noise_bytes=sizes,
        workers=sizes,
        inference_peak_bytes=st.none() | sizes,
        anonymous_peak_bytes=st.none() | sizes,
        file_peak_bytes=st.none() | sizes,
        swapped_bytes=sizes,
        nvmap_peak_bytes=st.none() | sizes,
        nvmap_scope=words,
    ),
    energy=st.none() | st.builds(Energy, gross_mj=numbers, net_mj=numbers, sensor=words, scope=words, samples=sizes),
    missing=st.dictionaries(words, words, max_size=2),
    conditions=plain,
    warnings=st.lists(words, max_size=2).map(tuple),
    message=words,
    seconds=numbers,
    sustained=st.lists(
        st.builds(Window, numbers, numbers, sizes, numbers, st.none() | numbers, throttled=words), max_size=2
    ).map(tuple),
)
budgets = st.sampled_from(
    [
        {},
        {"size": "4MB"},
        {"latency": {"p50": "60% of dense", "p95": "30ms"}, "accuracy": {"max_drop": "1.0pp"}, "peak_memory": "50MiB"},
        {"accuracy": {"max_drop": "2%", "min": "90%"}, "energy": "12mJ"},
    ]
).map(Budget.parse)


@st.composite
def results(draw: st.DrawFn) -> Result:
    budget, dense, best = draw(budgets), draw(trials), draw(st.none() | trials)
    # What a device reports is positive: a limit relative to a dense figure of 0 has no headroom.
    dense = replace(dense, figures={name: Figure(draw(positive), draw(positive)) for name in dense.figures})
    return Result(
        status=draw(st.sampled_from(["accepted", "infeasible", "unmeasurable"])),
        budget=budget,
        dense=dense,
        best=best,
        check=None if best is None else budget.check(best.figures, dense.figures),
        trials=draw(sizes),
        reachable=draw(st.dictionaries(words, st.tuples(numbers, sizes), max_size=3)),
        seed=draw(sizes),
        strategy=draw(words),
        seconds=draw(numbers),
        provenance=draw(plain),
        message=draw(words),
    )


def round_trip(record: codec.Record) -> codec.Record:
    return codec.from_json(json.loads(json.dumps(codec.to_json(record))))


@settings(deadline=None)
@given(st.one_of(candidates, trials, measurements, results()))
def test_a_record_survives_the_round_trip(record: codec.Record) -> None:
    assert round_trip(record) == record


def test_a_measurement_of_the_first_schema_is_still_read() -> None:
    memory = {"model_peak_bytes": 5, "process_peak_bytes": 9, "idle_bytes": 4, "noise_bytes": 1, "workers": 3}
    provenance = {"target": "local", "profile": "host", "machine": {}, "runtime": "onnxruntime"}
    provenance |= {"runtime_version": "1.20.1", "threads": 1, "agent_sha256": "", "started_at": "", "clock": "x"}
    data = codec.to_json(Measurement("0" * 64, Outcome.OK, None)) | {"schema": "edgeprune.measurement/1"}
    found = codec.from_json(data | {"memory": memory | {"inference_peak_bytes": 2}, "provenance": provenance})
    assert isinstance(found, Measurement)
    assert found.memory == Memory(5, 9, 4, 1, 3, inference_peak_bytes=2)
    assert found.memory.anonymous_peak_bytes is None
    assert found.provenance is not None
    assert found.provenance.cores == ()


@settings(deadline=None)
@given(budgets, figures)
def test_a_budget_check_survives_the_round_trip(budget: Budget, of_model: dict[str, Figure]) -> None:
    check = budget.check(of_model, {"latency.p50": Figure(2.0), "accuracy": Figure(0.9)})
    assert round_trip(check) == check


@settings(deadline=None)
@given(trials)
def test_the_json_form_names_every_field(trial: Trial) -> None:
    assert set(codec.to_json(trial)) == {field.name for field in fields(Trial)} | {"schema"}


def test_a_result_says_its_exit_code_and_the_binding_limit() -> None:
    budget = Budget.parse({"size": "1kB", "latency": {"p50": "2ms"}})
    of_model = {"size": Figure(900.0, 900.0), "latency.p50": Figure(1.0, 1.1)}
    dense = Trial(0, Stage.MEASURE, Candidate(), "OK", of_model)
    best = replace(dense, number=3, stage=Stage.FINAL)
    result = Result("accepted", budget, dense, best, budget.check(of_model, of_model), trials=4)
    data = codec.to_json(result)
    assert data["schema"] == "edgeprune.result/1"
    assert data["exit_code"] == 0
    assert data["check"]["binding"] == "size"
    assert data["best"]["number"] == 3


@pytest.mark.parametrize("schema", [None, "edgeprune.trial/2", 7])
def test_an_unknown_schema_is_refused(schema: object) -> None:
    with pytest.raises(StorageError, match="unknown schema") as caught:
        codec.from_json({"schema": schema})
    assert "edgeprune.trial/1" in str(caught.value.hint)


def test_a_trial_of_another_schema_is_refused() -> None:
    with pytest.raises(StorageError, match="trial/9"):
        codec.trial_from_json({"schema": "edgeprune.trial/9"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("stage", "half"), ("figures", {"size": {"bytes": 3}}), ("candidate", {"schema": "edgeprune.candidate/9"})],
)
def test_a_damaged_record_is_a_storage_error(field: str, value: object) -> None:
    data = codec.to_json(Trial(0, Stage.MEASURE, Candidate(), "OK", {}))
    with pytest.raises(StorageError, match="damaged record of"):
        codec.from_json({**data, field: value})
    del data[field]
    with pytest.raises(StorageError, match=field):
        codec.from_json(data)


def test_a_damaged_budget_check_is_a_storage_error() -> None:
    budget = Budget.parse({"size": "4MB"})
    dense = Trial(0, Stage.MEASURE, Candidate(), "OK", {})
    data = codec.to_json(Result("infeasible", budget, dense, dense, budget.check({}, {}), trials=1))
    data["check"]["schema"] = "edgeprune.budget_check/9"
    with pytest.raises(StorageError, match="budget_check/9"):
        codec.from_json(data)


def test_only_records_have_a_json_form() -> None:
    with pytest.raises(TypeError, match="dict"):
        codec.to_json({})  # type: ignore[arg-type]
