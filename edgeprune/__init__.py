"""Prune a trained network until a real measurement on your device says that the budget is met.

Everything public is handed on from here, and imported on first use: `import edgeprune` loads neither torch nor onnx.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.errors import EdgepruneError
    from edgeprune.graph.capture import capture
    from edgeprune.graph.captured import Captured, Pruned
    from edgeprune.graph.groups import ChannelGroup
    from edgeprune.graph.storage import load, save
    from edgeprune.pipeline.export import export
    from edgeprune.pipeline.measure import measure
    from edgeprune.pipeline.search import search
    from edgeprune.pipeline.task import Task
    from edgeprune.pipeline.verify import verify
    from edgeprune.records.artifact import Artifact
    from edgeprune.records.budget import Budget
    from edgeprune.records.candidate import Candidate
    from edgeprune.records.measurement import Measurement
    from edgeprune.records.profile import DeviceProfile, load_profile
    from edgeprune.records.project import Project, load_project
    from edgeprune.records.result import Result
    from edgeprune.recovery.reconstruct import Reconstruction, reconstruct
    from edgeprune.sparsity.masks import make_permanent, sparsify

_WHERE = {
    "Artifact": "edgeprune.records.artifact",
    "Budget": "edgeprune.records.budget",
    "Candidate": "edgeprune.records.candidate",
    "Captured": "edgeprune.graph.captured",
    "ChannelGroup": "edgeprune.graph.groups",
    "DeviceProfile": "edgeprune.records.profile",
    "EdgepruneError": "edgeprune.errors",
    "Measurement": "edgeprune.records.measurement",
    "Project": "edgeprune.records.project",
    "Pruned": "edgeprune.graph.captured",
    "Reconstruction": "edgeprune.recovery.reconstruct",
    "Result": "edgeprune.records.result",
    "Task": "edgeprune.pipeline.task",
    "capture": "edgeprune.graph.capture",
    "export": "edgeprune.pipeline.export",
    "load": "edgeprune.graph.storage",
    "load_profile": "edgeprune.records.profile",
    "load_project": "edgeprune.records.project",
    "make_permanent": "edgeprune.sparsity.masks",
    "measure": "edgeprune.pipeline.measure",
    "reconstruct": "edgeprune.recovery.reconstruct",
    "save": "edgeprune.graph.storage",
    "search": "edgeprune.pipeline.search",
    "sparsify": "edgeprune.sparsity.masks",
    "verify": "edgeprune.pipeline.verify",
}

__all__ = [
    "Artifact",
    "Budget",
    "Candidate",
    "Captured",
    "ChannelGroup",
    "DeviceProfile",
    "EdgepruneError",
    "Measurement",
    "Project",
    "Pruned",
    "Reconstruction",
    "Result",
    "Task",
    "capture",
    "export",
    "load",
    "load_profile",
    "load_project",
    "make_permanent",
    "measure",
    "reconstruct",
    "save",
    "search",
    "sparsify",
    "verify",
]


# Recent versions of ONNX Runtime would leave an identifier in ~/.cache and send usage data.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# These functions have the names of the packages that do the work; such a package is made callable when it is bound.
_FUNCTIONS = ("export", "measure", "search")


def _public(name: str) -> Any:
    return getattr(import_module(_WHERE[name]), name)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    return import_module(f"edgeprune.{name}") if name in _FUNCTIONS else _public(name)


def __dir__() -> list[str]:
    return __all__


class _CallablePackage(ModuleType):
    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return _public(self.__name__.rpartition(".")[2]).__doc__  # type: ignore[no-any-return]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return _public(self.__name__.rpartition(".")[2])(*arguments, **options)


class _Edgeprune(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FUNCTIONS and type(value) is ModuleType:
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Edgeprune
