"""The figures of a run as files of their own."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from diffnas.errors import RunError
from diffnas.reports.charts import Chart, Line
from diffnas.reports.figures import curves, write_figures
from diffnas.reports.sections import SAID

from .conftest import write

NAMES = ["search-loss", "search-strengths-normal", "search-cells"]


def test_every_figure_is_written_in_both_forms(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(epochs=1, accuracy=None)
    for path in run.glob("search/recipe.yaml"):
        path.write_text("name: a\nspace: {ops: ['$x_{$', 'skip \u4e2d']}\n")
    rows = [
        {"epoch": e, "train_loss": 1.0 - e / 9, "stage": e, "strength": {"normal": [[0.5, 0.5]] * 5}} for e in (0, 1)
    ]
    write(run / "search/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "figures"
    written = write_figures([run], folder)
    stems = [path.stem for path in written[::2]]
    assert [name for name in stems if name in NAMES] == NAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written)
    for path in written:
        if path.suffix == ".svg":
            ElementTree.parse(path)
        else:
            assert path.read_bytes().startswith(b"%PDF-")


def test_a_file_is_no_folder(make_run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        write_figures([make_run(epochs=1, accuracy=None)], tmp_path / "file")


def test_what_stands_around_a_chart_is_within_the_figure() -> None:
    title = "Largest eigenvalue of the Hessian in the architecture, which is a long title"
    almost_flat = [(1, 0.9999990), (2, 0.9999991)]
    lines = tuple(Line(said, almost_flat, 1) for said in SAID.values())
    figure = curves(Chart(title, "%", lines))
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(0.01, rel=0.1) and axes.yaxis.get_offset_text().get_text() == ""
    for part in (axes.yaxis.label, legend, axes.xaxis.label):
        box = part.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
