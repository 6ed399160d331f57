"""The cell of a search, epoch by epoch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from markupsafe import Markup

from diffnas import draw
from diffnas.core.collapse import collapsed, skips
from diffnas.core.genotype import Genotype, parse_json, read_genotype_file
from diffnas.draw.layout import FAMILIES
from diffnas.errors import GenotypeError
from diffnas.reports.values import entries
from diffnas.runtime.files import is_file

LARGEST_DRAWN = 120  # edges of a genotype; published ones have at most 20
MOST_FRAMES, MOST_FILES = 40, 2000
MOST_EDGES = 900  # of all frames together: laying out some 20 takes as many as 50 ms
MOST_DRAWN = 1_200_000  # characters of all frames together
T = TypeVar("T")
FILE = re.compile(r"epoch-(\d{1,7})\.json")


@dataclass(frozen=True)
class Frame:
    """A genotype that a search had from epoch `first` to `last`, its picture, and what is new in it."""

    first: int
    last: int
    genotype: Genotype
    changes: tuple[str, ...] = ()

    @property
    def picture(self) -> Markup:
        """The cells as SVG; a sentence for a cell that is too large."""
        return picture(self.genotype)

    @property
    def title(self) -> str:
        """`epoch 3`, or `epochs 3 to 7`."""
        return f"epoch {self.first}" if self.first == self.last else f"epochs {self.first} to {self.last}"

    @property
    def skips(self) -> str:
        """How many ops of each kind of cell are skip connections, recurrent cells left out: they have none."""
        cells = self.genotype.cells
        counts = [(kind, count) for kind, count in skips(self.genotype).items() if kind != "recurrent"]
        return ", ".join(f"{kind} {count} of {len(cells[kind].ops)}" for kind, count in counts)

    @property
    def collapse(self) -> str:
        """What has collapsed in it, empty for a sound one."""
        return collapsed(self.genotype) or ""


def picture(genotype: Genotype) -> Markup:
    """The cells as an SVG element; a sentence where they cannot be drawn."""
    return _drawn(genotype.to_json())


@lru_cache(maxsize=512)
def _drawn(text: str) -> Markup:
    """The picture of the genotype in JSON `text`; kept, as a page is made anew after every epoch, with most of its cells."""
    genotype = parse_json(text)
    edges = sum(len(nodes.ops) for nodes in genotype.cells.values())
    if edges > LARGEST_DRAWN:
        return Markup("<p>The cell has {:,} edges, too many to draw here.</p>").format(edges)
    try:
        return Markup(draw.draw_svg(genotype))  # draw escapes what it writes
    except GenotypeError as error:
        return Markup("<p>The cell cannot be drawn: {}</p>").format(str(error))


def legend(genotype: Genotype) -> list[tuple[str, str]]:
    """(ops, their colour) of every family of ops in the cells."""
    families: dict[str, dict[str, None]] = {}
    for op in (op for nodes in genotype.cells.values() for op in nodes.ops):
        families.setdefault(FAMILIES[draw.family(op)][0], {})[op] = None
    return [(", ".join(ops), colour) for colour, ops in families.items()]


def read_one(path: Path, problems: list[str]) -> Genotype | None:
    """The genotype at `path`; None where there is none, with the reason in `problems` where it is damaged."""
    if not is_file(path):
        return None
    try:
        return read_genotype_file(path)
    except GenotypeError as error:
        problems.append(f"{path.name} is damaged, and is left out ({error.lines[0].rpartition(': ')[2]})")
        return None


def read_frames(folder: Path, problems: list[str]) -> list[Frame]:
    """The genotypes in search/genotypes, neighbours that are equal as one frame."""
    listed = entries(folder, problems)
    named = [(int(match[1]), path) for path in listed if (match := FILE.fullmatch(path.name))]
    named.sort()
    if len(named) > MOST_FILES:
        problems.append(f"{folder.name}/ holds {len(named):,} genotypes; {MOST_FILES:,} of them were read")
        named = _spread(named, MOST_FILES)
    frames: list[Frame] = []
    for epoch, path in named:
        genotype = read_one(path, problems)
        if genotype is None:
            continue
        if frames and frames[-1].genotype == genotype:
            frames[-1] = Frame(frames[-1].first, epoch, genotype, frames[-1].changes)
        else:
            frames.append(Frame(epoch, epoch, genotype, changes(frames[-1].genotype, genotype) if frames else ()))
    return frames


def shown(frames: Sequence[Frame]) -> list[tuple[Frame, Markup]]:
    """Frames with their pictures: all, or the first, the last and some between where they are many or large."""
    if not frames:
        return []
    edges = max(1, *(sum(len(nodes.ops) for nodes in frame.genotype.cells.values()) for frame in frames))
    size = len(frames[-1].picture)
    most = max(2, min(MOST_FRAMES, MOST_EDGES // edges, MOST_DRAWN // size))
    chosen = frames if len(frames) <= most else _spread(list(frames), most)
    return [(frame, frame.picture) for frame in chosen]


def _spread(items: list[T], count: int) -> list[T]:
    """`count` of `items`, evenly spread, the first and the last among them."""
    return [items[round(k * (len(items) - 1) / (count - 1))] for k in range(count)]


def changes(before: Genotype, after: Genotype) -> tuple[str, ...]:
    """What each node of `after` reads that it did not in `before`."""
    if set(before.cells) != set(after.cells):
        return ("other kinds of cell",)
    said = []
    for kind, nodes in after.cells.items():
        old = before.cells[kind]
        for k, node in enumerate(nodes.inputs):
            was = old.inputs[k] if k < len(old.inputs) else ()
            new, gone = _terms(set(node) - set(was)), _terms(set(was) - set(node))
            if new or gone:
                said.append(f"{kind} node {nodes.first + k}: {gone or 'nothing'} → {new or 'nothing'}")
    return tuple(said)


def _terms(edges: set[tuple[str, int]]) -> str:
    return " + ".join(f"{op}({source})" for op, source in sorted(edges))


def skip_counts(frames: Sequence[Frame]) -> dict[str, list[tuple[int, float]]]:
    """(epoch, skip connections) per kind of cell whose ops include them at some time."""
    counts: dict[str, list[tuple[int, float]]] = {}
    for frame in frames:
        for kind, count in skips(frame.genotype).items():
            counts.setdefault(kind, []).extend([(epoch, float(count)) for epoch in {frame.first, frame.last}])
    return {kind: sorted(points) for kind, points in counts.items() if any(count for _, count in points)}
