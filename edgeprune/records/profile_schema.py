"""The published JSON Schema of device profiles, made from the declaration that also reads them."""

from __future__ import annotations

from typing import Any

from edgeprune.records.profile import SCHEMA
from edgeprune.records.profile_reader import PROFILE

__all__ = ["profile_schema"]


def profile_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a profile file, for editors and for checks without edgeprune.

    What a schema cannot say is left to the reader: the least value of a quantity, whether `extends` leads somewhere,
    and how keys go together (`min_time` up to `max_time`).
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('.', ':').replace('/', ':')}",
        "title": "edgeprune device profile",
        **PROFILE.schema(),
    }
