from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeprune.agent.wheels import Board, collect
from edgeprune.errors import TargetError
from edgeprune.pipeline.device_setup import setup
from edgeprune.pipeline.golden import golden_model
from tests.board.emulated import EmulatedBoard, missing

VERSION = importlib.metadata.version("onnxruntime")  # the same as here: the outputs are compared
DEBIAN_12 = Board(machine="aarch64", bits=64, libc="glibc", libc_version="2.36", python=(3, 11))

PROFILE = """
name: emulated
extends: aarch64-linux
soc: emulated
measurement: {warmup_time: 1s, min_time: 100ms, max_time: 3s, min_runs: 20, memory_workers: 1}
"""


@pytest.fixture(scope="session")
def board() -> Iterator[EmulatedBoard]:
    """Booted once; it has Python, and no runtime."""
    if reason := missing():
        pytest.skip(reason)
    with EmulatedBoard() as running:
        yield running


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """The board's wheels, fetched once and kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeprune-tests"
    folder = cache / f"onnxruntime-{VERSION}-debian-12-aarch64"
    if not any(folder.glob("onnxruntime-*.whl")):
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        part.mkdir(parents=True)
        try:
            collect(DEBIAN_12, f"onnxruntime=={VERSION}", part)
        except TargetError as error:
            part.rmdir()
            pytest.skip(f"the package index cannot be reached: {error.message}")
        part.rename(folder)
    return folder


@pytest.fixture
def equipped(board: EmulatedBoard, wheelhouse: Path) -> EmulatedBoard:
    """The board with a runtime; nothing else of edgeprune is on it, before the test and after it."""
    if not board.equipped:
        setup(board.url(), wheelhouse=wheelhouse)
        board.equipped = True
    return board


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short measurements: time in the emulator means nothing."""
    path = tmp_path_factory.mktemp("profile") / "emulated.yaml"
    path.write_text(PROFILE)
    return path


@pytest.fixture(scope="session")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    path.write_bytes(golden_model().model)
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of a command line."""
    from edgeprune.cli.main import run_cli

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_cli([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
