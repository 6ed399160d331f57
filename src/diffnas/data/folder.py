"""Any folder of images by class: PATH/train/CLASS/* with PATH/test/CLASS/*, or PATH/CLASS/* alone.

The orders and the held-out images depend on the names of the files only, so they are the same on every machine.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffnas.core.seeds import generator
from diffnas.data import Split
from diffnas.errors import DataError

SIDE = 32
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
TEST_FOLDERS = ("test", "val", "valid", "validation")
HELD_OUT = 5  # one image of five, where no test folder exists
IMAGE_ERRORS = (
    OSError,  # also PIL.UnidentifiedImageError
    ValueError,
    TypeError,
    SyntaxError,  # how Pillow reports a broken PNG
    EOFError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # where a caller has made warnings errors
)
_SHOWN = 10
_CHUNK = 64

Classes = dict[str, list[Path]]


def read(name: str, path: Path | None = None, side: int | None = None) -> tuple[Split, Split]:
    """Train and test of a folder: uint8 [M, 3, side, side] (32 by default), classes in alphabetical order.

    The shorter side of an image is resized to `side` and its centre kept.  A folder of classes alone has a fifth of
    each class held out as the test.  Both splits are mixed so that any stretch of them holds all classes evenly.
    Hidden files and files that are no images are passed over.  Raises `DataError`, a line per mistake: no path, no
    class folders, a class that is empty or in one split only, and, on reading, an image that cannot be decoded.
    """
    side = SIDE if side is None else side
    if side < 1:
        raise DataError(f"data.side {side}: must be 1 or more pixels")
    if path is None:
        raise DataError("data.path: the data set folder needs the path of a folder of images by class")
    if not path.is_dir():
        raise DataError(f"data.path {path}: there is no such folder")
    train, test = _find_splits(path)
    names = tuple(sorted(train))
    return _split(train, names, "train", side), _split(test, names, "test", side)


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


def rgb_image(image: Image.Image) -> Image.Image:
    """The image in mode RGB: grey is repeated, transparency dropped, 16 bits become 8."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # Pillow would clip 16-bit grey to white
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _find_splits(path: Path) -> tuple[Classes, Classes]:
    """Images by class name of train and test; `DataError` with a line per mistake."""
    if not _subfolders(path / "train"):
        return _hold_out(path, _find_classes(path))
    found = [path / name for name in TEST_FOLDERS if _subfolders(path / name)]
    if not found:
        raise DataError(
            f"data.path {path}: has train but none of {', '.join(TEST_FOLDERS)} with class folders; "
            f"to hold out a fifth of train, give {path / 'train'}"
        )
    train, test = _find_classes(path / "train"), _find_classes(found[0])
    lines = _empty_lines(path / "train", train) + _empty_lines(found[0], test)
    lines += [f"data.path {path}: class {name} is in train, not in {found[0].name}" for name in train.keys() - test]
    lines += [f"data.path {path}: class {name} is in {found[0].name}, not in train" for name in test.keys() - train]
    lines += _too_few_lines(path, train)
    if lines:
        raise DataError(*sorted(lines))
    return train, test


def _hold_out(path: Path, classes: Classes) -> tuple[Classes, Classes]:
    """A fifth of each class, chosen by a generator that the class names, becomes the test."""
    lines = _empty_lines(path, classes) + _too_few_lines(path, classes)
    lines += [f"{path / name}: holds 1 image; a test cannot be held out" for name, f in classes.items() if len(f) == 1]
    if lines:
        raise DataError(*sorted(lines))
    train: Classes = {}
    test: Classes = {}
    for name, files in classes.items():
        order = torch.randperm(len(files), generator=generator(0, f"data.folder.test/{name}")).tolist()
        held = set(order[: max(1, round(len(files) / HELD_OUT))])
        test[name] = [file for place, file in enumerate(files) if place in held]
        train[name] = [file for place, file in enumerate(files) if place not in held]
    return train, test


def _find_classes(path: Path) -> Classes:
    """The images below each class folder, also in its sub-folders, in order of their names."""
    folders = _subfolders(path)
    if not folders:
        raise DataError(
            f"data.path {path}: holds no class folders; expected PATH/train/CLASS/*.png with PATH/test/CLASS/*.png, "
            "or PATH/CLASS/*.png"
        )
    return {folder.name: find_images(folder) for folder in folders}


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"data.path {path}: cannot be read ({error.strerror})") from None


def find_images(folder: Path) -> list[Path]:
    """The images in `folder` and its sub-folders, in order of their names; hidden files and folders are passed over."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if _is_image(name)]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _empty_lines(path: Path, classes: Classes) -> list[str]:
    return [f"{path / name}: holds no images" for name, files in classes.items() if not files]


def _too_few_lines(path: Path, classes: Classes) -> list[str]:
    return [
        f"data.path {path}: holds one class, {name}; two or more are needed" for name in classes if len(classes) == 1
    ]


def _split(classes: Classes, names: tuple[str, ...], split: str, side: int) -> Split:
    files = [file for name in names for file in classes[name]]
    labels = torch.tensor([label for label, name in enumerate(names) for _ in classes[name]])
    order = spread(labels, generator(0, f"data.folder.{split}"))
    ordered = [files[place] for place in order.tolist()]
    return Split(labels[order], names, partial(_decode, ordered, side))


def _decode(files: Sequence[Path], side: int, count: int) -> Tensor:
    """The first `count` files as uint8 [count, 3, side, side]; `DataError` naming those that cannot be read."""
    pixels = np.empty((count, 3, side, side), np.uint8)

    def decode(start: int) -> list[str]:
        lines = []
        for place in range(start, min(start + _CHUNK, count)):
            try:
                pixels[place] = _decode_file(files[place], side)
            except IMAGE_ERRORS as error:
                lines.append(f"{files[place]}: is not a readable image ({type(error).__name__})")
        return lines

    # Pillow decodes and resizes outside of the interpreter's lock
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        lines = [line for part in pool.map(decode, range(0, count, _CHUNK)) for line in part]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more images that cannot be read"]
    if lines:
        raise DataError(*lines)
    return torch.from_numpy(pixels)


def _decode_file(file: Path, side: int) -> np.ndarray:
    """One image as uint8 [3, side, side]."""
    with Image.open(file) as image:
        image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size
        square = rgb_image(image)
        width, height = square.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        # the same pixels as resizing all of it and cutting then, without a huge row where an image is very long
        box = (left, top, left + short, top + short)
        if box != (0, 0, side, side):
            square = square.resize((side, side), Image.Resampling.BILINEAR, box=box)
        return np.asarray(square).transpose(2, 0, 1)
