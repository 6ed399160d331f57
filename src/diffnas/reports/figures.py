"""The charts, heat maps and cells of a run as single files for a paper: SVG, and PDF with text that stays text."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context

from diffnas import draw
from diffnas.errors import GenotypeError, RunError
from diffnas.reports import sections
from diffnas.reports.charts import LEAST_SPAN, Chart
from diffnas.reports.find_runs import find_runs
from diffnas.reports.heatmap import MOST_EDGES, Strengths, strengths_of
from diffnas.reports.run_facts import RunFacts, read_run
from diffnas.runtime.files import is_file, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0b63a5", "#c04a00", "#00795a", "#8f3f86", "#b3261e", "#6b5b00")  # those of the page
BAND, GREY = "#bcd6ec", "#596172"
FORMATS = ("svg", "pdf")
MOST_BESIDE = 32  # characters of a line beside an axis
WIDE = 4.0  # inches of a cell that stands beside others
STYLE: Any = {"font.size": 9, "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "diffnas"}
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 6.5, "columnspacing": 1.0, "handlelength": 1.6}
PLAIN: dict[str, Any] = {"parse_math": False}  # a dollar in a name is a dollar


def write_figures(paths: Sequence[str | Path], folder: Path) -> list[Path]:
    """Writes the figures of the runs at `paths` into `folder`, RUN-PART-WHAT.svg and .pdf, and returns their paths.

    Raises `RunError` where there is no run, or `folder` is a file.
    """
    if is_file(folder):
        raise RunError(f"--figures {folder}: is a file; name a folder")
    runs = find_runs(paths)
    folder.mkdir(parents=True, exist_ok=True)
    return [path for number, run in enumerate(runs) for path in _of_run(read_run(run), number, len(runs), folder)]


def _of_run(run: RunFacts, number: int, runs: int, folder: Path) -> Iterator[Path]:
    head = f"run{number + 1}-" if runs > 1 else ""
    search = run.search
    if search is not None:
        strengths = strengths_of(search.metrics.rows, search.recipe.values)
        charts = [
            *sections.curves(search.metrics),
            *sections.signs(search, strengths),
            *sections.sampled(search),
            *sections.depth(search),
        ]
        yield from _charts(charts, folder / f"{head}search")
        for each in strengths:
            yield from _files(heatmaps(each), folder / f"{head}search-strengths-{_slug(each.kind)}")
        if search.genotype is not None:
            yield from _cells(search.genotype, folder / f"{head}search-cells")
        ends = [(title, frame.genotype) for title, frame in sections.stage_ends(search)]
        if ends:
            with suppress(GenotypeError):  # a cell that cannot be drawn
                yield from _files(draw.draw_row(ends, WIDE * len(ends)), folder / f"{head}search-stages")
    for training in run.trainings:
        yield from _charts(list(sections.curves(training.metrics)), folder / f"{head}train-{_slug(training.name)}")


def _charts(charts: Sequence[Chart], stem: Path) -> Iterator[Path]:
    for chart in charts:
        yield from _files(curves(chart), stem.with_name(f"{stem.name}-{_slug(chart.title)}"))


def _slug(said: str) -> str:
    """`said` as a part of a file's name."""
    words = "".join(char if char.isascii() and char.isalnum() else " " for char in said.lower()).split()
    return "-".join(words)[:60] or "unnamed"


def _cells(genotype: Any, stem: Path) -> Iterator[Path]:
    for form, content in (("svg", draw.draw_svg), ("pdf", draw.draw_pdf)):
        try:
            data = content(genotype)
        except GenotypeError:  # a cell that cannot be drawn
            return
        path = stem.with_name(f"{stem.name}.{form}")
        write_bytes(path, data.encode() if isinstance(data, str) else data)
        yield path


def curves(chart: Chart) -> Figure:
    """A chart as a figure of matplotlib, a column of a paper wide."""
    figure, axes = _figure(3.4, 2.5)
    if chart.band is not None and chart.band.low:
        epochs = [epoch for epoch, _ in chart.band.low]
        low, high = ([value for _, value in points] for points in (chart.band.low, chart.band.high))
        axes.fill_between(epochs, low, high, color=BAND, linewidth=0, label=chart.band.name)
    for line in chart.lines:
        style = {"color": COLOURS[line.colour - 1], "linestyle": "--" if line.dashed else "-"}
        marker = "o" if len(line.points) == 1 else ""
        axes.plot(*zip(*line.points, strict=True), linewidth=1.2, marker=marker, label=line.name, **style)
    for epoch, _ in chart.marks:
        axes.axvline(epoch + 0.5, color=GREY, linewidth=0.8, linestyle=":")
    _scale(axes, chart)
    axes.set_xlabel("epoch")
    said = f"{chart.title}, {chart.unit}" if chart.unit else chart.title
    axes.set_ylabel(textwrap.fill(said, MOST_BESIDE), **PLAIN)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside upper left", ncols=2, **LEGEND)
    for entry in legend.get_texts():
        entry.set_parse_math(False)
    return figure


def _scale(axes: Any, chart: Chart) -> None:
    """Scales the axis of values as the page does: a difference that is no news does not fill it."""
    band = [chart.band.low, chart.band.high] if chart.band else []
    values = [value for points in (*(line.points for line in chart.lines), *band) for _, value in points]
    if not values:
        return
    if chart.is_logarithmic(values):
        axes.set_yscale("log")
        return
    low, high = min(values), max(values)
    least = LEAST_SPAN * max(abs(low), abs(high))
    if high - low < least:
        axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)
    axes.ticklabel_format(axis="y", useOffset=False)


def heatmaps(strengths: Strengths) -> Figure:
    """The strengths of a kind of cell, an edge in each panel, a page of a paper wide."""
    edges, columns = strengths.edges[:MOST_EDGES], min(4, len(strengths.edges))
    lines = -(-len(edges) // columns)
    figure, panels = _figure(7.0, 0.35 + lines * (0.35 + 0.11 * len(strengths.ops)), lines, columns)
    for axes in panels.flat[len(edges) :]:
        axes.set_axis_off()
    extent = (strengths.epochs[0] - 0.5, strengths.epochs[-1] + 0.5, len(strengths.ops) - 0.5, -0.5)
    for e, (edge, axes) in enumerate(zip(edges, panels.flat, strict=False)):
        rows = [[table[e][o] for table in strengths.values] for o in range(len(strengths.ops))]
        scale = {"vmin": strengths.low, "vmax": strengths.high, "cmap": "Blues"}
        image = axes.imshow(rows, aspect="auto", extent=extent, interpolation="nearest", **scale)
        axes.set_title(edge, fontsize=7, **PLAIN)
        names = strengths.ops if e % columns == 0 else [""] * len(strengths.ops)
        axes.set_yticks(range(len(strengths.ops)), names, fontsize=5, **PLAIN)
        axes.tick_params(labelsize=5, length=1)
        axes.xaxis.get_major_locator().set_params(integer=True)
    bar = figure.colorbar(image, ax=panels, shrink=0.6, aspect=30)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("strength; epochs across", fontsize=7)
    return figure


def _figure(width: float, height: float, lines: int = 0, columns: int = 1) -> tuple[Figure, Any]:
    """A figure with one pair of axes, or with `lines` times `columns`."""
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        return figure, figure.subplots(lines, columns, squeeze=False) if lines else figure.subplots()


def _files(figure: Figure, stem: Path) -> Iterator[Path]:
    """Writes a figure in every form."""
    for form in FORMATS:
        file, path = io.BytesIO(), stem.with_name(f"{stem.name}.{form}")
        dates: dict[str, Any] = {"Date": None} if form == "svg" else {"CreationDate": None}
        with rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that the font lacks
            figure.savefig(file, format=form, metadata=dates)
        write_bytes(path, file.getvalue())
        yield path
