"""Models in C without their zeros: loaded by the compiled loader bit for bit, and damage is found."""

from __future__ import annotations

import lzma
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeprune import registry
from edgeprune.cli.main import run_cli
from edgeprune.errors import UsageError
from edgeprune.export import manifest, sparse_loader
from edgeprune.export.sparse_file import packed
from edgeprune.package import c_source
from edgeprune.package.base import Model
from edgeprune.package.build import build
from edgeprune.package.checksums import verify_sums
from edgeprune.package.write import write_folder
from edgeprune.testing.packagers import example_lock, locked_run
from tests.package.building import STRICT, call, contents, follow_readme, model, needs
from tests.package.test_c_source import COMPILERS

LOADER = Path(c_source.__file__).parent / "sources"
FORMAT, ROOM, MEMORY, DAMAGED = 1, 2, 3, 4

# Loads the file that is its standard input and writes the model; ends with the loader's result.
MAIN = """\
#include <stdio.h>
#include <stdlib.h>
#include "edgeprune_sparse.h"

static unsigned char data[4 << 20];

int main(int argc, char **argv) {
  const size_t size = fread(data, 1, sizeof(data), stdin);
  const size_t room = argc > 1 ? (size_t)atol(argv[1]) : edgeprune_sparse_size(data, size);
  unsigned char *model = (unsigned char *)malloc(room + 1);
  int result;
  if (model == NULL) return 99;
  model[room] = 123;
  result = edgeprune_sparse_load(data, size, model, room);
  if (model[room] != 123) return 98;
  if (result == EDGEPRUNE_SPARSE_OK) fwrite(model, 1, room, stdout);
  free(model);
  return result;
}
"""


def samples() -> Iterator[tuple[bytes, bytes]]:
    """Files as they were and as they are stored: words of all sizes, none, some and all of them zero."""
    random = np.random.default_rng(0)
    for word in (1, 2, 4, 8):
        data, places = random.bytes(7), []
        for count, share in ((1, 1.0), (9, 0.5), (5000, 0.8), (8, 0.95), (300, 0.0)):
            words = random.integers(0, 256, (count, word), dtype=np.uint8) * (random.random((count, 1)) > share)
            places.append((len(data), count * word, word))
            data += words.astype(np.uint8).tobytes() + random.bytes(5)
        yield data, packed(data, places)
    yield b"x", packed(b"x", [])


def load(program: Path, data: bytes, *arguments: str) -> tuple[int, bytes]:
    done = subprocess.run([program, *arguments], input=data, capture_output=True, check=False, timeout=60)
    return done.returncode, done.stdout


def compiled(folder: Path, *compiler: str) -> Path:
    (folder / "main.c").write_text(MAIN)
    files = (folder / "main.c", LOADER / "edgeprune_sparse.c")
    call(*compiler, *STRICT, "-I", LOADER, "-o", folder / "program", *files, "-llzma")
    return folder / "program"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_compiler_s_loader_gives_the_same_bytes(compiler: tuple[str, ...], tmp_path: Path) -> None:
    program = compiled(tmp_path, *compiler)
    for data, stored in samples():
        assert load(program, stored) == (0, data)


def test_what_is_no_such_file_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    # Reading or writing anywhere else would end the program with another status.
    program = compiled(tmp_path, "gcc", "-std=c11", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    data, stored = next(samples())
    assert load(program, b"", "10") == load(program, b"EPSPARSE", "10") == (FORMAT, b"")
    assert load(program, b"X" + stored[1:], "10")[0] == FORMAT
    assert load(program, stored[:8] + b"\2" + stored[9:], "99999")[0] == FORMAT
    assert load(program, stored, str(len(data) - 1)) == (ROOM, b"")
    assert load(program, stored[:12] + b"\xff" * 8 + stored[20:], "99999")[0] == ROOM
    found = set()
    for place in range(52, len(stored), 7):
        found.add(load(program, stored[:place], str(len(data)))[0])
        found.add(load(program, stored[:place] + bytes([stored[place] ^ 16]) + stored[place + 1 :], str(len(data)))[0])
    assert found == {DAMAGED}
    assert load(program, stored + b"\0", str(len(data)))[0] == DAMAGED
    for size in (len(data) - 1, len(data) + 1):  # the header's, against the stream's
        assert load(program, stored[:12] + size.to_bytes(8, "little") + stored[20:], "99999")[0] == DAMAGED


def xz(plain: bytes, check: int = lzma.CHECK_CRC32) -> bytes:
    return lzma.compress(plain, lzma.FORMAT_XZ, check, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}])


def test_a_stream_of_another_maker_is_not_trusted(tmp_path: Path) -> None:
    program = compiled(tmp_path, "gcc", "-std=c11")
    header = packed(b"x", [])[:52]
    plain = sparse_loader.SEGMENT.pack(0, 1) + b"x"
    assert load(program, header + xz(plain)) == (0, b"x")
    assert load(program, header + xz(plain, lzma.CHECK_NONE))[0] == DAMAGED
    stray = sparse_loader.SEGMENT.pack(1, 1) + b"\3" + b"\7\\9"  # two bits for one word
    assert load(program, header + xz(stray))[0] == DAMAGED
    more = sparse_loader.SEGMENT.pack(0, 1) + b"xy"
    assert load(program, header + xz(more))[0] == DAMAGED
    stream = bytearray(xz(plain))
    assert (stream[14], stream[16]) == (0x21, 0)  # LZMA2 and its window, in the block's header
    stream[16] = 40  # 4 GiB
    size = (stream[12] + 1) * 4
    stream[12 + size - 4 : 12 + size] = zlib.crc32(stream[12 : 12 + size - 4]).to_bytes(4, "little")
    assert load(program, header + bytes(stream))[0] == MEMORY


@pytest.mark.parametrize("name", ["edgeprune", "edgeprune_sparse"])
def test_a_model_is_not_called_as_its_loader(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is what the loader"):
        c_source.c_files(contents(sparse_model(name)))
    assert c_source.c_files(contents(model(name, b"A" * 100)))


def sparse_model(identifier: str) -> Model:
    words = np.zeros(40_000, np.float32)
    words[::5] = np.random.default_rng(1).normal(size=8_000)
    data = words.tobytes()
    return Model(identifier, example_lock(data), data, packed(data, [(0, len(data), 4)]))


def package(kind: str, folder: Path) -> Path:
    models = (sparse_model("digits"), sparse_model("words"))
    write_folder(build(registry.resolve("packagers", kind)(), contents(*models)), folder)
    return folder


SAID = """\
digits: 160000 bytes of onnx at a multiple of 16
  stored in {size} bytes: loaded
words: 160000 bytes of onnx at a multiple of 16
  stored in {size} bytes: loaded
"""


@pytest.mark.parametrize("kind", ["c", "cmake"])
def test_a_package_is_built_and_loads_as_its_readme_says(kind: str, tmp_path: Path) -> None:
    needs(("make", "cc", "pkg-config", "cmake", "sha256sum"))
    stored = sparse_model("digits").sparse
    assert stored is not None
    assert len(stored) < 0.25 * 160_000
    folder = package(kind, tmp_path / "a package")
    strict = " ".join(STRICT)
    assert SAID.format(size=len(stored)) in follow_readme(folder, CFLAGS=strict, CXXFLAGS=strict)
    assert not verify_sums(folder).unlisted


def test_cmake_adds_it_as_a_folder(tmp_path: Path) -> None:
    needs(("cmake", "cc"))
    package("cmake", tmp_path / "models")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(firmware LANGUAGES C)\nadd_subdirectory(models)\n"
        "add_executable(firmware models/example/main.c)\ntarget_link_libraries(firmware PRIVATE digits::digits)\n"
    )
    call("cmake", "-S", tmp_path, "-B", tmp_path / "build")
    call("cmake", "--build", tmp_path / "build")
    assert call(tmp_path / "build/firmware").count(": loaded\n") == 2


FIRMWARE = """\
#include <stdlib.h>
#include "edgeprune_sparse.h"
#include "first.h"
#include "first_metadata.h"
#include "second.h"
#include "second_metadata.h"
int main(void) {
  unsigned char *one = malloc(FIRST_SIZE), *two = malloc(SECOND_SIZE);
  return edgeprune_sparse_load(first_sparse, first_sparse_size, one, FIRST_SIZE) != EDGEPRUNE_SPARSE_OK ||
         edgeprune_sparse_load(second_sparse, second_sparse_size, two, SECOND_SIZE) != EDGEPRUNE_SPARSE_OK ||
         one[0] != two[0];
}
"""


def test_a_build_takes_two_runs_without_their_zeros(tmp_path: Path) -> None:
    """Each brings the loader, which is linked once."""
    needs(("cmake", "cc"))
    from tests.export.test_sparse_file import model as sparse_onnx

    artifact = sparse_onnx(tmp_path, 0.8)
    for name in ("first", "second"):
        locked_run(tmp_path / "runs" / name, artifact.path.read_bytes())
    package("cmake", tmp_path / "package")
    (tmp_path / "main.c").write_text(FIRMWARE)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(firmware LANGUAGES C)\n"
        "include(package/cmake/EdgepruneAddModel.cmake)\n"
        "edgeprune_add_model(first RUN runs/first COMPRESSED)\nedgeprune_add_model(second COMPRESSED RUN runs/second)\n"
        "add_executable(firmware main.c)\ntarget_link_libraries(firmware PRIVATE first second)\n"
    )
    program = tmp_path / "edgeprune"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m edgeprune "$@"\n')
    program.chmod(0o755)
    call("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DEDGEPRUNE_EXECUTABLE={program}")
    assert "Packaging the model first" in call("cmake", "--build", tmp_path / "build")
    assert "Packaging" not in call("cmake", "--build", tmp_path / "build")
    call(tmp_path / "build/firmware")


def test_the_array_holds_what_is_stored(tmp_path: Path) -> None:
    one = sparse_model("digits")
    files = c_source.c_files(contents(one))
    assert set(files) == {
        *(f"include/{name}.h" for name in ("digits", "digits_metadata", "edgeprune_sparse")),
        *(f"src/{name}.c" for name in ("digits", "edgeprune_sparse")),
    }
    assert one.sparse is not None
    assert files["src/digits.c"].data != c_source.c_files(contents(replace(one, sparse=None)))["src/digits.c"].data
    assert f"#define DIGITS_SPARSE_SIZE {len(one.sparse)}\n" in files["include/digits_metadata.h"].data.decode()
    assert "#define DIGITS_SIZE 160000\n" in files["include/digits_metadata.h"].data.decode()


def test_a_model_that_is_not_compressed_has_no_loader() -> None:
    files = c_source.c_files(contents(model("digits", b"A" * 100)))
    assert not any("sparse" in path or b"sparse" in file.data for path, file in files.items())


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.export.test_sparse_file import model as sparse_onnx

    artifact = sparse_onnx(tmp_path, 0.8)
    manifest.write(artifact)
    command = ["package", str(artifact.path), "--name", "net", "--compressed", "-o", str(tmp_path / "out")]
    assert run_cli([*command, "--for", "c"]) == 0
    assert "kB stored in " in capsys.readouterr().out
    folder = tmp_path / "out"
    assert "NET_SPARSE_SIZE" in (folder / "include/net_metadata.h").read_text()
    assert f"becomes {artifact.size_bytes}" in (folder / "README.md").read_text()
    call("make", "example", cwd=folder)
    assert ": loaded\n" in call(tmp_path / "build-net/example")
    capsys.readouterr()
    assert run_cli([*command, "--for", "zephyr"]) == 2
    assert "what has: c, cmake" in capsys.readouterr().err
