"""A zip as artifacts are kept in: not compressed, so that a device reads it in place, and the same bytes anywhere."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

__all__ = ["stored_zip"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold


def stored_zip(files: Mapping[str, bytes]) -> bytes:
    """The files by name, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()
