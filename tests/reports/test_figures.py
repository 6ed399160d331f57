"""The figures of a run as files of their own."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from diffnas.errors import RunError
from diffnas.reports.figures import write_figures

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
