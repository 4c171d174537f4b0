"""The figures that a budget is checked against, made of measurement, artifact and accuracy."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import Budget, State
from edgeprune.records.figures import Figure, figures_of, format_figure
from edgeprune.records.measurement import Energy, Latency, Measurement, Memory, Outcome

LATENCY = Latency(
    samples=200,
    mean_ms=1.1,
    std_ms=0.1,
    min_ms=0.9,
    max_ms=2.0,
    percentile_ms={"p50": 1.0, "p95": 1.5},
    lower_ms={"p50": 0.98, "p95": 1.4},
    upper_ms={"p50": 1.02, "p95": 1.7, "mean": 1.12},
    refused={"p99": "200 runs, 662 needed"},
)
MEASUREMENT = Measurement(
    artifact_sha256="0" * 64,
    outcome=Outcome.OK,
    provenance=None,
    latency=LATENCY,
    memory=Memory(model_peak_bytes=5000, process_peak_bytes=90_000, idle_bytes=85_000, noise_bytes=300, workers=3),
    missing={"energy": "no power sensor: none below /sys/class/powercap"},
)
ARTIFACT = Artifact(Path("x.onnx"), "onnx", "0" * 64, 1234, (), ())


def test_all_figures_of_a_trial() -> None:
    assert figures_of(MEASUREMENT, ARTIFACT, 0.9) == {
        "accuracy": Figure(0.9, 0.9),
        "size": Figure(1234.0, 1234.0),
        "latency.p50": Figure(1.0, 1.02),
        "latency.p95": Figure(1.5, 1.7),
        "latency.mean": Figure(1.1, 1.12),
        "latency.p99": Figure(None, missing="200 runs, 662 needed"),
        "peak_memory": Figure(5000.0, 5300.0),
        "energy": Figure(None, missing="no power sensor: none below /sys/class/powercap"),
    }


def test_peak_memory_counts_what_was_swapped_out_and_what_the_graphics_processor_maps() -> None:
    memory = replace(MEASUREMENT.memory, swapped_bytes=40, nvmap_peak_bytes=1000, nvmap_scope="process")
    figures = figures_of(replace(MEASUREMENT, memory=memory), None, None)
    assert figures["peak_memory"] == Figure(6000.0, 6340.0)


def test_energy_is_net_of_idle() -> None:
    energy = Energy(5.0, 3.0, "rapl", "soc", samples=100, net_upper_mj=3.2)
    assert figures_of(replace(MEASUREMENT, energy=energy, missing={}), None, None)["energy"] == Figure(3.0, 3.2)


def test_parts_that_were_not_measured_say_so() -> None:
    bare = replace(MEASUREMENT, latency=None, memory=None, missing={"latency": "skipped"})
    figures = figures_of(bare, None, None)
    assert figures["latency.p95"] == Figure(None, missing="skipped")
    assert figures["peak_memory"] == Figure(None, missing="not measured")
    assert "accuracy" not in figures
    assert figures_of(None, None, None) == {}


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.OK])
def test_a_failed_measurement_passes_no_limit_whatever_it_carries(outcome: Outcome) -> None:
    figures = figures_of(replace(MEASUREMENT, outcome=outcome, message="it failed"), ARTIFACT, 0.9)
    budget = Budget.parse({"latency": {"p50": "9s", "p99": "9s"}, "peak_memory": "1GB", "energy": "9J"})
    check = budget.check(figures, {})
    assert [limit.state for limit in check.limits] == [State.UNKNOWN] * 4
    assert {limit.reason for limit in check.limits} == {f"{outcome.value}: it failed"}
    assert figures["size"].value == 1234.0  # the file is what it is


def test_figures_are_written_with_their_units() -> None:
    assert format_figure("latency.p50", 0.4123) == "0.412 ms"
    assert format_figure("peak_memory", 3.21e6) == "3.21 MB"
    assert format_figure("size", 999) == "999 B"
    assert format_figure("energy", 12.3) == "12.3 mJ"
    assert format_figure("accuracy", 0.962) == "96.20 %"
