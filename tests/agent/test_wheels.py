"""Which wheels fit a board: platform tags against the reference implementation, the choice of a runtime, pip itself."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from pathlib import Path

import packaging.tags
import pytest

from edgeprune.agent.wheels import Board, choose_runtime, collect, platform_tags
from edgeprune.errors import TargetError, UsageError
from tests.agent.wheel_files import make_wheel

PI = Board(machine="aarch64", bits=64, libc="glibc", libc_version="2.36", python=(3, 11))


def test_tags_of_this_machine_are_those_of_the_reference() -> None:
    name, version = os.confstr("CS_GNU_LIBC_VERSION").split()  # type: ignore[union-attr]
    here = Board(platform.machine(), 64 if sys.maxsize > 2**32 else 32, name, version, sys.version_info[:2])
    reference = list(packaging.tags.platform_tags())
    assert sorted(platform_tags(here)) == sorted(reference)
    assert platform_tags(here)[:-1] == [tag for tag in reference if tag.startswith("manylinux")]


def test_tags_of_boards() -> None:
    tags = platform_tags(PI)
    assert tags[0] == "manylinux_2_36_aarch64"
    assert tags[-3:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"]
    assert len(tags) == 22
    assert platform_tags(replace(PI, bits=32))[-1] == "linux_armv7l"  # a 32-bit userland on a 64-bit kernel
    assert platform_tags(replace(PI, libc="musl", libc_version="1.2.3"))[:3] == [
        "musllinux_1_2_aarch64",
        "musllinux_1_1_aarch64",
        "musllinux_1_0_aarch64",
    ]
    assert platform_tags(replace(PI, libc="", libc_version="")) == ["linux_aarch64"]


def test_a_64_bit_board_gets_onnx_runtime() -> None:
    assert choose_runtime(PI) == "onnxruntime"
    assert choose_runtime(PI, "onnxruntime") == "onnxruntime"


@pytest.mark.parametrize(
    ("board", "said", "hint"),
    [
        (
            replace(PI, bits=32),
            "onnxruntime: no wheels for armv7l with glibc, only for x86_64, aarch64",
            "64-bit system",
        ),
        (replace(PI, libc="musl", libc_version="1.2.3"), "onnxruntime: no wheels for musl, only for glibc", "is musl"),
        (replace(PI, machine="riscv64"), "onnxruntime: no wheels for riscv64", "from its sources"),
        (replace(PI, python=(3, 5)), "onnxruntime: no wheels for Python 3.5, which is older than 3.6", "sources"),
        (replace(PI, implementation="pypy"), "onnxruntime: its wheels are for CPython, not pypy", "CPython"),
        (replace(PI, libc=""), "onnxruntime: its wheels need glibc or musl", "sources"),
    ],
)
def test_where_no_runtime_exists_the_reason_is_given(board: Board, said: str, hint: str) -> None:
    with pytest.raises(TargetError) as caught:
        choose_runtime(board)
    assert caught.value.outcome == "NO_RUNTIME"
    assert said in caught.value.message
    assert str(board) in caught.value.message
    assert hint in str(caught.value.hint)


def test_an_unknown_runtime_is_refused_with_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        choose_runtime(PI, "tensorflow")
    assert "onnxruntime" in str(caught.value.hint)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    for tag in ("cp311-cp311-manylinux_2_28_aarch64", "cp311-cp311-manylinux_2_38_aarch64", "cp311-cp311-win_amd64"):
        version = "2.0" if "2_38" in tag else "1.0"
        make_wheel(folder, "toy", {"toy.py": b"pass\n"}, version=version, tag=tag, requires=["dependency>=1"])
    make_wheel(folder, "dependency", {"dependency.py": b"pass\n"}, version="1.5")
    make_wheel(folder, "dependency", {"dependency.py": b"pass\n"}, version="0.5")
    return folder


def test_wheels_are_collected_for_the_board_and_not_for_here(wheelhouse: Path, tmp_path: Path) -> None:
    wheels = collect(PI, "toy", tmp_path, wheelhouse)
    # Version 2.0 needs a newer glibc than the board has.
    assert [wheel.path.name for wheel in wheels] == [
        "dependency-1.5-py3-none-any.whl",
        "toy-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
    ]
    assert all(wheel.size == wheel.path.stat().st_size and len(wheel.sha256) == 64 for wheel in wheels)


@pytest.mark.parametrize(
    ("board", "requirement"), [(replace(PI, python=(3, 12)), "toy"), (PI, "toy==3.0"), (PI, "absent")]
)
def test_no_fitting_wheel_is_no_runtime(board: Board, requirement: str, wheelhouse: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        collect(board, requirement, tmp_path, wheelhouse)
    assert caught.value.outcome == "NO_RUNTIME"
    assert f"no fitting wheels of {requirement} in {wheelhouse}" in caught.value.message
    assert "pip download" in str(caught.value.hint)
    assert "manylinux_2_36_aarch64" in str(caught.value.hint)


def test_a_wheelhouse_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        collect(PI, "toy", tmp_path, tmp_path / "none")
