"""The C of a package goes through real compilers without a warning, and holds the model's very bytes."""

from __future__ import annotations

import random
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.package.base import Model
from edgeprune.package.c_source import c_files, metadata_header
from edgeprune.package.write import write_if_changed
from edgeprune.records.artifact import TensorSpec
from edgeprune.testing.packagers import example_lock
from tests.package.building import STRICT, call, contents, model

DIGITS = random.Random(1).randbytes(300_003)  # as string literals
WORDS = bytes(range(256)) * 40  # as numbers

# Writes what is embedded, so that it can be compared; shared by C and C++.
MAIN = """\
#include <stdio.h>
#include "words.h"
#include "digits.h"
#include "words.h"

static const int shape[DIGITS_INPUT_0_RANK] = {DIGITS_INPUT_0_SHAPE};

int main(void) {
  if ((size_t)digits_data % DIGITS_ALIGNMENT || (size_t)words_data % WORDS_ALIGNMENT) return 2;
  if (DIGITS_SIZE != digits_size || WORDS_SIZE != words_size) return 3;
  if (shape[0] != -1 || shape[3] != 8 || DIGITS_INPUT_0_BYTES != 64 || DIGITS_OUTPUT_0_BYTES != 40) return 4;
  if (DIGITS_INPUT_0_ZERO_POINT != -128 || DIGITS_INPUT_0_SCALE * 255 < 0.999f) return 5;
  if (DIGITS_PEAK_MEMORY_BYTES != 1048576 || DIGITS_ARENA_BYTES != 4096) return 6;
  fwrite(digits_data, 1, digits_size, stdout);
  fwrite(words_data, 1, words_size, stdout);
  return 0;
}
"""

COMPILERS = [
    pytest.param(("gcc", "-std=c99"), id="gcc-c99"),
    pytest.param(("gcc", "-std=c11", "-O2", "-flto"), id="gcc-c11-lto"),
    pytest.param(("gcc", "-std=c2x"), id="gcc-c2x"),
    pytest.param(("gcc", "-std=c90", "-ansi"), id="gcc-c90"),
    pytest.param(("g++", "-x", "c++", "-std=c++98"), id="g++-98"),
    pytest.param(("g++", "-x", "c++", "-std=c++20", "-O2"), id="g++-20"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for path, file in c_files(contents(model("digits", DIGITS), model("words", WORDS))).items():
        write_if_changed(folder / path, file)
    (folder / "main.c").write_text(MAIN)
    return folder


def built(folder: Path, out: Path, *compiler: str) -> Path:
    files = [folder / "main.c", folder / "src/digits.c", folder / "src/words.c"]
    call(*compiler, *STRICT, "-I", folder / "include", "-o", out / "program", *files)
    return out / "program"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_two_models_in_one_program(sources: Path, tmp_path: Path, compiler: tuple[str, ...]) -> None:
    program = built(sources, tmp_path, *compiler)
    written = tmp_path / "written"
    call("bash", "-c", f"{program} > {written}")
    assert written.read_bytes() == DIGITS + WORDS


def test_c_sources_link_into_a_c_plus_plus_program(sources: Path, tmp_path: Path) -> None:
    for name in ("digits", "words"):
        call("gcc", *STRICT, "-I", sources / "include", "-c", sources / f"src/{name}.c", "-o", tmp_path / f"{name}.o")
    (tmp_path / "main.cpp").write_text(MAIN)
    objects = [tmp_path / "digits.o", tmp_path / "words.o"]
    call("g++", *STRICT, "-I", sources / "include", "-o", tmp_path / "program", tmp_path / "main.cpp", *objects)
    call("bash", "-c", f"{tmp_path / 'program'} > {tmp_path / 'written'}")
    assert (tmp_path / "written").read_bytes() == DIGITS + WORDS


def test_a_microcontroller_s_compiler_puts_it_in_read_only_memory(sources: Path, tmp_path: Path) -> None:
    target = ("-mcpu=cortex-m4", "-mthumb", "-ffreestanding")
    for name in ("digits", "words"):
        made = tmp_path / f"{name}.o"
        call(
            "arm-none-eabi-gcc",
            *target,
            *STRICT,
            "-I",
            sources / "include",
            "-c",
            sources / f"src/{name}.c",
            "-o",
            made,
        )
    sizes = call("arm-none-eabi-size", "-A", tmp_path / "digits.o")
    found = {line.split()[0]: int(line.split()[1]) for line in sizes.splitlines() if line.startswith(".")}
    assert found[".rodata"] in range(len(DIGITS), len(DIGITS) + 32)
    assert found.get(".data", 0) == 0


def test_section_and_alignment_are_the_compiler_s_to_set(sources: Path, tmp_path: Path) -> None:
    macros = ("-DDIGITS_ALIGNMENT=256", '-DDIGITS_SECTION=".models"')
    made = tmp_path / "digits.o"
    call("gcc", *STRICT, *macros, "-I", sources / "include", "-c", sources / "src/digits.c", "-o", made)
    section = next(line.split() for line in call("objdump", "-h", made).splitlines() if " .models " in line)
    assert int(section[2], 16) == len(DIGITS) + 1
    assert section[6] == "2**8"


def test_section_and_alignment_of_the_package(tmp_path: Path) -> None:
    for path, file in c_files(contents(model("digits", WORDS), alignment=128, section=".flash.models")).items():
        write_if_changed(tmp_path / path, file)
    made = tmp_path / "digits.o"
    call("gcc", *STRICT, "-I", tmp_path / "include", "-c", tmp_path / "src/digits.c", "-o", made)
    section = next(line.split() for line in call("objdump", "-h", made).splitlines() if " .flash.models " in line)
    assert (int(section[2], 16), section[6]) == (len(WORDS), "2**7")


def test_nothing_but_two_symbols_is_visible(sources: Path, tmp_path: Path) -> None:
    call("gcc", "-I", sources / "include", "-c", sources / "src/digits.c", "-o", tmp_path / "digits.o")
    symbols = sorted(line.split()[-1] for line in call("nm", "--defined-only", tmp_path / "digits.o").splitlines())
    assert symbols == ["digits_data", "digits_size"]


def test_names_of_tensors_are_text_to_the_compiler(tmp_path: Path) -> None:
    data = b"\x01"
    name = 'serving"default\\ é??/ %s\n*/'
    lock = example_lock(data)
    spec = TensorSpec(name, "float32", ())
    artifact = type(lock.artifact)(lock.artifact.path, "onnx", lock.artifact.sha256, 1, (spec,), (spec,))
    made = contents(Model("m", example_lock(data, artifact=artifact), data))
    for path, file in c_files(made).items():
        write_if_changed(tmp_path / path, file)
    main = tmp_path / "main.c"
    main.write_text('#include <stdio.h>\n#include "m.h"\nint main(void) { fputs(M_INPUT_0_NAME, stdout); return 0; }\n')
    options = ("-std=c99", "-trigraphs", *STRICT, "-I", tmp_path / "include")
    call("gcc", *options, "-o", tmp_path / "p", main, tmp_path / "src/m.c")
    assert call(tmp_path / "p") == name


def test_scales_are_written_as_floats() -> None:
    text = metadata_header(model("digits", WORDS), contents(model("digits", WORDS)))
    assert "#define DIGITS_INPUT_0_SCALE 0.0039215689f\n" in text
    assert "#define DIGITS_INPUT_0_ZERO_POINT (-128)\n" in text
    assert "DIGITS_OUTPUT_0_SCALE" not in text


@pytest.mark.parametrize(("scale", "written"), [(1.0, "1.0f"), (1e-05, "1e-05f"), (2, "2.0f")])
def test_every_scale_is_a_float_in_c(scale: float, written: str) -> None:
    assert f"_SCALE {written}\n" in metadata_header(scaled(scale), contents(scaled(scale)))


@pytest.mark.parametrize("scale", [float("inf"), float("nan")])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    with pytest.raises(UsageError, match="cannot be written in C"):
        metadata_header(scaled(scale), contents(scaled(scale)))


def scaled(scale: float) -> Model:
    lock = example_lock(WORDS)
    specs = (replace(lock.artifact.inputs[0], scale=scale),)
    return Model("digits", replace(lock, artifact=replace(lock.artifact, inputs=specs)), WORDS)


@pytest.mark.parametrize(
    ("other", "both"), [("net_metadata", r"include/net_metadata\.h"), ("net_input_0", "NET_INPUT_0_NAME")]
)
def test_names_of_two_models_never_mean_two_things(other: str, both: str) -> None:
    with pytest.raises(UsageError, match=f"two models would both have {both}"):
        c_files(contents(model("net", WORDS), model(other, WORDS)))


def test_megabytes_are_written_and_compiled_in_a_moment(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(4_000_000)
    began = time.process_time()
    files = c_files(contents(model("digits", data)))
    assert time.process_time() - began < 4
    for path, file in files.items():
        write_if_changed(tmp_path / path, file)
    made = tmp_path / "digits.o"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call("gcc", *STRICT, "-I", tmp_path / "include", "-c", tmp_path / "src/digits.c", "-o", made)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 4  # as numbers: 5 s and more
    call("objcopy", "-O", "binary", "--only-section=.rodata", made, tmp_path / "bytes")
    assert data in (tmp_path / "bytes").read_bytes()


def test_compilers_that_know_no_long_strings_get_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    undefined = ("-U__GNUC__", "-std=c11")
    call("gcc", *undefined, "-I", sources / "include", "-c", sources / "src/digits.c", "-o", tmp_path / "digits.o")
    call("objcopy", "-O", "binary", "--only-section=.rodata", tmp_path / "digits.o", tmp_path / "bytes")
    assert DIGITS in (tmp_path / "bytes").read_bytes()
    symbols = call("nm", "--print-size", tmp_path / "digits.o").splitlines()
    assert int(next(line.split()[1] for line in symbols if line.endswith(" digits_data")), 16) == len(DIGITS)
