"""A project's network made ready for trials: captured, its units scored, the space of widths, and who builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.measure.session import Session
from edgeprune.pipeline import baseline
from edgeprune.pipeline.building import Builder
from edgeprune.pipeline.run_checks import run_settings
from edgeprune.pipeline.space import importance_scores, search_space
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget
from edgeprune.records.profile import DeviceProfile
from edgeprune.records.profile_match import differences
from edgeprune.records.project import Project
from edgeprune.search.base import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeprune.graph.captured import Captured
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["Prepared", "device_facts", "measured_on", "prepare", "run_inputs"]

_IMPORTANCE = "importance.json"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What every search begins with."""

    captured: Captured
    space: SearchSpace
    builder: Builder


def prepare(
    project: Project,
    profile: DeviceProfile,
    task: CheckedTask,
    *,
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    folder: Path,
    device: Mapping[str, Any],
    reuse: bool = False,
    progress: Progress = SILENT,
) -> Prepared:
    """Capture and score; the scores are kept in `folder`, and with `reuse` taken from there.

    Raises UsageError where nothing can be pruned, CaptureError, TaskError, StorageError.
    """
    from edgeprune.graph.capture import capture

    with progress.step("capturing the model"):
        captured = capture(model, example_inputs)
    baseline.check_capture(model, captured)
    if not captured.groups:
        raise UsageError(
            "nothing in this model can be pruned: " + (captured.frozen[0].frozen or "" if captured.frozen else ""),
            hint="`edgeprune prune --groups` shows why each group is frozen",
        )
    search = project.search
    scores = importance_scores(
        captured,
        task,
        folder / _IMPORTANCE,
        name=search.importance,
        seed=search.seed,
        reuse=reuse,
        progress=progress,
    )
    space = search_space(
        captured,
        scores,
        round_to=search.round_to or profile.alignment,
        min_width=search.min_width,
        ignored=search.ignored,
    )
    builder = Builder(
        captured,
        task,
        project.recovery,
        format=project.export.format,
        seed=search.seed,
        device=device,
        progress=progress,
    )
    return Prepared(captured, space, builder)


def device_facts(session: Session) -> dict[str, Any]:
    """What of the device must stay the same for its measurements to compare."""
    machine = session.machine
    return {
        **{name: machine.get(name) for name in ("board", "cpu", "cpus", "arch")},
        "runtime": session.policy.runtime,
        "runtime_version": (session.runtimes.get(session.policy.runtime) or {}).get("version"),
    }


def measured_on(session: Session) -> dict[str, Any]:
    """What the figures of a result are of."""
    return {
        "target": session.target.name,
        "profile": session.profile.name,
        **device_facts(session),
        "memory_bytes": session.machine.get("memory_bytes"),
        "threads": session.policy.threads,
        "cores": session.policy.cores if session.policy.cores == "big" else list(session.policy.cores),
        "differences": list(differences(session.profile, session.machine)),
    }


def run_inputs(project: Project, budget: Budget, task: CheckedTask, model: nn.Module) -> dict[str, Any]:
    """What a run depends on, as plain data: it must be the same when the run is resumed."""
    return {
        **run_settings(project, budget),
        "task": {"name": project.task, "trainable": task.trainable},
        "model": baseline.fingerprint(model),
        "versions": {name: version(name) for name in ("edgeprune", "torch", "onnx", "onnxruntime")},
    }
