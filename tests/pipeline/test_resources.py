"""A full disk or memory is one line that says how to go on, and going on works."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import diffnas
from diffnas.core.published_genotypes import published
from diffnas.engine import Search
from diffnas.errors import ResourceError
from diffnas.methods.darts import DARTS
from diffnas.pipeline import resources
from diffnas.recipe.recipe import Recipe

TINY = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=64", "data.test_limit=64"]
TINY += ["search.batch=16", "search.validate_every=0", "search.checkpoint_every=1e-6", "train.checkpoint_every=1e-6"]
TINY += ["train.batch=16", "train.channels=2", "train.layers=1", "train.test_every=0"]
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes. Error code 12"


def tiny(*overrides: str) -> Recipe:
    return diffnas.read_recipe("darts-digits-tiny", [*TINY, *overrides])


@dataclass(frozen=True)
class Greedy(DARTS):
    """DARTS that finds no memory at one of its steps."""

    at: ClassVar[int] = 0
    done: ClassVar[int] = 0

    def step(self, search: Search, batches: Any) -> Any:
        Greedy.done += 1
        if Greedy.done == Greedy.at:
            raise RuntimeError(NO_MEMORY)
        return super().step(search, batches)


def test_no_memory_in_the_first_step_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greedy, "at", 1)
    monkeypatch.setattr(Greedy, "done", 0)
    with pytest.raises(ResourceError) as caught:
        diffnas.search(replace(tiny(), method=Greedy()), tmp_path / "run")
    assert str(caught.value) == (
        "the memory is full (3.0 GiB more were asked for); lower search.batch (16), space.channels (2) or space.layers (1),"
        " or close other programs, and start again"
    )
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_no_memory_later_keeps_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greedy, "at", 2)
    monkeypatch.setattr(Greedy, "done", 0)
    run = tmp_path / "run"
    with pytest.raises(ResourceError) as caught:
        diffnas.search(replace(tiny(), method=Greedy()), run)
    (line,) = caught.value.lines
    assert f"close other programs and go on with: diffnas search --resume {run} (a checkpoint is kept)" in line
    assert "start another run with a lower search.batch (16), space.channels (2) or space.layers (1)" in line
    assert diffnas.search(None, run, resume=True).search.genotype.is_file()
    assert len(diffnas.Run(run).search.metrics()) == 2


def full_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the disk be full when so many files have been written."""
    done, flush = 0, os.fsync

    def fsync(handle: int) -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise OSError(28, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def search(run: Path) -> object:
    return diffnas.search(tiny(), run)


def train(run: Path) -> object:
    return diffnas.train(published("darts-v2"), tiny(), run)


@pytest.mark.parametrize(("command", "work", "writes"), [("search", search, 6), ("train", train, 8)])
def test_a_full_disk(command: str, work: Callable[[Path], object], writes: int, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        full_after(writes, patch)
        with pytest.raises(ResourceError) as caught:
            work(tmp_path / "run")
    (line,) = caught.value.lines
    remedy = f"diffnas {command} --resume {tmp_path / 'run'} (a checkpoint is kept)"
    assert "No space left on device; free some space and go on with: " in line and line.endswith(remedy)
    assert not list(tmp_path.rglob("*.tmp"))
    if command == "search":
        diffnas.search(None, tmp_path / "run", resume=True)
    else:
        assert diffnas.train(None, None, tmp_path / "run", resume=True).training().weights.is_file()


def test_sizes_that_cannot_fit_are_refused_before_they_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 2**20)
    with pytest.raises(
        ResourceError, match=r"alone take 22\.\d MiB of memory, and 1\.0 MiB are free; lower search.batch"
    ):
        diffnas.search(tiny("space.channels=260", "space.ops=[none, sep_conv_3x3]"), tmp_path / "a")
    wide = tiny("train.channels=300")
    with pytest.raises(ResourceError, match=r"lower train.batch \(16\), train.channels \(300\) or train.layers \(1\)"):
        diffnas.train(published("darts-v2"), wide, tmp_path / "b")
    assert not list(tmp_path.rglob("*.yaml"))
    monkeypatch.setattr(resources, "free_memory", lambda: 0)  # usual sizes are not asked about, nor where nothing tells
    diffnas.search(tiny("search.epochs=1"), tmp_path / "c")
