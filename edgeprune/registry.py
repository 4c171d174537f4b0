"""Extension points by name: what YAML and the CLI call "l2", "greedy" or "onnx" is an entry point.

Built-in names are listed here as "module:attribute" and imported on use; plug-ins add theirs through the entry point
groups `edgeprune.targets`, `.runtimes`, `.power_sensors`, `.importances`, `.strategies`, `.executors`, `.exporters`,
`.quantizers`, `.packagers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import Any

from edgeprune.errors import UsageError, did_you_mean

__all__ = ["Spec", "check", "create", "names", "resolve", "split"]

Spec = str | Mapping[str, Any]  # "l1", "l1:members=all,reduce=sum" or {"name": "l1", "members": "all", ...}

_BUILT_IN: dict[str, dict[str, str]] = {
    "targets": {
        "local": "edgeprune.targets.local:LocalTarget",
        "ssh": "edgeprune.targets.ssh:SshTarget",
        "adb": "edgeprune.targets.adb:AdbTarget",
    },
    "importances": {
        "l1": "edgeprune.importance.magnitude:L1",
        "l2": "edgeprune.importance.magnitude:L2",
        "bn_scale": "edgeprune.importance.magnitude:BatchNormScale",
        "lamp": "edgeprune.importance.magnitude:Lamp",
        "fpgm": "edgeprune.importance.similarity:GeometricMedian",
        "taylor": "edgeprune.importance.gradient:Taylor",
        "fisher": "edgeprune.importance.gradient:Fisher",
        "wanda": "edgeprune.importance.activation:Wanda",
        "apoz": "edgeprune.importance.activation:NonZero",
        "random": "edgeprune.importance.base:Random",
    },
    "strategies": {
        "uniform": "edgeprune.search.uniform:Uniform",
        "greedy": "edgeprune.search.greedy:Greedy",
        "netadapt": "edgeprune.search.greedy:NetAdapt",
        "milp": "edgeprune.search.milp:Milp",
        "evolutionary": "edgeprune.search.evolutionary:Evolutionary",
    },
    "power_sensors": {
        "csv": "edgeprune.measure.meters:CsvMeter",
        "command": "edgeprune.measure.meters:CommandMeter",
    },
    "executors": {
        "local": "edgeprune.pipeline.executors.local:LocalExecutor",
        "ray": "edgeprune.pipeline.executors.ray:RayExecutor",
    },
    "exporters": {
        "onnx": "edgeprune.export.onnx:OnnxExporter",
        "tflite": "edgeprune.export.tflite:TfliteExporter",
        "ncnn": "edgeprune.export.ncnn:NcnnExporter",
        "executorch": "edgeprune.export.executorch:ExecuTorchExporter",
        "tensorrt": "edgeprune.export.tensorrt:TensorRtExporter",
    },
    "runners": {  # by the format's name
        "onnx": "edgeprune.export.onnx_runner:OnnxRunner",
        "tflite": "edgeprune.export.tflite_runner:TfliteRunner",
        "ncnn": "edgeprune.export.program_runner:NcnnRunner",
        "executorch": "edgeprune.export.program_runner:ExecuTorchRunner",
        "tensorrt": "edgeprune.export.tensorrt:TensorRtRunner",
    },
    "packagers": {
        "c": "edgeprune.package.c:CPackager",
        "cmake": "edgeprune.package.cmake:CMakePackager",
        "tar": "edgeprune.package.tar:TarPackager",
        "zephyr": "edgeprune.package.zephyr:ZephyrPackager",
        "esp-idf": "edgeprune.package.esp_idf:EspIdfPackager",
        "platformio": "edgeprune.package.platformio:PlatformioPackager",
        "yocto": "edgeprune.package.yocto:YoctoPackager",
        "buildroot": "edgeprune.package.buildroot:BuildrootPackager",
        "android": "edgeprune.package.android:AndroidPackager",
        "deb": "edgeprune.package.deb:DebPackager",
        "rauc": "edgeprune.package.rauc:RaucPackager",
        "mender": "edgeprune.package.mender:MenderPackager",
    },
    "quantizers": {  # by the format's name
        "onnx": "edgeprune.export.quantize:OnnxQuantizer",
        "tflite": "edgeprune.export.tflite_quantizer:TfliteQuantizer",
        "executorch": "edgeprune.export.executorch:ExecuTorchQuantizer",
    },
}


@cache
def _plugins(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"edgeprune.{kind}")}


def names(kind: str) -> tuple[str, ...]:
    """All names of an extension point ("importances"), sorted."""
    return tuple(sorted({**_BUILT_IN.get(kind, {}), **_plugins(kind)}))


def check(kind: str, name: str) -> None:
    """Raise as `resolve` does where the name is unknown, without importing anything."""
    if name not in names(kind):
        what = "strategy" if kind == "strategies" else kind[:-1]
        raise UsageError(f"unknown {what} {name!r}", hint=did_you_mean(name, names(kind)))


def resolve(kind: str, name: str) -> Any:
    """The object that `name` stands for; raises UsageError with the valid names and the nearest one."""
    check(kind, name)
    if name in _BUILT_IN.get(kind, {}):
        module, _, attribute = _BUILT_IN[kind][name].partition(":")
        return getattr(import_module(module), attribute)
    return _plugins(kind)[name].load()


def split(spec: Spec) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of "name", "name:key=value,key=value" or {"name": ..., key: value}."""
    if not isinstance(spec, str):
        parameters = dict(spec)
        if not isinstance(parameters.get("name"), str):
            raise UsageError(f"{parameters!r} does not say the name", hint="write it like {name: l1, reduce: sum}")
        return parameters.pop("name"), parameters
    name, colon, text = spec.partition(":")
    pairs = [part.partition("=") for part in text.split(",")] if colon else []
    if any(not (key.strip() and equals and value.strip()) for key, equals, value in pairs):
        raise UsageError(f"{spec!r} cannot be read", hint="write parameters like l1:members=all,reduce=sum")
    return name.strip(), {key.strip(): value.strip() for key, _, value in pairs}


def create(kind: str, spec: Spec | object) -> Any:
    """An object by its name, made with its parameters where there are some; any other object is given back as it is.

    Raises UsageError for an unknown name or parameter, with those that are valid.
    """
    if not isinstance(spec, str | Mapping):
        return spec
    name, parameters = split(spec)
    make = resolve(kind, name)
    valid = list(signature(make).parameters)
    for parameter in parameters:
        if parameter not in valid:
            hint = did_you_mean(parameter, valid) if valid else f"{name} has no parameters"
            raise UsageError(f"{name!r} has no parameter {parameter!r}", hint=hint)
    return make(**parameters)
