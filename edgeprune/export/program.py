"""Calling a converter in another Python: JSON requests and answers, files in a folder, nothing else shared.

What goes over is `.pt2`, `.safetensors`, `.npz` and JSON: nothing that is unpickled. The programs are in `programs/`;
they import nothing of edgeprune. Importing a converter takes many seconds, so that its process stays for the next
request: until this process ends, or nothing was asked for some minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.export.environment import Installation

__all__ = ["PROGRAMS", "ProgramError", "call", "close_all", "variables"]

PROGRAMS = Path(__file__).with_name("programs")
_MOST_SAID = 64 * 1024
_MOST_ANSWER = 16 << 20
_running: dict[tuple[int, Path, str], _Process] = {}
_one_at_a_time = threading.Lock()


class ProgramError(UsageError):
    """A converter failed. `kind` is the class of what it raised, "" where it died."""

    def __init__(self, message: str, *, kind: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


def call(
    installation: Installation, program: str, folder: Path, *, do: str, timeout_s: float = 1800.0, **request: Any
) -> dict[str, Any]:
    """Have programs/`program`.py do something in the environment, with `folder` as its working folder; what it answers.

    Raises ProgramError with what it said.
    """
    name = installation.environment.name
    key = os.getpid(), installation.python, program
    with _one_at_a_time:
        asked = {"folder": str(folder), "do": do, **request}
        process, line = _running.pop(key, None), None
        if process is not None:  # it may have been ended while it waited, for want of memory: then it is begun anew
            line = _answer(process, asked, timeout_s)
        if process is None or line is None:
            process = _Process(installation, program)
            line = _answer(process, asked, timeout_s)
        if line is not None:
            _running[key] = process
    if line is None:
        raise _died(installation, process, folder)
    try:
        told = json.loads(line)
        error = told.get("error")
    except (ValueError, AttributeError) as failure:
        raise ProgramError(f"the {name} converter's answer cannot be read: {failure}") from failure
    if error:
        raise ProgramError(str(error), kind=str(told.get("kind", "")))
    return dict(told)


def close_all() -> None:
    """End the converters that wait for another request."""
    with _one_at_a_time:
        while _running:
            _running.popitem()[1].close()


def variables() -> Mapping[str, str]:
    """This process's, without what would lead the other Python to this one's packages."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
    own = {name: value for name, value in os.environ.items() if name not in left_out}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}  # nothing is asked of a network
    return {**own, **quiet, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "CUDA_VISIBLE_DEVICES": ""}


def _answer(process: _Process, asked: Mapping[str, Any], timeout_s: float) -> bytes | None:
    """The line that it answers, None where it ends instead; one that does not answer in time is ended."""
    try:
        return process.ask(asked, timeout_s)
    except BaseException:
        process.close()
        raise


class _Process:
    """A program in its environment, in a session of its own: Ctrl-C ends it through this process."""

    def __init__(self, installation: Installation, program: str) -> None:
        self._name = installation.environment.name
        self.start = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        try:
            self._process = subprocess.Popen(
                [str(installation.python), "-I", str(PROGRAMS / "serve.py"), program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.start,
                bufsize=0,
                env=variables(),
                start_new_session=True,
            )
        except OSError as error:
            hint = installation.environment.command
            raise ProgramError(f"cannot start {installation.python}: {error}", hint=hint) from error
        self.close = weakref.finalize(self, _end, self._process)  # at the latest when this process ends

    @property
    def code(self) -> int:
        """Its exit status."""
        return self._process.wait()

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> bytes | None:
        """The line that it answers, None where it ended instead."""
        if self._process.stdin is None or self._process.stdout is None or self._process.poll() is not None:
            return None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        end, got = time.monotonic() + timeout_s, b""
        while not got.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ProgramError(f"the {self._name} converter did not answer within {timeout_s:.0f} s")
            data = self._process.stdout.read(1 << 16)
            if not data:
                return None
            got += data
            if len(got) > _MOST_ANSWER:
                raise ProgramError(f"the {self._name} converter's answer has no end")
        return got


def _died(installation: Installation, process: _Process, folder: Path) -> ProgramError:
    """What is known of a program that ended in the middle of a request."""
    code, said = process.code, folder / "said.txt"
    process.start.seek(0)
    words = (said.read_bytes() if said.is_file() else process.start.read())[-_MOST_SAID:]
    last = " ".join(words.decode("utf-8", "replace").strip().splitlines()[-3:])
    process.start.close()
    how = f"was ended by signal {-code}" if code < 0 else f"failed ({code})"
    hint = "out of memory? It needs some GB" if code == -9 else f"{installation.environment.command} mends it"
    return ProgramError(f"the {installation.environment.name} converter {how}: {last}", hint=hint)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing that it does is worth waiting for."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
