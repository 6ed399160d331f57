"""Lists of images: the part of a large training set that a search uses.

A list is a text file: a line `# diffnas image list 1 ...`, then an image a line, named by its path below the folder of training
images (`CLASS/x.jpg`), or by the name and row of its table.  The images stay where they are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffnas.core.seeds import generator
from diffnas.data import Place, Row, Split, few
from diffnas.data.stream import Streamed
from diffnas.errors import DataError

HEADER = "# diffnas image list 1"


def draw_lists(split: Split, shares: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Names of some of the training images for each of `shares`: so much of every class, and at least one; none is in two.

    They depend on the names of the classes and images and on `seed` alone.  Raises `DataError` for shares that cannot be met.
    """
    wrong = [f"{key} {share}: must be above 0 and below 1" for key, share in shares.items() if not 0 < share < 1]
    if not wrong and sum(shares.values()) > 1 + 1e-9:
        wrong = [f"{' + '.join(shares)}: {' + '.join(map(str, shares.values()))} is more than all images"]
    if wrong:
        raise DataError(*wrong)
    names, labels = image_names(split.places), split.labels.tolist()
    classes: list[list[str]] = [[] for _ in split.names]
    for name, label in zip(names, labels, strict=True):
        classes[label].append(name)
    small = [name for name, images in zip(split.names, classes, strict=True) if len(images) < len(shares)]
    if small:
        raise DataError(f"each list needs an image of each class; too few are in {few(small)}")
    lists: dict[str, list[str]] = {key: [] for key in shares}
    for name, images in zip(split.names, classes, strict=True):
        images.sort()
        order = torch.randperm(len(images), generator=generator(seed, f"data.subset/{name}")).tolist()
        start = 0
        for key, count in _counts(len(images), shares).items():
            lists[key] += sorted(images[place] for place in order[start : start + count])
            start += count
    return lists


def _counts(images: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many images of a class each list gets, at least one; the largest gives way where they are too many."""
    counts = {key: max(1, round(images * share)) for key, share in shares.items()}
    while sum(counts.values()) > images:
        counts[max(counts, key=lambda key: counts[key])] -= 1
    return counts


def image_names(places: Sequence[Place]) -> list[str]:
    """The name of each image in a list; it does not depend on where the data set is."""
    return list(_names_of(places))


def _names_of(places: Sequence[Place]) -> Iterator[str]:
    if not len(places) or isinstance(places[0], Row):
        return (f"{os.path.basename(place.file)}:{place.row}" for place in places if isinstance(place, Row))
    # the first and the last in alphabetical order begin as all others do
    ends = [str(min(places)), str(max(places))]
    below = len(os.path.join(os.path.commonpath(ends), ""))
    return (file[below:].replace(os.sep, "/") for file in places if isinstance(file, str))


def read_lists(train: Streamed, files: Mapping[str, str]) -> dict[str, Tensor]:
    """Which training images are in each of `files` (by recipe key): their indices [K] int64, in the order of `train`.

    Raises `DataError`, a line per mistake: no such list, images that are not there, classes without an image, an image in two.
    """
    listed = {key: _names_in(key, file) for key, file in files.items()}
    wanted = {name for names in listed.values() for name in names}
    places = {name: place for place, name in enumerate(_names_of(train.places)) if name in wanted}
    found: dict[str, Tensor] = {}
    lines: list[str] = []
    for key, file in files.items():
        names = listed[key]
        lacking = [name for name in names if name not in places]
        if lacking:
            lines.append(f"{key} {file}: {len(lacking):,} images are not in the training set: {few(lacking, 3)}")
            continue
        found[key] = torch.tensor(sorted(places[name] for name in names), dtype=torch.int64)
        counts = torch.bincount(train.labels.cpu()[found[key]], minlength=len(train.names)).tolist()
        empty = [name for name, count in zip(train.names, counts, strict=True) if not count]
        if empty:
            lines.append(f"{key} {file}: has no image of {few(empty, 5)}")
    twice = [name for name, count in Counter(name for names in listed.values() for name in names).items() if count > 1]
    if twice:
        lines.append(f"{' and '.join(files)}: have images in common: {few(twice, 3)}")
    if lines:
        raise DataError(*lines)
    return found


def _names_in(key: str, file: str) -> list[str]:
    try:
        header, *names = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{key} {file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, ValueError):
        header, names = "", []
    names = [name for name in names if name and not name.startswith("#")]
    if not header.startswith(HEADER) or not names:
        raise DataError(f"{key} {file}: is no list of images; write one with: diffnas data subset")
    if len(set(names)) < len(names):
        raise DataError(f"{key} {file}: names an image twice")
    return names
