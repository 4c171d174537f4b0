"""Which runtime fits a board, and its wheels: found by pip for the board's platform, not for this machine's."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import StorageError, TargetError, UsageError

__all__ = ["RUNTIMES", "Board", "Wheel", "choose_runtime", "collect", "platform_tags"]


@dataclass(frozen=True, slots=True)
class Board:
    """What decides whether a wheel runs: the userland, not the kernel."""

    machine: str  # as uname says: aarch64 also where the userland has 32 bits
    bits: int
    libc: str  # "glibc", "musl", or "" where it is neither
    libc_version: str
    python: tuple[int, int]
    implementation: str = "cpython"
    free_threaded: bool = False

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Board:
        """From what the board's own interpreter says."""
        major, minor = facts["python"]
        return cls(
            machine=str(facts["machine"]),
            bits=int(facts["bits"]),
            libc=str(facts["libc"]),
            libc_version=str(facts["libc_version"]),
            python=(int(major), int(minor)),
            implementation=str(facts["implementation"]),
            free_threaded=bool(facts["free_threaded"]),
        )

    @property
    def arch(self) -> str:
        """The architecture of the userland, as platform tags name it."""
        narrow = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
        return narrow.get(self.machine, self.machine) if self.bits == 32 else self.machine

    def __str__(self) -> str:
        libc = f"{self.libc} {self.libc_version}".strip() or "an unknown C library"
        python = ".".join(map(str, self.python))
        return f"{self.arch} ({self.bits}-bit userland), {libc}, {self.implementation} {python}"


@dataclass(frozen=True, slots=True)
class RuntimeWheels:
    """Where a runtime is published as wheels (November 2026). `not_installed`: why edgeprune leaves it out."""

    distribution: str
    glibc: tuple[str, ...]
    musl: tuple[str, ...]
    oldest_python: tuple[int, int]
    newest_python: tuple[int, int] | None = None
    not_installed: str = ""


_LATER = "edgeprune has no test network to prove it with yet: pip install it there yourself"
RUNTIMES = {
    "onnxruntime": RuntimeWheels("onnxruntime", ("x86_64", "aarch64"), (), (3, 6)),
    "ai-edge-litert": RuntimeWheels("ai-edge-litert", ("x86_64", "aarch64"), (), (3, 9), not_installed=_LATER),
    "tflite-runtime": RuntimeWheels(
        "tflite-runtime", ("x86_64", "aarch64", "armv7l"), (), (3, 5), (3, 11), not_installed=_LATER
    ),
    "ncnn": RuntimeWheels(
        "ncnn", ("x86_64", "i686", "aarch64", "armv7l"), ("x86_64", "i686", "aarch64"), (3, 5), not_installed=_LATER
    ),
}


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on this machine."""

    path: Path
    size: int
    sha256: str
    unpacked_bytes: int


def choose_runtime(board: Board, wanted: str | None = None) -> str:
    """The first runtime with wheels for the board that edgeprune installs, or the wanted one.

    Raises TargetError (NO_RUNTIME) with the reason of each; UsageError where `wanted` is not known.
    """
    if wanted is not None and wanted not in RUNTIMES:
        raise UsageError(f"{wanted!r} is not a runtime that can be installed", hint=f"known: {', '.join(RUNTIMES)}")
    names = [wanted] if wanted else list(RUNTIMES)
    reasons = {name: why_not(board, RUNTIMES[name]) for name in names}
    for name, reason in reasons.items():
        if not reason:
            return name
    if board.libc == "musl":
        hint = "a system with glibc (Debian, Raspberry Pi OS, Fedora) has wheels; this one's C library is musl"
    elif board.bits == 32:
        hint = "install a 64-bit system, where the processor allows it"
    elif board.implementation != "cpython":
        hint = "name a CPython: ssh://...?python=/usr/bin/python3"
    else:
        hint = "install ONNX Runtime there from its sources, or measure on another device"
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise TargetError(f"no runtime for this board, {board}. {listed}", hint=hint, outcome="NO_RUNTIME")


def why_not(board: Board, runtime: RuntimeWheels) -> str:
    """Why a runtime cannot be installed from wheels on the board, or ""."""
    version = ".".join(map(str, board.python))
    if board.implementation != "cpython":
        return f"its wheels are for CPython, not {board.implementation}"
    if board.libc not in {"glibc", "musl"}:
        return "its wheels need glibc or musl"
    archs = runtime.glibc if board.libc == "glibc" else runtime.musl
    if not archs:
        return f"no wheels for {board.libc}, only for glibc"
    if board.arch not in archs:
        return f"no wheels for {board.arch} with {board.libc}, only for {', '.join(archs)}"
    if board.python < runtime.oldest_python:
        return f"no wheels for Python {version}, which is older than {'.'.join(map(str, runtime.oldest_python))}"
    if runtime.newest_python and board.python > runtime.newest_python:
        return f"no wheels for Python {version}, only up to {'.'.join(map(str, runtime.newest_python))}"
    return runtime.not_installed


def platform_tags(board: Board) -> list[str]:
    """The board's platform tags, best first: PEP 600 (manylinux), PEP 656 (musllinux), and the plain one."""
    arch = board.arch
    match = re.match(r"(\d+)\.(\d+)", board.libc_version)
    tags: list[str] = []
    if match and board.libc == "glibc" and match[1] == "2":
        legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        oldest = 5 if arch in {"x86_64", "i686"} else 17
        for minor in range(int(match[2]), oldest - 1, -1):
            tags.append(f"manylinux_2_{minor}_{arch}")
            if minor in legacy:
                tags.append(f"{legacy[minor]}_{arch}")
    elif match and board.libc == "musl":
        tags = [f"musllinux_{match[1]}_{minor}_{arch}" for minor in range(int(match[2]), -1, -1)]
    return [*tags, f"linux_{arch}"]


def collect(board: Board, requirement: str, folder: Path, wheelhouse: Path | None = None) -> tuple[Wheel, ...]:
    """The wheels of a requirement ("onnxruntime==1.20.1") and all it needs, in `folder`; by name.

    From the package index that pip is set up for, or from `wheelhouse` alone. Raises UsageError where there is no pip
    or no such folder, TargetError (NO_RUNTIME) where no wheel fits the board.
    """
    if importlib.util.find_spec("pip") is None:
        raise UsageError(f"{sys.executable} has no pip to find wheels with", hint="python -m ensurepip")
    if wheelhouse is not None and not wheelhouse.is_dir():
        raise UsageError(f"{wheelhouse}: no such folder", hint="--wheelhouse names a folder with .whl files")
    process = subprocess.Popen(
        _pip(board, requirement, folder, wheelhouse), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        said = process.communicate()[1]
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
        where = f"in {wheelhouse}" if wheelhouse else "in the package index"
        raise TargetError(
            f"no fitting wheels of {requirement} {where} for {board}: {errors[-1] if errors else said.strip()[-500:]}",
            hint="is the package index reachable from here? Without internet: --wheelhouse FOLDER"
            if wheelhouse is None
            else "fill it on a machine with internet: "
            + " ".join(["pip", *_pip(board, requirement, wheelhouse, None)[3:]]),
            outcome="NO_RUNTIME",
        )
    return tuple(_wheel(path) for path in sorted(folder.glob("*.whl")))


def _pip(board: Board, requirement: str, folder: Path, wheelhouse: Path | None) -> Sequence[str]:
    major, minor = board.python
    abi = f"cp{major}{minor}"
    abis = [f"{abi}t"] if board.free_threaded else [abi, *([f"{abi}m"] if board.python < (3, 8) else []), "abi3"]
    return [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
        "--only-binary=:all:", "--implementation", "cp", "--python-version", f"{major}.{minor}",
        *(part for name in (*abis, "none") for part in ("--abi", name)),
        *(part for tag in platform_tags(board) for part in ("--platform", tag)),
        *(["--no-index", "--find-links", str(wheelhouse)] if wheelhouse else []),
        "--dest", str(folder), requirement,
    ]  # fmt: skip


def _wheel(path: Path) -> Wheel:
    try:
        with path.open("rb") as file, contextlib.closing(zipfile.ZipFile(path)) as archive:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            unpacked = sum(info.file_size for info in archive.infolist())
        return Wheel(path, path.stat().st_size, digest.hexdigest(), unpacked)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise StorageError(f"{path} is damaged: {error}", hint="delete it, and download it again") from error
