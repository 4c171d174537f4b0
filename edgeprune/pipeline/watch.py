"""A run as its folder shows it while it goes on: how far it is, what came of each trial, whether it is alive.

Nothing is written, and no lock is kept: the run does not notice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from edgeprune.errors import DamagedError, UsageError
from edgeprune.pipeline.begun import RUN, holder, is_run, told, working
from edgeprune.pipeline.building import CHECKPOINT
from edgeprune.pipeline.planning import COSTS, SENSITIVITIES
from edgeprune.pipeline.trials import trial_folder
from edgeprune.records import codec
from edgeprune.records.budget import Budget, BudgetCheck, State
from edgeprune.records.measurement import Outcome
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.journal import FILE_NAME, SCHEMA
from edgeprune.search.limits import check_trial, closest, device_state

__all__ = ["Snapshot", "is_quantised", "snapshot"]

WATCH_SCHEMA = "edgeprune.watch/1"
RESULT = "result.json"

RunState = Literal["running", "finished", "stopped"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one moment. `state` "stopped" is a run that ended without a result: killed, interrupted, or failed.

    `now` says what is being done; empty where nothing is. `measured` counts the trials that went to the device, of at
    most `max_trials` (None where the run does not say). `attempts` were done again: they failed, or were
    doubted.
    """

    folder: Path
    state: RunState
    pid: int | None = None
    status: str = ""  # of the result, where there is one
    now: str = ""
    measured: int = 0
    max_trials: int | None = None
    elapsed_s: float | None = None
    trials: tuple[Trial, ...] = ()
    attempts: tuple[Mapping[str, Any], ...] = ()
    budget: Budget = Budget()  # noqa: RUF009  frozen
    best: Trial | None = None
    check: BudgetCheck | None = None
    last: str = ""  # the last entry of the journal, in words
    last_age_s: float | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best_is(self) -> str:
        """What the best trial so far is; "" where there is none."""
        if self.best is None or self.check is None:
            return ""
        if self.best.candidate.is_dense:
            return "the dense model" + (", int8" if is_quantised(self.best) else "")
        if self.check.state is State.MET:
            return "within the budget" if self.best.stage is Stage.FINAL else "within the budget, not yet fine-tuned"
        within = self.check.only(accuracy=False).state is State.MET
        return "the closest so far" + (": within the limits of the device" if within else "")

    def to_json(self) -> dict[str, Any]:
        """Plain data with a schema version; trials as in the journal."""
        return {
            "schema": WATCH_SCHEMA,
            "run_dir": str(self.folder.absolute()),
            "state": self.state,
            "pid": self.pid,
            "status": self.status or None,
            "now": self.now,
            "trials_measured": self.measured,
            "max_trials": self.max_trials,
            "elapsed_s": self.elapsed_s,
            "last_entry": {"text": self.last, "age_s": self.last_age_s},
            "best": None if self.best is None else codec.to_json(self.best),
            "check": None if self.check is None else codec.to_json(self.check),
            "trials": [codec.to_json(trial) for trial in self.trials],
            "attempts": [dict(attempt) for attempt in self.attempts],
        }


def is_quantised(trial: Trial) -> bool:
    """Whether what was measured is not float32, as the dense reference is."""
    return "quantised" in trial.details


def snapshot(run_dir: Path) -> Snapshot:
    """The run as it is now; raises UsageError where there is no run, DamagedError where its journal cannot be read."""
    path = run_dir / FILE_NAME
    if not is_run(run_dir):
        hint = "name the folder of a run, like runs/20260101-120000, or its project"
        if run_dir.is_dir():
            hint += "; a run that has just begun has written nothing yet: try again in a moment"
        raise UsageError(f"there is no run in {run_dir}", hint=hint)
    pid = working(run_dir)
    alive = pid is not None
    began = holder(path) is not None  # before that, the model is loaded and the device waited for
    inputs, trials, attempts, last = _entries(path)
    budget = Budget.parse(inputs.get("budget", {}))
    started = told(run_dir)
    finished = _read(run_dir / RESULT)
    # A run that was gone on with and then killed has the result of its first end still.
    ended = not alive and finished.get("trials") == len(trials)
    best = _named(finished, trials) if ended else None
    best = best or _best(budget, trials)
    return Snapshot(
        folder=run_dir,
        state="running" if alive else "finished" if ended else "stopped",
        pid=pid or None,
        status=str(finished.get("status", "")) if ended else "",
        now="" if not alive else _now(run_dir, len(trials), inputs) if began else str(started.get("now", "beginning")),
        measured=sum(trial.stage.is_measured for trial in trials),
        max_trials=started.get("max_trials"),
        elapsed_s=_elapsed(started.get("started_at"), run_dir, alive=alive),
        trials=trials,
        attempts=attempts,
        budget=budget,
        best=best,
        check=None if best is None else check_trial(budget, best, trials[0].figures),
        last=last,
        last_age_s=max(datetime.now(timezone.utc).timestamp() - path.stat().st_mtime, 0.0) if path.exists() else None,
        inputs=inputs,
    )


def _entries(path: Path) -> tuple[dict[str, Any], tuple[Trial, ...], tuple[Mapping[str, Any], ...], str]:
    """Inputs, trials, what was tried again, and the last whole line in words: what is half written is not there yet."""
    content = path.read_bytes() if path.exists() else b""
    inputs: dict[str, Any] = {}
    trials: list[Trial] = []
    attempts: list[Mapping[str, Any]] = []
    last = ""
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        entry = _entry(line, f"{path}:{number}")
        if entry["kind"] == "inputs":
            inputs, last = entry["inputs"], "the run began"
        elif entry["kind"] == "trial":
            trials.append(entry["trial"])
            last = f"trial {trials[-1].number} ended"
        else:
            attempts.append(entry)
            last = f"trial {entry['number']}: {entry['outcome']}: {entry['message']}"
    return inputs, tuple(trials), tuple(attempts), last


def _entry(line: bytes, where: str) -> dict[str, Any]:
    """A line of the journal, its trial read; raises DamagedError."""
    try:
        entry = json.loads(line)
        kind = entry["kind"]
        if kind == "inputs" and entry["schema"] != SCHEMA:
            raise ValueError(f"a journal of {entry['schema']}")
        if kind == "trial":
            return {"kind": kind, "trial": codec.trial_from_json(entry["trial"])}
        needed = ("inputs",) if kind == "inputs" else ("number", "outcome", "message")
        return {"kind": kind, **{name: entry[name] for name in needed}}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{where}: damaged journal: {error}") from error


def _named(result: Mapping[str, Any], trials: tuple[Trial, ...]) -> Trial | None:
    """The trial that the result names, be it accepted or the closest."""
    number = (result.get("best") or {}).get("number")
    return next((trial for trial in trials if trial.number == number), None)


def _best(budget: Budget, trials: tuple[Trial, ...]) -> Trial | None:
    """The trial that would be accepted; else the most accurate of those nearest to that: within every limit before its
    last fine-tuning, within the device's limits alone. The closest where there is none.
    """
    if not trials:
        return None
    dense = trials[0].figures
    measured = [trial for trial in trials if trial.stage.is_measured and trial.outcome == Outcome.OK.value]
    fitting = [trial for trial in measured if device_state(budget, trial, dense) is State.MET]

    def rank(trial: Trial) -> tuple[bool, bool, float, int]:
        met = budget.check(trial.figures, dense).state is State.MET
        return met and trial.stage is Stage.FINAL, met, trial.figures["accuracy"].value or 0.0, -trial.number

    return max(fitting, key=rank) if fitting else closest(budget, trials, dense)


def _now(run_dir: Path, done: int, inputs: Mapping[str, Any]) -> str:
    """What the run does, by the files that are there and those that are not."""
    folder = trial_folder(run_dir, done)
    if not inputs:
        return "beginning"
    if done == 0 and not folder.exists():
        return "capturing the model"
    if not folder.exists():
        if done == 1 and (run_dir / SENSITIVITIES).exists() and not (run_dir / COSTS).exists():
            return "finding out what each narrowing costs in accuracy, then timing operators on the device"
        return "choosing what to try next" if done > 1 else "learning the network before the first choice"
    name = "the dense model" if done == 0 else f"trial {done}"
    if any(folder.glob("model.*.manifest.json")):
        return f"measuring {name}"
    if (folder / CHECKPOINT).exists():
        return f"fine-tuning {name}"
    return f"evaluating {name}" if done == 0 else f"building {name}"


def _elapsed(started: Any, run_dir: Path, *, alive: bool) -> float | None:
    """Seconds since this start of the run; of one that is over, until it last wrote."""
    if not isinstance(started, str):
        return None
    try:
        began = datetime.fromisoformat(started).timestamp()
    except ValueError:
        return None
    paths = [path for path in (run_dir / FILE_NAME, run_dir / RESULT) if path.exists()] or [run_dir / RUN]
    last = max(path.stat().st_mtime for path in paths)
    return max((datetime.now(timezone.utc).timestamp() if alive else last) - began, 0.0)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file is not there, or is nothing that can be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
