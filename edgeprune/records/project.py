"""A project: task, device, budget, search, recovery, export, as the project file says them.

What its user writes (`edgeprune.yaml`):

    task: task.py:Digits
    device: {profile: raspberry-pi-4b, target: ssh://pi@camera}
    budget: {latency: {p50: 60% of dense}, size: 50% of dense, accuracy: {max_drop: 2pp}}
    search: {strategy: greedy, importance: l2, seed: 0}
    recovery: {epochs: 6, learning_rate: 0.02}
    export: {format: onnx, quantize: int8}
    executor: {kind: local, workers: 2}
    runs: runs
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.errors import ConfigError, UsageError, did_you_mean
from edgeprune.records.budget import LATENCY_FIGURES, Budget, Limit
from edgeprune.records.recovery import FineTuneSettings

__all__ = [
    "JUDGES",
    "QUANTIZE",
    "DeviceSettings",
    "ExecutorSettings",
    "ExportSettings",
    "Project",
    "SearchSettings",
    "budget_overrides",
    "load_project",
]

JUDGES = {"worst": 1.0, "p90": 0.9}  # of several devices, the share that is to be within a limit

QUANTIZE = ("none", "int8")


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Which device: a profile (name, or path of a YAML file) and how to reach one. No secrets: keys by path only.

    `targets` are several of one kind, in place of `target`; `judge` says whose figures count: those of the "worst", or
    "p90", within which nine in ten are.
    """

    profile: str = "host"
    target: str = "local"  # "local", "ssh://user@host:port"
    identity_file: Path | None = None
    known_hosts: Path | None = None
    targets: tuple[str, ...] = ()
    judge: str = "worst"


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search. `round_to` None means the profile's alignment; no group gets narrower than `min_width`.

    `importance` is a name, with parameters "l1:members=all,reduce=max"; `ignored` are patterns of layers that keep
    their output channels.
    """

    strategy: str = "milp"
    importance: str = "l2"
    seed: int = 0
    round_to: int | None = None
    min_width: int = 8
    max_trials: int = 40
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What file comes out. With `quantize` "int8" every network but the dense reference is judged in that form.

    `scheme` says how values become int8 ("per-tensor"); None has the device decide. `calibration` is a file of example
    inputs; None takes those that the task trains on.
    """

    format: str = "onnx"
    quantize: str = "none"
    scheme: str | None = None
    calibration: Path | None = None

    @property
    def is_quantised(self) -> bool:
        """Whether another form than float comes out."""
        return self.quantize != "none"


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Where trials are built: `workers` at the same time, each with `cpus` threads and `gpus`. One local is no pool.

    Of a Ray cluster: its `address`, and `device`, where the node that has the custom resource "device:<device>" is to
    measure; None: this process does.
    """

    kind: str = "local"
    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0
    address: str = "auto"
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """Everything that a run is started with. Paths are absolute; in the file they are relative to its folder.

    `task` is as written, "path/of/file.py:Object" (relative to `folder`) or "package.module:Object"; `path` is the
    project file. `budget` holds what the file limits; a profile's default budget is not in it.
    """

    task: str
    path: Path
    device: DeviceSettings = field(default_factory=DeviceSettings)
    budget: Budget = field(default_factory=Budget)
    search: SearchSettings = field(default_factory=SearchSettings)
    recovery: FineTuneSettings = field(default_factory=FineTuneSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    runs: Path = Path("runs")

    @property
    def folder(self) -> Path:
        """The folder that the project file lies in."""
        return self.path.parent


def load_project(path: str | Path) -> Project:
    """A project from its YAML file; raises ConfigError with file, line, column and key."""
    from edgeprune.records import project_reader

    return project_reader.load_project(path)


def budget_overrides(
    budget: Budget,
    *,
    max_latency: str | None = None,
    max_memory: str | None = None,
    max_size: str | None = None,
    max_energy: str | None = None,
    max_drop: str | None = None,
) -> Budget:
    """`budget` with the limits of command-line options in place of or beside its own.

    `max_latency` is about the figure that the budget limits already ("p95" where that is its one latency limit), else
    about p50; "p95=30ms" names the figure. Raises UsageError with the option's name.
    """
    limits: list[Limit] = []
    if max_latency is not None:
        name, text = _latency_figure(budget, max_latency)
        limits.append(_option("--max-latency", f"latency.{name}", text))
    options = {"memory": ("peak_memory", max_memory), "size": ("size", max_size), "energy": ("energy", max_energy)}
    for option, (metric, value) in options.items():
        if value is not None:
            limits.append(_option(f"--max-{option}", metric, value))
    if max_drop is not None:
        limits.append(_option("--max-drop", "accuracy.max_drop", max_drop))
    return budget.override(Budget(tuple(limits)))


def _latency_figure(budget: Budget, option: str) -> tuple[str, str]:
    name, equals, text = option.partition("=")
    if equals:
        if name.strip() not in LATENCY_FIGURES:
            hint = did_you_mean(name.strip(), LATENCY_FIGURES)
            raise UsageError(f"--max-latency: unknown figure {name.strip()!r}", hint=hint)
        return name.strip(), text.strip()
    limited = [limit.metric.partition(".")[2] for limit in budget.limits if limit.metric.startswith("latency.")]
    if len(limited) > 1:
        raise UsageError(
            f"--max-latency: the budget limits {' and '.join(limited)}; which one is {option!r} about?",
            hint=f"name it: --max-latency {limited[-1]}={option}",
        )
    return (limited[0] if limited else "p50"), option


def _option(option: str, metric: str, text: str) -> Limit:
    try:
        return Limit.parse(metric, text)
    except ConfigError as error:
        raise UsageError(f"{option}: {error.message.removeprefix(f'{metric}: ')}", hint=error.hint) from error
