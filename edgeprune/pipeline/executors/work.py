"""What a worker does, in whatever process it lives: a plan and a job in, files and a line of JSON out."""

from __future__ import annotations

import json
import os
import traceback
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgeprune import errors
from edgeprune.errors import EdgepruneError, TaskError
from edgeprune.export import manifest
from edgeprune.pipeline.building import Builder, Built, artifact_path
from edgeprune.pipeline.executors.base import Plan
from edgeprune.progress import SILENT, Progress, Step
from edgeprune.records.candidate import Candidate
from edgeprune.records.trial import Job, Stage

__all__ = ["job_text", "result", "sweep", "work"]


def job_text(job: Job) -> str:
    """A job as JSON."""
    return json.dumps({"number": job.number, "stage": job.stage.value, "candidate": job.candidate.to_json()})


def work(plan: str, job: str, folder: Path) -> str:
    """Build a job into `folder`; what became of it as JSON, which `result` reads. Whatever is raised is in it."""
    data = json.loads(job)
    said: list[str] = []
    try:
        sweep(folder)
        builder, progress = _builder(plan)
        progress.said = said
        built = builder.build(Candidate.from_json(data["candidate"]), Stage(data["stage"]), folder)
    except EdgepruneError as error:
        kind = type(error).__name__
        return json.dumps({"error": {"kind": kind, "message": error.message, "hint": error.hint}, "said": said})
    except Exception:
        return json.dumps({"bug": traceback.format_exc(), "said": said})
    return json.dumps(
        {
            "accuracy": built.accuracy,
            "exported": built.artifact is not None,
            "details": dict(built.details),
            "seconds": built.seconds,
            "said": said,
        },
        allow_nan=False,
    )


def result(reply: str, folder: Path, format: str, progress: Progress) -> Built:  # noqa: A002  as the project names it
    """What `work` replied; raises what was raised there."""
    data: dict[str, Any] = json.loads(reply)
    for message in data["said"]:
        progress.say(message)
    if "bug" in data:
        raise RuntimeError(f"in a worker:\n{data['bug']}")
    if "error" in data:
        kind = getattr(errors, data["error"]["kind"], None)
        make = kind if isinstance(kind, type) and issubclass(kind, EdgepruneError) else EdgepruneError
        raise make(data["error"]["message"], hint=data["error"]["hint"])
    artifact = manifest.read(artifact_path(folder, format)) if data["exported"] else None
    return Built(data["accuracy"], artifact, data["details"], data["seconds"])


def sweep(folder: Path) -> None:
    """Remove what a worker that was killed left half written; its checkpoint stays."""
    for path in folder.glob(".*"):
        if path.is_dir():
            for inner in sorted(path.rglob("*"), reverse=True):
                inner.rmdir() if inner.is_dir() else inner.unlink()
            path.rmdir()
        else:
            path.unlink()


class _Notes:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def step(self, description: str, total: int | None = None) -> AbstractContextManager[Step]:
        return SILENT.step(description, total)


@lru_cache(maxsize=1)
def _builder(text: str) -> tuple[Builder, _Notes]:
    """The plan's network, captured once in this process; raises TaskError where it is not that of the run."""
    import torch

    from edgeprune.graph.capture import capture
    from edgeprune.pipeline import baseline
    from edgeprune.pipeline.task import load_task

    plan = Plan.from_text(text)
    os.environ["OMP_NUM_THREADS"] = str(plan.threads)  # of what the task starts
    torch.set_num_threads(plan.threads)
    task = load_task(plan.task, plan.folder)
    if task.sources != plan.sources:
        changed = sorted(n for n in {*task.sources, *plan.sources} if task.sources.get(n) != plan.sources.get(n))
        raise TaskError(
            f"{task.name}: a worker does not find the files that this run began with: {', '.join(changed)}",
            hint="every node needs the project at the same path; after an edit go on with --resume",
        )
    model = task.model().eval()
    if baseline.fingerprint(model) != plan.model:
        raise TaskError(
            f"model() of {task.name} gives other weights in a worker than in the run{task.where('model')}",
            hint="model() must give the same weights every time: cache what you train beside the task",
        )
    notes = _Notes()
    captured = capture(model, task.example_inputs())
    builder = Builder(captured, task, plan.recovery, plan.format, plan.seed, progress=notes)
    if plan.scheme is None:
        return builder, notes
    from edgeprune.pipeline.quantisation import quantisation_of

    file = None if plan.calibration is None else Path(plan.calibration)
    how = quantisation_of(captured, task, (plan.format, plan.scheme), file, plan.seed)
    return replace(builder, quantisation=replace(how, least_accuracy=plan.least_accuracy)), notes
