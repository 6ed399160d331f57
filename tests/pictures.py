"""Pictures that tests draw, the same everywhere, and folders of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int, height: int, start: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: the picture of the goldens, its values moved by `start`."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * x + 3 * y) % 256, (5 * x + y * y // 2) % 256, (x * y // 7 + x) % 256]
    return (np.stack(planes, axis=2) + start).astype(np.uint8)


def save(path: Path, width: int = 40, height: int = 30, start: int = 0) -> Path:
    """Saves a picture, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    format_ = {".jpeg": "JPEG"}.get(path.suffix.lower())
    Image.fromarray(picture(width, height, start)).save(path, format_)
    return path


def save_set(root: Path, classes: int = 3, train: int = 8, val: int = 4) -> Path:
    """Pictures of several sizes in `root`/train/CLASS and `root`/val/CLASS."""
    for k in range(classes):
        for split, count in (("train", train), ("val", val)):
            for at in range(count):
                save(root / split / f"n{k:08d}" / f"{split}_{at}.JPEG", 30 + 5 * at, 50 - 3 * at, 40 * k + at)
    return root
