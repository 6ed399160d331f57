"""Tables of what ops cost, measured elsewhere: a latency per op, or per op of every edge, as CSV or JSON.

CSV has a head line `op,cost`, or `kind,edge,op,cost`; JSON is an object `{op: cost}`, or a list of objects with those keys.
`kind` and `edge` (counted from 0) may be left empty: such a row holds wherever no other names the place more closely.  A
cost is what the op adds to the whole network, all cells of its kind together.  Nothing read is executed; torch is not loaded.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffnas.core.cell import Cell
from diffnas.errors import RecipeError
from diffnas.runtime.files import read_bytes

LARGEST = 2**22  # bytes; 20 blocks of 4 ops are 2,000
COLUMNS = ("kind", "edge", "op", "cost")
Place = tuple[str | None, int | None, str]
"""(kind, edge, op); None holds for all."""


@dataclass(frozen=True)
class CostTable:
    """Costs by place."""

    costs: Mapping[Place, float]

    def cost(self, kind: str, edge: int, op: str) -> float | None:
        """Returns the cost in the most specific row for this place, or None."""
        places: tuple[Place, ...] = ((kind, edge, op), (kind, None, op), (None, edge, op), (None, None, op))
        return next((self.costs[place] for place in places if place in self.costs), None)

    def missing(self, cells: Mapping[str, Cell]) -> list[str]:
        """Returns the ops that may be derived on some edge but have no cost there."""
        return sorted(
            {
                op
                for kind, cell in cells.items()
                for e in range(len(cell.edges))
                for op in (cell.ops[o] for o in cell.eligible(e))
                if self.cost(kind, e, op) is None
            }
        )

    def rows(self, cells: Mapping[str, Cell]) -> dict[str, list[list[float]]]:
        """[E, O] per kind; 0 where there is no cost."""
        return {
            kind: [[self.cost(kind, e, op) or 0.0 for op in cell.ops] for e in range(len(cell.edges))]
            for kind, cell in cells.items()
        }


def read_cost_table(path: str | Path) -> CostTable:
    """The table in a file that ends in .csv or .json; raises `RecipeError` with one line per mistake."""
    path = Path(path)
    text = _text(path)
    try:
        rows = list(_json_rows(text) if path.suffix.lower() == ".json" else _csv_rows(text))
    except (ValueError, csv.Error, RecursionError) as error:
        raise RecipeError(f"{path}: is not a table of costs: {error}") from None
    costs: dict[Place, float] = {}
    mistakes = []
    for where, row in rows:
        try:
            place, cost = _place(row), _cost(row.get("cost"))
            if place in costs:
                raise ValueError("gives a cost twice")
            costs[place] = cost
        except ValueError as error:
            mistakes.append(f"{path}, {where}: {error}")
    if not rows:
        mistakes.append(f"{path}: holds no costs")
    if mistakes:
        raise RecipeError(*mistakes)
    return CostTable(costs)


def _text(path: Path) -> str:
    try:
        content = read_bytes(path, LARGEST + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path!s:.200}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > LARGEST:
        raise RecipeError(f"{path}: larger than {LARGEST // 2**20} MiB, so not a table of costs")
    if path.suffix.lower() not in (".csv", ".json"):
        raise RecipeError(f"{path}: its name must end in .csv or .json, which says how to read it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file (UTF-8)") from None


def _csv_rows(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row) for every line after the head."""
    reader = csv.DictReader(io.StringIO(text), strict=True)
    head = reader.fieldnames or []
    if not {"op", "cost"} <= set(head) <= set(COLUMNS) or len(set(head)) < len(head):
        raise ValueError(
            f"its first line must be {','.join(COLUMNS[2:])} or {','.join(COLUMNS)}; got {','.join(head):.80}"
        )
    for row in reader:
        extra: Any = row.pop(None, None)
        yield f"line {reader.line_num}", {**row, "": extra} if extra else row


def _json_rows(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row) for every entry."""
    data = json.loads(text)
    if isinstance(data, dict):
        yield from ((f"op {op:.60}", {"op": op, "cost": cost}) for op, cost in data.items())
    elif isinstance(data, list):
        for number, row in enumerate(data):
            yield f"entry {number}", row if isinstance(row, dict) else {"": row}
    else:
        raise ValueError("must hold an object of costs by op, or a list of objects")


def _place(row: Mapping[str, Any]) -> Place:
    strangers = [str(key) for key in row if key not in COLUMNS]
    if strangers:
        raise ValueError(f"must hold {', '.join(COLUMNS)} and nothing else")
    kind, edge, op = (None if row.get(key) in ("", None) else row[key] for key in COLUMNS[:3])
    if not isinstance(op, str):
        raise ValueError("op must be the name of an op")
    if kind is not None and not isinstance(kind, str):
        raise ValueError(f"kind must be a kind of cell; got {kind!r:.40}")
    if isinstance(edge, str) and edge.strip().isascii() and edge.strip().isdecimal() and len(edge) < 9:
        edge = int(edge)
    if edge is not None and (not isinstance(edge, int) or isinstance(edge, bool) or edge < 0):
        raise ValueError(f"edge must be a whole number of at least 0; got {edge!r:.40}")
    return (kind.strip() if kind else None, edge, op.strip())


def _cost(value: Any) -> float:
    try:
        cost = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        cost = math.nan
    if not math.isfinite(cost) or cost < 0:
        raise ValueError(f"cost must be a number of at least 0; got {value!r:.40}")
    return cost
