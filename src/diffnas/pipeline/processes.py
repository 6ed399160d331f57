"""A command on several processes: which part of the data each computes on, and where those write that are not the first.

Every process runs the whole command.  The first works in the run folder and speaks; the others are silent, and each works in
a folder of its own that is gone afterwards, a copy of the run without its checkpoints, which the first one reads for all.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch
from diffnas.core.parts import LEAST, part_of, share_noise
from diffnas.data.feeds import Feed as ImageFeed
from diffnas.data.stream import Streamed
from diffnas.engine.norms import over_all
from diffnas.engine.search import Feed
from diffnas.errors import DataError, RecipeError
from diffnas.pipeline.sources.base import Source
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.console import log, showing
from diffnas.runtime.distributed import joined, world
from diffnas.runtime.launched import FOLDER, place_of
from diffnas.runtime.scratch import scratch

LARGE = {".safetensors", ".bin"}  # files that the copy of a run refers to
LEFT = {".pt"}  # and those that it has not


@contextmanager
def together(run: str | Path | None = None) -> Iterator[str | Path | None]:
    """Runs a block as one of the processes that were launched together; yields the run folder that it is to work in."""
    if place_of().rank == 0:
        with joined() as processes:
            processes.numbers(0)  # the others have copied what was there
            yield run
        return
    folder, holds = scratch("process", os.environ.get(FOLDER))
    try:
        with joined(lambda: shutil.rmtree(folder, ignore_errors=True)) as processes, showing(False), _silent():
            own = folder / "run"
            if run is not None and Path(run).is_dir():
                _copied(Path(run), own)
            processes.numbers(0)
            yield own
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for each in holds:
            os.close(each)


@contextmanager
def _silent() -> Iterator[None]:
    before = log.level, log.propagate
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before[0])


def _copied(run: Path, own: Path) -> None:
    """Copies a run folder for a process that must not write to it."""

    def copy(source: str, target: str) -> None:
        if Path(source).suffix in LARGE:
            Path(target).symlink_to(Path(source).absolute())
        else:
            shutil.copyfile(source, target)

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if Path(name).suffix in LEFT or name == ".lock"}

    shutil.copytree(run, own, ignore=left_out, copy_function=copy)


def require_fit(recipe: Recipe) -> None:
    """Raises `RecipeError` for what several processes cannot do."""
    search = recipe.search
    if world().size == 1 or search is None:
        return
    problems = []
    if search.compile == "on":
        problems.append("search.compile: must be off on several processes")
    if recipe.statistics == "all" and search.supernet != "plain":
        problems.append("search.supernet: must be plain where statistics are over all processes (statistics=all)")
    if problems:
        raise RecipeError(*problems)


def prepared(module: nn.Module, recipe: Recipe) -> nn.Module:
    """Makes `module` compute on a part of a batch as on all of it, in what it draws, and in what it normalises by."""
    if world().size > 1:
        share_noise(module)
        if recipe.statistics == "all":
            over_all(module)
    return module


def shared(feed: Feed, source: Source, key: str = "") -> Feed:
    """Returns the feed of this process: its part of every batch.

    Raises `RecipeError` naming `key`, the size of the batch, where that is too small to be shared by all.
    """
    size, batch = world().size, getattr(feed, "batch", None)
    if size == 1:
        return feed
    if key and batch is not None and batch < LEAST * size:
        raise RecipeError(f"{key}: {batch} is too little for {size} processes; each needs {LEAST} or more of a batch")
    return SharedFeed(feed, batch_dim(source))


def batch_dim(source: Source) -> int:
    """The dimension of a batch along which samples lie: the first, where a source does not say."""
    dim: int = getattr(source, "batch_dim", 0)
    return dim


def shared_feeds(feeds: Mapping[str, Feed], source: Source) -> dict[str, Feed]:
    """Returns the feeds of a search, of which this process reads its part."""
    return {name: shared(feed, source, "" if name == "score" else "search.batch") for name, feed in feeds.items()}


class SharedFeed:
    """The part of this process of every batch of `feed`; samples lie along the dimension `dim`."""

    def __init__(self, feed: Feed, dim: int) -> None:
        rank, size = world().rank, world().size
        self.feed: Feed = feed.shared(rank, size) if isinstance(feed, ImageFeed) else feed
        self.dim, self.steps = dim, feed.steps
        self.counted = isinstance(feed, ImageFeed) and isinstance(feed.images, Streamed)

    def epoch(self, epoch: int) -> SharedEpoch:
        """The parts of the batches of `epoch`."""
        return SharedEpoch(self.feed.epoch(epoch), self.dim, self.counted)


class SharedEpoch:
    """The parts of the batches of an epoch; `counted` where images may turn out to be broken, and are left out."""

    def __init__(self, batches: Any, dim: int, counted: bool) -> None:
        self.batches, self.dim, self.counted = batches, dim, counted

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> Batch:
        """The part of the batch of `step`."""
        batch: Batch = self.batches[step]
        if batch.part is None:
            part = part_of(batch.targets.shape[self.dim], world().rank, world().size, self.dim)
            batch = batch.taken(part)
        return _counted(batch) if self.counted else batch

    def __iter__(self) -> Iterator[Batch]:
        return (self[step] for step in range(len(self)))


def _counted(batch: Batch) -> Batch:
    """The part with its place among the images that could be read; raises `DataError` where this process has none."""
    assert batch.part is not None
    if not len(batch.targets):
        raise DataError("a part of a batch is left without images, for none of them can be read")
    counts = world().numbers(len(batch.targets) if batch.part.count else 0)
    start, own = sum(counts[: world().rank]), counts[world().rank]
    part = replace(batch.part, start=start, count=own, whole=sum(counts), stand_in=len(batch.targets))
    return replace(batch, part=part)


def whole_carry(carry: Tensor | None) -> Tensor | None:
    """The hidden states [layers, N, H] of the whole batch, for a checkpoint."""
    return carry if carry is None or world().size == 1 else torch.cat(world().all(carry.cpu()), dim=1)


def own_carry(carry: Tensor | None) -> Tensor | None:
    """The hidden states of this process's part of the batch."""
    if carry is None or world().size == 1:
        return carry
    start, stop = part_of(carry.shape[1], world().rank, world().size, 1).place
    return carry[:, start:stop]
