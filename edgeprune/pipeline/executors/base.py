"""The seam of executors: where trials are built while the driver measures.

The driver hands over independent jobs, takes them back in its own order, and alone measures and writes the journal:
what comes out is the same for any number of workers. What passes between processes is JSON and files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgeprune.pipeline import baseline
from edgeprune.progress import Progress
from edgeprune.records.project import ExecutorSettings, Project
from edgeprune.records.recovery import FineTuneSettings
from edgeprune.records.trial import Job

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.pipeline.building import Built
    from edgeprune.pipeline.quantisation import Quantisation
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["Executor", "ExecutorFactory", "OnLost", "Plan"]

OnLost = Callable[[int, str], None]  # (trial number, what became of its worker)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a worker needs to build the trials of a run: it loads the task itself, by its name.

    `sources` (SHA-256 of the task's files) and `model` (a fingerprint of the weights) are what it must find.
    """

    task: str
    folder: str
    sources: Mapping[str, str]
    model: str
    recovery: FineTuneSettings
    format: str
    seed: int
    threads: int
    scheme: str | None = None  # of int8; None: float
    calibration: str | None = None  # a file of examples; None: the task's
    least_accuracy: float | None = None  # that is asked of int8

    @classmethod
    def of(cls, project: Project, task: CheckedTask, model: nn.Module, int8: Quantisation | None = None) -> Plan:
        """The plan of a run."""
        return cls(
            task=project.task,
            folder=str(project.folder),
            sources=task.sources,
            model=baseline.fingerprint(model),
            recovery=project.recovery,
            format=project.export.format,
            seed=project.search.seed,
            threads=project.executor.cpus,
            scheme=None if int8 is None else int8.scheme.key,
            least_accuracy=None if int8 is None else int8.least_accuracy,
            calibration=None if project.export.calibration is None else str(project.export.calibration),
        )

    def to_text(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Plan:
        """What `to_text` wrote."""
        data = json.loads(text)
        return cls(**{**data, "recovery": FineTuneSettings(**data["recovery"])})


@runtime_checkable
class Executor(Protocol):
    """Builds trials ahead; a context manager, which leaves neither processes nor temporary files."""

    def __enter__(self) -> Executor:
        """Ready; raises UsageError where it cannot be had."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all that is under way."""

    def submit(self, jobs: Sequence[tuple[Job, Path]]) -> None:
        """Begin to build each job into its folder, in any order."""

    def built(self, job: Job) -> Built:
        """Wait for a job; its files are in its folder. Raises what building it raises.

        A job whose worker died is done again, and told to `on_lost`; WorkerError where each attempt ended so.
        """


class ExecutorFactory(Protocol):
    """How an executor is made."""

    def __call__(self, plan: Plan, settings: ExecutorSettings, on_lost: OnLost, progress: Progress) -> Executor: ...
