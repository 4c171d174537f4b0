"""A run: from a project and its task to a measured result, as a list of steps.

<run folder>/
  journal.jsonl      every finished trial, in order
  importance.json    the importance of every unit, computed once
  sensitivities.json what each narrowing and each dropped block does to the outputs (strategies that plan)
  costs.json         what single operators take on the device (likewise)
  quantisation.json  what each int8 scheme does to the dense model (where int8 is asked for)
  trials/0007/       candidate.json, model.onnx and its manifest, measurement.json
  best/              the accepted trial's files
  result.json, report.html
  run.json, structure.json   for those who look on, and for the report
  edgeprune.lock     what was accepted, by sha256; all that packaging reads besides best/
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import atomic, registry
from edgeprune.errors import StorageError
from edgeprune.export import manifest
from edgeprune.measure.pool import Pool
from edgeprune.measure.sentinel import Sentinel
from edgeprune.pipeline import baseline
from edgeprune.pipeline.begun import begun
from edgeprune.pipeline.devices import open_devices, pool_facts
from edgeprune.pipeline.executors.base import Executor, ExecutorFactory, Plan
from edgeprune.pipeline.in_turn import is_relative
from edgeprune.pipeline.locking import write_lock
from edgeprune.pipeline.planning import planned_space
from edgeprune.pipeline.prepared import device_facts, measured_on, prepare, run_inputs
from edgeprune.pipeline.quantisation import check_on_device
from edgeprune.pipeline.report import write_report
from edgeprune.pipeline.run_checks import (
    check_same_device,
    check_same_task,
    check_settings,
    effective_budget,
)
from edgeprune.pipeline.runtimes import RUNTIMES, check_outputs
from edgeprune.pipeline.schemes import quantisation
from edgeprune.pipeline.structure import write_structure
from edgeprune.pipeline.trials import Trials, trial_folder
from edgeprune.progress import SILENT, Progress
from edgeprune.records import codec
from edgeprune.records.budget import Budget
from edgeprune.records.profile import load_profile
from edgeprune.records.project import Project
from edgeprune.records.result import Result
from edgeprune.search.base import Strategy, StrategyFactory
from edgeprune.search.dense_first import DenseFirst
from edgeprune.search.journal import Journal
from edgeprune.search.loop import SearchLimits, search

if TYPE_CHECKING:
    from edgeprune.pipeline.task import CheckedTask
    from edgeprune.records.trial import Trial

__all__ = ["new_run_dir", "run"]

BEST = "best"
RESULT = "result.json"


def run(
    project: Project,
    *,
    task: CheckedTask,
    run_dir: Path,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Result:
    """Prune the task's model until a measurement on the project's device shows that the budget is met.

    Writes the folder described above; a run that was stopped goes on with `resume`. Infeasible and unmeasurable are
    results. Raises UsageError and its kinds, CannotMeasureError and its kinds, ParityError, VerificationError.
    """
    run_dir = run_dir.absolute()
    check_settings(project, run_dir, resume=resume)
    profile = load_profile(project.device.profile)
    budget = effective_budget(project, profile)
    strategy: StrategyFactory = registry.resolve("strategies", project.search.strategy)
    with ExitStack() as stack:
        note = stack.enter_context(begun(run_dir, max_trials=project.search.max_trials, project=project.path))
        note(now="connecting to the device, or waiting for it")
        devices = stack.enter_context(open_devices(project, profile, budget, progress))
        session = devices.first if isinstance(devices, Pool) else devices
        note(now="loading the model")
        with progress.step("loading the model"):
            model = task.model().eval()
        example_inputs = task.example_inputs()
        inputs = run_inputs(project, budget, task, model)
        journal = stack.enter_context(Journal.open(run_dir, inputs, resume=resume))
        note(trials=len(journal.trials))
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
            reuse=bool(journal.trials),  # no candidate was chosen before the first trial
            progress=progress,
        )
        captured, builder = prepared.captured, prepared.builder
        write_structure(run_dir, captured, {group.name for group in prepared.space.groups})
        int8: dict[str, Any] = {}
        if project.export.is_quantised:
            how, int8 = quantisation(
                builder, project.export, budget, session, run_dir, reuse=bool(journal.trials), progress=progress
            )
            builder = replace(builder, quantisation=how)
        executor = _executor(project, lambda: Plan.of(project, task, model, builder.quantisation), journal, progress)
        evaluate = Trials(builder, devices, run_dir, progress, Sentinel(), executor, in_turn=is_relative(budget))
        if executor is not None:
            stack.enter_context(executor)
        check_same_task(journal, task.sources, evaluate.dense_accuracy, progress)

        def make_strategy(dense: Trial) -> Strategy:
            for warning in baseline.warnings(task, model, dense, budget):
                progress.say(f"warning: {warning}")
            return DenseFirst(planned, budget, dense) if int8 else planned(budget, dense)

        def planned(limits: Budget, dense: Trial) -> Strategy:
            known = prepared.space
            if getattr(strategy, "plans", False):
                known = planned_space(
                    captured,
                    task,
                    known,
                    budget=limits,
                    dense=dense.figures,
                    session=session,
                    run_dir=run_dir,
                    seed=project.search.seed,
                    reuse=resume,
                    bytes_each=1 if int8 else 4,
                    progress=progress,
                )
            return strategy(known, limits, dense, seed=project.search.seed)

        result = search(
            make_strategy,
            evaluate,
            journal,
            budget,
            limits=SearchLimits(max_trials=project.search.max_trials),
            strategy=project.search.strategy,
            seed=project.search.seed,
            provenance={
                "inputs": inputs,
                "machine": dict(session.machine),
                "measured_on": {**measured_on(session), **pool_facts(devices, project)},
                "groups": len(captured.groups),
                **({"int8": int8} if int8 else {}),
            },
            progress=progress,
            ahead=evaluate.ahead,
            settled=evaluate.settled,
        )
        if result.status == "accepted" and result.best is not None and result.best.artifact is not None:
            file = manifest.read(run_dir / result.best.artifact)
            if int8:
                with progress.step("comparing the outputs of the device"):
                    int8["device_difference"] = check_on_device(session, file, captured)
            elif session.policy.runtime in RUNTIMES["tflite"]:  # ONNX Runtime has proved itself before the run
                with progress.step("comparing the outputs of the device"):
                    difference = check_outputs(session, file, captured)
                result = replace(result, provenance={**result.provenance, "device_difference": difference})
        return _finish(_with_drift(result, journal.trials), run_dir)


def new_run_dir(runs: Path) -> Path:
    """A folder for a new run below `runs`, named by the time (UTC); it is created."""
    name = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        folder = runs / (name if attempt == 0 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder}: {error.strerror or error}") from error
        return folder
    raise StorageError(f"cannot make a new folder in {runs}", hint="name one with --run-dir")


def _executor(project: Project, plan: Callable[[], Plan], journal: Journal, progress: Progress) -> Executor | None:
    """What builds trials ahead; None where there is one local worker, which is this process."""
    settings = project.executor
    if settings.kind == "local" and settings.workers == 1:
        return None
    make: ExecutorFactory = registry.resolve("executors", settings.kind)

    def on_lost(number: int, message: str) -> None:
        journal.add_attempt(number, "WORKER_DIED", message)
        progress.say(f"trial {number}: {message}; it was done again")

    return make(plan(), settings, on_lost, progress)


def _with_drift(result: Result, trials: Sequence[Trial]) -> Result:
    """The result with every repeated measurement of the dense model; its message says where the device drifted."""
    again = {str(trial.number): trial.details["dense_again"] for trial in trials if "dense_again" in trial.details}
    drifted = [
        f"after trial {number}, on {target or 'the device'}: {entry['ratio'] - 1:+.1%}"
        for number, targets in again.items()
        for target, entry in targets.items()
        if entry.get("drifted")
    ]
    message = result.message
    if drifted:
        message = f"{message.rstrip('.')}. The device drifted: the dense model's median changed ({'; '.join(drifted)})."
    return replace(result, message=message, provenance={**result.provenance, "dense_again": again})


def _finish(result: Result, run_dir: Path) -> Result:
    """Write best/ and edgeprune.lock (where a trial was accepted), and result.json."""
    files: dict[str, str] = {}
    best = run_dir / BEST
    try:
        shutil.rmtree(best, ignore_errors=True)
        if result.status == "accepted" and result.best is not None and result.best.artifact is not None:
            part = run_dir / f".{BEST}.part"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(trial_folder(run_dir, result.best.number), part)
            _sync(part)
            part.replace(best)
            files["artifact"] = f"{BEST}/{Path(result.best.artifact).name}"
            if (best / "model.pt2").exists():
                files["graph"] = f"{BEST}/model.pt2"
    except OSError as error:
        raise StorageError(
            f"cannot write {best}: {error.strerror or error}",
            hint="free some space, then go on with --resume: no finished trial is lost",
        ) from error
    result = replace(result, provenance={**result.provenance, "files": files})
    atomic.write_text(run_dir / RESULT, json.dumps(codec.to_json(result), indent=2, allow_nan=False) + "\n")
    write_lock(result, run_dir)
    write_report(run_dir)
    return result


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
