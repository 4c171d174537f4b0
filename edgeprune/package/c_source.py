"""A model as C: an array with its header, and a header of macros that says what the model takes, gives and needs.

    include/digits.h             digits_data, digits_size
    include/digits_metadata.h    DIGITS_SIZE, DIGITS_INPUT_0_SHAPE, DIGITS_ARENA_BYTES ... for the preprocessor alone
    src/digits.c                 the bytes

Where models are stored without their zeros it is digits_sparse and digits_sparse_size, and beside them are
include/edgeprune_sparse.h and src/edgeprune_sparse.c, which load them with liblzma.

C90 to C23 and C++, without a warning; nothing but the two symbols, and the loader's two, is visible to the linker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from importlib import resources

from edgeprune.errors import UsageError
from edgeprune.package.base import Contents, File, Model, text
from edgeprune.package.facts import dtype_bytes, memory_facts
from edgeprune.package.names import c_string
from edgeprune.records.artifact import TensorSpec

__all__ = ["c_files", "example", "metadata_header", "sources", "usage"]

_LOADER = "edgeprune_sparse"
_ROW = 20  # bytes in a line of the array
_SMALL = 256 * 1024  # above it the time that a compiler takes for numbers is felt: more than a second per megabyte
# Not every compiler takes string literals of megabytes, as GCC and Clang do: for others there are numbers as well.
_LONG_STRINGS = """\
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Woverlength-strings"
"""
_ESCAPES = {byte: f"\\{byte:03o}" for byte in range(256) if chr(byte) in '"\\?' or not 32 <= byte < 127}


def c_files(contents: Contents, *, include: str = "include", source: str = "src") -> dict[str, File]:
    """Headers and sources of all models, in these folders ("" is the package's own).

    Raises UsageError where a file or a macro of two models would have the same name.
    """
    found: dict[str, File] = {}
    macros: set[str] = set()
    taken = {_LOADER, _LOADER.removesuffix("_sparse")} if contents.sparse else set()
    for model in contents.models:
        name, metadata = model.identifier, metadata_header(model, contents)
        if name in taken:
            raise UsageError(f"{name} is what the loader of compressed models is called", hint="name it otherwise")
        made = {
            _path(include, f"{name}.h"): text(_header(model)),
            _path(include, f"{name}_metadata.h"): text(metadata),
            _path(source, f"{name}.c"): File(_source(model)),
        }
        own = set(re.findall(r"^#define (\w+)", metadata, flags=re.MULTILINE))
        for both in (*sorted(own & macros), *(path for path in made if path in found)):
            hint = "call one of them otherwise: NAME=RUN"
            raise UsageError(f"two models would both have {both}", hint=hint)
        macros |= own
        found |= made
    if contents.sparse:
        found[_path(include, f"{_LOADER}.h")] = _loader(".h")
        found[_path(source, f"{_LOADER}.c")] = _loader(".c")
    return found


def sources(contents: Contents) -> list[str]:
    """The names of the sources of `c_files`, without ".c"."""
    return [*(model.identifier for model in contents.models), *([_LOADER] if contents.sparse else [])]


def usage(model: Model) -> str:
    """C that loads the model, for a README."""
    if model.sparse is None:
        call = f"load_model({model.array}, {model.array_size}); /* whatever the runtime calls it */"
        return f'```c\n#include "{model.identifier}.h"\n\n{call}\n```'
    return f"""\
```c
#include "{model.identifier}.h"

unsigned char *model = malloc({model.macro}_SIZE);
if (edgeprune_sparse_load({model.array}, {model.array_size}, model, {model.macro}_SIZE) == EDGEPRUNE_SPARSE_OK)
  load_model(model, {model.macro}_SIZE); /* whatever the runtime calls it; free(model) in the end */
```"""


def example(contents: Contents) -> File:
    """A program that names each model, checks its alignment, loads it where it has to be loaded, and gives 0 then."""
    headers = "\n".join(f'#include "{model.identifier}.h"' for model in contents.models)
    lines = "\n".join(_shown(model) for model in contents.models)
    return text(f"""\
/* What the package holds. `{contents.models[0].array}` is what a model is loaded from. */
#include <stdio.h>
#include <stdlib.h>

{headers}

int main(void) {{
  int misplaced = 0;
{lines}
  return misplaced;
}}""")


def _shown(model: Model) -> str:
    macro = model.macro
    size = model.array_size if model.sparse is None else f"{macro}_SIZE"
    return f"""\
  printf("%s: %lu bytes of %s at a multiple of %d\\n", {macro}_NAME, (unsigned long){size},
         {macro}_FORMAT, {macro}_ALIGNMENT);
  misplaced |= (size_t){model.array} % {macro}_ALIGNMENT != 0;{_loaded(model)}"""


def _loaded(model: Model) -> str:
    if model.sparse is None:
        return ""
    return f"""
  {{
    unsigned char *model = (unsigned char *)malloc({model.macro}_SIZE);
    int result = EDGEPRUNE_SPARSE_MEMORY;
    if (model != NULL) result = edgeprune_sparse_load({model.array}, {model.array_size}, model, {model.macro}_SIZE);
    printf("  stored in %lu bytes: %s\\n", (unsigned long){model.array_size},
           result == EDGEPRUNE_SPARSE_OK ? "loaded" : "NOT loaded");
    misplaced |= result != EDGEPRUNE_SPARSE_OK;
    free(model);
  }}"""


def metadata_header(model: Model, contents: Contents) -> str:
    """Macros alone: it can be included by C, C++, assembler and linker scripts."""
    macro, artifact = model.macro, model.artifact
    lines = [
        _banner(model),
        f"#ifndef {macro}_METADATA_H",
        f"#define {macro}_METADATA_H",
        "",
        f"#define {macro}_NAME {c_string(model.identifier)}",
        f"#define {macro}_VERSION {c_string(contents.version)}",
        f"#define {macro}_FORMAT {c_string(artifact.format)}",
        f"#define {macro}_SHA256 {c_string(artifact.sha256)}",
        f"#define {macro}_SIZE {artifact.size_bytes}",
        *([] if model.sparse is None else [f"#define {macro}_SPARSE_SIZE {len(model.sparse)}"]),
        "",
        "/* May be set otherwise by the compiler's -D. The section's name is a string. */",
        f"#ifndef {macro}_ALIGNMENT",
        f"#define {macro}_ALIGNMENT {contents.alignment}",
        "#endif",
    ]
    if contents.section is not None:
        lines += [
            f"#ifndef {macro}_SECTION",
            f"#define {macro}_SECTION {c_string(contents.section)}",
            "#endif",
        ]
    for kind, specs in (("INPUT", artifact.inputs), ("OUTPUT", artifact.outputs)):
        lines += ["", f"#define {macro}_{kind}S {len(specs)}"]
        for index, spec in enumerate(specs):
            lines += _tensor(f"{macro}_{kind}_{index}", spec)
    for fact in memory_facts(model.lock):
        lines += [
            "",
            f"#define {macro}_{fact.name.upper()}_BYTES {fact.value}",
            f"#define {macro}_{fact.name.upper()}_SOURCE {c_string(fact.source)}",
        ]
    return "\n".join([*lines, "", "#endif"])


def _tensor(macro: str, spec: TensorSpec) -> Iterator[str]:
    """Dimensions that are free are -1 in the shape, and 1 in the number of bytes."""
    sizes = [size if isinstance(size, int) else -1 for size in spec.shape]
    yield f"#define {macro}_NAME {c_string(spec.name)}"
    yield f"#define {macro}_DTYPE {c_string(spec.dtype)}"
    yield f"#define {macro}_RANK {len(sizes)}"
    if sizes:
        yield f"#define {macro}_SHAPE {', '.join(str(size) for size in sizes)}"
    size = dtype_bytes(spec.dtype)
    if size is not None:
        yield f"#define {macro}_BYTES {math.prod(max(count, 1) for count in sizes) * size}"
    if spec.scale is not None:
        yield f"#define {macro}_SCALE {_float(spec.scale)}"
        yield f"#define {macro}_ZERO_POINT ({spec.zero_point or 0})"


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise UsageError(f"a scale of {value} cannot be written in C", hint="export the model again")
    return f"{value!r}f" if any(mark in repr(value) for mark in ".e") else f"{value!r}.0f"


def _header(model: Model) -> str:
    name, macro = model.identifier, model.macro
    loader = "" if model.sparse is None else f'#include "{_LOADER}.h"\n'
    return f"""\
{_banner(model)}
#ifndef {macro}_H
#define {macro}_H

#include <stddef.h>

{loader}#include "{name}_metadata.h"

#ifdef __cplusplus
extern "C" {{
#endif

extern const unsigned char {model.array}[]; /* {model.array_size.upper()} bytes, at a multiple of {macro}_ALIGNMENT */
extern const size_t {model.array_size};

#ifdef __cplusplus
}}
#endif

#endif"""


def _loader(suffix: str) -> File:
    return File((resources.files("edgeprune.package") / "sources" / f"{_LOADER}{suffix}").read_bytes())


def _source(model: Model) -> bytes:
    name, macro, data = model.identifier, model.macro, model.embedded
    size = model.array_size.upper()
    head = f"""\
{_banner(model)}
#include "{name}.h"

#if defined(__cplusplus) && __cplusplus >= 201103L
#define {macro}_ALIGNED alignas({macro}_ALIGNMENT)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {macro}_ALIGNED _Alignas({macro}_ALIGNMENT)
#elif defined(__GNUC__)
#define {macro}_ALIGNED __attribute__((aligned({macro}_ALIGNMENT)))
#else
#error "compile {name}.c as C11 or newer: it has to be aligned"
#endif

#ifndef {macro}_SECTION
#define {macro}_PLACED
#elif defined(__GNUC__)
#define {macro}_PLACED __attribute__((section({macro}_SECTION)))
#else
#error "this compiler does not know how to place {model.array} in {macro}_SECTION"
#endif

const size_t {model.array_size} = {size};

"""
    begin = f"{macro}_ALIGNED const unsigned char {model.array}[{size}"
    numbers = f"{begin}] {macro}_PLACED = {{\n{_numbers(data)}}};\n"
    if len(data) <= _SMALL:
        return (head + numbers).encode()
    strings = f"{begin} + 1] {macro}_PLACED =\n{_strings(data)};\n"
    return f"{head}{_LONG_STRINGS}{strings}#else\n{numbers}#endif\n".encode()


def _numbers(data: bytes) -> str:
    rows = (data[start : start + _ROW].hex(",").replace(",", ",0x") for start in range(0, len(data), _ROW))
    return "".join(f"0x{row},\n" for row in rows)


def _strings(data: bytes) -> str:
    """String literals, whose end adds a zero: compilers read them twenty times as fast as they read numbers."""
    rows = (data[start : start + 2 * _ROW] for start in range(0, len(data), 2 * _ROW))
    return "\n".join(f'"{row.decode("latin-1").translate(_ESCAPES)}"' for row in rows)


def _banner(model: Model) -> str:
    return f"/* Written by edgeprune: do not edit. {model.file_name}, sha256 {model.artifact.sha256} */"


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
