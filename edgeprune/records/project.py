"""A project: task, device, budget, search, recovery, export, as the project file says them.

What its user writes (`edgeprune.yaml`):

    task: task.py:Digits
    device: {profile: raspberry-pi-4b, target: ssh://pi@camera}
    budget: {latency: {p50: 60% of dense}, size: 50% of dense, accuracy: {max_drop: 2pp}}
    search: {strategy: greedy, importance: l2, seed: 0}
    recovery: {epochs: 6, learning_rate: 0.02}
    export: {format: onnx}
    runs: runs
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.records.budget import Budget
from edgeprune.records.recovery import FineTuneSettings

__all__ = ["DeviceSettings", "ExportSettings", "Project", "SearchSettings", "load_project"]


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Which device: a profile (name, or path of a YAML file) and how to reach one. No secrets: keys by path only."""

    profile: str = "host"
    target: str = "local"  # "local", "ssh://user@host:port"
    identity_file: Path | None = None
    known_hosts: Path | None = None


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search. `round_to` None means the profile's alignment; no group gets narrower than `min_width`."""

    strategy: str = "uniform"
    importance: str = "l2"
    seed: int = 0
    round_to: int | None = None
    min_width: int = 8
    max_trials: int = 40


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What file comes out."""

    format: str = "onnx"


@dataclass(frozen=True, slots=True)
class Project:
    """Everything that a run is started with. Paths are absolute: what the file writes is relative to the file.

    `task` is "path/of/file.py:Object" or "package.module:Object"; `path` is the project file.
    """

    task: str
    path: Path
    device: DeviceSettings = DeviceSettings()
    budget: Budget = Budget()
    search: SearchSettings = SearchSettings()
    recovery: FineTuneSettings = FineTuneSettings()
    export: ExportSettings = ExportSettings()
    runs: Path = Path("runs")

    @property
    def folder(self) -> Path:
        """The folder that the project file lies in."""
        return self.path.parent


def load_project(path: str | Path) -> Project:
    """A project from its YAML file; raises ConfigError with file, line, column and key."""
    from edgeprune.records import project_reader  # noqa: PLC0415  the reader imports yaml

    return project_reader.load_project(path)
