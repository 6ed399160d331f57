"""Images and labels in memory, and the one function that loads a data set by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from diffnas.core.parts import part_of_step
from diffnas.data import DATA, Listed, Split, cifar, digits, few, folder, imagenet16, svhn
from diffnas.data.decode import Scale, read_images
from diffnas.data.imagenet import read_imagenet, read_imagenet_test
from diffnas.data.oddities import oddities
from diffnas.data.stream import Streamed
from diffnas.data.views import name_of
from diffnas.errors import DataError

Source = Callable[[str, Path | None, int | None], tuple[Split, Split] | Listed]
"""(name, path, side) -> train and test, and perhaps more, listed but not decoded."""

SOURCES: dict[str, Source] = {
    "cifar10": cifar.read,
    "cifar100": cifar.read,
    "digits": digits.read,
    "folder": folder.read,
    "imagenet": read_imagenet,
    "imagenet16-120": imagenet16.read,
    "svhn": svhn.read,
}
TESTS: dict[str, Source] = {"folder": folder.read_test, "imagenet": read_imagenet_test}
"""Where there need not be training images."""


Fetch = Callable[[int], tuple[Tensor, Tensor | None]]
"""Step -> uint8 [K, C, H, W], and the places [K] in the batch of the images that could be read, None for all."""


@dataclass(frozen=True)
class Images:
    """Decoded images: pixels uint8 [M, C, H, W], labels int64 [M], `names` of the classes.

    Raises `DataError` for tensors of another type or shape.
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.dim() != 4:
            raise DataError(f"pixels of {self.pixels.dtype} {list(self.pixels.shape)}: need uint8 [M, C, H, W]")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            actual = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise DataError(f"labels of {actual}: need int64 [{len(self.pixels)}], one an image")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """The device that holds the images."""
        return self.pixels.device

    def fetcher(
        self, index: Tensor, batch: int, stream: tuple[int, str, int] | None, share: tuple[int, int] = (0, 1)
    ) -> Fetch:
        """What fetches the batches of images at `index` [M], or a process's `share`, by step; nothing is random."""
        pixels = self.pixels
        return lambda step: (pixels.index_select(0, index[part_of_step(step, batch, len(index), *share)[1]]), None)

    def subset(self, indices: Tensor) -> Images:
        """The images at `indices` [K] int64, in their order."""
        at = indices.to(self.pixels.device)
        return Images(self.pixels[at], self.labels[at], self.names)

    def to(self, device: torch.device | str) -> Images:
        """Returns the same images on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device), self.names)


@dataclass(frozen=True)
class ImageData:
    """A data set: train and test, and the mean and std of each channel of pixels scaled to [0, 1].

    `valid` are images to choose by, where the data set has some; `train` is empty where a test alone was asked for.
    `scale` is how files of more than 8 bits were read, `files` those of the test images where each has one; `folders` says
    which folder served as what, `aside` how much was left aside, `warnings` what is odd about the images.
    """

    name: str
    train: Images | Streamed
    test: Images | Streamed
    mean: tuple[float, ...]
    std: tuple[float, ...]
    valid: Images | Streamed | None = None
    scale: Scale = Scale()
    files: Sequence[Path] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.train.names)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train.shape[0]

    @property
    def side(self) -> int:
        """Height and width of the images."""
        return self.train.shape[1]


def load_images(
    name: str,
    path: str | Path | None = None,
    *,
    side: int | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: Scale | None = None,
    test_only: bool = False,
    whole: bool = False,
) -> ImageData:
    """The data set `name` (a key of `DATA`) from `path`, decoded into memory.

    A limit keeps the first images of its split and decodes no others.  `mean`, `std` and `scale` default to the known ones,
    or to those of the training images kept.  With `test_only` no training image is decoded, and `mean` and `std` must be
    given where they are not known; with `whole` a folder needs no training images, and one of classes alone is a test as a
    whole.  Raises `DataError`, a line per mistake: an unknown name, what the source of the data set refuses, a limit that
    cannot be met, a class that a split lacks, a mean or std that does not fit.
    """
    listed = list_splits(name, path, side, whole, test_only)
    limits = limits_of(listed, train_limit, test_limit)
    images: dict[str, Images] = {}
    used, warnings = scale or Scale(), []
    for role, limit in limits.items():  # train first: its scale is that of all
        split: Split | None = getattr(listed, role)
        if split is not None:
            images[role], used, beyond = _read(split, limit, side, used)
            where = name if path is None else Path(path) / listed.folders.get(role, "")
            warnings += oddities(f"{where}: all {role} images", images[role].pixels, beyond)
    test = images["test"]
    train = images.get("train", test.subset(torch.arange(0)))
    if train.pixels.shape[1:] != test.pixels.shape[1:] or train.pixels.shape[2] != train.pixels.shape[3]:
        shapes = f"{list(train.pixels.shape[1:])} in train and {list(test.pixels.shape[1:])} in test"
        raise DataError(f"data set {name}: the images are {shapes}; they must be square and the same")
    return ImageData(
        name,
        train,
        test,
        *stats(name, train.pixels, mean, std),
        valid=images.get("valid"),
        scale=used,
        files=[Path(name_of(place)) for place in listed.test.places[: len(test)]],
        folders=listed.folders,
        aside=listed.aside,
        warnings=tuple(warnings),
    )


def limits_of(listed: Listed, train_limit: int | None, test_limit: int | None) -> dict[str, int | None]:
    """The limit of each split; raises `DataError`, a line per mistake, where one cannot be met or a class is lacking."""
    lines = [] if listed.train is None else _limit_lines("train", listed.train, train_limit)
    lines += _limit_lines("test", listed.test, test_limit)
    if lines:
        raise DataError(*lines)
    return {"train": train_limit, "valid": test_limit, "test": test_limit}


def list_splits(
    name: str, path: str | Path | None, side: int | None = None, whole: bool = False, test_only: bool = False
) -> Listed:
    """The splits of a data set, in which the classes are the same; with `test_only` the test alone.

    Raises `DataError` for an unknown name.
    """
    own = DATA[name].read if name in DATA else None
    if own is None and name not in SOURCES:
        close = get_close_matches(name, SOURCES, 1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(SOURCES)}"
        raise DataError(f"data set {name} is unknown; {hint}")
    source = own or (TESTS[name] if name in TESTS and (whole or test_only and name == "imagenet") else SOURCES[name])
    read = source(name, None if path is None else Path(path).expanduser(), side)
    listed = read if isinstance(read, Listed) else Listed(*read)
    if listed.train is not None and listed.train.names != listed.test.names:
        raise DataError(f"data set {name}: {_different(listed.train.names, listed.test.names)}")
    return replace(listed, train=None, valid=None) if test_only else listed


def read_names(name: str, path: str | Path | None = None, side: int | None = None) -> tuple[str, ...]:
    """The classes of the data set `name`; no image is decoded.  Raises `DataError` as `load_images`."""
    return list_splits(name, path, side).test.names


def split_train(
    images: Images | Streamed, fraction: float, batch: int | None = None, weights_first: bool = True
) -> tuple[Tensor, Tensor]:
    """Indices int64 of the images that train the weights, round(fraction * M) from the start, and of the rest.

    The rest trains the architecture: with a fraction of 0.5, CIFAR-10 is divided as by DARTS, first and last 25,000.  Without
    `weights_first` those of the weights are at the end, as by OpenMMLab.
    Raises `DataError`, a line per mistake, when a part is empty, smaller than `batch` or lacks a class.
    """
    if not 0 < fraction < 1:
        raise DataError(f"data.split {fraction}: must be between 0 and 1, the share of train that trains the weights")
    first = round(fraction * len(images))
    order = torch.arange(len(images))
    parts = {"weights": order[:first], "architecture": order[first:]}
    if not weights_first:
        parts = {"weights": order[len(order) - first :], "architecture": order[: len(order) - first]}
    lines = [line for what, part in parts.items() for line in _part_lines(images, fraction, batch, what, part)]
    if lines:
        raise DataError(*lines)
    return parts["weights"], parts["architecture"]


def _part_lines(images: Images | Streamed, fraction: float, batch: int | None, what: str, part: Tensor) -> list[str]:
    """Checks one part of a split; yields at most one line."""
    if not len(part):
        return [f"data.split {fraction}: leaves none of the {len(images)} training images for the {what}"]
    if batch is not None and len(part) < batch:
        return [f"search.batch {batch}: data.split {fraction} leaves {len(part)} images for the {what}"]
    missing = _missing(images.labels.cpu()[part], images.names)
    return [f"data.split {fraction}: the {len(part)} images for the {what} lack {missing}"] if missing else []


def _limit_lines(split: str, listed: Split, limit: int | None) -> list[str]:
    """Checks the labels of one split under its limit; yields at most one line."""
    total, classes = len(listed.labels), len(listed.names)
    if limit is not None and limit < 1:
        return [f"data.{split}_limit {limit}: must be 1 or more"]
    if limit is not None and limit > total:
        return [f"data.{split}_limit {limit}: the {split} split has {total} images"]
    if not total:
        return [f"the {split} split has no images"]
    if int(listed.labels.min()) < 0 or int(listed.labels.max()) >= classes:
        return [f"the {split} split has labels outside of 0 to {classes - 1}"]
    missing = _missing(listed.labels[:limit], listed.names)
    if not missing:
        return []
    kept = "" if limit is None else f" among its first {limit} images (data.{split}_limit)"
    return [f"the {split} split lacks {missing}{kept}"]


def _missing(labels: Tensor, names: tuple[str, ...]) -> str:
    """Names the classes without an image; empty if there are none."""
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    absent = [name for name, count in zip(names, counts, strict=True) if not count]
    return f"class{'es' if len(absent) > 1 else ''} {few(absent, 5)}" if absent else ""


def _different(train: tuple[str, ...], test: tuple[str, ...]) -> str:
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if not only_train and not only_test:
        return "train and test have their classes in another order"
    return f"train and test have other classes (only in train: {few(only_train) or '-'}; only in test: {few(only_test) or '-'})"


def _read(listed: Split, limit: int | None, side: int | None, scale: Scale) -> tuple[Images, Scale, int]:
    """The first images of a split, the scale that they were read by, and how many go beyond it."""
    labels = listed.labels[:limit].clone()
    if listed.read is not None:
        return Images(listed.read(len(labels)), labels, listed.names), scale, 0
    files = [Path(name_of(place)) for place in listed.places[: len(labels)]]
    pixels, used, beyond = read_images(files, side or folder.SIDE, scale)
    return Images(pixels, labels, listed.names), used, beyond


def stats(
    name: str, pixels: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std as given, or as known, or of the pixels; `DataError` when they do not fit the channels."""
    info, channels = DATA[name], pixels.shape[1]
    if not len(pixels) and info.mean is None and (mean is None or std is None):
        raise DataError(
            f"data.mean, data.std: are not known for {name}, and there are no training images to take them from"
        )
    measured = _channel_stats(pixels) if info.mean is None and (mean is None or std is None) else ((), ())
    used_mean = tuple(mean) if mean is not None else info.mean or measured[0]
    used_std = tuple(std) if std is not None else info.std or measured[1]
    lines = [
        f"data.{key} {list(values)}: need {channels} numbers, one a channel"
        for key, values in (("mean", used_mean), ("std", used_std))
        if len(values) != channels or not all(math.isfinite(value) for value in values)
    ]
    if not lines and min(used_std) <= 0:
        lines.append(f"data.std {list(used_std)}: must be above 0")
    if lines:
        raise DataError(*lines)
    return used_mean, used_std


def _channel_stats(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel, exactly, from how often each of the 256 values occurs."""
    value = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(pixels.shape[1]):
        share = torch.bincount(pixels[:, channel].reshape(-1), minlength=256).double()
        share /= share.sum()
        means.append(float((share * value).sum()))
        spread = float((share * (value - means[-1]) ** 2).sum().sqrt())
        stds.append(spread if spread > 1e-6 else 1.0)  # a blank channel becomes zeros, not a division by zero
    return tuple(means), tuple(stds)
