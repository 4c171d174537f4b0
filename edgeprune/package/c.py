"""`--for c`: sources with a Makefile and a pkg-config file, for any build system."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.package.base import Contents, File, text
from edgeprune.package.c_source import c_files, example, sources, usage
from edgeprune.package.readme import models_table, verification

__all__ = ["CPackager"]


class CPackager:
    """include/, src/, a Makefile that makes lib<name>.a of them beside the package, and lib/pkgconfig/<name>.pc."""

    name = "c"
    takes_sparse = True

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        return {
            **c_files(contents),
            "example/main.c": example(contents),
            f"lib/pkgconfig/{contents.name}.pc": text(_pkg_config(contents)),
            "Makefile": text(_makefile(contents)),
            "README.md": text(_readme(contents)),
        }


def _pkg_config(contents: Contents) -> str:
    """Relative to its own place: the package can lie anywhere, and be moved."""
    names = ", ".join(model.identifier for model in contents.models)
    requires = "Requires: liblzma\n" if contents.sparse else ""
    return f"""\
prefix=${{pcfiledir}}/../..
libdir=${{prefix}}/lib
includedir=${{prefix}}/include

Name: {contents.name}
Description: The model{"s" if len(contents.models) > 1 else ""} {names} as C
Version: {contents.version}
{requires}Libs: -L${{libdir}} -l{contents.name}
Cflags: -I${{includedir}}"""


def _makefile(contents: Contents) -> str:
    """It builds beside the package, which stays what its sums say."""
    objects = " ".join(f"$(BUILD)/{name}.o" for name in sources(contents))
    libraries = " -llzma" if contents.sparse else ""
    return f"""\
# make                             $(BUILD)/lib{contents.name}.a
# make example                     $(BUILD)/example, which says what is in it
# make install PREFIX=/usr DESTDIR=root
# BUILD is a folder beside this one, which stays as it is: make BUILD=/tmp/build
# CC, AR and CFLAGS as usual: make CC=arm-none-eabi-gcc AR=arm-none-eabi-ar CFLAGS='-mcpu=cortex-m7 -mthumb'
PREFIX ?= /usr/local
BUILD = ../build-{contents.name}
LIBRARY = $(BUILD)/lib{contents.name}.a
OBJECTS = {objects}

$(LIBRARY): $(OBJECTS)
	rm -f $@
	$(AR) rcs $@ $(OBJECTS)

$(BUILD)/%.o: src/%.c $(wildcard include/*.h)
	@mkdir -p $(BUILD)
	$(CC) $(CFLAGS) $(CPPFLAGS) -Iinclude -c -o $@ $<

example: $(BUILD)/example
$(BUILD)/example: example/main.c $(LIBRARY)
	$(CC) $(CFLAGS) $(CPPFLAGS) $(LDFLAGS) -Iinclude -o $@ example/main.c $(LIBRARY){libraries}

install: $(LIBRARY)
	mkdir -p $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	cp include/*.h $(DESTDIR)$(PREFIX)/include/
	cp $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/
	cp lib/pkgconfig/{contents.name}.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/

clean:
	rm -f $(OBJECTS) $(LIBRARY) $(BUILD)/example

.PHONY: example install clean"""


def _how(contents: Contents) -> str:
    first = contents.models[0]
    if first.sparse is None:
        return f"""\
Compile `src/*.c` with your program, with `include/` on the include path: that is all. The model is then
`{first.array}`, {first.artifact.size_bytes} bytes, which stay in read-only memory:"""
    return f"""\
Compile `src/*.c` with your program, with `include/` on the include path, and link with liblzma (of several packages
like this one, compile `edgeprune_sparse.c` once). The model is stored without its zeros: `{first.array}`,
{len(first.sparse)} bytes in read-only memory, becomes {first.artifact.size_bytes} bytes of working memory when it is
loaded:"""


def _readme(contents: Contents) -> str:
    first = contents.models[0]
    build = f"../build-{contents.name}"
    return f"""\
# {contents.name} {contents.version}, as C

{_how(contents)}

{usage(first)}

`{first.identifier}_metadata.h` has shapes, types, scales and memory as macros. `-D{first.macro}_ALIGNMENT=64` and
`-D'{first.macro}_SECTION=".models"'` place the array otherwise.

## With make and pkg-config

```sh
make
make example
{build}/example
make install PREFIX={build}/stage
export PKG_CONFIG_PATH={build}/stage/lib/pkgconfig
pkg-config --cflags --libs {contents.name}
cc -o {build}/linked example/main.c $(pkg-config --cflags --libs {contents.name})
{build}/linked
```

What is built lies beside this folder, which stays as it was made; `make BUILD=FOLDER` builds elsewhere.

{models_table(contents)}
{verification()}"""
