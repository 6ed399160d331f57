"""Lays out the picture of a cell, in pure Python.

A cell is read from left to right: its inputs, its nodes in columns by depth, its output.  Each input of a node is an
arrow with the op's name on it, coloured by family.  Nothing can overlap, by construction: boxes and names stand in
columns, arrows bend only in the free space between columns, and one that goes further crosses a column in a lane of
its own.  A cell too deep for one line goes on in the next, where dashed boxes repeat the states it needs.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from diffnas.core.genotype import Nodes
from diffnas.errors import GenotypeError

Point = tuple[float, float]

WIDTH = 880.0  # units of the whole picture: shown 800 pixels wide, OP_SIZE comes to 10.5 pixels
OP_SIZE, NAME_SIZE, HEADING_SIZE, SUBSCRIPT = 11.5, 15.0, 15.5, 11.5
MARGIN, HEADING, LINE_SPACE = 16.0, 38.0, 24.0
NODE, PITCH, LABEL, ARROW, HEAD = 28.0, 23.0, 18.0, 16.0, 7.0  # a box, its rows, a name, its arrow and the arrowhead
MIN_GAP, MAX_GAP = 40.0, 120.0  # free space between columns, where arrows bend
LANE, BOX_SPACE = 9.0, 18.0  # between two lanes or a lane and a box; between two boxes
FONTS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
INK, EDGE, BOX, GREY, PAPER, DASH = "#1f2430", "#4d5666", "#eef0f4", "#a9afb9", "#ffffff", (5.0, 3.5)

# After Okabe and Ito, 2008, told apart by colour-blind readers: the family of an op whose name the pattern is found in.
FAMILIES = {
    "none": ("#7f7f7f", "^(none|zero)"),
    "skip": ("#b5558f", "^(skip|identity)"),
    "pool": ("#009e73", "pool"),
    "dil": ("#d55e00", "dil"),
    "sep": ("#0072b2", "sep"),
    "tanh": ("#0072b2", "^tanh$"),
    "relu": ("#d55e00", "^relu$"),
    "sigmoid": ("#009e73", "^sigmoid$"),
    "other": ("#c78500", ""),
}
# At least the advance widths of DejaVu Sans, the widest font asked for, as parts of its size.
GROUPS = {0.42: " !'(),-./:;IJ[\\]fijlrt|", 0.56: '"*?L_`csz', 0.79: "&ABCDGHKNOQRUVXZ", 1.0: "#%+<=>@MW^mw~"}
ADVANCE = {char: width for width, group in GROUPS.items() for char in group}


@dataclass(frozen=True)
class Box:
    """A text in a rectangle: a state of the cell, an op's name on its arrow, or a heading (no stroke); y grows down."""

    text: str
    x: float
    y: float
    width: float
    height: float
    size: float = NAME_SIZE
    stroke: str = EDGE
    fill: str = BOX
    dashed: bool = False


@dataclass(frozen=True)
class Curve:
    """An arrow from box to box through its label, by index: a start and cubic pieces; without label to the output."""

    points: tuple[Point, ...]
    source: int
    target: int
    label: int | None = None
    stroke: str = GREY
    dashed: bool = False

    @property
    def head(self) -> tuple[Point, ...]:
        """The triangle at the end of an arrow."""
        x, y = self.points[-1]
        return ((x, y - 3.6), (x + HEAD, y), (x, y + 3.6)) if self.label is not None else ()


@dataclass(frozen=True)
class Layout:
    """The drawing of one cell, in units; the next cell may begin at `height`."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    labels: tuple[Box, ...]
    curves: tuple[Curve, ...]


@dataclass(eq=False)
class _Item:
    """An item of a column with its middle at `y`, arrows in at a `pitch`: a box, or an arrow's lane (no name)."""

    column: int
    name: str = ""
    width: float = 0.0
    height: float = 0.0
    pitch: float = 0.0
    y: float = 0.0
    ins: list[_Link] = field(default_factory=list)
    outs: list[_Link] = field(default_factory=list)


@dataclass(eq=False)
class _Link:
    """The piece of an arrow between neighbouring columns; it leaves and meets items off their middles."""

    source: _Item
    target: _Item
    leaves: float = 0.0
    meets: float = 0.0


@dataclass
class _Line:
    """One line of a cell: columns of items with their widths, of which ops' names, and arrows as (op, links)."""

    columns: list[list[_Item]]
    arrows: list[tuple[str | None, list[_Link]]]
    widths: list[float]
    names: list[float]


def family(op: str) -> str:
    """The family of an op, a key of `FAMILIES`, by its name."""
    return next(name for name, (_, pattern) in FAMILIES.items() if re.search(pattern, op))


def text_width(text: str, size: float) -> float:
    """Returns an upper bound of the width of `text` in DejaVu Sans of that size."""
    return sum(ADVANCE.get(char, 0.64 if char.isascii() else 1.75) for char in text) * size


def layout(
    nodes: Nodes, input_names: Sequence[str], output_name: str = "c_{k}", heading: str = "", top: float = 0.0
) -> Layout:
    """Lays one cell out from the height `top` on; in the names of states `_{...}` is a subscript."""
    if len(input_names) != nodes.first:
        raise GenotypeError(f"genotype: {len(input_names)} names for the {nodes.first} inputs of a cell")
    names = [*input_names, *(str(nodes.first + k) for k in range(len(nodes.inputs)))]
    lines = _lines(nodes, names, output_name)
    room = min((WIDTH - 2 * MARGIN - sum(line.widths)) / (len(line.widths) - 1) for line in lines)
    gap = min(MAX_GAP, max(MIN_GAP, room))
    widths = [sum(line.widths) + gap * (len(line.widths) - 1) for line in lines]
    left = max(MARGIN, (WIDTH - max(widths)) / 2)
    heading = clean(heading) + (" (dashed boxes repeat states from above)" if len(lines) > 1 else "")
    box = Box(heading, MARGIN, top, text_width(heading, HEADING_SIZE), HEADING, HEADING_SIZE, "none", "none")
    right = max(WIDTH - MARGIN, left + max(widths), box.x + box.width)
    drawn = Layout(right + MARGIN, top + HEADING, (box,), (), ())
    for k, line in enumerate(lines):
        _untangle(line.columns)
        _settle(line.columns)
        drawn = _with_line(drawn, line, [left + sum(line.widths[:c]) + gap * c for c in range(len(line.widths))], k > 0)
    return drawn


def clean(text: str) -> str:
    """Returns `text` without characters that XML forbids."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _lines(nodes: Nodes, names: list[str], output: str) -> list[_Line]:
    """Lays the cell out in as few lines as fit, with columns spread as evenly as possible."""
    depth = dict.fromkeys(range(nodes.first), 0)
    for k, node in enumerate(nodes.inputs):
        depth[nodes.first + k] = 1 + max((depth[source] for _, source in node), default=0)
    deepest = max(depth.values(), default=0)
    ranks = [[state for state in depth if depth[state] == rank] for rank in range(1, deepest + 1)]
    lines: list[_Line] = []
    for count in range(1, max(1, deepest) + 1):
        cuts = [round(deepest * part / count) for part in range(count + 1)]
        parts = [ranks[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
        lines = [_line(nodes, names, part, k == 0, output if k == count - 1 else "") for k, part in enumerate(parts)]
        if all(sum(ln.widths) + MIN_GAP * (len(ln.widths) - 1) <= WIDTH - 2 * MARGIN for ln in lines):
            break
    return lines


def _line(nodes: Nodes, names: list[str], ranks: list[list[int]], is_first: bool, output: str) -> _Line:
    """Lays out one line of the nodes in `ranks`; `output` is empty in all lines but the last."""
    inside = {state: column for column, rank in enumerate(ranks, 1) for state in rank}
    modality = [(op, source, state) for state in sorted(inside) for op, source in nodes.inputs[state - nodes.first]]
    needed = {source for _, source, _ in modality} - set(inside)
    left = range(nodes.first) if is_first else sorted(needed)
    items = {state: _box(0, names[state]) for state in left}
    for state, column in inside.items():
        rows = len(nodes.inputs[state - nodes.first])
        items[state] = _box(column, names[state], PITCH * (rows - 1) + LABEL + 6, PITCH)
    columns = [[items[state] for state in left], *([items[state] for state in rank] for rank in ranks)]
    pairs: list[tuple[str | None, _Item, _Item]] = [(op, items[source], items[state]) for op, source, state in modality]
    if output:
        rest = sorted(set(nodes.concat) - set(items))  # one box for all states that only the output needs
        columns[0] += [_box(0, ", ".join(names[state] for state in rest))][: len(rest)]
        ends = [*(items[state] for state in nodes.concat if state in items), *columns[0][len(left) :]]
        columns.append([_box(len(columns), output, LANE * len(ends) + 4, LANE)])
        pairs += [(None, item, columns[-1][0]) for item in ends]
    labels = [0.0] * len(columns)
    for op, _, state in modality:
        labels[inside[state]] = max(labels[inside[state]], text_width(clean(op), OP_SIZE) + 12)
    widths = [max((item.width for item in column), default=0.0) for column in columns]
    widths = [width + (name and name + ARROW) for width, name in zip(widths, labels, strict=True)]
    return _Line(columns, [(op, _chain(columns, a, b)) for op, a, b in pairs], widths, labels)


def _box(column: int, name: str, height: float = 0.0, pitch: float = 0.0) -> _Item:
    name = clean(name) or " "  # no name would be a lane
    width = text_width(re.sub("[_{}]", "", name), NAME_SIZE) + 10
    return _Item(column, name, max(NODE, width), max(NODE, height), pitch)


def _chain(columns: list[list[_Item]], source: _Item, target: _Item) -> list[_Link]:
    """The links from `source` to `target`, with a new lane in every column between them."""
    stops = [source, *(_Item(column) for column in range(source.column + 1, target.column)), target]
    for lane in stops[1:-1]:
        columns[lane.column].append(lane)
    links = [_Link(a, b) for a, b in zip(stops, stops[1:], strict=False)]
    for link in links:
        link.source.outs.append(link)
        link.target.ins.append(link)
    return links


def _untangle(columns: list[list[_Item]]) -> None:
    """Orders in which few arrows cross, by local search from the mean places before; inputs keep their order."""
    for before, column in zip(columns, columns[1:], strict=False):
        place = {link: k for k, item in enumerate(before) for link in item.outs}
        mean = {item: sum(place[link] for link in item.ins) / max(1, len(item.ins)) for item in column}
        column.sort(key=mean.__getitem__)
    for _ in range(6):
        for column in columns[1:]:
            for item in list(column):
                rest = [other for other in column if other is not item]
                ways = [[*rest[:k], item, *rest[k:]] for k in range(len(column))]
                costs = [_tangle(columns, way) for way in (column, *ways)]
                best = costs.index(min(costs))
                column[:] = ways[best - 1] if best else column


def _tangle(columns: list[list[_Item]], column: list[_Item]) -> tuple[int, float]:
    """Returns the number of arrows that cross on both sides of a column in this order, then how far they climb."""
    crossings, climb, index = 0, 0.0, column[0].column
    before, after = columns[index - 1], columns[index + 1] if index + 1 < len(columns) else []
    for left, right in (before, column), (column, after):
        place = {item: k for k, item in enumerate(right)}
        seen: list[int] = []
        for a, item in enumerate(left):
            for b in sorted(place[link.target] for link in item.outs):
                crossings += len(seen) - bisect_right(seen, b)
                insort(seen, b)
                climb += abs((a + 0.5) / len(left) - (b + 0.5) / len(right))
    return crossings, climb


def _settle(columns: list[list[_Item]]) -> None:
    """Heights that make arrows as level as can be, long ones most of all; those of one box do not cross."""
    for sweep in range(30):
        for column in columns if sweep % 2 else columns[::-1]:
            _spread(column, [_wish(item) for item in column])
            for item in column:
                item.ins.sort(key=lambda link: link.source.y + link.leaves)
                item.outs.sort(key=lambda link: link.target.y + link.meets)
                step = min(6.0, max(0.0, item.height - 10) / max(1, len(item.outs)))
                for k, link in enumerate(item.ins):
                    link.meets = (k - (len(item.ins) - 1) / 2) * item.pitch
                for k, link in enumerate(item.outs):
                    link.leaves = (k - (len(item.outs) - 1) / 2) * step


def _wish(item: _Item) -> Point:
    """The height that an item's neighbours pull it to, and how strongly."""
    pulls = [(link.source.y + link.leaves - link.meets, link.source) for link in item.ins]
    pulls += [(link.target.y + link.meets - link.leaves, link.target) for link in item.outs]
    weights = [(1.0, 2.0, 8.0)[(not item.name) + (not other.name)] for _, other in pulls]
    total = sum(weights) or 0.1
    return sum(y * weight for (y, _), weight in zip(pulls, weights, strict=True)) / total if pulls else item.y, total


def _spread(column: list[_Item], wishes: list[Point]) -> None:
    """The heights nearest to `wishes` (with weights) in least squares that leave space: pool adjacent violators."""
    offset, pools = 0.0, list[tuple[float, float, list[tuple[_Item, float]]]]()
    for k, (item, (wish, weight)) in enumerate(zip(column, wishes, strict=True)):
        if k:
            space = BOX_SPACE if column[k - 1].name and item.name else LANE
            offset += (column[k - 1].height + item.height) / 2 + space
        y, members = wish - offset, [(item, offset)]
        while pools and pools[-1][0] > y:
            above, mass, others = pools.pop()
            y, weight, members = (y * weight + above * mass) / (weight + mass), weight + mass, others + members
        pools.append((y, weight, members))
    for y, _, members in pools:
        for item, below in members:
            item.y = y + below


def _with_line(drawn: Layout, line: _Line, lefts: list[float], repeated: bool) -> Layout:
    """Returns `drawn` with one more line below, whose columns begin at `lefts`."""
    boxes, labels, curves = list(drawn.boxes), list(drawn.labels), list(drawn.curves)
    items = [item for column in line.columns for item in column]
    rise = drawn.height - min(item.y - item.height / 2 for item in items)
    rights = [left + width for left, width in zip(lefts, line.widths, strict=True)]
    index = {}
    for item in items:
        item.y += rise
        if item.name:
            index[item] = len(boxes)
            x, y, dashed = rights[item.column] - item.width, item.y - item.height / 2, repeated and item.column == 0
            boxes.append(Box(item.name, x, y, item.width, item.height, dashed=dashed))
    for op, links in line.arrows:
        source, target = index[links[0].source], index[links[-1].target]
        points = _bends(links, lefts, rights, boxes[target].x - (0 if op is None else HEAD))
        if op is None:
            curves.append(Curve(points, source, target))
            continue
        column, colour = links[-1].target.column, FAMILIES[family(op)][0]
        y = points[-1][1] - LABEL / 2
        curves.append(Curve(points, source, target, len(labels), colour, family(op) == "none"))
        labels.append(Box(clean(op), lefts[column], y, line.names[column], LABEL, OP_SIZE, colour, _tint(colour)))
    height = max(item.y + item.height / 2 for item in items) + LINE_SPACE
    return Layout(drawn.width, height, tuple(boxes), tuple(labels), tuple(curves))


def _tint(colour: str) -> str:
    return "#" + "".join(f"{255 - (255 - int(colour[k : k + 2], 16)) // 11:02x}" for k in (1, 3, 5))


def _bends(links: list[_Link], lefts: list[float], rights: list[float], end: float) -> tuple[Point, ...]:
    """An S in every space between columns and a level piece through every column."""
    points = [(rights[links[0].source.column], links[0].source.y + links[0].leaves)]
    for link in links:
        (x, y), left, height = points[-1], lefts[link.target.column], link.target.y + link.meets
        stop = end if link is links[-1] else rights[link.target.column]
        points += [((x + left) / 2, y), ((x + left) / 2, height), (left, height)]
        points += [(left, height), (stop, height), (stop, height)]
    return tuple(points)
