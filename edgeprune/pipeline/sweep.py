"""`edgeprune sweep`: the front of accuracy against what a device measures, from one cost table.

<sweep folder>/  as a run's: journal.jsonl, importance.json, sensitivities.json, costs.json, trials/; and sweep.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic
from edgeprune.errors import CannotMeasureError, UsageError
from edgeprune.measure.pool import Pool
from edgeprune.measure.sentinel import Sentinel
from edgeprune.pipeline.devices import open_devices, pool_facts
from edgeprune.pipeline.in_turn import is_relative
from edgeprune.pipeline.plan import WIDE
from edgeprune.pipeline.planning import planned_space
from edgeprune.pipeline.prepared import device_facts, measured_on, prepare, run_inputs
from edgeprune.pipeline.run_checks import check_project, check_same_device, check_same_task, run_settings
from edgeprune.pipeline.sweep_request import Request
from edgeprune.pipeline.trials import Trials
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget
from edgeprune.records.figures import Figure
from edgeprune.records.profile import load_profile
from edgeprune.records.project import Project
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.journal import Journal
from edgeprune.search.loop import SearchLimits, search
from edgeprune.search.sweep import Aim, Aimed, Front

if TYPE_CHECKING:
    from edgeprune.pipeline.task import CheckedTask

__all__ = [
    "FIGURES",
    "SCHEMA",
    "Request",
    "Sweep",
    "check_sweep",
    "dominated_by",
    "sweep",
]

SCHEMA = "edgeprune.sweep/1"
FIGURES = ("latency.p50", "peak_memory", "size")  # that points are compared in, and pictures drawn of
_RESULT = "sweep.json"


@dataclass(frozen=True, slots=True)
class Sweep:
    """The dense model, and a point for every aim with the trial that measured it."""

    dense: Trial
    points: tuple[tuple[Aimed, Trial], ...]
    request: Request
    measured_on: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data. `measured` and `predicted` are apart; `dominated_by` tells per figure which trial is better."""
        return {
            "schema": SCHEMA,
            "request": self.request.to_json(),
            "dense": _measured(self.dense),
            "points": [
                {
                    "aim": aimed.aim.text,
                    "limit": aimed.aim.limit if aimed.aim.figure else None,
                    "reachable": aimed.reachable,
                    "candidate": aimed.candidate.to_json(),
                    "predicted": {n: asdict(Figure(v, None, "estimated")) for n, v in aimed.predicted.items()},
                    **_measured(trial),
                    "dominated_by": {figure: dominated_by(trial, self.trials, figure) for figure in self.figures},
                }
                for aimed, trial in self.points
            ],
            "measured_on": dict(self.measured_on),
        }

    @property
    def figures(self) -> tuple[str, ...]:
        """What points are compared in: first what was swept over."""
        return tuple(dict.fromkeys([self.request.figure or FIGURES[0], *FIGURES]))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every network once, the dense one first."""
        return (self.dense, *{trial.number: trial for _, trial in self.points if trial.number}.values())


def check_sweep(project: Project, request: Request, run_dir: Path | None, *, resume: bool) -> None:
    """Refuse what is seen to be wrong before anything is loaded; raises UsageError and its kinds, StorageError."""
    check_project(project)
    load_profile(project.device.profile)
    if run_dir is not None:
        Journal.check(run_dir.absolute(), _settings(project, request), resume=resume)


def sweep(
    project: Project,
    request: Request,
    *,
    task: CheckedTask,
    run_dir: Path,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Sweep:
    """Solve for every point, build it, get accuracy back quickly (or wholly), and measure it; writes sweep.json.

    The project's budget plays no part. Raises CannotMeasureError where a network cannot be measured, after which it can
    be resumed, and what `run` raises.
    """
    run_dir = run_dir.absolute()
    check_sweep(project, request, run_dir, resume=resume)
    profile = load_profile(project.device.profile)
    wanted = WIDE.override(Budget(request.limits[:1]))
    with ExitStack() as stack:
        devices = stack.enter_context(open_devices(project, profile, wanted, progress))
        session = devices.first if isinstance(devices, Pool) else devices
        with progress.step("loading the model"):
            model = task.model().eval()
        example_inputs = task.example_inputs()
        inputs = {**run_inputs(project, Budget(), task, model), **_settings(project, request)}
        journal = stack.enter_context(Journal.open(run_dir, inputs, resume=resume))
        device = device_facts(session)
        check_same_device(journal, device)
        if isinstance(devices, Pool) and journal.trials:
            devices.known(journal.trials[0].details.get("pool", {}).get("devices", {}))
        prepared = prepare(
            project,
            profile,
            task,
            model=model,
            example_inputs=example_inputs,
            folder=run_dir,
            device=device,
            reuse=bool(journal.trials),
            progress=progress,
        )
        if project.export.is_quantised:
            progress.say(
                f"warning: sweep measures the float network; `edgeprune run` quantises to {project.export.quantize}"
            )
        evaluate = Trials(prepared.builder, devices, run_dir, progress, Sentinel(), in_turn=is_relative(wanted))
        check_same_task(journal, task.sources, evaluate.dense_accuracy, progress)
        fronts: list[Front] = []

        def make_front(dense: Trial) -> Front:
            space = prepared.space
            if request.figure is not None:
                space = planned_space(
                    prepared.captured,
                    task,
                    space,
                    budget=wanted,
                    dense=dense.figures,
                    session=session,
                    run_dir=run_dir,
                    seed=project.search.seed,
                    reuse=resume,
                    progress=progress,
                )
                if space.costs is None or request.figure not in space.costs.metrics:
                    reason = dense.figures[request.figure].missing if request.figure in dense.figures else ""
                    raise UsageError(
                        f"{request.figure} cannot be swept over: nothing predicts it{': ' if reason else ''}{reason}",
                        hint="sweep over latency, peak_memory or size, or give --ratios",
                    )
            stage = Stage.FINAL if request.finetune else Stage.MEASURE
            fronts.append(Front(space, dense, _aims(request, dense), stage))
            return fronts[0]

        points = len(request.limits) + len(request.ratios)
        result = search(
            make_front,
            evaluate,
            journal,
            Budget(),
            limits=SearchLimits(max_trials=1 + points),
            strategy="front",
            seed=project.search.seed,
            progress=progress,
            settled=evaluate.settled,
        )
        if result.status == "unmeasurable":
            raise CannotMeasureError(result.message)
        trials = journal.trials
        aimed = fronts[0].aimed
        where = {**measured_on(session), **pool_facts(devices, project)}
    found = Sweep(trials[0], tuple((entry, trials[entry.trial]) for entry in aimed), request, where)
    atomic.write_text(run_dir / _RESULT, json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n")
    return found


def dominated_by(trial: Trial, trials: Sequence[Trial], figure: str) -> int | None:
    """The most accurate trial that is as good or better in both accuracy and the figure, and not equal; its number."""
    mine = _place(trial, figure)
    if mine is None:
        return None
    better = [
        (place[0], -other.number)
        for other in trials
        if (place := _place(other, figure)) is not None
        and place[0] >= mine[0]
        and place[1] <= mine[1]
        and place != mine
    ]
    return -max(better)[1] if better else None


def _place(trial: Trial, figure: str) -> tuple[float, float] | None:
    accuracy, value = trial.figures.get("accuracy"), trial.figures.get(figure)
    if accuracy is None or value is None or accuracy.value is None or value.value is None:
        return None
    return accuracy.value, value.value


def _aims(request: Request, dense: Trial) -> list[Aim]:
    """From the largest network to the smallest: what is learned of one is near the next."""
    if request.figure is None:
        return [Aim(f"{ratio:.0%} of the channels gone", 1 - ratio) for ratio in sorted(request.ratios)]
    found = []
    for limit in request.limits:
        bound = limit.bound(dense.figures)
        if bound is None:
            reason = dense.figures[request.figure].missing if request.figure in dense.figures else "it is not measured"
            raise UsageError(f"{limit.text}: the dense model has no {request.figure}: {reason}")
        found.append(Aim(limit.text, bound, request.figure))
    return sorted(found, key=lambda aim: -aim.limit)


def _settings(project: Project, request: Request) -> dict[str, Any]:
    return {**run_settings(project, Budget()), "sweep": request.to_json()}


def _measured(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "outcome": trial.outcome,
        "message": trial.message,
        "measured": {name: asdict(figure) for name, figure in trial.figures.items()},
        "recovery": trial.details.get("recovery", ""),
        "artifact": trial.artifact,
    }
