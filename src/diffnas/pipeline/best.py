"""The best cells of NAS-Bench-201 by a table: what `diffnas lookup --best` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffnas.errors import UserError
from diffnas.pipeline.lookup import aligned, read_table
from diffnas.spaces.nasbench201 import table as nb

CHOICES = {"test": ("test_200", "test_12"), "valid": ("valid_200", "valid_12")}
"""The measures that a short name may mean, the first that the table has."""


@dataclass(frozen=True)
class Ranked:
    """A cell and its accuracy in percent by `measure` on `data`; equals share the better rank."""

    rank: int
    index: int
    text: str
    data: str
    measure: str
    accuracy: float
    params: int
    macs: int


def best_cells(data: str, count: int, by: str, path: Path | None) -> tuple[Ranked, ...]:
    """The `count` cells with the highest accuracy, the best first; of equals the lower index first."""
    table = nb.packaged() if path is None else read_table(path)
    measure = _measure(table, data, by)
    if not 1 <= count <= nb.CELLS:
        raise UserError(f"--best {count}: must be 1 to {nb.CELLS}")
    means = table.mean(data, measure)
    known = int(np.count_nonzero(~np.isnan(means)))
    order = np.argsort(-means, kind="stable")[: min(count, known)]  # NaN comes last
    return tuple(_ranked(int(index), data, measure, means) for index in order)


def _ranked(index: int, data: str, measure: str, means: Any) -> Ranked:
    ops, accuracy = nb.ops_at(index), float(means[index])
    rank = int(np.count_nonzero(means > accuracy)) + 1
    return Ranked(rank, index, nb.format_cell(ops), data, measure, accuracy, *nb.size(ops, data))


def _measure(table: nb.Table, data: str, by: str) -> str:
    if data not in nb.DATA:
        raise UserError(f"--data {data}: the table knows {', '.join(nb.DATA)}")
    if by not in (*CHOICES, *nb.MEASURES):
        raise UserError(f"--by {by}: must be one of {', '.join((*CHOICES, *nb.MEASURES))}")
    wanted = CHOICES.get(by, (by,))
    found = [measure for measure in wanted if f"{data}_{measure}_mean" in table.columns]
    if not found:
        known = [measure for measure in nb.MEASURES if f"{data}_{measure}_mean" in table.columns]
        raise UserError(
            f"--by {by}: the table has no {' or '.join(wanted)} on {data}; it has {', '.join(known) or 'none'}"
        )
    return found[0]


def describe_best(ranked: Sequence[Ranked], source: str) -> Iterator[str]:
    """The lines that `diffnas lookup --best` prints."""
    first = ranked[0]
    yield f"{nb.MEASURES[first.measure]} on {first.data}"
    yield ""
    rows = [["rank", "accuracy", "index", "parameters", "multiply-adds"]]
    for cell in ranked:
        size = [f"{cell.params:,}", f"{cell.macs / 1e6:.1f}M"]
        rows.append([f"{cell.rank}", f"{cell.accuracy:.2f} %", f"{cell.index}", *size])
    texts = ["cell", *(cell.text for cell in ranked)]
    yield from (f"{line}  {text}" for line, text in zip(aligned(rows), texts, strict=True))
    yield ""
    yield f"accuracies: {source}"


def best_as_json(ranked: Sequence[Ranked], source: str) -> dict[str, Any]:
    """Returns the same as plain data."""
    cells = [{key: value for key, value in asdict(cell).items() if key not in ("data", "measure")} for cell in ranked]
    return {"data": ranked[0].data, "measure": ranked[0].measure, "source": source, "cells": cells}
