"""The whole of a package: what a packager gives, and what all packages have.

manifest.json     what is in it, for programs
sbom.cdx.json     the same as a CycloneDX bill of materials
LICENSE           where one was given
SHA256SUMS        of every file above and below
SHA256SUMS.sig    where a key was given
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from edgeprune.package.base import Contents, File, Packager, text
from edgeprune.package.checksums import SIGNATURE, SUMS, sums
from edgeprune.package.manifest import manifest
from edgeprune.package.sbom import bill_of_materials

__all__ = ["COMMON", "build"]

COMMON = ("manifest.json", "sbom.cdx.json", "LICENSE", SUMS, SIGNATURE)


def build(packager: Packager, contents: Contents, *, sign: Callable[[bytes], bytes] | None = None) -> dict[str, File]:
    """Every file of the package by its path, sorted. `sign` gives the signature of SHA256SUMS."""
    files = dict(packager.files(contents))
    _check(packager.name, files)
    files["manifest.json"] = _json(manifest(packager.name, contents))
    files["sbom.cdx.json"] = _json(bill_of_materials(contents))
    if contents.licence is not None:
        files["LICENSE"] = text(contents.licence)
    files[SUMS] = File(sums({path: file.data for path, file in files.items()}).encode())
    if sign is not None:
        files[SIGNATURE] = File(sign(files[SUMS].data))
    return dict(sorted(files.items()))


def _json(data: object) -> File:
    return text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False))


def _check(name: str, files: Mapping[str, File]) -> None:
    """What a packager of another author may do wrong; a ValueError, since it is a bug in it."""
    for path in files:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "/".join(parts) != path or "\\" in path:
            raise ValueError(f"the packager {name} gives a path that leads out of the package: {path!r}")
        if path in COMMON:
            raise ValueError(f"the packager {name} gives {path!r}, which every package gets")
        if any("/".join(parts[:length]) in files for length in range(1, len(parts))):
            raise ValueError(f"the packager {name} gives {path!r} below a file")
    if "README.md" not in files:
        raise ValueError(f"the packager {name} gives no README.md")
