"""Data sets that plug-ins register: what they say of themselves, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffnas.core.space import TensorShape
from diffnas.data import DataInfo, Listed, Split
from diffnas.data.texts import TextInfo
from diffnas.errors import DataError

if TYPE_CHECKING:
    from torch import Generator, Tensor

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class ImageSet:
    """An image data set of a plug-in.

    `read(path)` returns `{"train": (images, labels), "test": ...}`, optionally with "valid": images uint8
    [M, channels, side, side], labels int64 [M] as indices of `classes`; `path` is the recipe's `data.path`, or None.  `mean`
    and `std` are per channel, of pixels scaled to [0, 1] (None: measured on the training images).  By default, searches and
    trainings pad by `crop` and crop at random, and `flip` horizontally; the recipe may change this.
    """

    name: str
    read: Callable[[Path | None], Mapping[str, tuple[Tensor, Tensor]]]
    classes: tuple[str, ...]
    side: int
    channels: int = 3
    about: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: int = 0
    flip: bool = False


@dataclass(frozen=True)
class TextSet:
    """A text data set defined outside diffnas.

    `read(path)` returns `{"train": text, "valid": text, "test": text}`, each a string or its lines, with a token between
    spaces; `path` is the recipe's `data.path`, or None.  Words of the other parts that the training part lacks become
    `<unk>` where that occurs in it, and are refused otherwise.
    """

    name: str
    read: Callable[[Path | None], Mapping[str, str | Iterable[str]]]
    about: str = ""


@dataclass(frozen=True)
class TensorSet:
    """A data set of tensors of any shape, defined outside diffnas.

    `read(path)` returns `{"train": (inputs, targets), "test": ...}`, optionally with "valid": inputs [M, *shape.sizes], which
    become float32, and targets [M, ...] as the task wants them, in which float64 becomes float32; `path` is the recipe's
    `data.path`, or None.  `task` is the task where a recipe names none; with `classes`, the targets must be their numbers,
    int64 [M].  In searches and trainings each batch goes through `augment(inputs, generator)`, on the device of `inputs`; the
    generator is of the CPU, and the same numbers come from it when a run is resumed.
    """

    name: str
    read: Callable[[Path | None], Mapping[str, tuple[Tensor, Tensor]]]
    shape: TensorShape
    classes: tuple[str, ...] = ()
    task: str = "classification"
    about: str = "tensors of a plug-in"
    augment: Callable[[Tensor, Generator], Tensor] | None = None


TENSORS: dict[str, TensorSet] = {}
"""The data sets of tensors, all of plug-ins."""


def data_info(thing: ImageSet) -> DataInfo:
    """Returns the entry of `thing` in `DATA`."""
    return DataInfo(
        about=thing.about or "images of a plug-in",
        classes=len(thing.classes),
        channels=thing.channels,
        side=thing.side,
        mean=thing.mean,
        std=thing.std,
        flip=thing.flip,
        crop=thing.crop,
        hub=None,
        read=lambda name, path, side: _listed(thing, path, side),
    )


def text_info(thing: TextSet) -> TextInfo:
    """Returns the entry of `thing` in `TEXTS`."""
    return TextInfo(thing.about or "text of a plug-in", read=lambda path: _text_parts(thing, path))


def _text_parts(thing: TextSet, path: Path | None) -> dict[str, list[str]]:
    """Returns the lines of each part; raises `DataError` where `thing.read` fails or returns something else."""
    at = f"data set {thing.name}"
    try:
        parts = dict(thing.read(path))
        lines = {key: text.splitlines() if isinstance(text, str) else list(text) for key, text in parts.items()}
    except (Exception, SystemExit) as error:  # noqa: BLE001 (it is the user's code)
        raise DataError(f"{at}: read({path}) failed: {type(error).__name__}: {error}") from error
    if set(lines) != set(PARTS):
        raise DataError(f"{at}: read gives {sorted(lines)}; it must give train, valid and test")
    for key, part in lines.items():
        if not all(isinstance(line, str) for line in part):
            raise DataError(f"{at}: {key} must be a string, or lines that are strings")
    return lines


def read_parts(thing: ImageSet | TensorSet, path: Path | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns what `thing.read` gives; raises `DataError` where it fails, or gives other parts than it may."""
    at = f"data set {thing.name}"
    try:
        parts = dict(thing.read(path))
    except (Exception, SystemExit) as error:  # noqa: BLE001 (it is the user's code)
        raise DataError(f"{at}: read({path}) failed: {type(error).__name__}: {error}") from error
    if not {"train", "test"} <= set(parts) <= set(PARTS):
        raise DataError(f"{at}: read gives {sorted(parts)}; it must give train and test, and may give valid")
    return parts


def _listed(images: ImageSet, path: Path | None, side: int | None) -> Listed:
    """Reads the splits of a plug-in's data set; raises `DataError` if they contradict its description."""
    at = f"data set {images.name}"
    if side not in (None, images.side):
        raise DataError(f"data.side {side}: {at} has images of {images.side}; leave it out")
    splits = {role: _split(images, role, *pair) for role, pair in read_parts(images, path).items()}
    return Listed(splits["train"], splits["test"], splits.get("valid"))


def _split(images: ImageSet, role: str, pixels: Tensor, labels: Tensor) -> Split:
    shape = [images.channels, images.side, images.side]
    if str(pixels.dtype) != "torch.uint8" or list(pixels.shape[1:]) != shape:
        raise DataError(
            f"data set {images.name}: {role} images are {pixels.dtype} {list(pixels.shape)}; they must be uint8 [M,"
            f" {', '.join(map(str, shape))}]"
        )
    if str(labels.dtype) != "torch.int64" or labels.shape != pixels.shape[:1]:
        raise DataError(
            f"data set {images.name}: {role} labels are {labels.dtype} {list(labels.shape)}; they must be int64 [{len(pixels)}]"
        )
    return Split(labels, images.classes, lambda count: pixels[:count].clone())
