"""Views of encoded images, uint8 of one size: a random share, resized, or the centre of the resized image.

JPEGs are decoded by libjpeg-turbo: through `simplejpeg` where that is installed, through Pillow otherwise.  Both give the same
pixels, the first in two thirds of the time.  Whatever `simplejpeg` does not read whole (other formats, CMYK, rotated or
damaged files) is left to Pillow, which decides.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffnas.data import Place, Row
from diffnas.data.decode import Scale, named_errors, read_square
from diffnas.data.pixels import TURNS, deep_values, orientation, rgb_image
from diffnas.data.tables import Table
from diffnas.errors import DataError

try:
    import simplejpeg as _jpeg  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError:
    _jpeg = None

TRIES = 10  # boxes drawn for an image before its centre is taken, as by torchvision
RATIOS = (3 / 4, 4 / 3)
NUMBERS = 4 * TRIES + 1  # random numbers that a view of one image takes
FAST_SPACES = ("YCbCr", "Gray")
SIDEWAYS = {TURNS[tag] for tag in (5, 6, 7, 8)}
LARGEST = 2**26  # pixels of a resized image that is made whole before its centre is cut out


@dataclass(frozen=True)
class View:
    """How images become uint8 [3, side, side].

    With an `area`, training images are a random share of so much, and flipped in half of the cases where `flip` is true.
    Others have their shorter side resized to `resize` and their centre cut out; where that is None, they are read as
    those of a folder in memory are.
    """

    side: int
    resize: int | None = None
    area: tuple[float, float] | None = None
    flip: bool = False
    scale: Scale = Scale()


def decoder() -> str:
    """The name of the library that decodes most JPEGs."""
    return "Pillow" if _jpeg is None else "simplejpeg"


def draw_numbers(count: int, stream: torch.Generator) -> np.ndarray:
    """The random numbers of views of `count` images, float64 [count, NUMBERS] in 0 to 1."""
    return torch.rand(count, NUMBERS, generator=stream, dtype=torch.float64).numpy()


def read_view(place: Place, view: View, numbers: np.ndarray | None = None) -> np.ndarray:
    """The view of one image, uint8 [side, side, 3]: random by `numbers` [NUMBERS], or of the centre without.

    Raises `DataError` naming an image that cannot be read.
    """
    content, name = content_of(place), name_of(place)
    if numbers is not None and view.area is not None:
        with named_errors(name):
            return _random_view(_Encoded(content, view.scale), view, numbers)
    return centre_view(content, name, view)


def centre_view(content: bytes, name: str, view: View) -> np.ndarray:
    """The view of the centre of one encoded image, uint8 [side, side, 3]; raises `DataError` naming it if it is damaged."""
    if view.resize is None:
        return read_square(io.BytesIO(content), name, view.side, view.scale).transpose(1, 2, 0)
    with named_errors(name):
        return centre(Image.fromarray(_Encoded(content, view.scale).pixels(1)), view.side, view.resize)


def name_of(place: Place) -> str:
    """Returns the name of an image for messages: its file, or the file and row of its table."""
    return f"{place.file} row {place.row}" if isinstance(place, Row) else place


def content_of(place: Place) -> bytes:
    """Reads an encoded image; raises `DataError` naming one that cannot be read."""
    if isinstance(place, Row):
        return _table(place.file).content(place.row)
    try:
        path = Path(place)
        if not path.is_file():  # opening a pipe would wait for ever
            raise DataError(f"{place}: is not there, or is no regular file")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror})") from None


@lru_cache(maxsize=64)
def _table(file: str) -> Table:
    return Table(file)


def random_box(
    width: int, height: int, numbers: Iterable[float], area: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random share of an image: `area` of it, its sides 3 : 4 to 4 : 3.

    The first of `TRIES` boxes that fits the image is taken, or else the largest in its centre with such sides, as by
    torchvision's RandomResizedCrop.
    """
    draws = iter(numbers)
    low, high = (math.log(ratio) for ratio in RATIOS)
    for u_area, u_ratio, u_left, u_top in zip(draws, draws, draws, draws, strict=False):
        pixels = width * height * (area[0] + u_area * (area[1] - area[0]))
        ratio = math.exp(low + u_ratio * (high - low))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(u_left * (width - w + 1)), int(u_top * (height - h + 1)), w, h
    w = max(1, min(width, round(height * RATIOS[1])))
    h = max(1, min(height, round(width / RATIOS[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def centre(image: Image.Image, side: int, resize: int) -> np.ndarray:
    """uint8 [side, side, 3]: the shorter side resized to `resize`, the centre cut out; the same pixels as torchvision's."""
    width, height = image.size
    short = min(width, height)
    w, h = (resize * width // short, resize * height // short)
    left, top = round((w - side) / 2), round((h - side) / 2)
    box = (left, top, left + side, top + side)
    if w * h > LARGEST:  # a very long image: at most a level or two from that
        across, down = width / w, height / h
        part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=part))
    resized = image if (w, h) == image.size else image.resize((w, h), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop(box))


def _random_view(encoded: _Encoded, view: View, numbers: np.ndarray) -> np.ndarray:
    assert view.area is not None
    width, height = encoded.size
    left, top, w, h = random_box(width, height, numbers[:-1].tolist(), view.area)
    factor = next((f for f in (8, 4, 2) if w >= f * view.side and h >= f * view.side), 1)
    pixels = encoded.pixels(factor)
    across, down = pixels.shape[1] / width, pixels.shape[0] / height
    left, right = _within(left * across, w * across, pixels.shape[1])
    top, bottom = _within(top * down, h * down, pixels.shape[0])
    share = torch.from_numpy(pixels[top:bottom, left:right].copy()).permute(2, 0, 1)[None]
    if share.shape[2:] != (view.side, view.side):
        share = F.interpolate(share, size=(view.side, view.side), mode="bilinear", antialias=True)
    flipped = view.flip and numbers[-1] < 0.5
    seen: Tensor = share[0].permute(1, 2, 0)
    return (seen.flip(1) if flipped else seen).numpy()


def _within(start: float, length: float, size: int) -> tuple[int, int]:
    """The whole pixels from `start` on, at least one, that lie in an image of `size`."""
    first = min(round(start), size - 1)
    return first, min(size, first + max(1, round(length)))


class _Encoded:
    """An encoded image: its `size` (width, height) upright, and its pixels when they are asked for."""

    def __init__(self, content: bytes, scale: Scale) -> None:
        self.content, self.scale = content, scale
        self.turn: Image.Transpose | None = None
        self.image: Image.Image | None = None
        size = _fast_size(content)
        if size is None:
            self.image = Image.open(io.BytesIO(content))
            self.turn = orientation(self.image)
            size = self.image.size
        self.size = size[::-1] if self.turn in SIDEWAYS else size

    def pixels(self, factor: int) -> np.ndarray:
        """uint8 [H, W, 3], of a JPEG at 1 / `factor` of its size."""
        if self.image is None:
            fast = _fast_pixels(self.content, self.size, factor)
            if fast is not None:
                return fast
            self.image = Image.open(io.BytesIO(self.content))
        image = self.image
        deep = deep_values(image, io.BytesIO(self.content))
        if deep is not None:
            image = self._eight_bits(deep)
        else:
            image.draft("RGB", (image.size[0] // factor, image.size[1] // factor))
            image = rgb_image(image)
        return np.asarray(image if self.turn is None else image.transpose(self.turn))

    def _eight_bits(self, deep: Any) -> Image.Image:
        limits = getattr(self.scale, deep.kind) or getattr(self.scale.of_values(deep), deep.kind)
        planes = np.rint(deep.shown(*limits)).astype(np.uint8)
        return Image.fromarray(np.broadcast_to(planes, (3, *planes.shape[1:])).transpose(1, 2, 0).copy())


def _fast_size(content: bytes) -> tuple[int, int] | None:
    """The (width, height) of a JPEG that `simplejpeg` reads as Pillow does; None for others."""
    if _jpeg is None or content[:2] != b"\xff\xd8" or b"Exif\0" in content[:4096]:
        return None
    try:
        height, width, space, _ = _jpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return (width, height) if space in FAST_SPACES and width * height <= (Image.MAX_IMAGE_PIXELS or 0) else None


def _fast_pixels(content: bytes, size: tuple[int, int], factor: int) -> np.ndarray | None:
    """uint8 [H, W, 3] at 1 / `factor` of the size, None where the file is damaged."""
    least = (
        {}
        if factor == 1
        else {"min_height": -(-size[1] // factor), "min_width": -(-size[0] // factor), "min_factor": 2}
    )
    try:
        pixels: np.ndarray = _jpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False, **least)
    except ValueError:
        return None
    return pixels
