"""A run's result as plain text: dense and pruned side by side, the budget's limits, and what was reachable.

figure           dense                               pruned                              change
accuracy         97.30 % measured                    96.40 % measured                    -0.90 pp
latency p50      0.520 ms (up to 0.527 ms) measured  0.290 ms (up to 0.295 ms) measured  0.558 x
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeprune.errors import StorageError
from edgeprune.records import codec
from edgeprune.records.budget import BudgetCheck, LimitCheck, State
from edgeprune.records.figures import format_figure
from edgeprune.records.measurement import Measurement
from edgeprune.records.result import Result
from edgeprune.records.trial import Trial
from edgeprune.report import measured_on
from edgeprune.report.table import table
from edgeprune.units import format_points

__all__ = ["SECONDS", "UP_TO", "render"]

_ALWAYS = ("accuracy", "latency.p50", "latency.p95", "peak_memory", "size", "energy")
UP_TO = "(up to: the upper end of the 95 % confidence interval, of memory with the spread between workers)"
_DRIFTED = "The device drifted"  # as the run's message begins its sentence on it
_SHOWN = 3  # warnings of the measurement
SECONDS = "of work on trials, without loading, planning and waiting"
_TITLES = {
    "accepted": "ACCEPTED: every limit of the budget is met by measurement",
    "infeasible": "INFEASIBLE",
    "unmeasurable": "NOT MEASURED: the budget could not be checked",
}


def render(result: Mapping[str, object], *, run_dir: Path | None = None) -> str:
    """The text of a result as `result.json` holds it; paths are shown below `run_dir`. Raises StorageError."""
    record = codec.from_json(result)
    if not isinstance(record, Result):
        raise StorageError(f"not the result of a run, but a {type(record).__name__.lower()}")
    sections = [
        [_TITLES[record.status], *([] if record.status == "accepted" else [record.message])],
        [*_figures(record), *_int8(record.best), *_measured_on(record), *_warnings(record, run_dir)],
        _limits(record.check),
        _reachable(record),
        _run(record, run_dir),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _figures(result: Result) -> list[str]:
    best = result.best
    pruned = best is not None and best.number != result.dense.number
    if pruned and best is not None:
        title = _form(best) if result.status == "accepted" else f"closest (trial {best.number})"
        header = ["figure", "dense", title, "change"]
    else:
        header = ["figure", "dense"]
    rows = [header]
    limited = [limit.figure for limit in result.budget.limits]
    names = tuple(dict.fromkeys((*_ALWAYS, *limited)))
    for name in names:
        row = [name.replace("latency.", "latency "), _cell(name, result.dense)]
        if pruned and best is not None:
            row += [_cell(name, best, beside=result.dense), _change(name, result.dense, best)]
        rows.append(row)
    for name in ("params", "macs"):
        dense_cost, best_cost = (trial.details.get(name) if trial else None for trial in (result.dense, best))
        if isinstance(dense_cost, int):
            row = [name, f"{dense_cost:,} counted"]
            if pruned and isinstance(best_cost, int):
                row += [f"{best_cost:,} counted", f"{best_cost / dense_cost:.3f} x" if dense_cost else ""]
            rows.append(row)
    notes = [UP_TO] if any("(up to " in cell for row in rows for cell in row) else []
    return [*table(rows), *notes, *_missing(names, result.dense if best is None else best, result.message)]


def _form(trial: Trial) -> str:
    """What became of the dense model."""
    if "quantised" not in trial.details:
        return "pruned"
    return "int8" if trial.candidate.is_dense else "pruned, int8"


def _int8(trial: Trial | None) -> list[str]:
    """How far int8 is from float, of the trial's network."""
    told = None if trial is None else trial.details.get("quantised")
    if not isinstance(told, Mapping):
        return []
    parts = [f"int8 {told.get('scheme')}, calibrated on {told.get('calibrated_on')}"]
    if told.get("sqnr_db") is not None:
        parts.append(f"signal to quantisation noise {told['sqnr_db']:.1f} dB")
    if told.get("float_accuracy") is not None:
        parts.append(f"accuracy in float {format_figure('accuracy', told['float_accuracy'])}")
    return ["; ".join(parts)]


def _measured_on(result: Result) -> list[str]:
    where = result.provenance.get("measured_on")
    return measured_on.of_run(where) if isinstance(where, Mapping) else []


def _warnings(result: Result, run_dir: Path | None) -> list[str]:
    """What speaks against the figures of an accepted network: the device's drift, and what its measurement warns of."""
    if result.status != "accepted":
        return []  # its message is shown, and says it
    _, drifted, where = result.message.partition(_DRIFTED)
    found = [f"{drifted}{where}"] if drifted else []
    said: list[str] = []
    for path in [] if run_dir is None else sorted((run_dir / "best").glob("measurement*.json")):
        said += _warnings_of(path)
    said = list(dict.fromkeys(said))
    if len(said) > _SHOWN:
        said = [*said[:_SHOWN], f"and {len(said) - _SHOWN} more, in the report as HTML"]
    return [f"warning: {text}" for text in (*found, *said)]


def _warnings_of(path: Path) -> tuple[str, ...]:
    try:
        measured = codec.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, StorageError) as error:
        return (f"{path} cannot be read: {error}",)
    return measured.warnings if isinstance(measured, Measurement) else ()


def _missing(names: Sequence[str], trial: Trial, said: str) -> list[str]:
    """Why a figure has no value, where that is not said already; a line each, for the reasons are long."""
    return [
        f"missing {name}: {figure.missing}"
        for name in names
        if (figure := trial.figures.get(name)) is not None
        and figure.value is None
        and figure.missing
        and figure.missing not in said
    ]


def _cell(name: str, trial: Trial, beside: Trial | None = None) -> str:
    figure = trial.figures.get(name)
    if figure is None or figure.value is None:
        return "missing"
    other = None if beside is None else beside.figures.get(name)
    like = figure.value if other is None or other.value is None else other.value
    text = format_figure(name, figure.value, like)
    upper = text if figure.upper is None else format_figure(name, figure.upper, like)
    if upper != text:
        text += f" (up to {upper})"
    return f"{text} {figure.kind}"


def _change(name: str, dense: Trial, best: Trial) -> str:
    before, after = (trial.figures.get(name) for trial in (dense, best))
    if before is None or after is None or before.value is None or after.value is None:
        return ""
    if name == "accuracy":
        return format_points(after.value - before.value)
    return f"{after.value / before.value:.3f} x" if before.value else ""


def _limits(check: BudgetCheck | None) -> list[str]:
    if check is None:
        return []
    binding = check.binding
    rows = [["limit", "bound", "value", "headroom", ""]]
    rows.extend(_limit(entry, entry is binding) for entry in check.limits)
    return table(rows)


def _limit(entry: LimitCheck, binding: bool) -> list[str]:
    name = entry.limit.figure
    relation = ">=" if entry.limit.is_accuracy else "<="
    bound = "?" if entry.bound is None else f"{relation} {format_figure(name, entry.bound)}"
    if entry.headroom is None:
        headroom = ""
    else:
        headroom = f"{entry.headroom:+.1%}"
        if entry.limit.is_accuracy and entry.value is not None and entry.bound is not None:
            headroom = format_points(entry.value - entry.bound)
    state = entry.state.value.upper() if entry.state is not State.MET else entry.state.value
    reason = "" if entry.value is None else entry.reason  # why a figure is missing is said with the figures
    notes = [note for note in (reason, "the binding limit" if binding else "") if note]
    return [
        f"{entry.limit.metric} {entry.limit.text}",
        bound,
        _worst(entry),
        headroom,
        state + (f" ({'; '.join(notes)})" if notes else ""),
    ]


def _worst(entry: LimitCheck) -> str:
    """What the limit is held against: the upper bound of the value where there is one."""
    if entry.value is None:
        return "missing"
    name = entry.limit.figure
    if entry.upper is None or entry.upper == entry.value:
        return format_figure(name, entry.value, entry.bound)
    return f"up to {format_figure(name, entry.upper, entry.bound)}"


def _reachable(result: Result) -> list[str]:
    lines = []
    for name, (value, number) in result.reachable.items():
        which = "the highest within the device's limits" if name == "accuracy" else "the smallest measured"
        lines.append(f"reachable: {name} {format_figure(name, value)} ({which}, trial {number})")
    return lines + [f"ruled out: trial {number}: {reason}" for number, reason in result.ruled_out]


def _run(result: Result, run_dir: Path | None) -> list[str]:
    seconds = f"{result.seconds:.0f} s"
    lines = [f"trials: {result.trials} ({result.strategy or 'search'}, seed {result.seed}, {seconds} {SECONDS})"]
    if result.best is not None and result.status == "accepted":
        lines.append(f"accepted: trial {result.best.number}, candidate {result.best.candidate.id}")
    files = result.provenance.get("files")
    paths = {**(files if isinstance(files, Mapping) else {}), "result": "result.json"}
    if run_dir is not None and (run_dir / "report.html").exists():
        paths["report"] = "report.html"
    lines.extend(f"{kind}: {path if run_dir is None else run_dir / str(path)}" for kind, path in paths.items())
    return lines
