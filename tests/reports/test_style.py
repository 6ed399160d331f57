"""The colours of the pages can be told apart: WCAG 2.2, level AA, in light, in dark and in print."""

from __future__ import annotations

import re

import pytest

from diffnas.reports.page import asset

TEXT, GRAPHIC = 4.5, 3.0  # least contrast
INKS = ("ink", "quiet", "c1", "c2", "c3", "c4", "c5", "c6")
LIGHT, DARK, PRINT = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", asset("style.css"), re.S)
)


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mixed(one: str, other: str, share: float) -> str:
    pairs = [(int(one[k : k + 2], 16), int(other[k : k + 2], 16)) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def test_contrast_is_computed_as_defined() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("palette", [LIGHT, DARK, LIGHT | PRINT], ids=["light", "dark", "print"])
def test_text_and_lines_stand_out(palette: dict[str, str]) -> None:
    for ground in ("paper", "card", "warn"):
        for ink in INKS:
            assert contrast(palette[ink], palette[ground]) >= TEXT, (ink, ground)
        assert contrast(palette["warn-line"], palette[ground]) >= GRAPHIC
    for level in range(1, 10):  # the cells of a confusion matrix
        ground = mixed(palette["heat"], palette["paper"], 0.05 * level)
        assert contrast(palette["ink"], ground) >= TEXT, level
