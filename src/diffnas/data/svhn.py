"""Street View House Numbers, the cropped digits: MATLAB files, parquet files, or the Hugging Face hub.

Y. Netzer et al., Reading digits in natural images with unsupervised feature learning (NIPS workshop, 2011).  The split
"extra" is left out, as by SmoothDARTS and DrNAS.  Checksums are those of CIFAR's manner: compared before anything is
read, and left out where DIFFNAS_SKIP_CHECKSUMS=1.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffnas.data import DATA, Split, cifar, matlab
from diffnas.data.parquet import SIDE, find_parquet, read_parquet, split_of
from diffnas.errors import DataError

CONFIG = "cropped_digits"  # the hub's word for them, and their folder there
NAMES = tuple("0123456789")
ORIGINAL = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def read(name: str, path: Path | None = None, side: int | None = None) -> tuple[Split, Split]:
    """Train (73,257) and test (26,032), uint8 [M, 3, 32, 32], labels 0 to 9 for the digits.

    `path` is a folder with the original train_32x32.mat and test_32x32.mat, or with parquet files as the hub has them;
    without a path the set is fetched from the hub, or from its cache.  Raises `DataError` in one line for anything
    missing, damaged, of another size, with a label out of range or with a wrong checksum.
    """
    if side not in (None, SIDE):
        raise DataError(f"data.side {side}: {name} has images of {SIDE} x {SIDE}")
    if path is None:
        return _read_hub(name)
    if not path.is_dir():
        raise DataError(f"data.path {path}: there is no such folder")
    if files := find_parquet(path) or find_parquet(path / CONFIG):
        train, test = (read_parquet(part, _names) for part in files)
        return train, test
    lacking = [file for file in ORIGINAL if not (path / file).is_file()]
    if len(lacking) == len(ORIGINAL):
        named = " and ".join(ORIGINAL)
        raise DataError(f"data.path {path}: holds neither train-*.parquet and test-*.parquet nor the original {named}")
    if lacking:
        raise DataError(f"data.path {path}: lacks {lacking[0]} of the original SVHN")
    train, test = (_read_mat(path / file, expected) for file, expected in ORIGINAL.items())
    return train, test


def _read_mat(file: Path, expected: str) -> Split:
    content, where = file.read_bytes(), str(file)
    cifar._check_sum(where, content, expected)
    pixels, digits = _variables(content, where)
    labels = [int(digit) if float(digit).is_integer() else digit for digit in digits.ravel().tolist()]
    for row, label in enumerate(labels):
        if label not in range(1, 11):
            raise DataError(f"{where} image {row}: label {label} is not one of 1 to 10 (10 is the digit 0)")
    return Split(torch.tensor(labels, dtype=torch.int64) % 10, NAMES, partial(_first, pixels))


def _variables(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """X, uint8 [32, 32, 3, n], and y, numbers [n, 1], of a MATLAB file."""
    try:
        variables = dict(_matrices(content))
    except matlab.DAMAGED as error:
        raise DataError(f"{where}: is not a whole MATLAB file of version 5 ({type(error).__name__}: {error})") from None
    x, y = variables.get("X"), variables.get("y")
    if x is None or y is None or x.dtype != np.uint8 or x.shape[:-1] != (SIDE, SIDE, 3) or y.shape != (x.shape[-1], 1):
        raise DataError(f"{where}: is not SVHN: needs X, uint8 [32, 32, 3, n], and y, n labels [n, 1]")
    return x, y


def _matrices(content: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """(name, values) of X and y; the rest is passed over."""
    for _, (_, shape), (_, name), (number, values), *_ in matlab.matrices(content):
        if bytes(name) in (b"X", b"y"):
            array = np.frombuffer(values, matlab.NUMBERS[number])
            yield bytes(name).decode(), array.reshape(np.frombuffer(shape, "<i4"), order="F")


def _first(pixels: np.ndarray, count: int) -> Tensor:
    """The first `count` images of uint8 [32, 32, 3, n] (row, column, channel, image) as [count, 3, 32, 32]."""
    return torch.from_numpy(pixels[..., :count].transpose(3, 2, 0, 1).copy())


def _read_hub(name: str) -> tuple[Split, Split]:
    datasets, hub = cifar.import_datasets(), DATA[name].hub
    try:
        with cifar.quietly(datasets):
            splits = datasets.load_dataset(hub, CONFIG)
            tables = [(f"{hub} {split}", splits[split].data.table) for split in ("train", "test")]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(
            f"data.path: {name} is not at hand and cannot be fetched ({error}); put {CONFIG}/train-*.parquet and "
            f"test-*.parquet of {hub}, or the original {' and '.join(ORIGINAL)}, in a folder and set data.path to it"
        ) from None
    train, test = (split_of([table], _names) for table in tables)
    return train, test


def _names(where: str, stated: tuple[str, ...] | None) -> tuple[str, ...]:
    if stated not in (None, NAMES):
        raise DataError(f"{where}: its classes are {', '.join(stated[:10])}; svhn has the digits 0 to 9")
    return NAMES
