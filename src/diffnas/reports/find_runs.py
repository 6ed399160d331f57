"""Finds the run folders in a folder of runs, and in folders of such folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from diffnas.errors import RunError
from diffnas.runtime.run_folder import open_run

DEEPEST = 3  # runs/EXPERIMENT/METHOD/SEED
MOST_FOLDERS = 10_000  # that are looked at, of one depth
MOST_RUNS, MOST_PARTS = 2000, 101
WRITTEN: tuple[str, ...] = ("recipe.yaml", "environment.json", "metrics.jsonl", "genotype.json", ".lock", "genotypes")
WRITTEN += ("finished.json", "sizes.json", "test.json", "weights.safetensors", "checkpoint")
"""What commands write into search/ and train/NAME/: one of them tells a run from a folder of images."""


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The run folders among `paths`, each once; a folder of runs stands for those in it.

    Raises `RunError` for what is neither.
    """
    runs: dict[Path, Path] = {}
    for path in paths:
        for run in _runs_at(path):
            runs.setdefault(run.resolve(), run)
    return list(runs.values())


def _runs_at(path: str | Path) -> list[Path]:
    try:
        return [open_run(path).path]
    except RunError:
        inside = run_folders(Path(path))
        if not inside:
            raise
        return inside


def labels(runs: Sequence[Path]) -> list[str]:
    """A name for each of `runs`: that of its folder, or, where two have the same, its path from the folder of all."""
    absolute = [run.absolute() for run in runs]
    names = [run.name or str(run) for run in absolute]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath([run.parent for run in absolute])
    return [run.relative_to(above).as_posix() for run in absolute]


def run_folders(folder: Path) -> list[Path]:
    """The run folders in `folder`, at most `DEEPEST` below it, by path; itself where it is one.

    A symbolic link counts as a run where it leads to one; none is followed to look for more.
    """
    if is_run(folder):
        return [folder]
    found, level = list[Path](), [folder]
    for _ in range(DEEPEST):
        inside = list(islice((path for parent in level for path in folders_in(parent)), MOST_FOLDERS))
        runs = {path for path in inside if is_run(path)}
        found += runs
        level = [
            path for path in inside if path not in runs and not path.name.startswith(".") and not path.is_symlink()
        ]
        level = level[:MOST_FOLDERS]
    return sorted(found)[:MOST_RUNS]


def is_run(path: Path) -> bool:
    """Whether a command has written into `path`/search, or into a folder in `path`/train."""
    return any(_exists(part / name) for part in _parts(path) for name in WRITTEN)


def _parts(path: Path) -> Iterator[Path]:
    if _exists(path / "search"):
        yield path / "search"
    yield from folders_in(path / "train")[:MOST_PARTS]


def folders_in(path: Path) -> list[Path]:
    """The folders in `path`, by name; none where it cannot be read."""
    try:
        with os.scandir(path) as listed:
            return [path / name for name in sorted(entry.name for entry in listed if _is_folder(entry))]
    except (OSError, ValueError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True
