"""Folders of runs, made of one that an earlier version wrote."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDENS = Path(__file__).parents[1] / "goldens"
EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m{{7*7}}"
Make = Callable[..., Path]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """An empty folder of runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a tested training, as an earlier version wrote it."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDENS / "run_finished.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "finished/train/darts-digits-tiny-seed0").rename(folder / "finished/train/main")
    put(folder / "finished/train/main/test.json", {"accuracy": 91.5, "interval": [90.0, 93.0], "n": 100})
    return folder / "finished"


@pytest.fixture
def make_run(runs: Path, golden: Path) -> Make:
    """Makes a run: the golden one, in which files are replaced, and removed where None."""

    def make(name: str = "run", **files: Any) -> Path:
        run = runs / name
        shutil.copytree(golden, run)
        for path, content in files.items():
            put(run / path, content)
        return run

    return make


def put(path: Path, content: Any) -> None:
    """Writes a text, or JSON, to `path`; removes it where `content` is None."""
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
