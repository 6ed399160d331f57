"""The digits inside scikit-learn: real images that need neither a download nor a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from diffnas.core.seeds import generator
from diffnas.data import Split
from diffnas.data.folder import spread
from diffnas.errors import DataError

SIDE = 8
TEST = 500


def read(name: str, path: Path | None = None, side: int | None = None) -> tuple[Split, Split]:
    """Train (1,297) and test (500) of the 1,797 digits, uint8 [M, 1, side, side], in a fixed shuffled order.

    A larger multiple of 8 as `side` is interpolated bilinearly.  Raises `DataError` for another side, or for a path.
    """
    side = SIDE if side is None else side
    if side < SIDE or side % SIDE:
        raise DataError(f"data.side {side}: digits can have a side of 8 or a multiple of it")
    if path is not None:
        raise DataError(f"data.path {path}: digits are read from scikit-learn and take no path")
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32)[:, None].mul(255 / 16).round()  # grey levels 0 to 16
    labels = torch.tensor(digits.target, dtype=torch.int64)
    order = spread(labels, generator(0, "data.digits"))
    names = tuple(str(digit) for digit in range(10))
    test, train = order[:TEST], order[TEST:]
    return (
        Split(labels[train], names, partial(_resized, pixels[train], side)),
        Split(labels[test], names, partial(_resized, pixels[test], side)),
    )


def _resized(pixels: Tensor, side: int, count: int) -> Tensor:
    """The first `count` of float [M, 1, 8, 8] as uint8 [count, 1, side, side]."""
    kept = pixels[:count]
    if side != SIDE:
        kept = torch.nn.functional.interpolate(kept, size=(side, side), mode="bilinear", align_corners=False)
    return kept.round().to(torch.uint8)
