"""Extension points by name: what YAML and the CLI call "l2", "greedy" or "onnx" is an entry point.

Built-in names are listed here as "module:attribute" and imported on use; plug-ins add theirs through the entry point
groups `edgeprune.targets`, `.runtimes`, `.power_sensors`, `.importances`, `.strategies`, `.exporters`, `.packagers`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edgeprune.errors import UsageError, did_you_mean

__all__ = ["names", "resolve"]

_BUILT_IN: dict[str, dict[str, str]] = {
    "targets": {"local": "edgeprune.targets.local:LocalTarget", "ssh": "edgeprune.targets.ssh:SshTarget"},
    "importances": {
        "l1": "edgeprune.importance.magnitude:L1",
        "l2": "edgeprune.importance.magnitude:L2",
        "bn_scale": "edgeprune.importance.magnitude:BatchNormScale",
        "taylor": "edgeprune.importance.gradient:Taylor",
        "random": "edgeprune.importance.base:Random",
    },
    "strategies": {
        "uniform": "edgeprune.search.uniform:Uniform",
        "greedy": "edgeprune.search.greedy:Greedy",
    },
    "exporters": {"onnx": "edgeprune.export.onnx:OnnxExporter"},
}


@cache
def _plugins(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"edgeprune.{kind}")}


def names(kind: str) -> tuple[str, ...]:
    """All names of an extension point ("importances"), sorted."""
    return tuple(sorted({**_BUILT_IN.get(kind, {}), **_plugins(kind)}))


def resolve(kind: str, name: str) -> Any:
    """The object that `name` stands for; raises UsageError with the valid names and the nearest one."""
    if name in _BUILT_IN.get(kind, {}):
        module, _, attribute = _BUILT_IN[kind][name].partition(":")
        return getattr(import_module(module), attribute)
    if name in _plugins(kind):
        return _plugins(kind)[name].load()
    raise UsageError(f"unknown {kind[:-1]} {name!r}", hint=did_you_mean(name, names(kind)))
