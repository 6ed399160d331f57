"""Encoded images in arrow or parquet files that stay on the disk: labels now, an image when it is asked for.

Files are mapped into memory, so any row of an arrow file is at hand.  A row of a parquet file costs the encoded images of its
row group, which are read as one table and not copied one by one: a fraction of what decoding the image takes.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from diffnas.data import Row, Split
from diffnas.data.layout import roles
from diffnas.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, check_labels, column_of, contents_of, stated_names
from diffnas.errors import DataError

SUFFIXES = (".arrow", ".parquet")
GROUPS = 4  # row groups of a parquet file that are kept


def find_tables(path: Path) -> dict[str, list[Path]]:
    """The arrow or parquet files of `train`, `valid` and `test` in a folder, its folder `data`, or folders of splits."""
    found: dict[str, list[Path]] = {}
    folders = [path, path / "data", *(each for each in sorted(path.iterdir()) if each.is_dir() and roles(each.name))]
    for folder in filter(Path.is_dir, folders):
        for file in sorted(folder.iterdir()):
            if file.suffix in SUFFIXES and file.is_file():
                served = _role(folder.name) if folder.parent == path and roles(folder.name) else _role(file.name)
                found.setdefault(served, []).append(file)
    found.pop("", None)
    return found


def _role(name: str) -> str:
    """`train`, `valid` or `test`, where a name speaks of one of them; else an empty text."""
    words = [("train", "train"), ("val", "valid"), ("test", "test")]
    named = [role for word, role in words if word in name.lower()]
    return named[0] if len(named) == 1 else ""


def list_tables(files: Sequence[Path | str], names: tuple[str, ...] | None = None) -> Split:
    """The split in `files`, where each image stays; classes are `names`, or those that the files state, or numbers."""
    tables = [Table(str(file)) for file in files]
    labels = [table.labels() for table in tables]
    numbers = [label for part in labels for label in part]
    known = names or next(filter(None, (table.names for table in tables)), None)
    if known is None:
        known = tuple(map(str, range(1 + max((number for number in numbers if isinstance(number, int)), default=0))))
    for table, part in zip(tables, labels, strict=True):
        check_labels(part, len(known), table.file)
    places = [Row(table.file, row) for table, part in zip(tables, labels, strict=True) for row in range(len(part))]
    return Split(torch.tensor(numbers, dtype=torch.int64), known, places=places)


class Table:
    """One arrow or parquet file; raises `DataError` naming it where it cannot be read."""

    def __init__(self, file: str) -> None:
        try:
            import pyarrow  # type: ignore[import-untyped]
            from pyarrow import parquet
        except ImportError as error:
            raise DataError(f"{file}: needs: pip install pyarrow, the library that reads it ({error})") from None
        self.file = file
        try:
            if file.endswith(".parquet"):
                self.parquet = parquet.ParquetFile(file, memory_map=True)
                schema = self.parquet.schema_arrow
                sizes = [self.parquet.metadata.row_group(k).num_rows for k in range(self.parquet.num_row_groups)]
            else:
                self.parquet, self.arrow = None, _mapped(file)
                schema = self.arrow.schema
                sizes = [len(chunk) for chunk in self.arrow.column(0).chunks]
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"{file}: is not a readable table ({error})") from None
        self.image, self.label = (column_of(schema.names, each, file) for each in (IMAGE_COLUMNS, LABEL_COLUMNS))
        self.names = stated_names(schema, self.label)
        self.starts = [0, *accumulate(sizes)]
        self.leaf = _leaf(schema, self.image)
        self.groups: dict[int, Any] = {}

    def labels(self) -> list[Any]:
        """The label of every row."""
        table = self.arrow if self.parquet is None else self.parquet.read(columns=[self.label])
        labels: list[Any] = table.column(self.label).to_pylist()
        return labels

    def content(self, row: int) -> bytes:
        """The encoded image in a row; raises `DataError` where there is none."""
        group = bisect.bisect_right(self.starts, row) - 1
        images = self.arrow.column(self.image).chunk(group) if self.parquet is None else self._group(group)
        (content,) = contents_of(images.slice(row - self.starts[group], 1), self.file)
        if content is None:
            raise DataError(f"{self.file} row {row}: holds no image")
        return content

    def _group(self, group: int) -> Any:
        """The encoded images of one row group, an Arrow array; the last few are kept."""
        if group not in self.groups:
            while len(self.groups) >= GROUPS:
                del self.groups[next(iter(self.groups))]
            column = self.parquet.read_row_group(group, columns=[self.leaf], use_threads=False).column(self.image)
            self.groups[group] = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        return self.groups[group]


def _leaf(schema: Any, image: str) -> str:
    """The part of an image's column that is read: the encoded image alone, where its file name stands beside it."""
    from pyarrow import types

    kind = schema.field(image).type
    return f"{image}.bytes" if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else image


def _mapped(file: str) -> Any:
    """The arrow table in a file, in either of its two forms, mapped into memory."""
    from pyarrow import ArrowInvalid, ipc, memory_map

    source = memory_map(file)
    try:
        return ipc.open_file(source).read_all()
    except ArrowInvalid:
        source.seek(0)
        return ipc.open_stream(source).read_all()
