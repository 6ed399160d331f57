"""Converts a Pillow image of any mode to RGB or to the values of its file, as a viewer would show it."""

from __future__ import annotations

import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

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
# Pillow keeps 8 bits of 16-bit colour; reading a file the other way round gives the lower byte too
_PAIRS = (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
OTHER_BYTE = {f"{mode};16{a}": f"{mode};16{b}" for mode in ("RGB", "RGBA") for a, b in _PAIRS}
TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 262, 274, 339  # tags of TIFF and EXIF
WHITE_IS_ZERO, UNSIGNED = 0, 1


class NotShownError(ValueError):
    """Pixel values that have no brightness."""


@dataclass(frozen=True)
class Deep:
    """The values of a file of more than 8 bits, [H, W, C]: grey or RGB, and alpha where C is even.

    `kind` is `integers` or `floats`; with `inverted` the least value is white; what is `clear` [H, W] is transparent.
    """

    values: np.ndarray
    kind: str
    inverted: bool = False
    clear: np.ndarray | None = None

    def shown(self, low: float, high: float) -> np.ndarray:
        """float32 [1 or 3, H, W] from 0, where the value is `low`, to 255, where it is `high`; alpha over white."""
        share = ((self.values.astype(np.float64) - low) / (high - low)).clip(0, 1)
        if self.inverted:
            share = 1 - share
        if share.shape[2] % 2 == 0:
            alpha = share[..., -1:]
            share = share[..., :-1] * alpha + 1 - alpha
        if self.clear is not None:
            share[self.clear] = 1
        return np.ascontiguousarray((255 * share).transpose(2, 0, 1), np.float32)


def rgb_image(image: Image.Image) -> Image.Image:
    """The image in mode RGB: grey is repeated, alpha laid over white; 16-bit grey is scaled by its depth."""
    if image.mode.startswith("I"):
        grey = Deep(np.asarray(image)[..., None], "integers").shown(0, 65535)
        image = Image.fromarray(np.rint(grey[0]).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa"):
        whole = Image.new("RGBA", image.size, "white")
        whole.alpha_composite(image.convert("RGBA"))
        image = whole
    return image if image.mode == "RGB" else image.convert("RGB")


def deep_values(image: Image.Image, file: str | Path | BinaryIO) -> Deep | None:
    """The values of an image of more than 8 bits, which is not decoded yet; None for one of 8.

    Raises `NotShownError` where some are no numbers.
    """
    if image.mode not in ("F", "I") and not image.mode.startswith("I;"):
        tiles = getattr(image, "tile", [])
        return _integers(_both_bytes(image, file), image) if tiles and _raw_mode(tiles[0]) in OTHER_BYTE else None
    tags: Any = getattr(image, "tag_v2", {})  # of TIFF
    inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    if image.mode == "F":
        floats = np.asarray(image)
        if not np.isfinite(floats).all():
            raise NotShownError("holds values that are no numbers (NaN or infinite)")
        return Deep(floats[..., None], "floats", inverted)
    grey = np.asarray(image)
    if image.mode == "I" and UNSIGNED in tags.get(SAMPLE_FORMAT, ()):
        grey = grey.view(np.uint32)
    return _integers(grey[..., None], image, inverted)


def _integers(values: np.ndarray, image: Image.Image, inverted: bool = False) -> Deep:
    transparent = image.info.get("transparency")  # one value or colour
    clear = None if transparent is None else (values == np.asarray(transparent)).all(axis=2)
    return Deep(values, "integers", inverted, clear)


def _raw_mode(tile: Any) -> Any:
    """Returns the byte layout of a part of a file as Pillow's raw mode."""
    return tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]


def _both_bytes(image: Image.Image, file: str | Path | BinaryIO) -> np.ndarray:
    """The uint16 values [H, W, C] of 16-bit colour: the upper bytes as Pillow reads them, and the lower ones."""
    upper = np.asarray(image).astype(np.uint16)
    with Image.open(file) as again:
        tiles: list[Any] = again.tile
        for at, tile in enumerate(tiles):
            other = OTHER_BYTE[_raw_mode(tile)]
            arguments = (other, *tile[3][1:]) if isinstance(tile[3], tuple) else other
            tiles[at] = tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)
        whole: np.ndarray = upper << 8 | np.asarray(again)
        return whole


def orientation(image: Image.Image) -> Image.Transpose | None:
    """Returns the transposition that turns an image upright by its EXIF, or None if it is upright or the EXIF is damaged."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION))
    except (*IMAGE_ERRORS, UserWarning):  # a warning where the caller has made them errors
        return None


def squared(image: Image.Image, side: int, turn: Image.Transpose | None) -> Image.Image:
    """The image turned upright, its shorter side resized to `side` and its centre kept."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    # the same pixels as resizing all of it and cutting then, without a huge row where an image is very long
    box = (left, top, left + short, top + short)
    if box != (0, 0, side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return image if turn is None else image.transpose(turn)
