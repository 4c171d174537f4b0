"""After all else: a board that was measured on is left as it was found."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.board.emulated import EmulatedBoard


def test_what_was_set_up_is_removed_without_a_trace(
    equipped: EmulatedBoard, cli: Callable[..., tuple[int, str, str]]
) -> None:
    assert "/home/pi/.cache/edgeprune/site-cpython-311/onnxruntime/__init__.py" in equipped.listing()
    code, out, _ = cli("device", "remove", equipped.url(), "--json")
    equipped.equipped = False
    assert (code, json.loads(out)["removed"]) == (0, True)
    assert equipped.left_behind() == []
    assert equipped.listing() == equipped.before
