"""What a package is, in the few words that manifests of packages have room for."""

from __future__ import annotations

from edgeprune.package.base import Contents

__all__ = ["in_short"]


def in_short(contents: Contents) -> str:
    """The first model, and how many more there are: "digits and 2 more"."""
    first, *others = (model.identifier for model in contents.models)
    return f"{first} and {len(others)} more" if others else first
