"""What a Linux device gets of a package, wherever it comes from: the models, what is in them, and the licence.

digits.onnx
manifest.json
LICENSE          where one was given
"""

from __future__ import annotations

import json

from edgeprune.package.base import Contents, File, text
from edgeprune.package.manifest import manifest

__all__ = ["device_files", "folder"]


def folder(contents: Contents) -> str:
    """Where packages of a distribution put them, without the slash in front: one folder per package."""
    return f"usr/share/edgeprune/{contents.name}"


def device_files(kind: str, contents: Contents) -> dict[str, File]:
    """The files below that folder. `kind` is the packager's name, for the manifest."""
    files = {model.file_name: File(model.data) for model in contents.models}
    files["manifest.json"] = text(json.dumps(manifest(kind, contents), indent=2, sort_keys=True, allow_nan=False))
    if contents.licence is not None:
        files["LICENSE"] = text(contents.licence)
    return files
