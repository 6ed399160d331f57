"""The classes of ImageNet's validation images where those lie in one folder, `val/*.JPEG`.

Kaggle's `LOC_val_solution.csv` names them.  The development kit has their numbers, a line per image, in
`ILSVRC2012_validation_ground_truth.txt`, and says which class (WordNet id) each number is in `meta.mat` or `map_clsloc.txt`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffnas.data import matlab
from diffnas.data.files import Files
from diffnas.data.layout import Classes
from diffnas.errors import DataError

SOLUTION = "LOC_val_solution.csv"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
MEANINGS = ("meta.mat", "map_clsloc.txt")
INSIDE = ("", "data", "devkit", "devkit/data", "ILSVRC2012_devkit_t12/data", "ILSVRC/devkit/data", "ILSVRC")
NUMBER = re.compile(r"_val_(\d+)$")  # of the official file names


def classes_of(images: Sequence[str], places: Sequence[Path]) -> Classes:
    """The images of each class; the files that say so are looked for in `places` and the kit's folders there.

    Raises `DataError` in one line where they are missing, damaged, or do not speak of an image.
    """
    solution = _find((SOLUTION,), places)
    truth, meaning = _find((TRUTH,), places), _find(MEANINGS, places)
    if solution is not None:
        return _by_name(images, solution)
    if truth is not None and meaning is not None:
        return _by_number(images, truth, meaning)
    if truth is not None:
        lacking = f"{' or '.join(MEANINGS)}, which says which class its numbers are"
    elif meaning is not None:
        lacking = f"{TRUTH}, which has a number for each image"
    else:
        lacking = f"{SOLUTION} (Kaggle), or {TRUTH} with {MEANINGS[0]} (the development kit)"
    raise DataError(
        f"data.path {places[0]}: the validation images are in one folder, not in one a class, and what says their classes"
        f" is missing: {lacking}"
    )


def _find(names: Sequence[str], places: Sequence[Path]) -> Path | None:
    """The first of `names` that is in one of `places`, or in a folder there that the kit or Kaggle make."""
    candidates = (place / inside / name for name in names for place in places for inside in INSIDE)
    return next((file for file in candidates if file.is_file()), None)


def _by_name(images: Sequence[str], solution: Path) -> Classes:
    """By rows `ILSVRC2012_val_00000001,n01440764 1 2 3 4`: an image, its class, a box."""
    rows = csv.reader(_text(solution).splitlines())
    known = {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].split()}
    return _grouped(((Path(image).stem, image) for image in images), known, solution)


def _by_number(images: Sequence[str], truth: Path, meaning: Path) -> Classes:
    """By the number of each image's line, which is that in its name, or its place among all of them."""
    numbers = _text(truth).split()
    meanings = _meanings(meaning)
    unknown = [number for number in numbers if number not in meanings]
    if unknown:
        raise DataError(f"{truth}: has the class {unknown[0]}, which {meaning} does not know")
    known = {str(line): meanings[number] for line, number in enumerate(numbers, 1)}
    named = [NUMBER.search(Path(image).stem) for image in images]
    if all(named):
        keys = [str(int(match[1])) for match in named if match is not None]
    elif len(images) == len(numbers):
        keys = [str(line) for line in range(1, len(images) + 1)]
    else:
        raise DataError(f"{truth}: has {len(numbers):,} lines for {len(images):,} images, whose names have no numbers")
    return _grouped(zip(keys, images, strict=True), known, truth)


def _grouped(keyed: Iterator[tuple[str, str]] | zip[tuple[str, str]], known: dict[str, str], file: Path) -> Classes:
    classes: dict[str, list[str]] = {}
    for key, image in keyed:
        if key not in known:
            raise DataError(f"{file}: does not say the class of {image}")
        classes.setdefault(known[key], []).append(image)
    return {name: Files(images) for name, images in sorted(classes.items())}


def _meanings(file: Path) -> dict[str, str]:
    """The class (WordNet id) of each number."""
    if file.suffix == ".txt":  # n02119789 1 kit_fox
        rows = [line.split() for line in _text(file).splitlines() if line.strip()]
        if not rows or not all(len(row) > 1 and row[1].isdecimal() for row in rows):
            raise DataError(f"{file}: is no list of classes; wanted lines such as: n02119789 1 kit_fox")
        return {row[1]: row[0] for row in rows}
    try:
        (synsets,) = [each for each in matlab.matrices(file.read_bytes()) if bytes(each[2][1]) == b"synsets"]
        return {
            f"{matlab.number_of(each['ILSVRC2012_ID']):.0f}": matlab.text_of(each["WNID"])
            for each in matlab.structs(synsets)
        }
    except (*matlab.DAMAGED, OSError) as error:
        raise DataError(f"{file}: is not the development kit's list of synsets ({type(error).__name__})") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text ({error})") from None
