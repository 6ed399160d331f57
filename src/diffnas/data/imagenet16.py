"""ImageNet16-120: the first 120 classes of ImageNet at 16 x 16, as NAS-Bench-201 uses them.

P. Chrabaszcz et al., A downsampled variant of ImageNet as an alternative to the CIFAR datasets (2017); the 120 classes
and the checksums are those of X. Dong's NAS-Bench-201.  The files are read without running anything in them; the
environment variable DIFFNAS_SKIP_CHECKSUMS=1 leaves the comparison out.
"""

from __future__ import annotations

import io
import reprlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffnas.data import Split, cifar
from diffnas.errors import DataError
from diffnas.interop.unpickle import load_pickle

SIDE = 16
CLASSES = 120  # of the 1000 in the files
FOLDER = "ImageNet16"
NAMES = tuple(str(number) for number in range(1, CLASSES + 1))
TRAIN = {
    "train_data_batch_1": "27846dcaa50de8e21a7d1a35f30f0e91",
    "train_data_batch_2": "c7254a054e0e795c69120a5727050e3f",
    "train_data_batch_3": "4333d3df2e5ffb114b05d2ffc19b1e87",
    "train_data_batch_4": "1620cdf193304f4a92677b695d70d10f",
    "train_data_batch_5": "348b3c2fdbb3940c4e9e834affd3b18d",
    "train_data_batch_6": "6e765307c242a1b3d7d5ef9139b48945",
    "train_data_batch_7": "564926d8cbf8fc4818ba23d2faac7564",
    "train_data_batch_8": "f4755871f718ccb653440b9dd0ebac66",
    "train_data_batch_9": "bb6dd660c38c58552125b1a92f86b5d4",
    "train_data_batch_10": "8f03f34ac4b42271a294f91bf480f29b",
}
TEST = {"val_data": "3410e3017fdaefba8d5073aaa65e4bd6"}


def read(name: str, path: Path | None = None, side: int | None = None) -> tuple[Split, Split]:
    """Train (151,700) and test (6,000, ImageNet's validation images), uint8 [M, 3, 16, 16], labels 0 to 119.

    `path` is the folder of the published batches, or its parent where it is called ImageNet16.  Of 1000 classes the
    first 120 are kept, in the order of the files; a class is named by its number there.  Raises `DataError` in one line
    for no path and for a file that is missing, damaged, no such batch or has a wrong checksum.
    """
    files = "train_data_batch_1 to train_data_batch_10 and val_data"
    if side not in (None, SIDE):
        raise DataError(f"data.side {side}: {name} has images of {SIDE} x {SIDE}")
    if path is None:
        raise DataError(f"data.path: {name} is not fetched; set it to the folder that holds {files} of {FOLDER}")
    if not path.is_dir():
        raise DataError(f"data.path {path}: there is no such folder")
    place = path / FOLDER if (path / FOLDER).is_dir() else path
    lacking = [file for file in [*TRAIN, *TEST] if not (place / file).is_file()]
    if len(lacking) == len(TRAIN | TEST):
        raise DataError(f"data.path {path}: does not hold {files} of {FOLDER}")
    if lacking:
        raise DataError(f"data.path {place}: lacks {', '.join(lacking)} of {FOLDER}")
    return _read_split(place, TRAIN), _read_split(place, TEST)


def _read_split(place: Path, sums: dict[str, str]) -> Split:
    """The kept images of all batches; one batch is in memory whole at a time."""
    pixels, labels = [], []
    for file, expected in sums.items():
        content, where = (place / file).read_bytes(), str(place / file)
        cifar._check_sum(where, content, expected)
        part, numbers = _read_batch(content, where)
        kept = numbers <= CLASSES
        pixels.append(part[kept])
        labels.append(numbers[kept] - 1)
    return Split(torch.from_numpy(np.concatenate(labels)), NAMES, partial(_joined, pixels))


def _read_batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [n, 768] and labels int64 [n], 1 to 1000, of one batch."""
    batch = load_pickle(io.BytesIO(content), where, encoding="latin1")  # keys are text, whichever Python wrote them
    data, labels = (batch.get("data"), batch.get("labels")) if isinstance(batch, dict) else (None, None)
    wide = 3 * SIDE**2
    refusal = DataError(f"{where}: is not a batch of {FOLDER}: needs data, uint8 [n, {wide}], and labels, n numbers")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != wide:
        raise refusal
    if not isinstance(labels, list) or len(labels) != len(data):
        raise refusal
    for row, label in enumerate(labels):
        if not isinstance(label, (int, np.integer)) or not 1 <= label <= 1000:
            raise DataError(f"{where} row {row}: label {reprlib.repr(label)} is not one of 1 to 1000")
    return np.asarray(data), np.array(labels, np.int64)


def _joined(parts: Sequence[np.ndarray], count: int) -> Tensor:
    """The first `count` rows of uint8 [n, 768] parts as [count, 3, 16, 16]."""
    return torch.from_numpy(np.concatenate(parts)[:count]).view(count, 3, SIDE, SIDE).clone()
