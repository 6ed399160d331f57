"""Any folder of images by class: PATH/train/CLASS/* with PATH/test/CLASS/*, or PATH/CLASS/* alone.

The orders and the held-out images depend on the names of the files only, so they are the same on every machine.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffnas.core.seeds import generator
from diffnas.data import Listed, Split, few
from diffnas.data.files import Files, Joined, Picked
from diffnas.data.layout import Classes, Layout, find_layout, mistakes
from diffnas.errors import DataError

SIDE = 32
HELD_OUT = 5  # one image of five, where no test folder exists


def read(name: str, path: Path | None = None, side: int | None = None) -> Listed:
    """Train, test and perhaps validation images of a folder, classes in alphabetical order.

    A folder of classes alone has a fifth of each class held out as the test.  The splits are mixed so that any stretch of
    them holds all classes evenly.  Raises `DataError`, a line per mistake: no path, no class folders, names of splits in
    the place of classes, classes that are empty or in one split only.
    """
    return listed_of(_layout(path, side, test_only=False))


def read_test(name: str, path: Path | None = None, side: int | None = None) -> Listed:
    """Reads the test images of a folder, or all of its images if it has class folders alone."""
    return listed_of(_layout(path, side, test_only=True))


def spread(labels: Tensor, stream: torch.Generator) -> Tensor:
    """A random order [M] of samples in which every class is spread evenly, so that each stretch holds its share."""
    mixed = torch.randperm(len(labels), generator=stream)
    classes = labels[mixed]
    counts = torch.bincount(classes)
    by_class = torch.argsort(classes, stable=True)
    rank = torch.empty_like(mixed)
    rank[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    jitter = torch.rand(len(labels), generator=stream, dtype=torch.float64)
    return mixed[torch.argsort((rank + jitter) / counts[classes], stable=True)]


def _layout(path: Path | None, side: int | None, test_only: bool) -> Layout:
    if side is not None and side < 1:
        raise DataError(f"data.side {side}: must be 1 or more pixels")
    if path is None:
        raise DataError("data.path: the data set folder needs the path of a folder of images by class")
    if not path.is_dir():
        raise DataError(f"data.path {path}: there is no such folder")
    layout = find_layout(path, test_only)
    lines = mistakes(path, layout)
    classes = next(iter(layout.parts.values()))
    if not test_only and len(classes) == 1:
        lines.append(f"data.path {path}: holds one class, {next(iter(classes))}; two or more are needed")
    if lines:
        raise DataError(*lines)
    if "all" not in layout.parts:
        return layout
    parts = {"test": classes} if test_only else _hold_out(path, classes)
    return Layout(parts, dict.fromkeys(parts, "."), layout.aside)


def _hold_out(path: Path, classes: Classes) -> dict[str, Classes]:
    """A fifth of each class, chosen by a generator that the class names, becomes the test."""
    single = [name for name, files in classes.items() if len(files) == 1]
    if single:
        raise DataError(f"{path}: no test can be held out of classes of 1 image: {few(single)}")
    train: Classes = {}
    test: Classes = {}
    for name, files in classes.items():
        order = torch.randperm(len(files), generator=generator(0, f"data.folder.test/{name}")).tolist()
        held = set(order[: max(1, round(len(files) / HELD_OUT))])
        test[name] = Files(file for place, file in enumerate(files) if place in held)
        train[name] = Files(file for place, file in enumerate(files) if place not in held)
    return {"train": train, "test": test}


def listed_of(layout: Layout) -> Listed:
    """The splits of a layout, mixed."""
    splits = {role: _split(classes, role) for role, classes in layout.parts.items()}
    return Listed(splits.get("train"), splits["test"], splits.get("valid"), layout.folders, layout.aside)


def _split(classes: Classes, role: str) -> Split:
    """The split of images by class, mixed."""
    names, counts = tuple(classes), [len(files) for files in classes.values()]
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor(counts))
    order = spread(labels, generator(0, f"data.folder.{role}"))
    return Split(labels[order], names, places=Picked(Joined(classes.values()), order.numpy()))
