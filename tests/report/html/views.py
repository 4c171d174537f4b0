"""Views of runs that nobody had to wait for: a large one with everything in it, and what the smaller ones need."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure, figures_of
from edgeprune.records.measurement import Energy, Latency, Measurement, Memory, Outcome, Provenance
from edgeprune.records.result import Result, Status
from edgeprune.records.structure import Block, Frozen, Layer, Part, Structure
from edgeprune.records.trial import Stage, Trial
from edgeprune.report.html.view import View
from edgeprune.search.limits import check_trial

BUDGET = {
    "latency": {"p50": "60% of dense"},
    "peak_memory": "30MB",
    "size": "50% of dense",
    "energy": "9mJ",
    "accuracy": {"max_drop": "2pp"},
}
LAYERS = 120


def measurement(scale: float, seed: int = 0) -> Measurement:
    """Of a network that takes `scale` ms in the middle, with a tail, memory, and ten seconds of power."""
    rng = random.Random(seed)
    raw = tuple(scale * rng.lognormvariate(0.0, 0.06) * (6.0 if rng.random() < 0.02 else 1.0) for _ in range(2000))
    ordered = sorted(raw)
    percentiles = {
        name: ordered[int(share * 2000)] for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
    }
    mean = sum(raw) / len(raw)
    known = {**percentiles, "mean": mean}
    latency = Latency(
        samples=len(raw),
        mean_ms=mean,
        std_ms=0.1 * scale,
        min_ms=ordered[0],
        max_ms=ordered[-1],
        percentile_ms=percentiles,
        lower_ms={k: v * 0.98 for k, v in known.items()},
        upper_ms={k: v * 1.02 for k, v in known.items()},
        raw_ms=raw,
        warmup_runs=300,
    )
    parts = (int(14e6 * scale), int(9e6))
    memory = Memory(sum(parts), 45_000_000 + sum(parts), 45_000_000, 400_000, 3, 700_000, *parts)
    trace = [(i / 100, 2.1 + (1.4 if 1000 <= i < 2000 else 0.0) + rng.gauss(0, 0.05)) for i in range(3000)]
    energy = Energy(
        gross_mj=16 * scale,
        net_mj=12 * scale,
        sensor="ina3221",
        scope="module",
        samples=1000,
        rails=("VDD_IN",),
        rate_hz=100,
        runs=4000,
        seconds=10.0,
        latency_ms=mean,
        idle_w=2.1,
        gross_lower_mj=15.5 * scale,
        gross_upper_mj=16.5 * scale,
        net_lower_mj=11.5 * scale,
        net_upper_mj=12.5 * scale,
        raw=tuple(trace),
        windows={"before": (0.0, 10.0), "load": (10.0, 20.0), "after": (20.0, 30.0)},
    )
    stages = {"base": (22_000_000, 22_000_000), "loaded": (22_000_000 + parts[0], 31_000_000)}
    workers = [{"peak": 1, **{k: {"anonymous": a, "file": f} for k, (a, f) in stages.items()}}]
    board = {"board": "Raspberry Pi 4 Model B", "cpu": "Cortex-A72", "cpus": 4, "arch": "aarch64"}
    return Measurement(
        artifact_sha256="ab" * 32,
        outcome=Outcome.OK,
        latency=latency,
        memory=memory,
        energy=energy,
        provenance=Provenance(
            "ssh://pi@camera",
            "raspberry-pi-4b",
            board,
            "onnxruntime",
            "1.31.1",
            1,
            "cd" * 32,
            "2026-01-02T03:04:05+00:00",
        ),
        conditions={"before": {"load": [0.1, 0.2, 0.3], "temperature_c": {"cpu": 51.5}}, "memory_workers": workers},
        warnings=("the device was <busy> before the start",),
        seconds=42.0,
    )


def structure() -> Structure:
    """A hundred and twenty layers, some frozen, in eight blocks."""
    layers = []
    for index in range(LAYERS - 1):
        width = 16 * 2 ** (index // 24)
        layers.append(Layer(f"stage{index // 24}.{index % 24}.conv", width, (Part(f"g{index // 2}", width, 1),)))
    layers.append(Layer("classifier", 10, (), "is the model's output"))
    frozen = tuple(Frozen(f"mix{i}", 8, "softmax mixes the dimension", (f"mix{i}.weight",)) for i in range(20))
    blocks = tuple(Block(f"stage{i}.3", 10_000, 0.02, (f"stage{i}.3.conv",)) for i in range(1, 5))
    return Structure(
        tuple(layers),
        (*frozen, Frozen("classifier", 10, "is the model's output", ("classifier.weight",))),
        blocks,
        ("g3",),
    )


def candidate(keep: float) -> Candidate:
    """That share of every group, and one block dropped."""
    groups = {f"g{i}": 16 * 2 ** (2 * i // 24) for i in range(LAYERS // 2)}
    kept = {name: tuple(range(max(int(units * keep), 1))) for name, units in groups.items()}
    return Candidate(kept, dropped_blocks=("stage2.3",))


def view(status: Status = "accepted", *, trials: int = 45, **changes: Any) -> View:
    """A run of so many trials; its best is the last but one. `changes` are those of the view."""
    rng = random.Random(1)
    dense_measured = measurement(1.0)
    dense = Trial(
        0,
        Stage.MEASURE,
        Candidate(),
        "OK",
        with_size(dense_measured, 5e6, 0.92),
        artifact="trials/0000/model.onnx",
        seconds=50.0,
        details={"params": 1_000_000, "macs": 80_000_000, "sources": {"task.py": "ef" * 32}},
    )
    found, measurements = [dense], {0: dense_measured}
    for number in range(1, trials):
        keep = 0.2 + 0.6 * rng.random()
        final = number >= trials - 2
        stage = Stage.FINAL if final else Stage.TUNE if number % 9 == 0 else Stage.MEASURE
        keep = 0.4 if final else keep
        accuracy = 0.92 - 0.25 * (1 - keep) ** (4 if final else 2) + rng.gauss(0, 0.004)
        measured = measurement(keep + 0.1, number) if stage.is_measured else None
        if measured is not None:
            measurements[number] = measured
        figures = (
            {"accuracy": Figure(accuracy, accuracy)} if measured is None else with_size(measured, 5e6 * keep, accuracy)
        )
        details = {"recovery": "fine-tuning", "params": int(1e6 * keep), "macs": int(8e7 * keep)}
        artifact = f"trials/{number:04d}/model.onnx" if stage.is_measured else None
        found.append(Trial(number, stage, candidate(keep), "OK", figures, "", 10.0 + number, artifact, details))
    found[3] = replace(
        found[3], outcome="OOM", message="the worker was killed <by the kernel>", figures=figures_of(None, None, 0.8)
    )
    best = found[-2]
    budget = Budget.parse(BUDGET)
    result = Result(
        status,
        budget,
        dense,
        best,
        check_trial(budget, best, dense.figures),
        len(found),
        ruled_out=((3, "out of memory"),),
        seed=7,
        strategy="milp",
        seconds=1234.0,
        provenance=provenance(),
        message="a message with <tags> & signs",
    )
    shown = {number: measurements[number] for number in (0, best.number)}
    made = View("20260102-030405", result, tuple(found), shown, structure(), "12" * 32)
    return replace(made, **changes)


def with_size(measured: Measurement, size: float, accuracy: float) -> dict[str, Figure]:
    """The figures of a trial."""
    return {**figures_of(measured, None, accuracy), "size": Figure(math.floor(size), math.floor(size))}


def provenance() -> dict[str, Any]:
    """As a run writes it, with a task whose name is an attack."""
    return {
        "inputs": {
            "task": {"name": "<script>alert('x')</script>"},
            "search": {"strategy": "milp", "seed": 7, "round_to": None, "ignored": ["stem*"]},
            "recovery": {"epochs": 6},
            "versions": {"edgeprune": "0.1.0", "torch": "2.13.0"},
            "model": "99" * 32,
        },
        "machine": {"kernel": "6.1", "hostname": "secret-name"},
        "measured_on": {
            "target": "ssh://pi@camera",
            "profile": "raspberry-pi-4b",
            "board": "Raspberry Pi 4 Model B",
            "cpu": "Cortex-A72",
            "cpus": 4,
            "arch": "aarch64",
            "runtime": "onnxruntime",
            "runtime_version": "1.31.1",
            "memory_bytes": 4e9,
            "threads": 1,
            "cores": [],
            "differences": ["3 processors instead of 4"],
        },
        "dense_again": {
            "1": {
                "camera": {
                    "outcome": "OK",
                    "first_ms": 1.0,
                    "now_ms": 1.2,
                    "ratio": 1.2,
                    "lower": 1.1,
                    "upper": 1.3,
                    "drifted": True,
                }
            }
        },
        "files": {"artifact": "best/model.onnx", "elsewhere": "../../etc/passwd", "away": "https://example.org/"},
    }
