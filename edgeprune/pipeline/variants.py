"""The forms of one model that `advise` compares: smaller by channels, sparse, int8; each as a file, and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import TaskError, UsageError
from edgeprune.progress import SILENT, Progress
from edgeprune.records.artifact import Artifact

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from edgeprune.export.base import Scheme
    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.pipeline.calibration import Batch
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["Judgement", "Variant", "Variants", "calibration_batches"]

_CALIBRATION_BATCHES = 8
_JUDGING_BATCHES = 2  # after them

Arrays = Mapping[str, "NDArray[Any]"]  # by name


@dataclass(frozen=True, slots=True)
class Judgement:
    """How good a variant is: the task's metric, else how near its outputs are to the dense ones; else why neither."""

    accuracy: float | None = None
    agreement: float | None = None
    relative_error: float | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A file to measure, how good it is, and how accuracy was got back.

    `computed`, of what another machine may compute otherwise: inputs and outputs of this machine's runtime.
    """

    artifact: Artifact
    judgement: Judgement
    model: Captured | Pruned  # in float
    recovery: str = ""
    computed: tuple[Arrays, Arrays] | None = None


@dataclass(frozen=True, slots=True)
class Variants:
    """Makes them, in `folder`. `judges` are examples that nothing is fitted to, where there is no task."""

    captured: Captured
    task: CheckedTask | None
    folder: Path
    calibration: Sequence[Batch]
    judges: Sequence[Batch] = ()
    format: str = "onnx"
    seed: int = 0
    progress: Progress = SILENT

    @property
    def trainable(self) -> bool:
        """Whether there is a training part."""
        return self.task is not None and self.task.trainable

    def dense(self) -> Variant:
        """The model as it is; raises TaskError where it cannot be judged."""
        artifact = self._exported(self.captured, "dense")
        return Variant(artifact, self._judged(self.captured.module), self.captured, "none: the dense model")

    def structured(self, ratio: float, *, round_to: int, min_width: int, ignored: Sequence[str]) -> Variant:
        """The share `ratio` of the channels of every group gone, by L2; raises UsageError where none goes."""
        candidate = self.captured.select(
            ratio, importance="l2", round_to=round_to, min_width=min_width, ignored=ignored
        )
        if candidate.is_dense:
            raise UsageError(
                f"no channel goes: widths are multiples of {round_to}, of {min_width} at least"
                if self.captured.groups
                else "the model has no channels that can go"
            )
        with self.progress.step("prune and verify"):
            pruned = self.captured.prune(candidate)
        return self._recovered(pruned, f"structured-{ratio:g}")

    def sparse(self, pattern: str, ratio: float | None = None) -> Variant:
        """Zeros by magnitude in the pattern; raises UsageError where no weight takes part."""
        from edgeprune.sparsity.masks import make_permanent, sparsify

        plain = make_permanent(sparsify(self.captured, pattern, ratio=ratio))
        return self._recovered(plain, f"sparse-{pattern.replace(':', '-')}")

    def int8(self, variant: Variant, scheme: Scheme) -> Variant:
        """The int8 form of a variant; raises UsageError where it cannot be made."""
        from edgeprune.export.runtime_module import RuntimeModule
        from edgeprune.pipeline.quantisation import float_model, quantizer_of

        source = variant.artifact
        path = source.path.with_name(f"{source.path.stem}-{scheme.key}{source.path.suffix}")
        with self.progress.step(f"quantising to {scheme.name}"):
            given = float_model(variant.model, source)
            artifact = quantizer_of(self.format).quantize(given, path, self.calibration, scheme)
        module = RuntimeModule(artifact, self.captured.module, self.captured.example_inputs)
        try:
            judgement = self._judged(module)
        except TaskError as error:
            judgement = Judgement(missing=f"the task cannot evaluate the int8 file: {error.message}")
        feeds = module.one_batch(self.captured.example_inputs)
        recovery = f"{variant.recovery}; then calibrated, not trained"
        return Variant(artifact, judgement, variant.model, recovery, (feeds, module.run(feeds)))

    def _recovered(self, model: Pruned, name: str) -> Variant:
        """With batch-norm statistics of the task's own batches, where it has any."""
        from edgeprune.recovery.batchnorm import reestimate
        from edgeprune.training_data import reproducible

        recovery = "none: there is no training part"
        if self.task is not None and self.task.trainable:
            with reproducible(self.seed):
                batches = reestimate(model.module, self.task.train_batches(), self.task.loss, progress=self.progress)
            recovery = "batch-norm re-estimation" if batches else "none: no batch-norm statistics"
        return Variant(self._exported(model, name), self._judged(model.module), model, recovery)

    def _exported(self, model: Captured | Pruned, name: str) -> Artifact:
        from edgeprune.pipeline.export import export, exporter

        suffix = exporter(self.format).suffix
        with self.progress.step(f"export {name}"):
            return export(model, self.folder / f"{name}{suffix}", format=self.format)

    def _judged(self, module: nn.Module) -> Judgement:
        from edgeprune.pipeline.fidelity import module_fidelity
        from edgeprune.training_data import reproducible

        if self.task is not None:
            module.eval()
            with self.progress.step("evaluating"), reproducible(self.seed):
                return Judgement(accuracy=self.task.evaluate(module))
        if not self.judges:
            return Judgement(missing="there is no task, and no examples (--calibration)")
        found = module_fidelity(module, self.captured, self.judges)
        told = next((output for output in found if output.agreement is not None), found[0])
        missing = "" if told.agreement is not None else "the outputs are no class scores"
        return Judgement(None, told.agreement, told.relative_error, missing)


def calibration_batches(
    captured: Captured | Pruned, task: CheckedTask | None, examples: Sequence[Batch], seed: int
) -> tuple[list[Batch], list[Batch], str]:
    """Inputs to calibrate on, those to judge by where there is no task, and where they come from.

    Of `examples`, one batch in four is kept to judge by. Else the inputs that the task's loss gives the model on its
    training batches, of which the last ones are kept where there are enough; else the example inputs. Raises TaskError.
    """
    from edgeprune.recovery.reconstruct import held_back

    if examples:
        used = [batch for number, batch in enumerate(examples) if not held_back(number)]
        kept = [batch for number, batch in enumerate(examples) if held_back(number)]
        return used or list(examples), kept or list(examples), "the calibration data"
    if task is None or not task.trainable:
        return [captured.example_inputs], [], "the example inputs alone"
    import torch

    from edgeprune.recovery.distillation import recorded
    from edgeprune.training_data import reproducible

    names = [node.name for node in captured.module.graph.nodes if node.op == "placeholder"]
    captured.module.eval()
    with reproducible(seed), torch.no_grad(), recorded(captured.module) as calls:
        for batch in islice(task.train_batches(), _CALIBRATION_BATCHES + _JUDGING_BATCHES):
            task.loss(captured.module, batch)
        found = [(*args, *(kwargs[n] for n in names if n in kwargs)) for args, kwargs, _ in calls]
    if not found:
        raise TaskError("loss(model, batch) did not call the model", hint="call model(...) inside loss")
    fitted, kept = found[:_CALIBRATION_BATCHES], found[_CALIBRATION_BATCHES:]
    return fitted, kept, f"{len(fitted)} training batches"
