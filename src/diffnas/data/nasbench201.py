"""The official per-cell files of NAS-Bench-201 and NATS-Bench (topology), read one at a time and without running anything.

Two layouts are known: `NNNNNN-SIMPLE.pth` or `NNNNNN-FULL.pth` of NAS-Bench-201 1.0 and 1.1 (`torch.save`), and
`NNNNNN.pickle.pbz2` of NATS-Bench (pickles in bzip2).  Both hold, for 200 and for 12 epochs, a dictionary with
`arch_index`, `arch_str` and `all_results`: by (data set, seed), the accuracy on each evaluation set after each epoch.
"""

from __future__ import annotations

import bz2
import numbers
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from diffnas.errors import DataError
from diffnas.interop.unpickle import load_pickle, load_torch

CELLS = 15_625
LARGEST = 2**28  # bytes of one cell: some 300 kB, up to 80 MB where weights are in it
EPOCHS = {"200": 200, "full": 200, "12": 12, "less": 12}
"""Epochs by what the two layouts call a training schedule."""

SETS = {
    "cifar10": {"test": ("cifar10", "ori-test"), "valid": ("cifar10-valid", "x-valid")},
    "cifar100": {"test": ("cifar100", "x-test"), "valid": ("cifar100", "x-valid")},
    "imagenet16-120": {"test": ("ImageNet16-120", "x-test"), "valid": ("ImageNet16-120", "x-valid")},
}
"""What networks were trained on and evaluated on, in the benchmark's words, for the accuracies that its papers report."""

_FILE = re.compile(r"(\d{1,6})(-SIMPLE\.pth|-FULL\.pth|\.pickle\.pbz2)")
_WHOLE = re.compile(r"(NAS-Bench-102|NAS-Bench-201|NATS-tss)-v1_\d-[0-9a-f]+\.(pth|pickle\.pbz2)")
_FOLDERS = ("NAS-Bench-201-v1_*-archive", "NATS-tss-v1_*-simple")


@dataclass(frozen=True)
class CellFile:
    """The contents of one file: `accuracies["cifar10_test_200"]` in percent after the last epoch, one per seed."""

    index: int
    text: str
    accuracies: dict[str, tuple[float, ...]]


def list_cells(path: Path) -> list[tuple[int, Path]]:
    """(official index, file) of each cell in a folder of per-cell files or its parent, in order.

    Raises `DataError` where there are none, and for the benchmark in one file, which would need all of it in memory.
    """
    if path.is_file():
        raise DataError(
            _one_file(path) if _WHOLE.fullmatch(path.name) else f"{path}: is a file; name a folder; {_NEEDED}"
        )
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; {_NEEDED}")
    for folder in [path, *(found for pattern in _FOLDERS for found in sorted(path.glob(pattern)) if found.is_dir())]:
        if files := _cells_in(folder):
            return files
    whole = sorted(found for found in path.iterdir() if _WHOLE.fullmatch(found.name))
    raise DataError(_one_file(whole[0]) if whole else f"{path}: holds no per-cell files; {_NEEDED}")


_NEEDED = (
    "what can be read are the per-cell files, NAS-Bench-201-v1_1-096897-archive/NNNNNN-FULL.pth (or -SIMPLE.pth) or "
    "NATS-tss-v1_0-3ffb9-simple/NNNNNN.pickle.pbz2"
)


def _one_file(path: Path) -> str:
    return f"{path}: is the whole benchmark in one pickle, which only fits in memory whole; {_NEEDED}"


def _cells_in(folder: Path) -> list[tuple[int, Path]]:
    """The files of a folder, one per index: where there are several, the smallest kind."""
    if "-sss-" in folder.name:
        raise DataError(f"{folder}: is NATS-Bench's size space; the cells are in its topology space, tss")
    files: dict[int, Path] = {}
    for file in sorted(folder.iterdir(), key=lambda file: ("-FULL" in file.name, file.name)):
        named = _FILE.fullmatch(file.name)
        if named and int(named[1]) < CELLS:
            files.setdefault(int(named[1]), file)
    return sorted(files.items())


def read_cell(index: int, path: Path) -> CellFile:
    """The accuracies in the file of one cell; raises `DataError` in one line where it is damaged or says anything else."""
    stored = _load(path)
    schedules = {key: state for key, state in stored.items() if key in EPOCHS} if isinstance(stored, dict) else {}
    if not schedules:
        raise DataError(f"{path}: holds no results of 200 or 12 epochs (the keys full and less, or 200 and 12)")
    texts = {_field(path, state, "arch_str", str) for state in schedules.values()}
    indices = {_field(path, state, "arch_index", int) for state in schedules.values()}
    if len(indices) > 1 or len(texts) > 1:
        raise DataError(f"{path}: holds results of different cells")
    if indices != {index}:
        raise DataError(f"{path}: is named after cell {index}, but holds cell {indices.pop()}")
    accuracies: dict[str, tuple[float, ...]] = {}
    for key, state in schedules.items():
        results = _field(path, state, "all_results", dict)
        for data, measures in SETS.items():
            for measure, (trained, evaluated) in measures.items():
                last = tuple(_last_accuracies(path, results, trained, evaluated, EPOCHS[key]))
                if last:
                    accuracies[f"{data}_{measure}_{EPOCHS[key]}"] = last
    if not accuracies:
        raise DataError(f"{path}: holds no accuracy after 200 or 12 epochs")
    return CellFile(index, texts.pop(), accuracies)


def _load(path: Path) -> object:
    try:
        if path.suffix == ".pth":
            with path.open("rb") as file:
                return load_torch(file, str(path), LARGEST)
        with bz2.open(path) as packed:
            return load_pickle(cast(BinaryIO, packed), str(path), limit=LARGEST)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: damaged or cut short ({error})") from None


def _field(path: Path, state: object, key: str, kind: type) -> Any:
    value = state.get(key) if isinstance(state, dict) else None
    if not isinstance(value, kind):
        raise DataError(f"{path}: {key} is missing or no {kind.__name__}")
    return value


def _last_accuracies(path: Path, results: dict[Any, Any], trained: str, evaluated: str, epochs: int) -> Iterator[float]:
    """The accuracy on the set `evaluated` after the last epoch, for each seed of networks trained on `trained`."""
    for key in sorted((key for key in results if isinstance(key, tuple) and key[:1] == (trained,)), key=str):
        result = results[key]
        if _field(path, result, "epochs", int) != epochs:
            raise DataError(f"{path}: a result of {trained} has {result['epochs']} epochs, not {epochs}")
        value = _field(path, result, "eval_acc1es", dict).get(f"{evaluated}@{epochs - 1}")
        if value is None:
            continue
        percent = float(value) if isinstance(value, numbers.Real) else float("nan")
        if not 0 <= percent <= 100:
            raise DataError(f"{path}: an accuracy of {trained} is {value!r:.40}, not a number of 0 to 100")
        yield percent
