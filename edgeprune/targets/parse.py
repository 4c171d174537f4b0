"""From what the user writes to a target.

    local
    ssh://pi@board                      # ~/.ssh/config applies to "board"
    ssh://pi@192.168.1.7:2222?python=/opt/edge/bin/python&identity=~/.ssh/board&known_hosts=~/.ssh/known_boards

A plug-in (entry point group `edgeprune.targets`) is a class with `from_text(text, **options) -> Target`, under its
scheme.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qsl, urlsplit

from edgeprune import registry
from edgeprune.errors import UsageError
from edgeprune.targets.base import Target

__all__ = ["open_target", "query_options"]


def open_target(text: str, **options: object) -> Target:
    """The target that `text` names, not yet connected; options that are None count as not given.

    Raises UsageError with the valid schemes and options.
    """
    scheme = text.partition(":")[0].strip() if "://" in text else text.strip()
    if scheme not in registry.names("targets") or (scheme != "local" and "://" not in text):
        known = ", ".join("local" if name == "local" else f"{name}://..." for name in registry.names("targets"))
        at = " (did you mean ssh://" + text + "?)" if "://" not in text and text.strip() else ""
        raise UsageError(f"{text!r} is not a target", hint=f"write it like {known}{at}")
    factory = registry.resolve("targets", scheme)
    given = {name: value for name, value in options.items() if value is not None}
    return cast("Target", factory.from_text(text.strip(), **given))


def query_options(text: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """The options after the ? of a target's address; raises UsageError on a name that is not allowed."""
    pairs = parse_qsl(urlsplit(text).query, keep_blank_values=True)
    for name, _ in pairs:
        if name not in allowed:
            raise UsageError(f"{text}: unknown option {name!r}", hint=f"options: {', '.join(allowed)}")
    return dict(pairs)
