"""What lies in a folder of runs and in each of them: enough to tell what has changed, and what must not be read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffnas.reports.find_runs import MOST_PARTS, folders_in
from diffnas.runtime.progress import NAME as PROGRESS

Signature = tuple[tuple[str, int, int, int], ...]
"""(path within the run, time of writing, size, inode) of every file that a page is made of."""

READ: tuple[str, ...] = ("recipe.yaml", "environment.json", "metrics.jsonl", "genotype.json", "genotypes")
READ += ("finished.json", "sizes.json", "test.json")
FILES = (*READ, "cells.svg", "weights.safetensors")  # of the last two it matters whether they are there
LOCK = ".lock"


@dataclass(frozen=True)
class Survey:
    """A run folder at one moment; `beats` are of files that change while it works: (path, time of writing, inode)."""

    path: Path
    signature: Signature
    beats: tuple[tuple[str, float, int], ...]


def survey(path: Path) -> Survey:
    """What is in the run folder at `path` now."""
    signature, beats = [], []
    for part in _parts(path):
        for name in FILES:
            facts = _stat(path / part / name)
            if facts is not None:
                signature.append((f"{part}/{name}", facts.st_mtime_ns, facts.st_size, facts.st_ino))
        for name in (LOCK, PROGRESS, "metrics.jsonl", "environment.json", "checkpoint"):
            facts = _stat(path / part / name)
            if facts is not None:
                beats.append((f"{part}/{name}", facts.st_mtime, facts.st_ino))
    return Survey(path, tuple(signature), tuple(beats))


def _parts(path: Path) -> list[str]:
    """The folders of the search and of every training."""
    return ["search", *(f"train/{folder.name}" for folder in folders_in(path / "train")[:MOST_PARTS])]


def _stat(path: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError, ValueError):
        return path.stat()
    return None


def strays(run: Path, root: Path) -> list[str]:
    """The paths within `run` that lead outside `root`, by symbolic links, and would be read."""
    inside = root.resolve()
    return [
        str(path.relative_to(root)) if path != root else path.name
        for path in _links(run)
        if not _resolved(path).is_relative_to(inside)
    ]


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a circle of links leads nowhere
        return path.parent.resolve() / path.name


def _links(run: Path) -> Iterator[Path]:
    """The folder of `run`, which may be within a link by now, and the symbolic links among what is read of it."""
    parts = [run / part for part in _parts(run)]
    folders = [run / "train", *parts, run / "search" / "genotypes"]
    yield run
    yield from filter(_is_link, folders)
    for folder in [*parts, folders[-1]]:
        try:
            with os.scandir(folder) as listed:
                links = [entry.name for entry in listed if entry.is_symlink()]
        except OSError:
            continue
        yield from (folder / name for name in links if name in READ or folder.name == "genotypes")


def _is_link(path: Path) -> bool:
    facts = None
    with contextlib.suppress(OSError, ValueError):
        facts = path.lstat()
    return facts is not None and stat.S_ISLNK(facts.st_mode)
