"""Making an environment: a venv, filled stage by stage by pip with exact versions, proved, and only then in use.

An installation that was interrupted goes on where it was: what pip has installed whole stays. Two that run at the same
time wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeprune import atomic
from edgeprune.errors import CannotMeasureError, StorageError, UsageError
from edgeprune.export.environment import MARKER, SCHEMA, Environment, Installation, environment, folder_of, inspect
from edgeprune.progress import SILENT, Progress, Step

__all__ = ["SetupError", "install", "is_current", "kept_bytes"]

_UNREACHABLE = re.compile(
    r"NewConnectionError|name resolution|Connection(Refused|Reset)?Error|timed out|ConnectTimeout"
)
_ABSENT = re.compile(
    r"No matching distribution found for (\S+)|Could not find a version that satisfies .*?(\S+)$", re.M
)
_PROOF_S = 300.0
_POLL_S = 1.0


class SetupError(CannotMeasureError):
    """An environment could not be made: no package index, no fitting package, packages that do not run."""


def install(name: str, *, progress: Progress = SILENT) -> tuple[Installation, bool]:
    """The environment that `edgeprune doctor` keeps, and whether it had to be made; it is used from then on.

    Raises UsageError for an unknown name or an unfitting Python, SetupError, StorageError.
    """
    kind = environment(name)
    folder = folder_of(kind)
    _check_python(kind)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder.parent}: {error.strerror}", hint="set XDG_DATA_HOME") from error
    with _alone(folder, progress):
        if is_current(kind):
            return inspect(kind, folder / "bin" / "python", "edgeprune doctor"), False
        _check_space(kind, folder)
        (folder / MARKER).unlink(missing_ok=True)  # from here on it is not whole
        python = _venv(folder, progress)
        _drop_unfinished(folder)
        for stage in kind.stages:
            _pip(kind, python, stage, progress)
        _prove(kind, python, progress)
        made = inspect(kind, python, "edgeprune doctor")
        marker = {
            "schema": SCHEMA,
            "name": kind.name,
            "sha256": _digest(kind),
            "versions": dict(made.versions),
            "bytes": _bytes(folder),
        }
        atomic.write_text(folder / MARKER, json.dumps(marker, indent=2, sort_keys=True) + "\n")
        return made, True


def is_current(kind: Environment) -> bool:
    """Whether `edgeprune doctor` made it whole, of the versions that this edgeprune asks for."""
    try:
        marker = json.loads((folder_of(kind) / MARKER).read_text(encoding="utf-8"))
        return bool(marker["schema"] == SCHEMA and marker["sha256"] == _digest(kind))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def kept_bytes(kind: Environment) -> int:
    """What it takes on the disk, as was counted when it was made; 0 where it is not whole."""
    try:
        return int(json.loads((folder_of(kind) / MARKER).read_text(encoding="utf-8"))["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _digest(kind: Environment) -> str:
    """Of all that decides what is in it."""
    asked = f"{kind.stages} {sys.version_info[:2]}".encode()
    return hashlib.sha256(asked + kind.constraints.read_bytes()).hexdigest()


def _check_python(kind: Environment) -> None:
    if not kind.oldest_python <= sys.version_info[:2] <= kind.newest_python:
        oldest, newest = (".".join(map(str, each)) for each in (kind.oldest_python, kind.newest_python))
        raise UsageError(
            f"the packages for {kind.name} exist for Python {oldest} to {newest}, this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}",
            hint=f"install edgeprune in one of these, or name an interpreter: {kind.variable}=/path/to/python",
        )


def _check_space(kind: Environment, folder: Path) -> None:
    there = _bytes(folder)
    missing = kind.disk_bytes - there - shutil.disk_usage(folder.parent).free
    if missing > 0:
        raise StorageError(
            f"{folder} needs {kind.disk_bytes / 1e9:.1f} GB, {missing / 1e9:.1f} GB more than are free there",
            hint="free some space, or set XDG_DATA_HOME to a folder that has it",
        )


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the environment's lock for the length of the context."""
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step(f"waiting for another installation in {folder}") as step:
                while not _taken(file.fileno()):
                    time.sleep(_POLL_S)
                    step.advance(0)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _venv(folder: Path, progress: Progress) -> Path:
    """The interpreter of a venv there, made where it is not, or does not run."""
    python = folder / "bin" / "python"
    ready = [str(python), "-I", "-m", "pip", "--version"]
    if python.exists() and subprocess.run(ready, capture_output=True, check=False).returncode == 0:
        return python
    with progress.step(f"making {folder}"):
        command = [sys.executable, "-I", "-m", "venv", "--clear", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        hint = "install the module venv: sudo apt install python3-venv" if "ensurepip" in said else None
        raise SetupError(f"cannot make a virtual environment in {folder}: {said[-500:]}", hint=hint)
    return python


def _drop_unfinished(folder: Path) -> None:
    """Let pip do again what it was killed in: it writes INSTALLER behind a package's files."""
    for metadata in folder.glob("lib/python*/site-packages/*.dist-info"):
        if not (metadata / "INSTALLER").exists():
            shutil.rmtree(metadata)


def _pip(kind: Environment, python: Path, stage: Sequence[str], progress: Progress) -> None:
    command = [
        str(python), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check",
        "--no-color", "--progress-bar", "off", "--retries", "2", "-c", str(kind.constraints), *stage,
    ]  # fmt: skip
    with progress.step(f"installing {', '.join(stage)}") as step:
        code, lines = _followed(command, step)
    if code != 0:
        raise _failure(kind, stage, "\n".join(lines))


def _followed(command: Sequence[str], step: Step) -> tuple[int, list[str]]:
    """Exit status and the last lines of a program; what it says it is doing goes to the step."""
    lines: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                word, _, rest = line.strip().partition(" ")
                if word in {"Collecting", "Downloading", "Installing"}:
                    step.advance(0, f"{word.lower()} {rest.split(' ')[0]}" if word != "Installing" else "unpacking")
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return code, list(lines)


def _failure(kind: Environment, stage: Sequence[str], said: str) -> SetupError | StorageError:
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    first = errors[0] if errors else said.strip()[-500:]  # those behind it give advice
    if "No space left on device" in said:
        return StorageError(f"the disk is full: {first}", hint=f"free some space, then go on with: {kind.command}")
    again = f"then go on with: {kind.command}"
    if _UNREACHABLE.search(said):
        return SetupError(
            f"the package index cannot be reached, to install {', '.join(stage)}",
            hint="connect to the internet, or name a folder with the wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=/folder; "
            + again,
        )
    if re.search(r"^ +.*\b(nvidia-|triton)", said, re.MULTILINE) or (_ABSENT.search(said) and "torch==" in first):
        return SetupError(
            f"no CPU build of torch in the package index: {first}",
            hint="choose pip, Linux, CPU on pytorch.org and set PIP_EXTRA_INDEX_URL to the index that it shows; "
            + again,
        )
    return SetupError(f"pip cannot install {', '.join(stage)}: {first}", hint=again[0].upper() + again[1:])


def _prove(kind: Environment, python: Path, progress: Progress) -> None:
    """Import once what it was made for."""
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    with progress.step("trying what was installed"):
        try:
            subprocess.run(
                [str(python), "-I", "-c", program, *kind.proof],
                capture_output=True,
                text=True,
                timeout=_PROOF_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["it died"])[-1]
            raise SetupError(
                f"the packages for {kind.name} do not run here: {last}", hint=f"{python} -m pip check"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"the packages for {kind.name} do not start within {_PROOF_S:.0f} s") from error
