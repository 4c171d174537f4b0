"""`--for platformio`: a PlatformIO library, for every platform and framework.

    library.json
    include/digits.h  include/digits_metadata.h  src/digits.c

Manifest: https://docs.platformio.org/en/latest/manifests/library-json/index.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgeprune.package.base import Contents, File, text
from edgeprune.package.c_source import c_files
from edgeprune.package.describe import in_short
from edgeprune.package.readme import models_table, verification

__all__ = ["PlatformioPackager"]


class PlatformioPackager:
    """The package's folder is the library."""

    name = "platformio"

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        return {
            **c_files(contents),
            "library.json": text(json.dumps(_manifest(contents), indent=2)),
            "README.md": text(_readme(contents)),
        }


def _manifest(contents: Contents) -> dict[str, object]:
    # No licence: the field takes names of published licences, and a text was given if anything.
    return {
        "name": contents.name,
        "version": contents.version,
        "description": f"Neural networks pruned to a measured budget: {in_short(contents)}",
        "keywords": ["machine-learning"],
        "frameworks": "*",
        "platforms": "*",
        "headers": [f"{model.identifier}.h" for model in contents.models],
        "build": {"includeDir": "include", "srcDir": "src"},
    }


def _readme(contents: Contents) -> str:
    first = contents.models[0]
    return f"""\
# {contents.name} {contents.version}, a PlatformIO library

With this folder beside your project, in `platformio.ini`:

```ini
lib_deps = symlink://../{contents.name}
```

or put the folder into the project's `lib/`. `pio run` compiles it where one of your sources includes a header of it:

```c
#include "{first.identifier}.h"

load_model({first.identifier}_data, {first.identifier}_size); /* whatever the runtime calls it */
```

`{first.identifier}_metadata.h` has shapes, types, scales and memory as macros. Microcontrollers that keep constants in
RAM (AVR) have no use for it; on all others the array stays in flash. `build_flags = -D{first.macro}_ALIGNMENT=64`
aligns it otherwise. An archive for a registry, or for another project's `lib_deps`:

```sh
pio pkg pack . --output {contents.name}.tar.gz
```

{models_table(contents)}
{verification()}"""
