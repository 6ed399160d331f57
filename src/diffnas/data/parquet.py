"""Encoded images and their labels in parquet files, or in tables of the Hugging Face hub, which have the same columns.

Read by pyarrow and Pillow alone, so that files at hand need nothing else.  The class names are in the metadata that the hub's
files carry beside their columns.
"""

from __future__ import annotations

import io
import json
import reprlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffnas.data import Split
from diffnas.data.pixels import IMAGE_ERRORS, rgb_image
from diffnas.errors import DataError

SIDE = 32
IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("fine_label", "label")
FOLDERS = ("", "data", "plain_text", "cifar100")

Tables = Sequence[tuple[str, Any]]
"""(where it is from, pyarrow table) of each part of a split."""
Names = Callable[[str, tuple[str, ...] | None], tuple[str, ...]]
"""(where, the class names that are stated there, if any) -> the class names, or a `DataError`."""


def find_parquet(path: Path) -> tuple[list[Path], list[Path]] | None:
    """The parquet files of train and test, or None where there are none; `DataError` when one of the two is missing."""
    for folder in (path / name for name in FOLDERS):
        files = sorted(file for file in folder.glob("*.parquet") if file.is_file())  # a pipe would be waited for
        splits = []
        for split, other in (("train", "test"), ("test", "train")):
            named = [file for file in files if split in file.name and other not in file.name]
            splits.append([file for file in files if file.name.startswith(f"{split}-")] or named)
        if any(splits) and not all(splits):
            raise DataError(f"data.path {folder}: has {files[0].name} but lacks the parquet files of train or of test")
        if all(splits):
            return splits[0], splits[1]
    return None


def read_parquet(files: Sequence[Path], names: Names) -> Split:
    """The split in parquet files."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow.parquet import read_table  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(f"parquet files need: pip install pyarrow, the library that reads them ({error})") from None
    tables = []
    for file in files:
        try:
            tables.append((str(file), read_table(file)))
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"{file}: is not a readable parquet file ({error})") from None
    return split_of(tables, names)


def split_of(tables: Tables, names: Names) -> Split:
    """The split in Arrow tables: classes and labels checked, images still encoded."""
    labels: list[int] = []
    encoded = []
    for where, table in tables:
        image, label = (column_of(table.column_names, each, where) for each in (IMAGE_COLUMNS, LABEL_COLUMNS))
        classes = names(where, stated_names(table.schema, label))
        numbers = table.column(label).to_pylist()
        check_labels(numbers, len(classes), where)
        labels += numbers
        encoded.append((where, table.column(image)))
    return Split(torch.tensor(labels, dtype=torch.int64), classes, partial(_decode, encoded))


def check_labels(labels: Sequence[object], classes: int, where: str) -> None:
    """Raises `DataError` for the first label that is no class."""
    for row, label in enumerate(labels):
        if not isinstance(label, (int, np.integer)) or not 0 <= label < classes:
            raise DataError(f"{where} row {row}: label {reprlib.repr(label)} is not one of 0 to {classes - 1}")


def column_of(columns: Sequence[str], names: Sequence[str], where: str) -> str:
    """Returns the first of `names` that a table has among its `columns`; raises `DataError` where there is none."""
    for name in names:
        if name in columns:
            return name
    raise DataError(f"{where}: has no column {' or '.join(names)}; its columns are {', '.join(columns)}")


def stated_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """The class names that the hub's metadata give `column`, None where there are none."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    sound = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if sound else None


def _decode(tables: Tables, count: int) -> Tensor:
    """The first `count` encoded images as uint8 [count, 3, 32, 32]."""
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    start = 0
    for where, column in tables:
        encoded = [content for chunk in column.slice(0, count - start).chunks for content in contents_of(chunk, where)]
        for row, content in enumerate(encoded):
            pixels[start + row] = _decode_row(content, f"{where} row {row}")
        start += len(encoded)
    return torch.from_numpy(pixels)


def contents_of(chunk: Any, where: str) -> list[bytes | None]:
    """The encoded images of a part of a column: binary, or structs with `bytes`."""
    from pyarrow import types

    values = chunk
    if types.is_struct(chunk.type) and chunk.type.get_field_index("bytes") >= 0:
        values = chunk.flatten()[chunk.type.get_field_index("bytes")]
    if not (types.is_binary(values.type) or types.is_large_binary(values.type) or types.is_null(values.type)):
        raise DataError(f"{where}: its image column holds no encoded images ({chunk.type})")
    contents: list[bytes | None] = values.to_pylist()
    return contents


def _decode_row(content: bytes | None, where: str) -> np.ndarray:
    """Decodes one image to uint8 [3, 32, 32]; grey and transparent ones become RGB."""
    if content is None:
        raise DataError(f"{where}: holds no image")
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.size  # known before the pixels are decoded, so a huge image costs nothing
            pixels = np.asarray(rgb_image(image)) if size == (SIDE, SIDE) else None
    except IMAGE_ERRORS as error:
        raise DataError(f"{where}: the image cannot be decoded ({type(error).__name__})") from None
    if pixels is None:
        raise DataError(f"{where}: the image is {size[0]} x {size[1]}, not {SIDE} x {SIDE}")
    return pixels.transpose(2, 0, 1)
