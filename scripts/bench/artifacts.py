"""Every exporter on pruned, trained networks, in float and in int8: does it run, how large, how fast, how right?

    scripts/bench/artifacts.py --out artifacts.json                           # goes on after the last finished network
    scripts/bench/artifacts.py --networks resnet20 --formats onnx tflite --out artifacts.json

The networks are those of `search_models.py`; half of the channels of every layer go (L2, widths of multiples of 8), and
what is left is fine-tuned with distillation; it is kept in the cache of that file. A format whose converter is not
installed is a row with the reason. Latency is the ratio to the dense float file of the same format, both run in turn on
one thread of this machine; memory is the growth of the peak of a process. The float error is that of the format's own
runtime to the network, by the largest output; the noise (SQNR) is that of int8 to the network in float.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search_models import NETWORKS, Network

from edgeprune import atomic, registry
from edgeprune.cli.progress import open_progress
from edgeprune.errors import EdgepruneError
from edgeprune.export import environment
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.graph.storage import load
from edgeprune.measure.session import Session
from edgeprune.pipeline.export import export, exporter
from edgeprune.pipeline.quantisation import Calibration, Quantisation, calibration_of, quantise, quantizer_of
from edgeprune.pipeline.task import CheckedTask, check_task
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.figures import figures_of
from edgeprune.records.profile import load_profile
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.report.table import table
from edgeprune.targets.parse import open_target
from edgeprune.training_data import reproducible

_RATIO = 0.5  # of the channels
_WORKERS, _SECONDS = 4, 1.0  # of each comparison
_WAIT_S = 1800.0  # for other measurements on this machine to end
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One file, or why there is none. `accuracy` is the task's metric, computed by the file's own runtime."""

    network: str
    format: str
    form: str  # "float", or the key of an int8 scheme
    network_accuracy: float | None = None  # of the pruned network in torch
    accuracy: float | None = None
    float_error: float | None = None
    sqnr_db: float | None = None
    size_bytes: int | None = None
    size_ratio: float | None = None  # to the dense float file of the format, as the following
    latency_ratio: float | None = None
    latency_upper: float | None = None
    latency_ms: float | None = None
    peak_memory_bytes: float | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """One network: dense, and pruned and trained."""

    name: str
    task: CheckedTask
    dense: Captured
    pruned: Pruned | Captured
    accuracy: float
    calibration: Calibration


def main() -> int:
    """All cells that are asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--formats", nargs="+", default=list(registry.names("exporters")))
    parser.add_argument("--epochs", type=int, help="of fine-tuning; by default as the network needs")
    parser.add_argument("--out", type=Path, required=True, help="the figures as JSON; it is gone on with")
    options = parser.parse_args()
    rows = [Row(**row) for row in json.loads(options.out.read_text())["rows"]] if options.out.exists() else []
    with open_progress() as progress:
        for name in options.networks:
            wanted = [f for f in options.formats if not any((r.network, r.format) == (name, f) for r in rows)]
            if not wanted:
                continue
            network = NETWORKS[name]
            if options.epochs is not None:
                network = replace(network, epochs=options.epochs)
            subject = _subject(name, network, progress)
            for kind in wanted:
                progress.say(f"{name}: {kind}")
                rows += _rows(subject, kind, progress)
                atomic.write_text(options.out, json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    for line in table([_HEADER, *map(_cells, rows)]):
        print(line)
    return 0


def _subject(name: str, network: Network, progress: Progress) -> Subject:
    task = check_task(network.task())
    with progress.step(f"{name}: loading"):
        dense = capture(task.model().eval(), task.example_inputs())
    pruned = _cached(name, network, task, dense, progress)
    with reproducible(0):
        accuracy = task.evaluate(pruned.module.eval())
    return Subject(name, task, dense, pruned, accuracy, calibration_of(dense, task, None, 0))


def _cached(name: str, network: Network, task: CheckedTask, dense: Captured, progress: Progress) -> Captured | Pruned:
    """The pruned and fine-tuned network, from the cache where it was made before."""
    from edgeprune.recovery.finetune import finetune

    digest = hashlib.sha256(json.dumps([name, _RATIO, network.epochs, network.learning_rate]).encode()).hexdigest()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeprune-bench"
    path = root / f"artifacts-{name}-{digest[:16]}.pt2"
    if path.exists():
        return load(path)
    pruned = dense.prune(dense.select(_RATIO, importance="l2", round_to=8, min_width=8))
    finetune(
        pruned.module,
        task.train_batches,
        task.loss,
        settings=FineTuneSettings(epochs=network.epochs, learning_rate=network.learning_rate),
        teacher=dense.module,
        seed=0,
        progress=progress,
    )
    root.mkdir(parents=True, exist_ok=True)
    pruned.save(path)
    return pruned


def _rows(subject: Subject, kind: str, progress: Progress) -> list[Row]:
    """The files of one format, made and then measured; a file that cannot be made is a row with the reason."""
    blank = Row(subject.name, kind, "float", network_accuracy=subject.accuracy)
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as name:
        suffix = exporter(kind).suffix
        try:
            with progress.step(f"exporting to {kind}"):
                dense = export(subject.dense, Path(name) / f"dense{suffix}", format=kind)
                pruned = export(subject.pruned, Path(name) / f"pruned{suffix}", format=kind)
        except EdgepruneError as error:
            return [replace(blank, missing=error.message)]
        made: list[tuple[Row, Artifact | None]] = []
        error_of = pruned.provenance.get("parity_error")
        made.append(_judged(subject, replace(blank, float_error=error_of), lambda: pruned))
        if kind in registry.names("quantizers"):
            for scheme in quantizer_of(kind).schemes:
                how = Quantisation(quantizer_of(kind), scheme, subject.calibration)
                path = Path(name) / f"{scheme.key}{suffix}"
                row = replace(blank, form=scheme.key)
                with progress.step(f"quantising to {scheme.name}"):
                    made.append(_judged(subject, row, lambda p=path, h=how: _int8(subject, pruned, p, h)))  # type: ignore[misc]
        return list(_measured(made, dense, _target(kind), progress))


def _judged(subject: Subject, row: Row, make: Callable[[], Any]) -> tuple[Row, Artifact | None]:
    try:
        found = make()
        artifact: Artifact = found if isinstance(found, Artifact) else found.artifact
        module = RuntimeModule(artifact, subject.dense.module, subject.dense.example_inputs)
        with reproducible(0):
            accuracy = subject.task.evaluate(module.eval())
    except EdgepruneError as error:
        return replace(row, missing=error.message), None
    noise = None if isinstance(found, Artifact) else found.sqnr_db
    return replace(row, accuracy=accuracy, sqnr_db=noise, size_bytes=artifact.size_bytes), artifact


def _int8(subject: Subject, pruned: Artifact, path: Path, how: Quantisation) -> Any:
    return quantise(subject.pruned, pruned, path, how)


def _measured(
    made: list[tuple[Row, Artifact | None]], dense: Artifact, target: str, progress: Progress
) -> Iterator[Row]:
    """Each file that there is on this machine, in turn with the dense one."""
    if all(artifact is None for _, artifact in made):
        yield from (row for row, _ in made)
        return
    with Session(open_target(target), load_profile("host"), progress=progress, wait_s=_WAIT_S) as session:
        for row, artifact in made:
            if artifact is None:
                yield row
                continue
            figures = figures_of(session.measure(artifact), artifact, None)
            compared = session.compare(artifact, dense, workers=_WORKERS, seconds=_SECONDS)
            memory = figures.get("peak_memory")
            yield replace(
                row,
                size_ratio=artifact.size_bytes / dense.size_bytes,
                latency_ratio=compared.ratio,
                latency_upper=compared.upper,
                latency_ms=figures["latency.p50"].value,
                peak_memory_bytes=None if memory is None else memory.value,
                missing="" if compared.ratio is not None else f"{compared.outcome.value}: {compared.message}",
            )


def _target(kind: str) -> str:
    """This machine, with the interpreter that has the format's runtime."""
    if kind not in environment.ENVIRONMENTS:
        return "local"
    return f"local://?python={environment.find(kind).python}"


_HEADER = ["network", "format", "form", "accuracy", "change", "error", "noise", "size", "", "latency", "", "memory", ""]


def _cells(row: Row) -> list[str]:
    def told(value: float | None, text: str) -> str:
        return "" if value is None else text.format(value)

    change = None if row.accuracy is None or row.network_accuracy is None else row.accuracy - row.network_accuracy
    return [
        row.network,
        row.format,
        row.form,
        told(row.accuracy, "{:.2%}"),
        told(None if change is None else change * 100, "{:+.2f} pp"),
        told(row.float_error, "{:.1e}"),
        told(row.sqnr_db, "{:.1f} dB"),
        told(row.size_bytes, "{:,} B"),
        told(row.size_ratio, "{:.3f} x"),
        told(row.latency_ms, "{:.3f} ms"),
        told(row.latency_ratio, "{:.3f} x"),
        told(None if row.peak_memory_bytes is None else row.peak_memory_bytes / _MIB, "{:.2f} MiB"),
        row.missing,
    ]


if __name__ == "__main__":
    sys.exit(main())
