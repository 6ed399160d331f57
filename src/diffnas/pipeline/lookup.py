"""Cells of NAS-Bench-201 looked up, in words and as data; tables of accuracies and latencies in files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffnas.core.genotype import Genotype
from diffnas.errors import DataError, GenotypeError
from diffnas.runtime.files import is_file
from diffnas.spaces.nasbench201 import table as nb

LATENCY = "latency_ms_"
TABLE = tuple(f"{d}_{m}_{s}" for d in nb.DATA for m in nb.MEASURES for s in ("mean", "std", "seeds"))
"""The columns of a table in a file, besides `index` and `arch_str`."""

Columns = dict[str, NDArray[np.float64]]


def lookup(cell: str | int | Genotype, table: Path | None = None) -> nb.Entry:
    """Looks a cell up in the packaged table, or in the csv or parquet file `table`.

    Raises `GenotypeError` for a cell of another space, `DataError` where the file is none or has nothing on the cell.
    """
    if table is None:
        return nb.lookup(cell)
    entry = nb.lookup(cell, read_table(table))
    if all(getattr(result, measure) is None for result in entry.results.values() for measure in nb.MEASURES):
        raise DataError(f"{table}: has nothing on cell {entry.index}, {entry.text}")
    return entry


def read_table(path: Path) -> nb.Table:
    """A table in a csv or parquet file, as `build_table` writes it; raises `DataError` in one line."""
    columns = read_columns(path, lambda name: name in TABLE)
    if not any(name.endswith("_mean") for name in columns):
        raise DataError(f"{path}: has no column such as cifar10_test_200_mean")
    return nb.Table(columns, source_of(path))


def source_of(path: Path | None) -> str:
    """Returns where the accuracies of a table come from: a file, or the packaged table."""
    return nb.SOURCE if path is None else f"{path}: means over the seeds in it"


def latencies(path: Path, index: int) -> dict[str, dict[str, Any]]:
    """By device: the latency of a cell in milliseconds, and its rank among the cells known (1: the fastest)."""
    columns = read_columns(path, lambda name: name.startswith(LATENCY))
    if not columns:
        raise DataError(f"{path}: has no column named {LATENCY}DEVICE")
    rows = {}
    for name, column in columns.items():
        value, known = float(column[index]), int(np.count_nonzero(~np.isnan(column)))
        if not np.isnan(value):
            rank = int(np.count_nonzero(column < value)) + 1
            rows[name.removeprefix(LATENCY)] = {"ms": value, "rank": rank, "of": known}
    return rows


def describe(entry: nb.Entry, devices: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[str]:
    """The lines that `diffnas lookup` prints."""
    yield f"cell {entry.index} of {nb.CELLS}: {entry.text}"
    yield ""
    rows = [["", *entry.results]]
    for measure, title in nb.MEASURES.items():
        measured = [getattr(result, measure) for result in entry.results.values()]
        if any(measured):
            rows.append([title, *(f"{m.mean:.2f} %" if m else "-" for m in measured)])
            rows.append(["  rank", *(f"{m.rank:,} of {m.of:,}" if m else "-" for m in measured)])
            rows.append(["  below the best", *(f"{m.gap:.2f}" if m else "-" for m in measured)])
        if any(m and m.seeds for m in measured):
            rows.append(["  seeds", *(f"{m.seeds}" if m and m.seeds else "-" for m in measured)])
            rows.append(["  deviation", *("-" if m is None or m.std is None else f"{m.std:.2f}" for m in measured)])
    rows.append(["parameters", *(f"{result.params:,}" for result in entry.results.values())])
    rows.append(["multiply-adds", *(f"{result.macs / 1e6:.1f}M" for result in entry.results.values())])
    yield from aligned(rows)
    yield ""
    same = nb.same_function(entry.index)
    shown = ", ".join(map(str, same[:8])) + (", ..." if len(same) > 8 else "")
    yield f"cells that compute the same: {f'{len(same)} others, {shown}' if same else 'none other'}"
    yield f"accuracies: {entry.source}"
    if devices is not None:
        yield ""
        timed = [
            [name, f"{measured['ms']:.3f} ms", f"{measured['rank']:,} of {measured['of']:,}"]
            for name, measured in devices.items()
        ]
        yield from aligned([["device", "latency", "rank (1: fastest)"], *timed])


def as_json(entry: nb.Entry, devices: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Returns the same as plain data."""
    plain = {**asdict(entry), "same_function": nb.same_function(entry.index)}
    return plain if devices is None else {**plain, "latency": dict(devices)}


def aligned(rows: list[list[str]]) -> Iterator[str]:
    """The lines of a table, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join([f"{first:<{widths[0]}}", *cells]).rstrip()


# -- columns in files


def read_columns(path: Path, wanted: Callable[[str], bool]) -> Columns:
    """The columns whose name is `wanted`, [15625] by official index, NaN where the file has nothing.

    A csv or parquet file with a column `index` or `arch_str`, or both; raises `DataError` in one line.
    """
    raw = read_raw(path)
    rows = _rows(path, raw)
    columns = {}
    for name in filter(wanted, raw):
        column = np.full(nb.CELLS, np.nan)
        column[rows] = [_number(path, name, row, value) for row, value in enumerate(raw[name], 1)]
        columns[name] = column
    return columns


def read_raw(path: Path) -> dict[str, list[Any]]:
    """The columns of a csv file (as text) or a parquet file, as they are."""
    if not is_file(path):
        raise DataError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}")
    return _parquet(path) if path.suffix == ".parquet" else _csv(path)


def _csv(path: Path) -> dict[str, list[Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            rows = [row for row in reader if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no csv file ({error})") from None
    ragged = next((k for k, row in enumerate(rows, 1) if len(row) != len(names)), None)
    if ragged is not None:
        raise DataError(f"{path} row {ragged}: has {len(rows[ragged - 1])} values for {len(names)} columns")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(f"{path}: reading parquet needs pyarrow (pip install pyarrow); or write it as csv") from None
    try:
        columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: is no whole parquet file ({str(error)[:100]})") from None
    return columns


def _rows(path: Path, raw: Mapping[str, list[Any]]) -> list[int]:
    """The official index of each row."""
    if "index" not in raw and "arch_str" not in raw:
        raise DataError(f"{path}: needs a column index or arch_str; it has {', '.join(raw)[:150] or 'none'}")
    rows: list[int] = []
    for row, text in enumerate(raw.get("arch_str", raw.get("index", [])), 1):
        try:
            stated = int(raw["index"][row - 1]) if "index" in raw else None
            index = nb.index_of(nb.parse_cell(str(text))) if "arch_str" in raw else stated
        except (GenotypeError, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"{path} row {row}: {str(error).removeprefix('genotype: ')}") from None
        if index is None or not 0 <= index < nb.CELLS:
            raise DataError(f"{path} row {row}: index {index} is not one of 0 to {nb.CELLS - 1}")
        if stated not in (None, index):
            raise DataError(f"{path} row {row}: index {stated} is another cell; {text} has the official index {index}")
        rows.append(index)
    if len(set(rows)) < len(rows):
        raise DataError(f"{path}: lists a cell twice")
    return rows


def _number(path: Path, name: str, row: int, value: Any) -> float:
    try:
        number = float("nan") if value in ("", None) else float(value)
    except (TypeError, ValueError):
        number = float("inf")
    if np.isinf(number):
        raise DataError(f"{path} row {row}: {name} is {value!r:.40}, not a number")
    return number
