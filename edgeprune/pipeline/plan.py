"""`edgeprune plan`: what a run could reach and would take, before anything is trained.

dense model measured -> operators timed -> a few networks measured, which correct the prediction -> how small each
figure can get -> is the budget within that? -> how long a measurement and a batch of training take

What is predicted is told as such. Nothing is written but the user's caches of operator timings and sensitivities.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import CannotMeasureError
from edgeprune.measure.cost_cache import CostCache
from edgeprune.measure.pool import Pool
from edgeprune.pipeline.devices import open_devices
from edgeprune.pipeline.effort import Clock, Effort, effort_of
from edgeprune.pipeline.in_turn import is_relative
from edgeprune.pipeline.planning import planned_space
from edgeprune.pipeline.prepared import device_facts, measured_on, prepare
from edgeprune.pipeline.run_checks import check_project
from edgeprune.pipeline.trials import Trials
from edgeprune.progress import SILENT, Progress
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Outcome
from edgeprune.records.profile import load_profile
from edgeprune.records.project import Project
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.base import SearchSpace
from edgeprune.search.knowledge import Knowledge
from edgeprune.search.problem import RELAXATION, Problem, Solution
from edgeprune.search.solve import solve

if TYPE_CHECKING:
    from edgeprune.pipeline.task import CheckedTask

__all__ = ["SCHEMA", "WIDE", "Plan", "Range", "plan"]

SCHEMA = "edgeprune.plan/1"
WIDE = Budget.parse({"latency": {"p50": "100% of dense"}, "peak_memory": "100% of dense", "size": "100% of dense"})
_SHARES = (0.75, 0.5, 0.25)  # of the widths, of the networks that correct the prediction


@dataclass(frozen=True, slots=True)
class Range:
    """What one figure can be. `dense` is measured, `alone` and `together` are the smallest values predicted: where no
    other limit holds, and where all others do (None: none is within these). `limit` is the budget's, `relaxed` what it
    would be in the least joint relaxation. `error` is the largest share by which the prediction missed a network that
    was measured, each predicted from the others.
    """

    figure: str
    dense: Figure
    limit: float | None
    alone: float | None
    together: float | None
    relaxed: float | None
    error: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """`feasible`: "yes", "close" (within what the prediction may miss), "no", or "unknown" where nothing is limited."""

    dense: Mapping[str, Figure]
    ranges: tuple[Range, ...]
    feasible: str
    relaxation: float | None  # by which share all limits would have to grow
    unplanned: tuple[str, ...]  # figures with a limit that nothing predicts
    groups: int
    units: int
    frozen: tuple[tuple[str, str], ...]  # name, reason
    blocks: tuple[str, ...]
    effort: Effort
    measured: int  # networks, the dense one among them
    cache: str
    measured_on: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data; figures carry whether they are measured or estimated."""
        effort = asdict(self.effort)
        effort |= {name: getattr(self.effort, name) for name in ("device_s", "fine_tuning_s", "short_s")}
        return {
            "schema": SCHEMA,
            "dense": {name: asdict(figure) for name, figure in self.dense.items()},
            "ranges": [
                {**asdict(entry), "alone": _estimated(entry.alone), "together": _estimated(entry.together)}
                for entry in self.ranges
            ],
            "feasible": self.feasible,
            "relaxation": self.relaxation,
            "unplanned": list(self.unplanned),
            "groups": self.groups,
            "units": self.units,
            "frozen": [{"name": name, "reason": reason} for name, reason in self.frozen],
            "blocks": list(self.blocks),
            "effort": effort,
            "measured": self.measured,
            "cache": self.cache,
            "measured_on": dict(self.measured_on),
        }


def plan(project: Project, *, task: CheckedTask, progress: Progress = SILENT) -> Plan:
    """Look ahead for a project on its device. A budget without limits of the device is fine: then only ranges are told.

    Raises UsageError and its kinds, CannotMeasureError and its kinds, ParityError, VerificationError.
    """
    check_project(project)
    profile = load_profile(project.device.profile)
    budget = profile.budget.override(project.budget)
    with ExitStack() as stack:
        devices = stack.enter_context(open_devices(project, profile, budget, progress))
        session = devices.first if isinstance(devices, Pool) else devices
        with progress.step("loading the model"):
            model = task.model().eval()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeprune-")))
        prepared = prepare(
            project,
            profile,
            task,
            model=model,
            example_inputs=task.example_inputs(),
            folder=folder,
            device=device_facts(session),
            progress=progress,
        )
        if project.export.is_quantised:
            progress.say(
                f"warning: plan predicts the float network; `edgeprune run` quantises to {project.export.quantize}"
            )
        clock = Clock(devices)
        trials = Trials(prepared.builder, clock, folder, progress, in_turn=is_relative(WIDE.override(budget)))
        dense = _measured(trials, Candidate(), 0)
        if dense.outcome != Outcome.OK.value:
            raise CannotMeasureError(
                f"the dense model: {dense.outcome}: {dense.message}",
                hint="without its figures nothing can be predicted; `edgeprune run` searches without",
                outcome=dense.outcome,
            )
        space = planned_space(
            prepared.captured,
            task,
            prepared.space,
            budget=WIDE.override(budget),
            dense=dense.figures,
            session=session,
            run_dir=folder,
            seed=project.search.seed,
            progress=progress,
        )
        known = Knowledge(space, budget, dense, {} if space.costs is None else space.costs.metrics)
        for number, candidate in enumerate(_uniform(space), start=1):
            known.add(_measured(trials, candidate, number))
        effort = effort_of(project, prepared, task, clock=clock, done=[dense, *known.trials], progress=progress)
        cache, where = str(CostCache.for_session(session).path), measured_on(session)
    with progress.step("solving"):
        ranges, relaxation = _ranges(known)
        feasible = _feasible(known)
    captured = prepared.captured
    return Plan(
        dense=dense.figures,
        ranges=ranges,
        feasible=feasible,
        relaxation=relaxation if feasible == "no" else None,
        unplanned=known.unplanned,
        groups=len(space.groups),
        units=sum(group.units for group in space.groups),
        frozen=tuple((group.name, group.frozen or "") for group in captured.frozen),
        blocks=tuple(block.name for block in space.blocks),
        effort=effort,
        measured=1 + len(known.trials),
        cache=cache,
        measured_on=where,
    )


def _measured(trials: Trials, candidate: Candidate, number: int) -> Trial:
    """The network as a trial without training."""
    trial = trials(candidate, Stage.MEASURE, number)
    if not Outcome(trial.outcome).is_result:
        raise CannotMeasureError(f"{trial.outcome}: {trial.message}", outcome=trial.outcome)
    return trial


def _uniform(space: SearchSpace) -> list[Candidate]:
    """A few uniform networks, each once."""
    found = {c.id: c for share in _SHARES if not (c := space.candidate(space.uniform(share))).is_dense}
    return list(found.values())


def _ranges(known: Knowledge) -> tuple[tuple[Range, ...], float | None]:
    """The range of every figure that is predicted; the least joint relaxation of the limits."""
    metrics, limits = known.metrics(), known.limits
    relaxed = solve(Problem(known.space, metrics, limits, RELAXATION)) if limits else None
    wider = relaxed.value if isinstance(relaxed, Solution) else None
    found = []
    for figure in metrics:
        others = {name: limit for name, limit in limits.items() if name != figure}
        alone, together = (solve(Problem(known.space, metrics, held, figure)) for held in ({}, others))
        limit = limits.get(figure)
        found.append(
            Range(
                figure=figure,
                dense=known.dense[figure],
                limit=limit,
                alone=alone.value if isinstance(alone, Solution) else None,
                together=together.value if isinstance(together, Solution) else None,
                relaxed=None if limit is None or wider is None or wider <= 0 else limit * (1 + wider),
                error=_error(known, figure),
            )
        )
    return tuple(found), wider


def _feasible(known: Knowledge) -> str:
    """Whether a network is predicted to be within all limits, with what the prediction may miss or only without."""
    if not known.limits:
        return "unknown"
    for answer, limits in (("yes", known.aims()), ("close", known.limits)):
        if isinstance(solve(Problem(known.space, known.metrics(), limits)), Solution):
            return answer
    return "no"


def _error(known: Knowledge, figure: str) -> float | None:
    """The largest relative error for a network, predicted from what was measured of the others."""
    errors = []
    for trial in known.trials:
        value = trial.figures[figure].value if figure in trial.figures else None
        if value:
            others = [other for other in known.trials if other is not trial]
            model = Knowledge(known.space, known.budget, known.baseline, known.prior, others).metrics()[figure]
            errors.append(abs(model.predict(trial.candidate) / value - 1))
    return max(errors, default=None)


def _estimated(value: float | None) -> dict[str, Any] | None:
    return None if value is None else asdict(Figure(value, None, "estimated"))
