"""Decodes image files to uint8 pixels of one size, as a viewer would show them.

Files of 8 bits keep their values.  Files of more bits (16- and 32-bit integers, floats) are scaled by what the *set* holds,
one scale for all its files, so that brightness stays comparable: see `Scale`.  Alpha is laid over white.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffnas.data.pixels import IMAGE_ERRORS, Deep, NotShownError, deep_values, orientation, rgb_image, squared
from diffnas.errors import DataError

FLOAT_RANGES = (1.0, 255.0, 65535.0)
_SHOWN = 10
_CHUNK = 64


@dataclass(frozen=True)
class Scale:
    """The values that are black and white in files of more than 8 bits; None where no such file has been seen.

    Integers: 0, and the least power of two minus one that holds the largest value of the set.  Floats: 0 and 1, 255 or
    65535 where the largest value lies in the upper half of that.  Otherwise the least and the largest value.
    """

    integers: tuple[float, float] | None = None
    floats: tuple[float, float] | None = None

    def holding(self, ranges: Iterable[Range]) -> Scale:
        """Returns this scale, completed from the `ranges` of a set of files for value types that it lacks."""
        scale = self
        for kind, choose in (("integers", _integer_scale), ("floats", _float_scale)):
            seen = [one for one in ranges if one.kind == kind]
            if seen and getattr(self, kind) is None:
                limits = choose(min(one.low for one in seen), max(one.high for one in seen))
                scale = replace(scale, **{kind: limits})
        return scale

    def of_values(self, deep: Deep) -> Scale:
        """Returns this scale, completed from the values of one file."""
        return self.holding([Range.of(deep)])


class Range(NamedTuple):
    """The least and the largest value of a file of more than 8 bits; `kind` is `integers` or `floats`."""

    kind: str
    low: float
    high: float

    @classmethod
    def of(cls, deep: Deep) -> Range:
        """Returns the range of the values of a file."""
        return cls(deep.kind, float(deep.values.min()), float(deep.values.max()))


def _integer_scale(low: float, high: float) -> tuple[float, float]:
    return (low, max(high, low + 1.0)) if low < 0 else (0.0, 2.0 ** max(1, int(high).bit_length()) - 1.0)


def _float_scale(low: float, high: float) -> tuple[float, float]:
    usual = [top for top in FLOAT_RANGES if low >= 0 and top / 2 < high <= top]
    return (0.0, usual[0]) if usual else (low, high if high > low else low + 1.0)


def read_image(file: str | Path | BinaryIO, side: int, scale: Scale | None = None, name: str | None = None) -> Tensor:
    """uint8 [3, side, side]: an image, upright, its shorter side resized to `side`, cropped to its centre, alpha over white.

    `file` is a path, or what Pillow reads as a file, called `name` in messages.  `scale` is that of the images that a
    network was trained on, for files of more than 8 bits; without one the image is scaled by itself.  Raises `DataError` in
    one line for what cannot be read.
    """
    if isinstance(file, str | Path) and not os.path.isfile(file):  # opening a pipe would wait for ever
        raise DataError(f"{file}: is not there, or is no regular file")
    return torch.from_numpy(read_square(file, str(file) if name is None else name, side, scale or Scale()).copy())


def read_square(file: str | Path | BinaryIO, name: str, side: int, scale: Scale) -> np.ndarray:
    """Returns the pixels of `read_image`, uint8 [3, side, side], of a file that is there."""
    pixels, beyond = _read(file, name, side, scale)
    if pixels is None and beyond is not None:
        pixels, _ = _read(file, name, side, scale.holding([beyond]))
    assert pixels is not None
    return pixels


def read_images(files: Sequence[Path], side: int, scale: Scale) -> tuple[Tensor, Scale, int]:
    """`files` as uint8 [N, 3, side, side], the scale they were read by, and how many have values beyond it.

    What `scale` lacks is found from these files.  Raises `DataError` naming those that cannot be read.
    """
    try:
        pixels = np.empty((len(files), 3, side, side), np.uint8)
    except MemoryError:
        size = f"{len(files):,} images of {side} x {side} need {len(files) * 3 * side**2 / 2**30:.1f} GiB"
        raise DataError(
            f"{size} of memory; set data.stream=true, or lower data.side, data.train_limit or data.test_limit"
        ) from None
    ranges = _read_into(pixels, files, range(len(files)), side, scale)
    whole = scale.holding(ranges.values())
    if whole != scale:  # which files need it is known now
        _read_into(pixels, files, [at for at, one in ranges.items() if getattr(scale, one.kind) is None], side, whole)
    return torch.from_numpy(pixels), whole, sum(_beyond(one, whole) for one in ranges.values())


def _beyond(extent: Range, scale: Scale) -> bool:
    low, high = getattr(scale, extent.kind)
    return bool(extent.low < low or extent.high > high)


def _read_into(
    pixels: np.ndarray, files: Sequence[Path], places: Sequence[int], side: int, scale: Scale
) -> dict[int, Range]:
    """Fills the `places` of `pixels` that `scale` allows to; the ranges of files of more than 8 bits by place."""
    ranges: dict[int, Range] = {}

    def read(start: int) -> list[str]:
        lines: list[str] = []
        for place in places[start : start + _CHUNK]:
            try:
                square, extent = _read(files[place], str(files[place]), side, scale)
            except DataError as error:
                lines += error.lines
                continue
            if extent is not None:
                ranges[place] = extent
            if square is not None:
                pixels[place] = square
        return lines

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, which the pixels do not depend on
        # Pillow decodes and resizes outside of the interpreter's lock
        lines = [line for part in pool.map(read, range(0, len(places), _CHUNK)) for line in part]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more images that cannot be read"]
    if lines:
        raise DataError(*lines)
    return ranges


def _read(file: str | Path | BinaryIO, name: str, side: int, scale: Scale) -> tuple[np.ndarray | None, Range | None]:
    """Returns one image as uint8 [3, side, side] (None if `scale` lacks its range), and its range beyond 8 bits.

    Raises `DataError` naming the file.
    """
    with named_errors(name), Image.open(file) as image:
        return _pixels(image, file, side, scale)


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Raises `DataError` naming an image in place of whatever its file leads to in a block."""
    try:
        yield
    except MemoryError:
        raise DataError(f"{name}: there is not enough memory to decode it; make the image smaller") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:,.0f} million pixels"
        raise DataError(f"{name}: has more than {most}; make the image smaller, or leave it out") from None
    except NotShownError as error:
        raise DataError(f"{name}: {error}") from None
    except IMAGE_ERRORS as error:
        raise DataError(f"{name}: is not a readable image ({type(error).__name__})") from None


def _pixels(
    image: Image.Image, file: str | Path | BinaryIO, side: int, scale: Scale
) -> tuple[np.ndarray | None, Range | None]:
    image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size
    deep = deep_values(image, file)
    if deep is None:
        image.load()  # after which the orientation is what is left to do
        square = squared(rgb_image(image), side, orientation(image))
        return np.asarray(square).transpose(2, 0, 1), None
    extent = Range.of(deep)
    limits = getattr(scale, deep.kind)
    if limits is None:
        return None, extent
    planes = [squared(Image.fromarray(plane), side, orientation(image)) for plane in deep.shown(*limits)]
    levels = np.stack([np.rint(np.asarray(plane)).astype(np.uint8) for plane in planes])
    return np.broadcast_to(levels, (3, side, side)), extent  # one plane is all three
