"""The colours: enough contrast to read, in both themes, chosen by the reader or by the device."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = (files("edgeprune.report.html") / "report.css").read_text(encoding="utf-8")
TEXT = [
    ("ink", "paper"), ("soft", "paper"), ("soft", "raised"), ("soft", "faint"), ("best", "paper"), ("doubt", "paper"),
    ("good", "good-soft"), ("bad", "bad-soft"), ("doubt", "doubt-soft"), ("ink", "best-soft"), ("ink", "dense-soft"),
]  # fmt: skip
GRAPHICS = [("best", "paper"), ("dense", "paper"), ("limit", "paper"), ("best", "best-soft"), ("bad", "raised")]


def palettes() -> list[dict[str, str]]:
    """Light, dark by the device's wish, dark by choice, and of paper."""
    blocks = re.findall(r"\{([^{}]*--paper:[^{}]*)\}", STYLE)
    return [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in blocks]


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#ffffff", "#000") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("which", range(4), ids=["light", "dark", "dark by choice", "paper"])
def test_text_and_marks_can_be_told_from_what_they_stand_on(which: int) -> None:
    assert len(palettes()) == 4
    palette = palettes()[which]
    for ink, ground in TEXT:
        assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground)
    for mark, ground in GRAPHICS:
        assert contrast(palette[mark], palette[ground]) >= 3.0, (mark, ground)


def test_dark_is_the_same_by_wish_and_by_choice() -> None:
    _, wish, choice, _ = palettes()
    assert wish == choice


def test_every_colour_is_one_of_the_palette() -> None:
    rules = re.sub(r"\{[^{}]*--paper:[^{}]*\}", "{}", STYLE)
    assert not re.search(r"#[0-9a-f]{3,6}\b(?=[^{}]*[;}])", rules)
    assert set(re.findall(r"var\(--([\w-]+)\)", rules)) <= palettes()[0].keys()
