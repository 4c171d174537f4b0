"""Quantisation as a step behind the export: calibrated on the task's inputs, and told how near to float it comes.

float file (checked) -> int8 file beside it -> SQNR on inputs that nothing was calibrated on -> manifest
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import registry
from edgeprune.errors import ParityError, TargetError, UsageError, did_you_mean
from edgeprune.export import manifest
from edgeprune.export.base import FloatModel, Quantizer, Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeprune.export.runtime_module import RuntimeModule
    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.measure.session import Session
    from edgeprune.pipeline.calibration import Batch
    from edgeprune.pipeline.task import CheckedTask
    from edgeprune.records.artifact import Artifact

__all__ = [
    "SAME",
    "Calibration",
    "Quantisation",
    "Quantised",
    "calibration_of",
    "check_on_device",
    "device_difference",
    "float_model",
    "quantisation_of",
    "quantise",
    "quantizer_of",
    "scheme_of",
    "sqnr_db",
]

SAME = 0.05  # of the largest output: steps of int8 that processors round differently


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Inputs that ranges are taken from, others that the outcome is judged on, and where they come from."""

    fitted: Sequence[Batch]
    judges: Sequence[Batch]
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Quantisation:
    """How the networks of a run become int8. `least_accuracy` is what the budget asks of them, None where nothing."""

    quantizer: Quantizer
    scheme: Scheme
    calibration: Calibration
    least_accuracy: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """The int8 file, as a module that its runtime on this machine computes, and the SQNR of its worst output."""

    artifact: Artifact
    module: RuntimeModule
    sqnr_db: float | None  # None where it is not finite: the outputs are the same, or are none


def quantizer_of(format: str) -> Quantizer:  # noqa: A002  the record's word
    """What makes int8 files of a format, whatever its exporter's parameters; raises UsageError where nothing does."""
    name, _ = registry.split(format)
    known = registry.names("quantizers")
    if name not in known:
        raise UsageError(f"nothing makes int8 files of format {name!r}", hint=f"formats: {', '.join(known)}")
    quantizer: Quantizer = registry.resolve("quantizers", name)()
    return quantizer


def scheme_of(quantizer: Quantizer, key: str) -> Scheme:
    """A scheme by its key; raises UsageError with those that there are."""
    keys = [scheme.key for scheme in quantizer.schemes]
    if key not in keys:
        raise UsageError(f"{quantizer.format} has no int8 scheme {key!r}", hint=did_you_mean(key, keys))
    return quantizer.schemes[keys.index(key)]


def calibration_of(captured: Captured | Pruned, task: CheckedTask | None, file: Path | None, seed: int) -> Calibration:
    """The inputs to calibrate on: of the file, else those that the task trains on.

    Raises UsageError where there are neither, TaskError.
    """
    from edgeprune.pipeline.calibration import load_calibration
    from edgeprune.pipeline.variants import calibration_batches

    if file is None and (task is None or not task.trainable):
        raise UsageError(
            "int8 needs examples of the model's inputs to take ranges from",
            hint="give a file of some hundred, .npz with an array per input: --calibration FILE, "
            "in a project `export: {quantize: int8, calibration: FILE}`; or add train_batches() and loss() to the task",
        )
    examples = [] if file is None else load_calibration(file, captured)
    fitted, judges, origin = calibration_batches(captured, task, examples, seed)
    return Calibration(fitted, judges or fitted, origin)


def quantisation_of(
    captured: Captured, task: CheckedTask | None, scheme: tuple[str, str], file: Path | None, seed: int
) -> Quantisation:
    """How a network becomes int8; `scheme` is its format and its key. Raises UsageError, TaskError."""
    quantizer = quantizer_of(scheme[0])
    return Quantisation(quantizer, scheme_of(quantizer, scheme[1]), calibration_of(captured, task, file, seed))


def float_model(model: Captured | Pruned, artifact: Artifact) -> FloatModel:
    """A model and the file that was made of it, as quantisers take them."""
    names = (model.input_names, model.output_names)
    return FloatModel(model.module, model.example_inputs, artifact, model.batch_dynamic, *names)


def quantise(model: Captured | Pruned, source: Artifact, path: Path, how: Quantisation) -> Quantised:
    """Write the int8 form of a model's float file, run it here, and write its manifest. Raises UsageError."""
    from edgeprune.export.runtime_module import RuntimeModule

    given = float_model(model, source)
    artifact = how.quantizer.quantize(given, path, how.calibration.fitted, how.scheme)
    manifest.write(artifact)
    module = RuntimeModule(artifact, model.module, model.example_inputs)
    return Quantised(artifact, module, sqnr_db(module, model, how.calibration.judges))


def sqnr_db(module: RuntimeModule, model: Captured | Pruned, batches: Sequence[Batch]) -> float | None:
    """Signal to quantisation noise of the worst output, in dB: 10 log10(sum of squares / that of the differences)."""
    from edgeprune.pipeline.fidelity import module_fidelity

    errors = [output.relative_error for output in module_fidelity(module, model, batches)]
    known = [error for error in errors if error]
    return -20 * math.log10(max(known)) if known and len(known) == len(errors) else None


def check_on_device(session: Session, artifact: Artifact, captured: Captured) -> float | None:
    """By how much the outputs of an int8 file differ on the device; raises ParityError where they do not hold there."""
    from edgeprune.export.runtime_module import RuntimeModule

    module = RuntimeModule(artifact, captured.module, captured.example_inputs)
    feeds = module.one_batch(captured.example_inputs)
    difference, why = device_difference(session, artifact, feeds, module.run(feeds))
    if why:
        raise ParityError(f"{artifact.path.name}: {why}", hint="its accuracy there is not what the trial says")
    return difference


def device_difference(
    session: Session, artifact: Artifact, inputs: Mapping[str, NDArray[Any]], here: Mapping[str, NDArray[Any]]
) -> tuple[float | None, str]:
    """By how much the device's outputs differ from those of this machine, and why that says that figures do not hold.

    The first is the largest difference by the largest output, None where it is not known; the second is empty where
    both compute the same (to `SAME`), or where the outputs are too large to be sent.
    """
    from edgeprune.export.parity import relative_error

    try:
        there = session.outputs(artifact, inputs)
    except TargetError as error:
        return None, (
            f"whether the device computes int8 as this machine, which evaluates it, is not known: {error.message}"
        )
    except UsageError:
        return None, ""
    worst = max(relative_error(there[name], array) for name, array in here.items())
    if worst <= SAME:
        return worst, ""
    return (
        worst,
        f"the device computes int8 otherwise than this machine, which evaluates it: {worst:.1%} of the outputs",
    )
