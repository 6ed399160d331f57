"""Folders that a kill left behind are removed by the next command, and no others."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from diffnas.runtime.scratch import YOUNG, scratch

fcntl = pytest.importorskip("fcntl")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `tmp_path` the place of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def aged(folder: Path) -> Path:
    """The folder, as if it had been made some time ago."""
    before = time.time() - 2 * YOUNG
    os.utime(folder, (before, before))
    return folder


def test_leftovers_go_and_what_is_in_use_stays(tmp_path: Path) -> None:
    (tmp_path / "diffnas-process-left" / "run").mkdir(parents=True)
    left, young, other = tmp_path / "diffnas-process-left", tmp_path / "diffnas-processes-x", tmp_path / "diffnas-y"
    young.mkdir()
    other.mkdir()
    used, holds = scratch("processes")
    for folder in (left, other, used):
        aged(folder)
    (tmp_path / "diffnas-process-link").symlink_to(other)
    second, more = scratch("process", str(used))
    assert not left.exists() and young.is_dir() and other.is_dir() and used.is_dir() and second.parent == used
    for hold in (*holds, *more):
        os.close(hold)
    aged(used)
    _, last = scratch("processes")
    assert not used.exists()
    os.close(last[0])
