"""Which runtimes run a format, and where one is: on a device, or in an environment of this machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from edgeprune import registry
from edgeprune.errors import ParityError, TargetError, UsageError
from edgeprune.export.environment import ENVIRONMENTS, locate

if TYPE_CHECKING:
    from edgeprune.graph.captured import Captured
    from edgeprune.measure.session import Session
    from edgeprune.records.artifact import Artifact

__all__ = [
    "RUNTIMES",
    "check_outputs",
    "installed",
    "local_options",
    "missing_runtime_hint",
    "use_runtime_for",
]

# By the agent's names, the one to prefer first.
RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai-edge-litert", "tflite-runtime"),
    "ncnn": ("ncnn",),
    "executorch": ("executorch",),
    "tensorrt": ("tensorrt",),
}


def local_options(target: str, format: str) -> dict[str, str]:  # noqa: A002  the record's word
    """Options of a target: for "local", the environment's interpreter where the runtime is not in this one."""
    name, _ = registry.split(format)
    if target.strip() not in ("local", "local://") or name not in ENVIRONMENTS or name not in RUNTIMES:
        return {}
    found = locate(ENVIRONMENTS[name])
    return {} if found is None or installed(RUNTIMES[name][0]) else {"python": str(found[0])}


def use_runtime_for(session: Session, format: str) -> None:  # noqa: A002
    """Have a session measure with a runtime that takes the format, where its profile's does not.

    Raises TargetError (NO_RUNTIME) where the device has none.
    """
    name, _ = registry.split(format)
    fitting = RUNTIMES.get(name, ())
    if not fitting or session.policy.runtime in fitting:
        return
    there = [runtime for runtime in fitting if "version" in session.runtimes.get(runtime, {})]
    if not there:
        reasons = "; ".join(str(session.runtimes.get(runtime, {}).get("missing", runtime)) for runtime in fitting)
        raise TargetError(
            f"{session.target.name}: no runtime for {name} files: {reasons}",
            hint=missing_runtime_hint(session.target.name, fitting[0]),
            outcome="NO_RUNTIME",
        )
    session.policy = replace(session.policy, runtime=there[0])


def check_outputs(session: Session, artifact: Artifact, captured: Captured, *, tolerance: float = 1e-3) -> float | None:
    """By how much a float file's outputs on the device differ from those here, relative to the largest.

    None where they are too large to be sent. Raises ParityError above `tolerance`, TargetError.
    """
    from edgeprune.export.parity import relative_error
    from edgeprune.export.runtime_module import RuntimeModule

    module = RuntimeModule(artifact, captured.module, captured.example_inputs)
    feeds = module.one_batch(captured.example_inputs)
    try:
        there = session.outputs(artifact, feeds)
    except UsageError:
        return None
    worst = max(relative_error(there[name], array) for name, array in module.run(feeds).items())
    if not worst <= tolerance:
        raise ParityError(
            f"{artifact.path.name}: {session.policy.runtime} on {session.target.name} computes something else than the "
            f"network: {worst:.3g} relative, more than {tolerance:g}",
            hint="another version of that runtime, or another format, may do",
        )
    return worst


def missing_runtime_hint(where: str, runtime: str) -> str:
    """How a device comes to have a runtime."""
    if runtime == "onnxruntime":
        return f"edgeprune device setup {shlex.quote(where)}"
    if runtime == "tensorrt":
        return "name a board with TensorRT as the target: trtexec is part of NVIDIA's JetPack"
    format_name = next((name for name, runtimes in RUNTIMES.items() if runtime in runtimes), "")
    if where == "local" and format_name in ENVIRONMENTS:
        return f"{ENVIRONMENTS[format_name].command}; or name an interpreter: 'local://?python=/path/to/python'"
    example = "local://?python=/path/to/python" if where == "local" else f"{where}?python=/path/to/python"
    return f"pip install {runtime} there, in any interpreter, and name that: '{example}'"


def installed(distribution: str) -> str:
    """The version of a distribution in this interpreter, "" where it is not there; nothing is imported."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
