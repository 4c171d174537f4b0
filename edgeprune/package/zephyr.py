"""`--for zephyr`: a Zephyr module with an option per model.

    zephyr/module.yml  zephyr/CMakeLists.txt  zephyr/Kconfig
    include/digits.h  include/digits_metadata.h  src/digits.c

Modules: https://docs.zephyrproject.org/latest/develop/modules.html
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.package.base import Contents, File, Model, text
from edgeprune.package.c_source import c_files
from edgeprune.package.readme import models_table, verification

__all__ = ["ZephyrPackager"]


class ZephyrPackager:
    """The package's folder is the module. Only models whose option is set are compiled."""

    name = "zephyr"

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        return {
            **c_files(contents),
            "zephyr/module.yml": text(_module(contents)),
            "zephyr/CMakeLists.txt": text(_cmake(contents)),
            "zephyr/Kconfig": text(_kconfig(contents)),
            "README.md": text(_readme(contents)),
        }


def _option(model: Model) -> str:
    return f"EDGEPRUNE_MODEL_{model.macro}"


def _module(contents: Contents) -> str:
    return f"""\
---
name: {contents.name}
build:
  cmake: zephyr
  kconfig: zephyr/Kconfig"""


def _cmake(contents: Contents) -> str:
    options = " OR ".join(f"CONFIG_{_option(model)}" for model in contents.models)
    sources = "\n".join(
        f"  zephyr_library_sources_ifdef(CONFIG_{_option(model)} ${{module}}/src/{model.identifier}.c)"
        for model in contents.models
    )
    return f"""\
# A library without sources would be a warning.
if({options})
  get_filename_component(module ${{CMAKE_CURRENT_LIST_DIR}} DIRECTORY)
  zephyr_include_directories(${{module}}/include)
  zephyr_library_named(edgeprune_{contents.name.replace("-", "_")})
{sources}
endif()"""


def _kconfig(contents: Contents) -> str:
    return "\n\n".join(_kconfig_option(model) for model in contents.models)


def _kconfig_option(model: Model) -> str:
    lines = [
        f"config {_option(model)}",
        f'\tbool "Model {model.identifier}"',
        "\thelp",
        "\t  A neural network, pruned to a measured budget. It takes",
        f"\t  {model.artifact.size_bytes} bytes of read-only memory; its header is",
        f"\t  {model.identifier}.h.",
    ]
    return "\n".join(lines)


def _readme(contents: Contents) -> str:
    first = contents.models[0]
    options = "\n".join(f"CONFIG_{_option(model)}=y" for model in contents.models)
    return f"""\
# {contents.name} {contents.version}, a Zephyr module

With this folder beside your application, in the application's `CMakeLists.txt`, before `find_package(Zephyr)`:

```cmake
list(APPEND ZEPHYR_EXTRA_MODULES ${{CMAKE_CURRENT_SOURCE_DIR}}/../{contents.name})
```

and in `prj.conf` the models that are to be compiled:

```kconfig
{options}
```

`west build` then compiles them, and every source file finds

```c
#include "{first.identifier}.h"

load_model({first.identifier}_data, {first.identifier}_size); /* whatever the runtime calls it */
```

In a west workspace, a project of this path in the manifest does what the line of CMake does. The array stays in flash;
`zephyr_compile_definitions({first.macro}_ALIGNMENT=64)` in the application, after `find_package(Zephyr)`, aligns it
otherwise. `{first.identifier}_metadata.h` has shapes, types, scales and memory as macros.

{models_table(contents)}
{verification()}"""
