"""The other side of `search.py`: Torch-Pruning, its ratio bisected until the measured latency is within the limit.

Group importance (Fang et al. 2023, arXiv:2301.12900), global ranking, widths rounded to 8. Everything but the choice of
what to prune is edgeprune's: fine-tuning, export, measuring, and when a limit counts as met.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from resnet20 import BasicBlock
from search_cell import Cell, budget, open_session, row
from search_models import Attention
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import CannotMeasureError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.measure.session import Session
from edgeprune.pipeline.export import export
from edgeprune.pipeline.in_turn import compared, figures_in_turn
from edgeprune.progress import Progress
from edgeprune.records.artifact import Artifact
from edgeprune.records.budget import State
from edgeprune.records.figures import Figures, figures_of
from edgeprune.records.measurement import Measurement
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Stage
from edgeprune.recovery.batchnorm import reestimate
from edgeprune.recovery.finetune import finetune
from edgeprune.training_data import reproducible

__all__ = ["METHODS", "theirs"]

METHODS: dict[str, Callable[[], Any]] = {
    "tp_l1": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=1),
    "tp_taylor": torch_pruning.importance.GroupTaylorImportance,
}
_STEPS = 100  # ratios that are tried: hundredths
_COARSE = 6  # of these, to find the ratio of least MACs: a layer below the threshold as a whole stays as it is
_ITERATIONS = (1, 5)  # in one go; in five where that does not reach the limit
_GRADIENT_BATCHES = 20  # as edgeprune's own importances
_WIDER = 2  # networks beyond the boundary that are measured as well: latency is a staircase of width


class ConvolvedShortcut(nn.Module):
    """ResNet-20's block with its zero-padding shortcut as the equal 1x1 convolution.

    Torch-Pruning takes the padding for an identity, and destroys the network without an error.
    """

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        inner = block.conv1.in_channels
        self.shortcut = nn.Conv2d(inner, block.conv2.out_channels, 1, 2, bias=False)
        with torch.no_grad():
            self.shortcut.weight.zero_()
            for channel in range(inner):
                self.shortcut.weight[channel + block.pad, channel] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """As `BasicBlock`."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


class _Networks:
    """The networks of one method by ratio in hundredths; the same one, in shapes, is measured once."""

    def __init__(
        self, cell: Cell, task: Any, session: Session, dense: tuple[Measurement, Artifact, Figures], folder: Path
    ) -> None:
        self._cell, self._task, self._session, self._folder = cell, task, session, folder
        self._dense_measured, self._dense_artifact, self._dense = dense
        self._model = _prepared(task.model())
        self._gradients = self._with_gradients() if cell.method == "tp_taylor" else {}
        self._made: dict[tuple[int, int], tuple[nn.Module, tuple[Any, ...]]] = {}
        self._states: dict[tuple[Any, ...], State] = {}
        self._most = 0
        self.iterations = 1
        self.measurements = 0

    def made(self, ratio: int) -> tuple[nn.Module, tuple[Any, ...]]:
        """The pruned network, and its shapes."""
        key = self.iterations, ratio
        if key not in self._made:
            module = self._pruned(ratio / _STEPS)
            self._made[key] = module, tuple(tuple(value.shape) for value in module.state_dict().values())
        return self._made[key]

    def meets(self, ratio: int) -> bool:
        """Whether the limit is shown to be met, before fine-tuning."""
        module, shapes = self.made(ratio)
        if shapes not in self._states:
            captured = capture(module, self._task.example_inputs())
            figures, _ = self.measure(captured, f"{len(self._states)}", None, Stage.MEASURE)
            self._states[shapes] = budget(self._cell).check(figures, self._dense).state
        return self._states[shapes] is State.MET

    def measure(self, captured: Captured, name: str, accuracy: float | None, stage: Stage) -> tuple[Figures, Artifact]:
        """Export and measure, as a run does: the latency in turn with the dense network."""
        artifact = export(captured, self._folder / f"{name}.onnx")
        measured = self._session.measure(artifact)
        self.measurements += 1
        if not measured.outcome.is_result:
            raise CannotMeasureError(f"{measured.outcome.value}: {measured.message}")
        comparisons = compared(self._session, artifact, self._dense_artifact, stage)
        dense = dict.fromkeys(comparisons, self._dense_measured)
        figures, _ = figures_in_turn(measured, comparisons, dense, artifact, accuracy)
        return figures, artifact

    def choice(self) -> int | None:
        """The lowest ratio that is shown to meet the limit, by bisection and a look at the next wider networks."""
        for self.iterations in _ITERATIONS:
            self._most = min(range(_COARSE, _STEPS, _COARSE), key=self._macs)
            if self.meets(self._most):
                return self._bisected()
        return None

    def narrower(self, ratio: int) -> int | None:
        """The next higher ratio that gives another network and meets the limit."""
        shapes = self.made(ratio)[1]
        return next((r for r in range(ratio + 1, self._most + 1) if self.made(r)[1] != shapes and self.meets(r)), None)

    def _bisected(self) -> int:
        missed, met = 0, self._most
        while met - missed > 1:
            middle = (missed + met) // 2
            if self.meets(middle):
                met = middle
            else:
                missed = middle
        best, seen = met, {self.made(missed)[1]}
        for ratio in range(missed - 1, 0, -1):
            shapes = self.made(ratio)[1]
            if shapes not in seen and len(seen) > _WIDER:
                break
            seen.add(shapes)
            if self.meets(ratio):
                best = ratio
        return best

    def _macs(self, ratio: int) -> float:
        macs, _ = torch_pruning.utils.count_ops_and_params(self.made(ratio)[0], self._task.example_inputs()[0])
        return float(macs)

    def _with_gradients(self) -> dict[str, Tensor]:
        """Summed over some batches, in eval mode."""
        self._model.zero_grad(set_to_none=True)
        with reproducible(self._cell.seed):
            for batch in islice(self._task.train_batches(), _GRADIENT_BATCHES):
                self._task.loss(self._model, batch).backward()
        return {name: p.grad for name, p in self._model.named_parameters() if p.grad is not None}

    def _pruned(self, ratio: float) -> nn.Module:
        module = copy.deepcopy(self._model)
        for name, parameter in module.named_parameters():
            parameter.grad = self._gradients[name].clone() if name in self._gradients else None
        heads = {layer: m.heads for m in module.modules() if isinstance(m, Attention) for layer in (m.q, m.k, m.v)}
        classes = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says which bare parameters it prunes
            pruner = torch_pruning.pruner.MetaPruner(
                module,
                self._task.example_inputs(),
                importance=METHODS[self._cell.method](),
                global_pruning=True,
                pruning_ratio=ratio,
                iterative_steps=self.iterations,
                round_to=8,
                ignored_layers=[classes],
                num_heads=heads,
                in_channel_groups={},  # its defaults are shared between all pruners of a process
                out_channel_groups={},
            )
            for _ in range(self.iterations):
                pruner.step()
        module.zero_grad(set_to_none=True)
        return module


def theirs(cell: Cell, task: Any, *, recovery: FineTuneSettings, run_dir: Path, progress: Progress) -> dict[str, Any]:
    """Bisect, fine-tune, measure; narrower where the final measurement misses the limit."""
    started = time.monotonic()
    run_dir.mkdir(parents=True, exist_ok=True)
    teacher = capture(task.model().eval(), task.example_inputs())
    steps = 0
    with open_session(progress) as session:
        dense_artifact = export(teacher, run_dir / "dense.onnx")
        measured = session.measure(dense_artifact)
        dense = figures_of(measured, dense_artifact, task.evaluate(teacher.module))
        networks = _Networks(cell, task, session, (measured, dense_artifact, dense), run_dir)
        ratio = networks.choice()
        figures: Figures = {}
        artifact: Artifact | None = None
        status = "infeasible"
        while ratio is not None and status != "accepted":
            module = copy.deepcopy(networks.made(ratio)[0])
            with reproducible(cell.seed):
                reestimate(module, task.train_batches(), task.loss, progress=progress)
            report = finetune(
                module,
                task.train_batches,
                task.loss,
                settings=recovery,
                teacher=teacher.module,
                seed=cell.seed,
                progress=progress,
            )
            steps += report.steps
            captured = capture(module, task.example_inputs())
            figures, artifact = networks.measure(captured, "final", task.evaluate(captured.module), Stage.FINAL)
            if budget(cell).check(figures, dense).state is State.MET:
                status = "accepted"
            else:
                ratio = networks.narrower(ratio)
    return row(
        cell,
        status=status,
        figures=figures,
        dense=dense,
        artifacts=None if artifact is None else (artifact, dense_artifact),
        measurements=networks.measurements + 1,
        steps=steps,
        started=started,
        progress=progress,
        iterations=networks.iterations,
        pruning_ratio=None if ratio is None else ratio / _STEPS,
    )


def _prepared(model: nn.Module) -> nn.Module:
    """A copy that Torch-Pruning prunes rightly."""
    module = copy.deepcopy(model).eval()
    for name, block in list(module.named_modules()):
        if isinstance(block, BasicBlock) and block.pad:
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, ConvolvedShortcut(block).eval())
    return module
