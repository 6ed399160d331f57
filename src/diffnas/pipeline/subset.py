"""`data subset`: lists of a part of a large training set, for a search; no image is copied."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from diffnas.data.images import list_splits
from diffnas.data.lists import HEADER, draw_lists
from diffnas.errors import DataError, UserError
from diffnas.runtime.files import is_file, write_text

FILES = {"weights": "weights.txt", "arch": "arch.txt"}


def write_lists(
    path: str | Path, out: str | Path, weights: float = 0.1, arch: float = 0.025, seed: int = 0
) -> dict[str, Any]:
    """Writes `weights.txt` and `arch.txt` into the folder `out`: such shares of the images of every class in `path`.

    Returns {path, classes, images, seed, weights: {file, images, share}, arch: ...}.  The lists depend on the names of the
    images and on `seed` alone; no image is in both, and each has one of every class at least.  Raises `DataError` where
    `path` is no image data set.
    """
    out = Path(out)
    if is_file(out):
        raise UserError(f"{out}: is a file; name a folder for the lists")
    if not all(math.isfinite(share) for share in (weights, arch)) or seed < 0:
        raise UserError(f"--weights {weights}, --arch {arch}, --seed {seed}: must be numbers, the seed at least 0")
    train = list_splits("imagenet", Path(path)).train
    if train is None:
        raise DataError(f"{path}: has no training images")
    shares = {"weights": weights, "arch": arch}
    lists = draw_lists(train, shares, seed)
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"path": str(path), "classes": len(train.names), "images": len(train.labels), "seed": seed}
    for key, names in lists.items():
        header = f"{HEADER}: {len(names)} of {len(train.labels)} images, share {shares[key]:g}, {key}, seed {seed}"
        write_text(out / FILES[key], "\n".join([header, *names, ""]))
        facts[key] = {"file": str(out / FILES[key]), "images": len(names), "share": shares[key]}
    return facts


def described(facts: dict[str, Any]) -> list[str]:
    """Lines that say what was written, and how a recipe names it."""
    lines = [f"{facts['images']:,} training images in {facts['classes']:,} classes"]
    lines += [f"{key + ':':<9}{facts[key]['file']} ({facts[key]['images']:,} images)" for key in FILES]
    keys = " ".join(f"--set data.{key}_list={facts[key]['file']}" for key in FILES)
    return [*lines, f"next:    diffnas search RECIPE --set data.path={facts['path']} {keys}"]
