"""`--for esp-idf`: an ESP-IDF component.

    CMakeLists.txt  idf_component.yml
    include/digits.h  include/digits_metadata.h  src/digits.c

The model is a C array: EMBED_FILES promises no alignment. ESP-IDF places constants in flash by itself.
Manifest: https://docs.espressif.com/projects/idf-component-manager/en/latest/reference/manifest_file.html
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.package.base import Contents, File, text
from edgeprune.package.c_source import c_files
from edgeprune.package.describe import in_short
from edgeprune.package.readme import models_table, verification

__all__ = ["EspIdfPackager"]


class EspIdfPackager:
    """The package's folder is the component, and has to bear the package's name."""

    name = "esp-idf"

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        return {
            **c_files(contents),
            "CMakeLists.txt": text(_cmake(contents)),
            "idf_component.yml": text(_manifest(contents)),
            "README.md": text(_readme(contents)),
        }


def _cmake(contents: Contents) -> str:
    sources = "\n".join(f'    "src/{model.identifier}.c"' for model in contents.models)
    return f"""\
idf_component_register(
  SRCS
{sources}
  INCLUDE_DIRS "include"
)"""


def _manifest(contents: Contents) -> str:
    return f"""\
---
version: "{contents.version}"
description: "Neural networks pruned to a measured budget: {in_short(contents)}"
dependencies:
  idf:
    version: ">=4.4\""""


def _readme(contents: Contents) -> str:
    first = contents.models[0]
    return f"""\
# {contents.name} {contents.version}, an ESP-IDF component

Put this folder into your project as `components/{contents.name}` (a component is called like its folder), and name it
in the `CMakeLists.txt` of the component that uses it:

```cmake
idf_component_register(SRCS "main.c" REQUIRES {contents.name})
```

or leave it where it is, and name it in that component's `idf_component.yml`:

```yaml
dependencies:
  {contents.name}:
    path: ../../{contents.name}
```

`idf.py build` then compiles it, and `main.c` finds

```c
#include "{first.identifier}.h"

load_model({first.identifier}_data, {first.identifier}_size); /* whatever the runtime calls it */
```

The array is constant, and stays in flash; `{first.identifier}_metadata.h` has shapes, scales and memory as macros.
At the end of this `CMakeLists.txt`, `target_compile_definitions(${{COMPONENT_LIB}} PUBLIC {first.macro}_ALIGNMENT=64)`
aligns it otherwise. `compote component pack --name {contents.name}` makes an archive of it for a component registry.

{models_table(contents)}
{verification()}"""
