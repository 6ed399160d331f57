"""Data sets of images that are decoded while they are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffnas.data import DATA, Listed, Split
from diffnas.data.images import ImageData, limits_of, list_splits, stats
from diffnas.data.oddities import oddities
from diffnas.data.stream import Intake, Streamed
from diffnas.data.views import View, name_of, read_view
from diffnas.errors import DataError

MEASURED = 512  # images by which mean and std are measured where they are not known
USUAL_RESIZE = 256 / 224  # of a test image's shorter side, as a multiple of the side that is cut out


@dataclass(frozen=True)
class Reading:
    """How streamed images are read: see the keys of a recipe's data section."""

    view: View
    workers: int = 0
    broken_limit: int = 10


def usual_resize(side: int) -> int:
    """The shorter side of test images before their centre of `side` is cut out: 256 for 224."""
    return math.ceil(side * USUAL_RESIZE)


def stream_images(
    name: str,
    path: str | Path | None,
    reading: Reading,
    *,
    train_limit: int | None = None,
    test_limit: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    test_only: bool = False,
    whole: bool = False,
) -> ImageData:
    """The data set `name` from `path`, listed but not decoded.

    `mean` and `std` default to the known ones, or to those of some training images.  The rest is as in `load_images`.
    """
    listed = list_splits(name, path, reading.view.side, whole, test_only)
    limits = limits_of(listed, train_limit, test_limit)
    if listed.train is None and not test_only:
        raise DataError(f"data.path {path}: has no training images")
    intake = Intake(reading.broken_limit)
    parts = _parts(listed, limits, reading, intake)
    test = parts["test"]
    train = parts.get("train", replace(test, places=[], labels=test.labels[:0]))
    sample, warnings = torch.empty(0, 3, 1, 1, dtype=torch.uint8), []
    known = DATA[name].mean is not None or (mean is not None and std is not None)
    if len(train) and not known:
        sample = _sample(train)
        warnings = oddities(f"{path}: all train images", sample)
    return ImageData(
        name,
        train,
        test,
        *stats(name, sample, mean, std),
        valid=parts.get("valid"),
        scale=reading.view.scale,
        folders=listed.folders,
        aside=listed.aside,
        warnings=tuple(warnings),
    )


def _parts(listed: Listed, limits: dict[str, int | None], reading: Reading, intake: Intake) -> dict[str, Streamed]:
    parts = {}
    for role, limit in limits.items():
        split: Split | None = getattr(listed, role)
        if split is not None:
            places, labels = split.places[:limit], split.labels[:limit]
            parts[role] = Streamed(places, labels, split.names, reading.view, reading.workers, intake)
    return parts


def _sample(train: Streamed) -> Tensor:
    """The first training images, which are of all classes, as a test sees them: uint8 [n, 3, side, side]."""
    views: list[np.ndarray] = []
    for place in train.places[:MEASURED]:
        try:
            views.append(read_view(place, train.view))
        except DataError as error:
            train.intake.note([(name_of(place), "; ".join(error.lines))])
    if not views:
        raise DataError(f"none of the first {MEASURED} training images can be read")
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
