"""Rows of JSON, one per epoch, in a file that is only added to; what a resumed run drops of it is kept beside it."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffnas.errors import RunError
from diffnas.runtime.files import add_text, read_bytes, write_text

log = logging.getLogger("diffnas")
NUMBERS = re.compile(r"\[\n\s*((?:[-+.\deE]+,\n\s*)*[-+.\deE]+)\n\s*\]")
"""A list of numbers over several lines; within strings JSON has no line ends."""


def plain_json(value: Any, indent: int | None = None) -> str:
    """Formats `value` as JSON, with null for numbers that are not finite; with `indent`, lists of numbers on one line."""
    text = json.dumps(_finite(value), indent=indent, allow_nan=False)
    return NUMBERS.sub(lambda numbers: f"[{' '.join(numbers[1].split())}]", text) if indent else text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the undamaged rows at `path`; none if there is no file.

    Raises `RunError` where it cannot be read at all.
    """
    return [row for row in map(_row, _lines(path)) if row is not None]


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds `row`, and waits until it is on the disk."""
    add_text(path, plain_json(row) + "\n")


def keep_rows(path: Path, epoch: int) -> None:
    """Keeps the rows before `epoch`; others, which a resumed run writes again, and damaged ones go to NAME.dropped.jsonl.

    Warns of rows that were damaged and of epochs that have none.
    """
    kept: dict[int, str] = {}
    dropped, damaged = [], 0
    for line in _lines(path):
        row = _row(line)
        damaged += row is None
        if row is not None and 0 <= row["epoch"] < epoch and row["epoch"] not in kept:
            kept[row["epoch"]] = line
        else:
            dropped.append(line)
    aside = path.with_name(f"{path.stem}.dropped.jsonl")
    if dropped:
        add_text(aside, "".join(f"{line}\n" for line in dropped))
    text = "".join(f"{line}\n" for line in kept.values())
    if path.exists() and text != path.read_text(encoding="utf-8"):
        write_text(path, text)
    if damaged:
        log.warning("%s: damaged rows: %d; they are left out here and kept in %s", path, damaged, aside.name)
    missing = [number + 1 for number in range(epoch) if number not in kept]
    if missing:
        log.warning("%s: has no row of epoch %s; the run itself does not need them", path, _listed(missing))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in read_bytes(path).decode("utf-8").split("\n") if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read: {error.strerror}; see to it, or move it away to go on without"
        ) from None
    except UnicodeDecodeError:
        raise RunError(f"{path}: damaged: not a text file (UTF-8); move it away to go on without") from None


def _row(line: str) -> dict[str, Any] | None:
    """Parses the row in a line; None if it is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("epoch")) is int else None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _listed(numbers: Sequence[int]) -> str:
    """`1, 2, 3`, and how many more there are where they are many."""
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return ", ".join(map(str, numbers[:10])) + more
