"""Pictures of cells: one layout, written as SVG, PNG and PDF."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from diffnas.core.genotype import Genotype
from diffnas.draw.dot import draw_dot
from diffnas.draw.layout import (
    DASH,
    FONTS,
    HEADING,
    HEADING_SIZE,
    INK,
    NAME_SIZE,
    PAPER,
    SUBSCRIPT,
    Box,
    Curve,
    Layout,
    clean,
    layout,
)
from diffnas.errors import GenotypeError
from diffnas.runtime.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCH = 64  # pixels; a power of two keeps their number exact


def _cells(genotype: Genotype) -> list[Layout]:
    """The cells from top to bottom."""
    if not genotype.cells:
        raise GenotypeError("genotype: it has no cells to draw")
    cells: list[Layout] = []
    for kind, nodes in genotype.cells.items():
        names, output = [f"c_{{k-{nodes.first - k}}}" for k in range(nodes.first)], "c_{k}"
        if nodes.first == 1 and ("rnn" in genotype.space or "recurrent" in kind):
            names, output = ["x_t,h_{t-1}"], "h_t"
        heading = {"normal": "normal cell", "reduce": "reduction cell", "recurrent": "recurrent cell"}.get(kind, kind)
        cells.append(layout(nodes, names, output, heading, cells[-1].height if cells else 0.0))
    return cells


def draw_svg(genotype: Genotype) -> str:
    """All cells, one under the other, as an SVG document."""
    cells = _cells(genotype)
    width, height = max(cell.width for cell in cells), cells[-1].height
    title = escape(f"Cells of {clean(str(genotype.provenance.get('name', genotype.space)))}", {'"': "&quot;"})
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" font-family="{FONTS}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" {size}>']
    lines.append(f'<title>{title}</title><rect width="100%" height="100%" fill="{PAPER}"/>')
    for cell in cells:
        for curve in cell.curves:
            (x, y), *rest = curve.points
            path = f"M{x:.2f} {y:.2f}C" + " ".join(f"{x:.2f} {y:.2f}" for x, y in rest)
            lines.append(f'<path d="{path}" fill="none" {_svg_stroke(curve, 1.7 if curve.head else 1)}/>')
            head = " ".join(f"{x:.2f},{y:.2f}" for x, y in curve.head)
            lines += [f'<polygon points="{head}" fill="{curve.stroke}"/>'] if head else []
        for box in cell.labels + cell.boxes:
            if box.stroke != "none":
                place = f'x="{box.x:.2f}" y="{box.y:.2f}" width="{box.width:.2f}" height="{box.height:.2f}"'
                lines.append(f'<rect {place} rx="5" fill="{box.fill}" {_svg_stroke(box, 1.1)}/>')
            lines.append(_svg_text(box))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _svg_stroke(shape: Curve | Box, width: float) -> str:
    dash = f' stroke-dasharray="{DASH[0]:g} {DASH[1]:g}"' if shape.dashed else ""
    return f'stroke="{shape.stroke}" stroke-width="{width}"{dash}'


def _svg_text(box: Box) -> str:
    x, anchor = (box.x, "start") if box.stroke == "none" else (box.x + box.width / 2, "middle")
    text, y = escape(box.text), box.y + box.height / 2 + 0.35 * box.size
    if box.size == NAME_SIZE:
        sub = rf'<tspan dy="-3.5">\1</tspan><tspan dy="3.5" font-size="{SUBSCRIPT}">\2\3</tspan>'
        text, count = re.subn(r"([^_]+)_(?:\{(.*?)\}|(.))", sub, text)
        y += 3.5 if count else 0.0
    return f'<text x="{x:.2f}" y="{y:.2f}" font-size="{box.size:g}" text-anchor="{anchor}" fill="{INK}">{text}</text>'


def draw_png(genotype: Genotype, width: int = 1600) -> bytes:
    """The picture of `draw_svg` as a PNG file `width` pixels wide."""
    return _saved(_figure(genotype, width), "png", {"Software": None})


def draw_pdf(genotype: Genotype, inches: float = 7.0) -> bytes:
    """The picture of `draw_svg` as a PDF file so many `inches` wide, its text as text."""
    return _saved(_figure(genotype, round(inches * INCH)), "pdf", {"CreationDate": None})


def _saved(figure: Figure, form: str, metadata: dict[str, Any]) -> bytes:
    """The file that matplotlib writes of `figure`."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context({"pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that the font lacks
        figure.savefig(file, format=form, dpi=INCH, metadata=metadata)
    return file.getvalue()


def _figure(genotype: Genotype, width: int) -> Figure:
    """The cells as a figure of matplotlib, `width` pixels of 1/`INCH` inch wide."""
    return _side_by_side([("", genotype)], width)


def draw_row(named: Sequence[tuple[str, Genotype]], inches: float = 7.0) -> Figure:
    """The cells of several genotypes side by side, each below its name, as a figure of matplotlib so many `inches` wide."""
    return _side_by_side(named, round(inches * INCH), HEADING)


def _side_by_side(named: Sequence[tuple[str, Genotype]], width: int, top: float = 0.0) -> Figure:
    from matplotlib.figure import Figure

    columns = [_cells(genotype) for _, genotype in named]
    wide = max(cell.width for cells in columns for cell in cells)
    high = max(cells[-1].height for cells in columns) + top
    scale = width / (wide * len(columns))
    figure = Figure((width / INCH, round(high * scale) / INCH), dpi=INCH, facecolor=PAPER)
    for column, (cells, (name, _)) in enumerate(zip(columns, named, strict=True)):
        place = (column / len(columns), 0, 1 / len(columns), 1)
        axes = figure.add_axes(place, xlim=(0, wide), ylim=(high - top, -top))
        axes.set_axis_off()
        font: dict[str, Any] = {"fontsize": HEADING_SIZE * scale * 72 / INCH, "family": "DejaVu Sans", "color": INK}
        axes.text(wide / 2, -top / 3, clean(name), ha="center", parse_math=False, **font)
        _paint(axes, cells, scale * 72 / INCH)
    return figure


def _paint(axes: Any, cells: Sequence[Layout], point: float) -> None:
    """Draws cells on `axes` of matplotlib, in which a unit is `point` points long."""
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Outline

    for cell in cells:
        for curve in cell.curves:
            outline = Outline(curve.points, [Outline.MOVETO, *[Outline.CURVE4] * (len(curve.points) - 1)])
            style = _png_stroke(curve, 1.7 if curve.head else 1, point)
            axes.add_patch(PathPatch(outline, facecolor="none", capstyle="butt", **style))
            if curve.head:
                axes.add_patch(Polygon(curve.head, facecolor=curve.stroke, edgecolor="none"))
        for box in cell.labels + cell.boxes:
            rest = _png_stroke(box, 1.1, point) | {"boxstyle": "round,pad=0,rounding_size=5", "facecolor": box.fill}
            axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, **rest))
            x, anchor = (box.x, "left") if box.stroke == "none" else (box.x + box.width / 2, "center")
            math = box.text.replace("-", "{-}") if box.size == NAME_SIZE and "_" in box.text else ""
            text = rf"$\mathregular{{{math}}}$" if math else box.text
            font: dict[str, Any] = {"fontsize": box.size * point, "family": "DejaVu Sans", "color": INK}
            axes.text(x, box.y + box.height / 2 + 0.35 * box.size, text, ha=anchor, parse_math=bool(math), **font)


def _png_stroke(shape: Curve | Box, width: float, point: float) -> dict[str, Any]:
    dash = (0, [length / width for length in DASH]) if shape.dashed else "solid"
    return {"edgecolor": shape.stroke, "linewidth": width * point, "linestyle": dash}


FORMS: dict[str, Callable[[Genotype], str | bytes]] = {
    "svg": draw_svg,
    "png": draw_png,
    "pdf": draw_pdf,
    "dot": draw_dot,
}
"""What draws cells in a form, by the suffix of its files."""


def write_cells(
    genotype: Genotype, folder: Path, stem: str = "cells", forms: Sequence[str] = ("svg", "png")
) -> list[Path]:
    """Writes `stem`.svg and `stem`.png (or other `forms`) atomically into the existing `folder` and returns their paths."""
    drawn = {folder / f"{stem}.{form}": FORMS[form](genotype) for form in dict.fromkeys(forms)}
    for path, data in drawn.items():
        write_bytes(path, data.encode() if isinstance(data, str) else data)
    return list(drawn)
