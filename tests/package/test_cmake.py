"""The CMake package in real builds: found, added, installed, and compiled again exactly when the model changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgeprune.package.build import build
from edgeprune.package.cmake import CMakePackager
from edgeprune.package.write import write_folder
from edgeprune.testing.packagers import locked_run
from tests.package.building import call, contents, model, needs

FIRMWARE = """\
cmake_minimum_required(VERSION 3.20)
project(firmware LANGUAGES C)
include("{package}/cmake/EdgepruneAddModel.cmake")
edgeprune_add_model(digits RUN "{run}" PREFIX acme_ ALIGN 32)
edgeprune_add_model(words RUN "{words}")
add_executable(firmware main.c)
target_link_libraries(firmware PRIVATE digits words)
"""

MAIN = """\
#include <stdio.h>
#include "acme_digits.h"
#include "words.h"
int main(void) {
  printf("%lu %lu\\n", (unsigned long)acme_digits_size, (unsigned long)words_size);
  return acme_digits_data[0] == 'A' && (size_t)acme_digits_data % 32 == 0 ? 0 : 1;
}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs(("cmake", "ninja", "gcc"))
    folder = tmp_path_factory.mktemp("cmake package") / "digits"
    write_folder(build(CMakePackager(), contents(model("digits", b"A" * 5000), model("words", b"B" * 99))), folder)
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`edgeprune`, as a build finds it."""
    path = tmp_path / "edgeprune"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m edgeprune "$@"\n')
    path.chmod(0o755)
    return path


def configured(folder: Path, *options: str, generator: str = "Ninja") -> Path:
    call("cmake", "-S", folder, "-B", folder / "build", "-G", generator, *options)
    return folder / "build"


def ninja(build_folder: Path) -> str:
    return call("ninja", "-C", build_folder)


@pytest.mark.parametrize("languages", ["C", "CXX"])
def test_is_found_by_find_package(package: Path, tmp_path: Path, languages: str) -> None:
    suffix = {"C": "c", "CXX": "cpp"}[languages]
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES {languages})\n"
        "find_package(digits 1.1 REQUIRED CONFIG)\nfind_package(digits 1.2.3 EXACT REQUIRED CONFIG)\n"
        f"add_executable(p main.{suffix})\ntarget_link_libraries(p PRIVATE digits::digits)\n"
    )
    (tmp_path / f"main.{suffix}").write_text((package / "example/main.c").read_text())
    made = configured(tmp_path, f"-Ddigits_DIR={package}", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror -pedantic")
    ninja(made)
    assert call(made / "p") == (
        "digits: 5000 bytes of onnx at a multiple of 16\nwords: 99 bytes of onnx at a multiple of 16\n"
    )


@pytest.mark.parametrize("version", ["2.0", "1.3", "0.9"])
def test_another_version_is_not_found(package: Path, tmp_path: Path, version: str) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES NONE)\n"
        f"find_package(digits {version} CONFIG)\nif(digits_FOUND)\n  message(FATAL_ERROR found)\nendif()\n"
    )
    assert "version: 1.2.3" in call("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-Ddigits_DIR={package}")


def test_is_added_as_a_folder_and_placed_by_macros(package: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES C)\n"
        f'add_subdirectory("{package}" digits)\n'
        "target_compile_definitions(edgeprune_digits PUBLIC DIGITS_ALIGNMENT=512)\n"
        "add_executable(p main.c)\ntarget_link_libraries(p PRIVATE digits::digits)\n"
    )
    (tmp_path / "main.c").write_text((package / "example/main.c").read_text())
    made = configured(tmp_path)
    ninja(made)
    assert "digits: 5000 bytes of onnx at a multiple of 512\n" in call(made / "p")


@pytest.fixture
def firmware(package: Path, program: Path, tmp_path: Path) -> Path:
    """A configured and built project that takes its models from two runs."""
    run = locked_run(tmp_path / "the run", b"A" * 5000)
    words = locked_run(tmp_path / "words", b"B" * 99)
    folder = tmp_path / "firmware"
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(FIRMWARE.format(package=package, run=run, words=words))
    (folder / "main.c").write_text(MAIN)
    made = configured(folder, f"-DEDGEPRUNE_EXECUTABLE={program}")
    said = ninja(made)
    assert "Packaging the model acme_digits" in said
    assert "Packaging the model words" in said
    return made


def test_rebuilds_exactly_when_a_model_changes(firmware: Path, tmp_path: Path) -> None:
    assert call(firmware / "firmware") == "5000 99\n"
    assert "no work to do" in ninja(firmware)

    # The same lock, written again: it is looked at, and nothing is compiled.
    lock = tmp_path / "the run/edgeprune.lock"
    objects = {path: path.stat().st_mtime_ns for path in firmware.rglob("*.o")}
    assert len(objects) == 3
    lock.write_bytes(lock.read_bytes())
    said = ninja(firmware)
    assert "Packaging the model acme_digits" in said
    assert "Building" not in said
    assert "Linking" not in said
    assert {path: path.stat().st_mtime_ns for path in firmware.rglob("*.o")} == objects
    assert "no work to do" in ninja(firmware)

    # Another model: it and what includes its header are compiled, the other model is not.
    locked_run(tmp_path / "the run", b"A" * 5001)
    said = ninja(firmware)
    assert "Packaging the model acme_digits" in said
    assert "Packaging the model words" not in said
    changed = {path.name for path, before in objects.items() if path.stat().st_mtime_ns != before}
    assert changed == {"acme_digits.c.o", "main.c.o"}
    assert call(firmware / "firmware") == "5001 99\n"
    assert "no work to do" in ninja(firmware)


def test_a_model_that_is_not_what_the_lock_names_stops_the_build(firmware: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "the run/best/model.onnx"
    artifact.write_bytes(b"X" * 5000)
    os.utime(artifact, ns=(artifact.stat().st_atime_ns, artifact.stat().st_mtime_ns + 2_000_000_000))
    with pytest.raises(AssertionError, match=r"model\.onnx is not the file that .*edgeprune\.lock names"):
        ninja(firmware)


def test_make_builds_it_too(package: Path, program: Path, tmp_path: Path) -> None:
    needs(("make",))
    run = locked_run(tmp_path / "run", b"A" * 50)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES C)\n"
        f'include("{package}/cmake/EdgepruneAddModel.cmake")\nedgeprune_add_model(digits RUN {run})\n'
    )
    made = configured(tmp_path, f"-DEDGEPRUNE_EXECUTABLE={program}", generator="Unix Makefiles")
    assert "Packaging the model digits" in call("cmake", "--build", made)
    assert "Packaging" not in call("cmake", "--build", made)
    locked_run(tmp_path / "run", b"A" * 51)
    assert "Building C object CMakeFiles/digits.dir/digits.model/src/digits.c.o" in call("cmake", "--build", made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("digits", "edgeprune_add_model.<target> RUN"), ("digits RUN nowhere", "there is no.*nowhere/edgeprune.lock"),
     ("digits RUN . NAME Big-Name", "lower-case letters")],
)  # fmt: skip
def test_a_wrong_call_says_what_is_right(package: Path, tmp_path: Path, arguments: str, message: str) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES NONE)\n"
        f'include("{package}/cmake/EdgepruneAddModel.cmake")\nedgeprune_add_model({arguments})\n'
    )
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        call("cmake", "-S", tmp_path, "-B", tmp_path / "b")
