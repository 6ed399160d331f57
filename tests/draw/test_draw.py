"""Pictures of cells: nothing overlaps, nothing is lost, both writers say the same."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnas import draw
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.published_genotypes import CELLS, SHORT, published
from diffnas.errors import GenotypeError

SVG = "{http://www.w3.org/2000/svg}"
OPS = [*SHORT.values(), "nor_conv_1x1"]


def random_nodes(seed: int) -> Nodes:
    """Up to 7 nodes with any number of inputs, repeats and gaps in the concat included."""
    rng = random.Random(seed)
    first, count = rng.choice((1, 2, 2, 2, 3)), rng.randint(1, 7)
    style, inputs = rng.choice(("two", "any", "all", "chain")), []
    for index in range(first, first + count):
        number = {"two": 2, "any": rng.randint(0, index), "all": index, "chain": 1}[style]
        sources = range(index) if style == "all" else [rng.randrange(index) for _ in range(number)]
        sources = [index - 1] if style == "chain" else sources
        inputs.append(tuple((rng.choice(OPS), source) for source in sources))
    states = range(first + count)
    concat = sorted(rng.sample(states, rng.randint(1, len(states)))) if seed % 2 else states[first:]
    return Nodes(tuple(inputs), tuple(concat), first)


def chain(count: int) -> Nodes:
    ops = ("sigmoid", "relu", "tanh", "identity")
    return Nodes(tuple(((ops[k % 4], k),) for k in range(count)), tuple(range(1, count + 1)), 1)


@cache
def layouts() -> dict[str, tuple[Nodes, draw.Layout]]:
    cells = {f"{name} {kind}": nodes for name in CELLS for kind, nodes in published(name).cells.items()}
    cells |= {f"random {seed}": random_nodes(seed) for seed in range(250)}
    cells |= {f"chain {count}": chain(count) for count in range(1, 13)}
    cells["no input"] = Nodes(((), (("none", 0), ("none", 0))), (1,), 0)
    cells["no node"] = Nodes((), (0, 1))
    cells["long name"] = Nodes(((("w" * 120, 0),), (("w" * 120, 2),)), (3,))
    names = {name: [f"c_{{k-{nodes.first - k}}}" for k in range(nodes.first)] for name, nodes in cells.items()}
    return {name: (nodes, draw.layout(nodes, names[name], heading="normal cell")) for name, nodes in cells.items()}


def inside(points: np.ndarray, box: draw.Box, slack: float = 0.5) -> np.ndarray:
    x, y = points.T
    across = (x > box.x + slack) & (x < box.x + box.width - slack)
    return across & (y > box.y + slack) & (y < box.y + box.height - slack)


def sample(curve: draw.Curve) -> np.ndarray:
    points, t = np.array(curve.points), np.linspace(0, 1, 17)[:, None]
    pieces = []
    for k in range(0, len(points) - 1, 3):
        a, b, c, d = points[k : k + 4]
        pieces.append((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)
    return np.concatenate(pieces)


def texts(svg: str) -> Counter[str]:
    return Counter("".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text"))


def test_no_boxes_and_labels_overlap_and_all_are_inside() -> None:
    for name, (_, cell) in layouts().items():
        for a, b in itertools.combinations((*cell.boxes, *cell.labels), 2):
            apart_x = a.x + a.width <= b.x + 1e-6 or b.x + b.width <= a.x + 1e-6
            assert apart_x or a.y + a.height <= b.y + 1e-6 or b.y + b.height <= a.y + 1e-6, (name, a, b)
        for box in (*cell.boxes, *cell.labels):
            assert box.x >= draw.MARGIN - 1e-6 and box.x + box.width <= cell.width - draw.MARGIN + 1e-6, name
            assert box.y >= 0 and box.y + box.height < cell.height, name


def test_curves_stay_clear_of_boxes_and_of_labels_that_are_not_theirs() -> None:
    for name, (_, cell) in layouts().items():
        for curve in cell.curves:
            points = sample(curve)
            assert points.min() >= 0 and (points <= (cell.width, cell.height)).all(), name
            obstacles = [*cell.boxes, *(label for k, label in enumerate(cell.labels) if k != curve.label)]
            for box in obstacles:
                assert not inside(points, box).any(), (name, box.text, curve)


def test_curves_begin_and_end_at_their_boxes_and_pass_their_labels() -> None:
    for name, (_, cell) in layouts().items():
        for curve in cell.curves:
            source, target = cell.boxes[curve.source], cell.boxes[curve.target]
            (x, y), (end_x, end_y) = curve.points[0], (curve.head or curve.points[-1:])[len(curve.head) // 2]
            assert x == pytest.approx(source.x + source.width) and source.y <= y <= source.y + source.height, name
            assert end_x == pytest.approx(target.x) and target.y <= end_y <= target.y + target.height, name
            if curve.label is not None:
                label = cell.labels[curve.label]
                assert inside(np.array([[label.x + label.width / 2, end_y]]), label).all(), name


def test_every_input_is_an_arrow_and_every_output_a_line() -> None:
    for name, (nodes, cell) in layouts().items():
        assert Counter(label.text for label in cell.labels) == Counter(nodes.ops), name
        arrows = Counter(
            (cell.labels[curve.label].text, cell.boxes[curve.source].text, cell.boxes[curve.target].text)
            for curve in cell.curves
            if curve.label is not None
        )
        states = [*(f"c_{{k-{nodes.first - k}}}" for k in range(nodes.first)), *map(str, range(nodes.first, 20))]
        wanted = Counter(
            (op, states[source], states[nodes.first + k]) for k, node in enumerate(nodes.inputs) for op, source in node
        )
        assert arrows == wanted, name
        ends = [cell.boxes[curve.source].text for curve in cell.curves if curve.label is None]
        assert sorted(", ".join(ends).split(", ")) == sorted(states[state] for state in nodes.concat), name


def test_published_cells_fit_one_line_and_deep_ones_go_on_below() -> None:
    for name, (_, cell) in layouts().items():
        dashed = any(box.dashed for box in cell.boxes)
        published_cell = name.split()[0] in CELLS and "edge-all" not in name  # a cell of 14 edges is deep
        assert not (dashed and published_cell), name
    assert any(box.dashed for box in layouts()["chain 12"][1].boxes)


def test_none_is_dashed_and_a_repeated_input_is_two_arrows() -> None:
    nodes = Nodes(((("none", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 1)),), (2,))
    cell = draw.layout(nodes, ["a", "b"])
    assert [curve.dashed for curve in cell.curves] == [True, False, False, False]
    assert len({curve.points for curve in cell.curves}) == 4


@pytest.mark.parametrize("name", CELLS)
def test_svg_of_a_published_genotype(name: str) -> None:
    genotype = published(name)
    svg = draw.draw_svg(genotype)
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.find(f"{SVG}title").text == f"Cells of {name}"
    ops = Counter(op for nodes in genotype.cells.values() for op in nodes.ops)
    found = texts(svg)
    assert {op: found[op] for op in ops} == ops
    if "edge-all" in name:
        return  # a cell of 14 edges goes on below, with its inputs once more
    assert found["normal cell"] == found["reduction cell"] == 1
    assert found["ck-2"] == found["ck-1"] == found["ck"] == 2
    assert svg == draw.draw_svg(published(name))


def test_text_is_at_least_10_pixels_high_when_shown_800_wide() -> None:
    genotypes = [published(name) for name in CELLS]
    genotypes += [Genotype("darts-cnn", {"normal": random_nodes(seed)}) for seed in range(40)]
    for genotype in genotypes:
        root = ET.fromstring(draw.draw_svg(genotype))
        sizes = [float(e.get("font-size")) for e in root.iter() if e.get("font-size")]
        assert min(sizes) * 800 / float(root.get("width")) >= 10


def test_names_are_escaped() -> None:
    odd = '<b>&"'
    genotype = Genotype(odd, {odd: Nodes((((odd, 0), ("a\nb\x00", 1), ("$x_{1}$", 1), ("漢字", 0)),), (2,))})
    svg = draw.draw_svg(genotype)
    assert texts(svg) >= Counter({odd: 2, "a\ufffdb\ufffd": 1, "$x_{1}$": 1, "漢字": 1})
    assert ET.fromstring(svg).get("aria-label") == f"Cells of {odd}"
    assert draw.draw_png(genotype, 200).startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [1600, 801, 29])
def test_png_has_the_size_asked_for(width: int) -> None:
    genotype = published("darts-v2")
    data = draw.draw_png(genotype, width)
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and data == draw.draw_png(genotype, width)
    root = ET.fromstring(draw.draw_svg(genotype))
    with Image.open(BytesIO(data)) as image:
        height = float(root.get("height")) * width / float(root.get("width"))
        assert image.width == width and abs(image.height - height) <= 1


def test_png_shows_what_the_layout_says() -> None:
    nodes = published("darts-v2").cells["normal"]
    cell = draw.layout(nodes, ["c_{k-2}", "c_{k-1}"])
    with Image.open(BytesIO(draw.draw_png(Genotype("darts-cnn", {"normal": nodes}), 1760))) as image:
        picture = image.convert("RGB")
    for box in (*cell.boxes[1:], *cell.labels):  # twice the units; just inside the left side is the fill
        colour = "#{:02x}{:02x}{:02x}".format(*picture.getpixel((round(2 * box.x) + 4, round(2 * box.y + box.height))))
        assert colour == box.fill
    for curve in cell.curves:
        x, y = np.array(curve.points[0]) * 2
        assert picture.getpixel((round(x) + 3, round(y))) != (255, 255, 255)


def test_text_width_is_never_less_than_in_the_font() -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font, measure = FontProperties(family="DejaVu Sans", size=100), TextToPath()
    words = {*map(chr, range(32, 127)), *OPS, "normal cell", "sigmoid", "ck-2", "xt,ht-1", "œuvre", "Ⅷ‱"}
    for word in words:
        width, _, _ = measure.get_text_width_height_descent(word, font, ismath=False)
        assert width <= draw.text_width(word, 100) + 0.05, word
    for word in OPS:
        assert draw.text_width(word, 100) <= 1.12 * measure.get_text_width_height_descent(word, font, False)[0], word


@pytest.mark.parametrize(
    ("op", "name"),
    [("sep_conv_5x5", "sep"), ("dil_conv_3x3", "dil"), ("avg_pool_3x3", "pool"), ("skip_connect", "skip")]
    + [("identity", "skip"), ("none", "none"), ("zero", "none"), ("conv_7x1_1x7", "other"), ("tanh", "tanh")],
)
def test_family(op: str, name: str) -> None:
    assert draw.family(op) == name


def test_recurrent_and_other_inputs_have_their_names() -> None:
    assert texts(draw.draw_svg(Genotype("darts-rnn", {"recurrent": chain(3)}))) >= Counter(["xt,ht-1", "ht"])
    assert texts(draw.draw_svg(Genotype("bench", {"cell": chain(3)}))) >= Counter(["cell", "ck-1", "ck"])


def test_write_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genotype, folder = published("darts-v2"), tmp_path
    paths = draw.write_cells(genotype, folder)
    assert paths == [folder / "cells.svg", folder / "cells.png"] and sorted(folder.iterdir()) == sorted(paths)
    assert paths[0].read_text(encoding="utf-8") == draw.draw_svg(genotype)
    assert paths[1].read_bytes() == draw.draw_png(genotype)

    def refuse(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        draw.write_cells(published("nasnet"), folder)
    assert sorted(folder.iterdir()) == sorted(paths)
    assert paths[0].read_text(encoding="utf-8") == draw.draw_svg(genotype)


def test_every_form_of_a_cell(tmp_path: Path) -> None:
    written = draw.write_cells(published("darts-v2"), tmp_path, "a", ("dot", "pdf", "svg", "svg"))
    assert [path.name for path in written] == ["a.dot", "a.pdf", "a.svg"] and written[1].read_bytes()[:5] == b"%PDF-"
    assert written[0].read_text(encoding="utf-8") == draw.draw_dot(published("darts-v2"))


def test_a_graph_of_graphviz() -> None:
    """Every op is an edge, every node of the output another; what stands in a text stays in it."""
    genotype = published("pdarts")
    lines = draw.draw_dot(genotype).splitlines()
    arrows = [line for line in lines if "->" in line]
    assert len(arrows) == sum(len(nodes.ops) + len(nodes.concat) for nodes in genotype.cells.values())
    assert '    "normal 0" -> "normal 2" [label="skip_connect", color="#b5558f"];' in lines
    assert '    "reduce 0" [label="c_{k-2}"];' in lines and lines[0] == "digraph cells {" and lines[-1] == "}"
    assert sum(line.count("{") - line.count("}") for line in lines) == 0
    odd = Genotype("darts-rnn", {'re"c\\': Nodes(((('a"]; b -> c [x="', 0),),), (1,), first=1)})
    text = draw.draw_dot(odd)
    assert '[label="a\\"]; b -> c [x=\\"", color=' in text and 'subgraph "cluster re\\"c\\\\" {' in text
    assert '[label="x_t, h_{t-1}"]' in text and '[label="h_t"]' in text


def test_genotypes_side_by_side() -> None:
    named = [("stage 1, 5 cells", published("darts-v1")), ("stage $2$", published("pdarts"))]
    figure = draw.draw_row(named, inches=10)
    assert len(figure.axes) == 2 and figure.get_size_inches()[0] == 10
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert [column[0] for column in texts] == [name for name, _ in named]
    assert all("skip_connect" in column for column in texts) and "dil_conv_5x5" not in texts[0]


def test_long_and_empty_names_have_room() -> None:
    cell = draw.layout(Nodes(((("", 0), ("", 1)),), (2,)), ["", ""], heading="w" * 200)
    assert cell.boxes[0].x + cell.boxes[0].width <= cell.width - draw.MARGIN
    assert [box.text for box in cell.boxes[1:]] == [" ", " ", "2", "c_{k}"] and len(cell.labels) == 2


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(GenotypeError, match="no cells"):
        draw.draw_svg(Genotype("darts-cnn", {}))
    with pytest.raises(GenotypeError, match="1 names for the 2 inputs"):
        draw.layout(Nodes((), (0,)), ["a"])


def test_importing_draw_imports_neither_torch_nor_matplotlib() -> None:
    code = "import sys, diffnas.draw; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
