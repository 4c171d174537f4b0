"""Tools that live in a Python of their own: which there are, and where they are found.

A converter that brings gigabytes, or other versions of what edgeprune itself needs, is not imported but called as a
program (`program.py`) in an environment that the user names, or that `edgeprune doctor --install NAME` makes
(`environment_setup.py`). Its exact versions are in environments/NAME.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeprune.errors import UsageError, did_you_mean

__all__ = ["ENVIRONMENTS", "Environment", "Installation", "environment", "find", "folder_of", "inspect", "locate"]

MARKER = "edgeprune-environment.json"  # written last: with it an environment is whole
SCHEMA = "edgeprune.environment/1"
_PROBE_S = 60.0
# Runs in the environment's own interpreter; the metadata say it, nothing is imported.
_PROBE = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps({"python": list(sys.version_info[:3]), "versions": found}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A kind of environment. `needs` are the distributions that must be there, `stages` what pip installs, in order."""

    name: str
    brings: str  # for a reader: what becomes possible
    needs: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...]
    proof: tuple[str, ...]  # modules that are imported once before the environment counts as whole
    download_bytes: int
    disk_bytes: int
    oldest_python: tuple[int, int] = (3, 10)
    newest_python: tuple[int, int] = (3, 13)

    @property
    def variable(self) -> str:
        """The environment variable that names an interpreter: EDGEPRUNE_TFLITE_PYTHON."""
        return f"EDGEPRUNE_{self.name.upper().replace('-', '_')}_PYTHON"

    @property
    def constraints(self) -> Path:
        """The file with the exact versions, as pip reads it."""
        return Path(__file__).with_name("environments") / f"{self.name}.txt"

    @property
    def command(self) -> str:
        """What the user types to have it."""
        return f"edgeprune doctor --install {self.name}"


@dataclass(frozen=True, slots=True)
class Installation:
    """An interpreter that has what an environment needs; `versions` by distribution, `origin` is who named it."""

    environment: Environment
    python: Path
    python_version: str
    versions: Mapping[str, str]
    origin: str


ENVIRONMENTS: Mapping[str, Environment] = {
    "tflite-runtime": Environment(
        name="tflite-runtime",
        brings="the TFLite of 32-bit boards and old systems: exported files are checked in it, too",
        needs=("tflite-runtime", "numpy"),
        stages=(("tflite-runtime", "numpy"),),
        proof=("tflite_runtime.interpreter",),
        download_bytes=21_000_000,
        disk_bytes=110_000_000,
        newest_python=(3, 11),
    ),
    "tflite": Environment(
        name="tflite",
        brings="export to .tflite, int8, and LiteRT to check and measure it with",
        needs=("torch", "litert-torch", "ai-edge-litert", "ai-edge-quantizer"),
        stages=(("torch", "numpy", "safetensors"), ("litert-torch", "ai-edge-litert", "ai-edge-quantizer")),
        proof=("litert_torch", "ai_edge_litert.interpreter", "ai_edge_quantizer.quantizer"),
        download_bytes=700_000_000,
        disk_bytes=2_200_000_000,
        oldest_python=(3, 11),  # of the versions in environments/tflite.txt
    ),
    "ncnn": Environment(
        name="ncnn",
        brings="export to .ncnn, and ncnn to check and measure it with",
        needs=("pnnx", "ncnn"),
        stages=(("numpy",), ("--no-deps", "pnnx", "ncnn")),  # pnnx asks for torch and does without
        proof=("ncnn",),
        download_bytes=60_000_000,
        disk_bytes=250_000_000,
    ),
    "executorch": Environment(
        name="executorch",
        brings="export to ExecuTorch's .pte, int8, and ExecuTorch to check and measure it with",
        needs=("torch", "executorch", "torchao"),
        stages=(("torch", "numpy"), ("executorch", "torchao")),
        proof=("executorch.runtime", "executorch.exir", "torchao.quantization.pt2e.quantize_pt2e"),
        download_bytes=500_000_000,
        disk_bytes=1_600_000_000,
    ),
}


def environment(name: str) -> Environment:
    """The environment of this name; raises UsageError with those that there are."""
    if name not in ENVIRONMENTS:
        raise UsageError(f"there is no environment {name!r}", hint=did_you_mean(name, ENVIRONMENTS))
    return ENVIRONMENTS[name]


def folder_of(kind: Environment) -> Path:
    """Where `edgeprune doctor` keeps it: `edgeprune/envs/NAME` in $XDG_DATA_HOME or ~/.local/share."""
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if data.startswith("/") else Path.home() / ".local" / "share"
    return base / "edgeprune" / "envs" / kind.name


def locate(kind: Environment) -> tuple[Path, str] | None:
    """The interpreter and who names it, without starting it: the variable, `edgeprune doctor`, or this interpreter."""
    named = os.environ.get(kind.variable, "")
    if named:
        return Path(named).expanduser(), kind.variable
    folder = folder_of(kind)
    if (folder / MARKER).is_file():
        return folder / "bin" / "python", "edgeprune doctor"
    if all(_is_here(distribution) for distribution in kind.needs):
        return Path(sys.executable), "this interpreter"
    return None


def find(name: str) -> Installation:
    """An interpreter that has what the environment needs; raises UsageError that names the command which makes one."""
    kind = environment(name)
    found = locate(kind)
    if found is None:
        raise UsageError(
            f"{kind.brings}: needs packages in an environment of their own, which is not there",
            hint=f"make it once ({kind.disk_bytes / 1e9:.1f} GB): {kind.command}; "
            f"or name an interpreter that has {', '.join(kind.needs)}: {kind.variable}=/path/to/python",
        )
    return inspect(kind, *found)


def inspect(kind: Environment, python: Path, origin: str) -> Installation:
    """Ask an interpreter for its versions; raises UsageError where it does not run or lacks something."""
    mend = kind.command if origin == "edgeprune doctor" else f"unset {kind.variable}, and {kind.command}"
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _PROBE, *kind.needs],
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        told = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UsageError(f"{origin}: {python} is no Python that runs: {error}", hint=mend) from error
    lacking = [distribution for distribution in kind.needs if distribution not in told["versions"]]
    if lacking:
        install = f"{python} -m pip install {' '.join(lacking)}"
        hint = kind.command if origin == "edgeprune doctor" else f"{install}; or {mend}"
        raise UsageError(f"{origin}: {python} lacks {', '.join(lacking)}", hint=hint)
    return Installation(kind, python, ".".join(map(str, told["python"])), told["versions"], origin)


def _is_here(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
