"""Calling a converter in another Python: a JSON request in, files and a JSON answer out, nothing shared but a folder.

What goes over is `.pt2`, `.safetensors`, `.npz` and JSON: nothing that is unpickled. The programs are in `programs/`;
they import nothing of edgeprune.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.export.environment import Installation

__all__ = ["PROGRAMS", "ProgramError", "call"]

PROGRAMS = Path(__file__).with_name("programs")
_MOST_SAID = 64 * 1024


class ProgramError(UsageError):
    """A converter failed. `kind` is the class of what it raised, "" where it died."""

    def __init__(self, message: str, *, kind: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


def call(
    installation: Installation, program: str, folder: Path, *, timeout_s: float = 1800.0, **request: Any
) -> dict[str, Any]:
    """Run programs/`program` in the environment, with `folder` as its working folder; what it answers.

    The request is JSON on stdin, the answer `answer.json` in the folder: {"error": ..., "kind": ...} where it fails.
    Raises ProgramError with what it said.
    """
    name = installation.environment.name
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    log = folder / "said.txt"
    try:
        with log.open("wb") as said:
            done = subprocess.run(
                [str(installation.python), "-I", str(PROGRAMS / program)],
                input=json.dumps(request).encode(),
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=folder,
                timeout=timeout_s,
                check=False,
                env=_variables(),
            )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"the {name} converter did not end within {timeout_s:.0f} s") from error
    except OSError as error:
        raise ProgramError(
            f"cannot start {installation.python}: {error}", hint=installation.environment.command
        ) from error
    if done.returncode != 0 or not answer.is_file():
        last = log.read_bytes()[-_MOST_SAID:].decode("utf-8", "replace").strip().splitlines()[-3:]
        how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else f"failed ({done.returncode})"
        hint = (
            "out of memory? It needs some GB"
            if done.returncode == -9
            else f"{installation.environment.command} mends it"
        )
        raise ProgramError(f"the {name} converter {how}: {' '.join(last)}", hint=hint)
    try:
        told = json.loads(answer.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProgramError(f"the {name} converter's answer cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise ProgramError(f"the {name} converter's answer is no object")
    if "error" in told:
        raise ProgramError(str(told["error"]), kind=str(told.get("kind", "")))
    return told


def _variables() -> Mapping[str, str]:
    """This process's, without what would lead the other Python to this one's packages."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
    own = {name: value for name, value in os.environ.items() if name not in left_out}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**own, **quiet}
