"""The strengths of a search over its epochs: a small picture for every edge, its ops from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from diffnas.reports.values import number, sequence, text

LEVELS, MOST_COLUMNS, MOST_EDGES, MOST_OPS = 10, 80, 64, 24
LEFT, WIDTH, ROW, FOOT = 84, 220, 12, 16

Values = list[list[list[float]]]
"""[T, E, O]: a strength for every epoch, edge and op."""


@dataclass(frozen=True)
class Strengths:
    """The strengths of one kind of cell at some epochs; `edges` and `ops` name its edges and columns."""

    kind: str
    epochs: tuple[int, ...]
    values: Values
    edges: tuple[str, ...]
    ops: tuple[str, ...]
    excluded: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The kind of cell in words."""
        return {"reduce": "reduction cell", "cell": "cell"}.get(self.kind, f"{self.kind} cell")

    def best(self, row: Sequence[float]) -> int:
        """The column of the strongest op of an edge that may be derived."""
        eligible = [o for o, op in enumerate(self.ops) if op not in self.excluded]
        return max(eligible or range(len(row)), key=row.__getitem__)

    @property
    def low(self) -> float:
        """The smallest strength."""
        return min(v for table in self.values for row in table for v in row)

    @property
    def high(self) -> float:
        """The largest strength."""
        return max(v for table in self.values for row in table for v in row)

    def strongest(self) -> list[tuple[str, str, float]]:
        """(edge, its strongest op that may be derived, the strength) at the last epoch."""
        rows = [(edge, row, self.best(row)) for edge, row in zip(self.edges, self.values[-1], strict=True)]
        return [(edge, self.ops[best], row[best]) for edge, row, best in rows]

    def pictures(self) -> Iterator[tuple[str, Markup]]:
        """Every edge with its picture."""
        step = math.ceil(len(self.epochs) / MOST_COLUMNS)
        places = sorted({*range(0, len(self.epochs), step), len(self.epochs) - 1})
        for e, edge in enumerate(self.edges[:MOST_EDGES]):
            rows = [[self.values[t][e][o] for t in places] for o in range(len(self.ops))]
            yield edge, self._picture(edge, rows)

    def _picture(self, edge: str, rows: list[list[float]]) -> Markup:
        """One edge: `rows` [O, T]."""
        best = self.best([row[-1] for row in rows])
        bottom = ROW * len(rows)
        label = f"{self.title}, {edge}: strongest at the end {self.ops[best]}"
        head = Markup('<svg class="heat" role="img" viewBox="0 0 {} {}" aria-label="{}"><title>{}</title>')
        parts = [head.format(WIDTH, bottom + FOOT, label, label)]
        for o, op in enumerate(self.ops):
            strong = Markup(' class="best"') if o == best else Markup("")
            name = Markup('<text x="{}" y="{:.1f}" text-anchor="end"{}>{}</text>')
            parts.append(name.format(LEFT - 4, ROW * o + 9, strong, text(op, 15)))
        parts += _cells(rows, self.low, self.high)
        for x, anchor, epoch in (LEFT, "start", self.epochs[0]), (WIDTH, "end", self.epochs[-1]):
            foot = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
            parts.append(foot.format(x, bottom + 11, anchor, f"epoch {epoch}"))
        return Markup("").join([*parts, Markup("</svg>")])


def _cells(rows: list[list[float]], low: float, high: float) -> list[Markup]:
    """The coloured cells: one path per level, neighbours of one level in one piece."""
    paths: dict[int, list[str]] = {}
    width = (WIDTH - LEFT) / len(rows[0])
    for o, row in enumerate(rows):
        levels = [_level(value, low, high) for value in row]
        start = 0
        for t in range(1, len(levels) + 1):
            if t < len(levels) and levels[t] == levels[start]:
                continue
            x, wide = LEFT + start * width, (t - start) * width
            paths.setdefault(levels[start], []).append(f"M{x:.1f} {ROW * o}h{wide:.1f}v{ROW - 1}h{-wide:.1f}z")
            start = t
    return [Markup('<path class="h{}" d="{}"/>').format(level, "".join(paths[level])) for level in sorted(paths)]


def _level(value: float, low: float, high: float) -> int:
    return min(LEVELS - 1, int((value - low) / (high - low) * LEVELS)) if high > low else 0


def strengths_of(rows: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> list[Strengths]:
    """The strengths in rows of metrics.jsonl, per kind of cell; rows that do not fit the last one are left out."""
    last: dict[str, Any] = next(
        (row["strength"] for row in reversed(rows) if isinstance(row.get("strength"), dict)), {}
    )
    return [each for kind in list(last)[:8] if (each := _of_kind(kind, last[kind], rows, recipe)) is not None]


def _of_kind(kind: str, last: Any, rows: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> Strengths | None:
    shape = _shape(last)
    if shape is None:
        return None
    tables = [(row["epoch"] + 1, _table(row, kind, shape)) for row in rows]
    known = [(epoch, table) for epoch, table in tables if table is not None]
    if not known:
        return None
    edges, ops = shape
    listed = [text(op, 40) for op in sequence(recipe.get("space.ops"))]
    names = listed if len(listed) == ops else [f"op {o + 1}" for o in range(ops)]
    named = tuple(edge_names(edges, whole_inputs(kind, recipe)))
    excluded = frozenset(text(op, 40) for op in sequence(recipe.get("space.excluded")))
    values = [table for _, table in known]
    return Strengths(text(kind, 40), tuple(epoch for epoch, _ in known), values, named, tuple(names), excluded)


def _shape(table: Any) -> tuple[int, int] | None:
    """(E, O) of a table, None where it is none, or is too large to draw."""
    rows = sequence(table)
    ops = len(sequence(rows[0])) if rows else 0
    return (len(rows), ops) if 0 < ops <= MOST_OPS and len(rows) <= 1024 else None


def _table(row: Mapping[str, Any], kind: str, shape: tuple[int, int]) -> list[list[float]] | None:
    strength = row.get("strength")
    table = strength.get(kind) if isinstance(strength, dict) else None
    if _shape(table) != shape:
        return None
    assert isinstance(table, list)
    values = [[number(v) for v in sequence(each)] for each in table]
    whole = all(len(each) == shape[1] and None not in each for each in values)
    return [[v for v in each if v is not None] for each in values] if whole else None


def whole_inputs(kind: str, recipe: Mapping[str, Any]) -> int:
    """How many inputs a cell of `kind` has, as far as the recipe's space tells; 0 for a chain of blocks."""
    inputs = recipe.get("space.inputs")
    if isinstance(inputs, int):
        return inputs
    return {"cell": 1, "recurrent": 1, "blocks": 0}.get(kind, 2)


def edge_names(count: int, inputs: int) -> list[str]:
    """`source → target` of every edge of a cell that reads all earlier states, `edge 1`, ... where the number is another's."""
    names: list[str] = []
    target = inputs
    while inputs and len(names) < count:
        names += [f"{source} → {target}" for source in range(target)]
        target += 1
    return names if len(names) == count else [f"{'edge' if inputs else 'block'} {k + 1}" for k in range(count)]


def entropy(strengths: Strengths) -> list[tuple[int, float]]:
    """(epoch, mean entropy of the edges as a share of that of equal strengths)."""
    ops = len(strengths.ops)
    if ops < 2:
        return []
    means = [sum(map(_entropy, table)) / len(table) / math.log(ops) for table in strengths.values]
    return list(zip(strengths.epochs, means, strict=True))


def _entropy(row: Sequence[float]) -> float:
    """Of strengths as shares of their sum, in nats."""
    shares = [max(0.0, value) for value in row]
    total = sum(shares)
    return -sum(s / total * math.log(s / total) for s in shares if s / total > 0) if total > 0 else 0.0
