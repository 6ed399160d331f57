"""Building tables of NAS-Bench-201: from the official per-cell files as csv, and the one that is packaged."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from diffnas.data.nasbench201 import list_cells, read_cell
from diffnas.errors import DataError
from diffnas.pipeline.lookup import TABLE, read_raw
from diffnas.runtime.console import log, progress
from diffnas.runtime.files import is_folder, write_bytes, write_text
from diffnas.spaces.nasbench201 import table as nb


def build_table(folder: Path, out: Path) -> tuple[int, int]:
    """Writes a table of the official per-cell files in `folder` as csv to `out`: (cells in it, files left out).

    One file is in memory at a time.  A file that cannot be used is said in one warning and left out.  Raises `DataError`
    where there is nothing to read, or none of it can be used; nothing is written then.
    """
    if is_folder(out):
        raise DataError(f"{out}: is a folder; name a file for the table")
    files = list_cells(folder)
    rows: list[list[Any]] = []
    with progress("reading", len(files), every=10) as say:
        for done, (index, file) in enumerate(files, 1):
            try:
                rows.append(_row(index, file))
            except DataError as error:
                log.warning("%s", error)
            say(done, lambda: f"{len(rows):,} cells read")
    if not rows:
        raise DataError(f"{folder}: none of the {len(files):,} files can be used; nothing was written")
    lines = [["index", "arch_str", *TABLE], *rows]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(",".join(map(str, line)) + "\n" for line in lines))
    return len(rows), len(files) - len(rows)


def _row(index: int, file: Path) -> list[Any]:
    """Returns the row of one cell: per data set and measure the mean, the sample's deviation, and the number of seeds."""
    cell = read_cell(index, file)
    if cell.text != nb.format_cell(nb.ops_at(index)):
        raise DataError(f"{file}: holds {cell.text!r:.100}, which is not the official cell {index}")
    row: list[Any] = [index, cell.text]
    for data in nb.DATA:
        for measure in nb.MEASURES:
            values = cell.accuracies.get(f"{data}_{measure}", ())
            deviation = f"{statistics.stdev(values):.6f}" if len(values) > 1 else ""
            row += [f"{statistics.fmean(values):.6f}", deviation, len(values)] if values else ["", "", ""]
    return row


PACKED = {
    (data, measure): f"{data.replace('-', '_')}_{column}"
    for measure, column in (("test_200", "test_acc_200_mean"), ("valid_12", "valid_acc_12"))
    for data in nb.DATA
}
"""By data set and measure, the column that `pack_table` reads."""


def pack_table(source: Path, out: Path) -> None:
    """Writes a `table.npz` like the packaged one, from a csv or parquet file of every cell.

    Its columns are `index`, `arch_str` and those of `PACKED`; the order of the cells is taken from it too.
    """
    raw = read_raw(source)
    lacking = [name for name in ("index", "arch_str", *PACKED.values()) if name not in raw]
    if lacking:
        raise DataError(f"{source}: lacks the columns {', '.join(lacking)}")
    order = sorted(range(len(raw["index"])), key=lambda row: int(raw["index"][row]))
    means = {key: [float(raw[name][row]) for row in order] for key, name in PACKED.items()}
    write_bytes(out, nb.pack([raw["arch_str"][row] for row in order], means))
