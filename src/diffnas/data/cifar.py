"""CIFAR-10 and CIFAR-100 from parquet files, the original batches or their archive, or the Hugging Face hub.

The original batches are read without running anything in them and compared with the published md5 sums; the environment
variable DIFFNAS_SKIP_CHECKSUMS=1 leaves the comparison out, for batches of one's own.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffnas.data import DATA, Split
from diffnas.data.parquet import SIDE, Names, check_labels, find_parquet, read_parquet, split_of
from diffnas.errors import DataError
from diffnas.interop.unpickle import load_pickle

MAX_MEMBER = 2**28  # the largest original file has 155 MB

_NAMES_100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm"""


@dataclass(frozen=True)
class Original:
    """The published batches of one data set: the md5 sum of each file, and where a batch keeps its labels."""

    folder: str
    train: dict[str, str]
    test: dict[str, str]
    label: bytes
    names: tuple[str, ...]


ORIGINAL = {
    "cifar10": Original(
        "cifar-10-batches-py",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        {"test_batch": "40351d587109b95175f43aff81a1287e"},
        b"labels",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Original(
        "cifar-100-python",
        {"train": "16019d7e3df5f24257cddd939b257f8d"},
        {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        b"fine_labels",
        tuple(_NAMES_100.split()),
    ),
}


def read(name: str, path: Path | None = None, side: int | None = None) -> tuple[Split, Split]:
    """Train and test of "cifar10" or "cifar100", uint8 [M, 3, 32, 32].

    `path` is a folder of parquet files (train and test in their names), the folder of the original batches or its
    parent, or the original archive; without a path the set is fetched from the hub, or from its cache.  Raises
    `DataError` in one line for anything missing, damaged, of another size, with a label out of range or with a wrong
    checksum.  A damaged image is met when `read` of its split decodes it.
    """
    if side not in (None, SIDE):
        raise DataError(f"data.side {side}: {name} has images of {SIDE} x {SIDE}")
    if path is None:
        return _read_hub(name)
    if path.is_file():
        return _read_original(name, path, _archived(ORIGINAL[name], path))
    if not path.is_dir():
        raise DataError(f"data.path {path}: there is no such folder or file")
    if files := find_parquet(path):
        return read_parquet(files[0], _names(name)), read_parquet(files[1], _names(name))
    for folder in (path, path / ORIGINAL[name].folder):
        if any((folder / file).is_file() for file in [*ORIGINAL[name].train, *ORIGINAL[name].test]):
            return _read_original(name, folder, _stored(ORIGINAL[name], folder))
    original = f"{ORIGINAL[name].folder} ({next(iter(ORIGINAL[name].train))} ...)"
    raise DataError(f"data.path {path}: holds neither train-*.parquet and test-*.parquet nor the original {original}")


def _stored(original: Original, folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """(file, where, content) of each original file in a folder."""
    for file in [*original.train, *original.test]:
        if (folder / file).is_file():
            yield file, str(folder / file), (folder / file).read_bytes()


def _archived(original: Original, path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(file, where, content) of each original file in an archive, which is never unpacked to disk."""
    wanted = {*original.train, *original.test}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = PurePosixPath(member.name)
                if file.name not in wanted or file.parent.name != original.folder or not member.isfile():
                    continue
                if member.size > MAX_MEMBER:
                    raise DataError(f"{path}: {file} has {member.size} bytes, more than any original file")
                content = archive.extractfile(member)
                yield file.name, f"{path}: {file}", content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"data.path {path}: is not a whole archive of {original.folder} ({error})") from None


def _read_original(name: str, path: Path, files: Iterator[tuple[str, str, bytes]]) -> tuple[Split, Split]:
    original = ORIGINAL[name]
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for file, where, content in files:
        _check_sum(where, content, (original.train | original.test)[file])
        parts[file] = _read_batch(content, where, original)
    lacking = [file for file in [*original.train, *original.test] if file not in parts]
    if lacking:
        raise DataError(f"data.path {path}: lacks {', '.join(lacking)} of the original {original.folder}")

    def split(chosen: dict[str, str]) -> Split:
        labels = np.concatenate([parts[file][1] for file in chosen])
        pixels = [parts[file][0] for file in chosen]
        return Split(torch.from_numpy(labels), original.names, partial(_joined, pixels))

    return split(original.train), split(original.test)


def _check_sum(where: str, content: bytes, expected: str) -> None:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if digest != expected and os.environ.get("DIFFNAS_SKIP_CHECKSUMS") != "1":
        raise DataError(f"{where}: its md5 sum is {digest}, the original has {expected}; download it again")


def _read_batch(content: bytes, where: str, original: Original) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [n, 3072] and labels int64 [n] of one batch."""
    batch = load_pickle(io.BytesIO(content), where)
    data, labels = (batch.get(b"data"), batch.get(original.label)) if isinstance(batch, dict) else (None, None)
    key, wide = original.label.decode(), 3 * SIDE**2
    refusal = DataError(f"{where}: is not a CIFAR batch: needs data, uint8 [n, {wide}], and {key}, a list of n numbers")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != wide:
        raise refusal
    if not isinstance(labels, list) or len(labels) != len(data):
        raise refusal
    check_labels(labels, len(original.names), where)
    return np.ascontiguousarray(np.asarray(data)), np.array(labels, np.int64)


def _joined(parts: Sequence[np.ndarray], count: int) -> Tensor:
    """The first `count` rows of uint8 [n, 3072] parts as [count, 3, 32, 32]."""
    return torch.from_numpy(np.concatenate(parts)[:count]).view(count, 3, SIDE, SIDE).clone()


def import_datasets() -> Any:
    """Returns the hub's library; raises `DataError` where it is not installed."""
    try:
        import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torch extension that does not fit
        raise DataError(f"the hub needs: pip install datasets, the library that reads it ({error})") from None
    return datasets


def _read_hub(name: str) -> tuple[Split, Split]:
    datasets, hub = import_datasets(), DATA[name].hub
    try:
        with quietly(datasets):
            splits = datasets.load_dataset(hub)
            tables = [(f"{hub} {split}", splits[split].data.table) for split in ("train", "test")]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(
            f"data.path: {name} is not at hand and cannot be fetched ({error}); put train-*.parquet and test-*.parquet "
            f"of {hub}, or the original {ORIGINAL[name].folder}, in a folder and set data.path to it"
        ) from None
    train, test = (split_of([table], _names(name)) for table in tables)
    return train, test


@contextmanager
def quietly(datasets: Any) -> Iterator[None]:
    """Disables the library's progress bars unless the output is a terminal."""
    silence = not sys.stderr.isatty() and not datasets.utils.are_progress_bars_disabled()
    if silence:
        datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            datasets.utils.enable_progress_bars()


def _names(name: str) -> Names:
    """Returns the stated class names if their number is right, or the published ones if none are stated."""
    known = ORIGINAL[name].names

    def names(where: str, stated: tuple[str, ...] | None) -> tuple[str, ...]:
        if stated is not None and len(stated) != len(known):
            raise DataError(f"{where}: has {len(stated)} classes; {name} has {len(known)}")
        return stated or known

    return names
