"""LiteRT or tflite-runtime on this machine, in an interpreter that has it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import ParityError
from edgeprune.export.environment import ENVIRONMENTS, Installation, find, locate
from edgeprune.export.program import PROGRAMS, variables
from edgeprune.records.artifact import Artifact

__all__ = ["TfliteRunner"]

_OLD = "tflite-runtime"
_SAID = 2000  # of the end of what the runtime printed


class TfliteRunner:
    """Runs a .tflite artifact; see `runner.Runner`.

    `installation` is where the runtime is: by default LiteRT, of the environment that exports.
    """

    def __init__(
        self, artifact: Artifact, installation: Installation | None = None, runtime: str = "ai-edge-litert"
    ) -> None:
        where = installation or find("tflite")
        self.runtime = f"{runtime} {where.versions[runtime]}"
        self._artifact = artifact
        self._folder = tempfile.TemporaryDirectory(prefix="edgeprune-")
        self._said = (Path(self._folder.name) / "said.txt").open("w+b")
        self._process = subprocess.Popen(
            [str(where.python), "-I", str(PROGRAMS / "tflite_run.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            cwd=self._folder.name,
            env=variables(),
        )
        self._close = weakref.finalize(self, _end, self._process, self._said, self._folder)
        self._ask("load", "", model=str(artifact.path.absolute()), runtime=runtime)

    @classmethod
    def others(cls, artifact: Artifact) -> list[TfliteRunner]:
        """In tflite-runtime, where its environment is there: what runs in LiteRT may be garbage in it."""
        if locate(ENVIRONMENTS[_OLD]) is None:
            return []
        return [cls(artifact, find(_OLD), _OLD)]

    def __call__(self, feeds: Mapping[str, NDArray[Any]], what: str = "") -> list[NDArray[Any]]:
        """See `Runner.__call__`."""
        folder = Path(self._folder.name)
        np.savez(folder / "feeds.npz", *feeds.values())
        self._ask("run", what, feeds="feeds.npz", names=list(feeds), results="results.npz")
        with np.load(folder / "results.npz", allow_pickle=False) as results:
            return [results[f"arr_{number}"] for number in range(len(results.files))]

    def close(self) -> None:
        """End the runtime."""
        self._close()

    def _ask(self, verb: str, what: str, **request: object) -> None:
        """Have the program do one thing; raises ParityError with what went wrong."""
        line = b""
        with contextlib.suppress(BrokenPipeError):
            _stream(self._process.stdin).write(json.dumps(request).encode() + b"\n")
            _stream(self._process.stdin).flush()
            line = _stream(self._process.stdout).readline()
        error = json.loads(line).get("error") if line else self._last_words()
        if error:
            case = f" ({what})" if what else ""
            raise ParityError(
                f"{self.runtime} cannot {verb} {self._artifact.path.name}{case}: {error}",
                hint="the runtime cannot use this file; please report the model with this message",
            )

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.flush()
        said = Path(self._said.name).read_bytes()[-_SAID:].decode("utf-8", "replace").strip()
        return f"it ended ({code}): {said.splitlines()[-1] if said else 'without a word'}"


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("opened without a pipe")
    return stream


def _end(process: subprocess.Popen[bytes], said: IO[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    """End of input ends the program; one that hangs is killed."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said.close()
    folder.cleanup()
