"""What a test recorded per class: how many of each class are right, and which are taken for which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from diffnas.reports.values import sequence, text, whole

MOST_CLASSES, MOST_IN_TABLE, MOST_IN_PICTURE, MOST_NAMED = 1000, 16, 200, 12
LEVELS, SIDE = 10, 320


@dataclass(frozen=True)
class Confusion:
    """`counts[t][p]` images of class t were taken for class p."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> list[tuple[str, int, int, float]]:
        """(class, images, right ones, accuracy in percent), classes without images left out."""
        facts = [(name, sum(row), row[k]) for k, (name, row) in enumerate(zip(self.classes, self.counts, strict=True))]
        return [(name, n, right, 100.0 * right / n) for name, n, right in facts if n]

    @property
    def mistakes(self) -> list[tuple[int, str, str]]:
        """(how many, class, what they were taken for), the most frequent first."""
        mistakes = [
            (count, t, p) for t, row in enumerate(self.counts) for p, count in enumerate(row) if count and t != p
        ]
        mistakes.sort(key=lambda each: (-each[0], each[1], each[2]))
        return [(count, self.classes[t], self.classes[p]) for count, t, p in mistakes[:MOST_NAMED]]

    @property
    def as_table(self) -> list[tuple[str, list[tuple[int, int]]]] | None:
        """(class, [(count, level of its colour)]) per row; None where there are too many classes for a table."""
        if len(self.classes) > MOST_IN_TABLE:
            return None
        return [
            (name, [(count, _level(count, sum(row))) for count in row])
            for name, row in zip(self.classes, self.counts, strict=True)
        ]

    @property
    def picture(self) -> Markup:
        """The matrix as SVG, rows true classes; empty where there are too many classes to see anything."""
        n = len(self.classes)
        if n > MOST_IN_PICTURE:
            return Markup("")
        paths: dict[int, list[str]] = {}
        side = SIDE / n
        for t, row in enumerate(self.counts):
            images = sum(row)
            for p, count in enumerate(row):
                if count:
                    place = f"M{p * side:.1f} {t * side:.1f}h{side:.1f}v{side:.1f}h{-side:.1f}z"
                    paths.setdefault(_level(count, images), []).append(place)
        label = f"confusion matrix of {n} classes"
        head = Markup('<svg class="confusion" role="img" viewBox="0 0 {0} {0}" aria-label="{1}"><title>{1}</title>')
        cells = [Markup('<path class="h{}" d="{}"/>').format(level, "".join(paths[level])) for level in sorted(paths)]
        frame = Markup('<path class="axis" d="M0 0H{0}V{0}H0z"/>').format(SIDE)
        return Markup("").join([head.format(SIDE, label), *cells, frame, Markup("</svg>")])


def _level(count: int, images: int) -> int:
    """The colour of `count` out of so many `images`: by the root of the share, so that few are seen too; 0 for none."""
    return min(LEVELS - 1, max(1, int(LEVELS * math.sqrt(count / images)))) if count else 0


def read_confusion(test: Mapping[str, Any], problems: list[str]) -> Confusion | None:
    """The confusion matrix in a test.json; None where there is none, with the reason in `problems` where it is damaged."""
    if "confusion" not in test:
        return None
    classes = tuple(text(name, 60) for name in sequence(test.get("classes")))
    rows = [sequence(row) for row in sequence(test["confusion"])]
    n = len(classes)
    square = 0 < n <= MOST_CLASSES and len(rows) == n and all(len(row) == n for row in rows)
    counts = tuple(tuple(whole(count, 10**9) for count in row) for row in rows) if square else ()
    sound = [tuple(c for c in row if c is not None) for row in counts]
    if not square or any(len(row) != n for row in sound):
        problems.append("the confusion matrix in test.json is damaged, and is left out")
        return None
    return Confusion(classes, tuple(sound))
