"""Image data sets by name, before anything heavy is imported.

`DATA` says what the command line shows and what a recipe may leave out; `diffnas.data.images.load_images` reads one.
Nothing here imports torch, so that `diffnas list data` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


Augmentation = Literal["pad-crop", "random-resized-crop"]
"""Training crops: of the zero-padded image (CIFAR), or of a random share of it, resized (ImageNet)."""


@dataclass(frozen=True)
class DataInfo:
    """The facts about a data set that are known before it is read; `None` means that the files decide.

    `mean` and `std` are per channel of pixels scaled to [0, 1] (`None`: computed from the training images); `flip` and
    `crop` (zero padding in pixels) are the usual training augmentation; `hub` is the name on the Hugging Face hub.  With
    `streamed` the images are decoded while they are needed: always, or (None) where a recipe asks for it.  Where the files
    decide about the side, images become `usual_side` unless the recipe says otherwise.
    """

    about: str
    classes: int | None
    channels: int
    side: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    flip: bool
    crop: int
    hub: str | None
    read: Callable[[str, Path | None, int | None], Listed] | None = None  # of a plug-in's data set
    streamed: bool | None = False
    usual_side: int = 32
    augment: Augmentation = "pad-crop"


class Row(NamedTuple):
    """An encoded image in a table: its file, and the row there."""

    file: str
    row: int


Place = str | Row
"""Where an encoded image is: its file, or a row of a table."""


@dataclass(frozen=True)
class Split:
    """A split as its source lists it: labels [M] int64 and class names now, pixels when they are asked for.

    `read(n)` decodes the first n images to uint8 [n, C, H, W]; what a limit leaves out is never decoded.  Where each image
    is encoded on its own, `places` has them in order, and for files `read` is not needed.
    """

    labels: Tensor
    names: tuple[str, ...]
    read: Callable[[int], Tensor] | None = None
    places: Sequence[Place] = ()


@dataclass(frozen=True)
class Listed:
    """The splits of a data set, `train` None where there is a test alone; what served as what, and what was left aside."""

    train: Split | None
    test: Split
    valid: Split | None = None
    folders: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, int] = field(default_factory=dict)


def few(items: Collection[str], most: int = 10) -> str:
    """The first of `items` in a row, and how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(islice(items, most)) + more


DATA: dict[str, DataInfo] = {
    "cifar10": DataInfo(
        about="60,000 colour images of 32 x 32 in 10 classes: parquet files, the original batches, or the hub",
        classes=10,
        channels=3,
        side=32,
        # the constants of DARTS cnn/utils.py, which every published CIFAR result of this family uses
        mean=(0.49139968, 0.48215827, 0.44653124),
        std=(0.24703233, 0.24348505, 0.26158768),
        flip=True,
        crop=4,
        hub="uoft-cs/cifar10",
    ),
    "cifar100": DataInfo(
        about="60,000 colour images of 32 x 32 in 100 classes: parquet files, the original batches, or the hub",
        classes=100,
        channels=3,
        side=32,
        mean=(0.5071, 0.4867, 0.4408),  # P-DARTS
        std=(0.2675, 0.2565, 0.2761),
        flip=True,
        crop=4,
        hub="uoft-cs/cifar100",
    ),
    "digits": DataInfo(
        about="1,797 grey images of 8 x 8 in 10 classes, inside scikit-learn: no download",
        classes=10,
        channels=1,
        side=8,
        mean=None,
        std=None,
        flip=False,  # a mirrored digit is another sign
        crop=1,
        hub=None,
    ),
    "folder": DataInfo(
        about="your own images, a folder per class: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*",
        classes=None,
        channels=3,
        side=None,
        mean=None,
        std=None,
        flip=True,
        crop=0,
        hub=None,
        streamed=None,
    ),
    "imagenet": DataInfo(
        about="1,281,167 + 50,000 colour images in 1,000 classes, or a part of them, read while they are needed: folders,"
        " parquet or arrow files, or the hub",
        classes=None,
        channels=3,
        side=None,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        flip=True,
        crop=0,
        hub="ILSVRC/imagenet-1k",
        streamed=True,
        usual_side=224,
        augment="random-resized-crop",
    ),
    "imagenet16-120": DataInfo(
        about="157,700 colour images of 16 x 16 in 120 classes, NAS-Bench-201's: the published batches of ImageNet16",
        classes=120,
        channels=3,
        side=16,
        mean=(122.68 / 255, 116.66 / 255, 104.01 / 255),  # NAS-Bench-201
        std=(63.22 / 255, 61.26 / 255, 65.09 / 255),
        flip=True,
        crop=2,
        hub=None,
    ),
    "svhn": DataInfo(
        about="99,289 colour images of 32 x 32 in 10 classes, house numbers: MATLAB files, parquet files, or the hub",
        classes=10,
        channels=3,
        side=32,
        mean=(0.4377, 0.4438, 0.4728),  # SmoothDARTS, DrNAS
        std=(0.1980, 0.2010, 0.1970),
        flip=True,  # as the published searches have it, though a mirrored digit is another sign
        crop=4,
        hub="ufldl-stanford/svhn",
    ),
}
