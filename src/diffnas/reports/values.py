"""Reads what files of a run folder hold, whoever wrote them: any value may be missing, damaged, or anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffnas.runtime.files import is_file, read_bytes
from diffnas.runtime.terminal import printable

LONGEST = 300
LARGEST_JSON = 32 * 2**20
LARGEST_METRICS, LONGEST_ROW = 64 * 2**20, 4 * 2**20  # bytes
MOST_ROWS, LAST_EPOCH = 2000, 10**7
LARGEST_NUMBER = 1e100  # so that sums and ratios stay finite


def text(value: Any, longest: int = LONGEST) -> str:
    """`value` as one line in which every character prints; shortened beyond `longest` characters."""
    if value is None:
        return ""
    if not isinstance(value, str):
        value = f"{value:.6g}" if isinstance(value, float) else json.dumps(value, default=str)
    line = printable(value[: longest + 1])
    return line if len(value) <= longest else f"{line[:longest]}…"


def number(value: Any) -> float | None:
    """`value` as a float, None for what is no number, not finite or beyond `LARGEST_NUMBER`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        plain = float(value)
    except OverflowError:
        return None
    return plain if abs(plain) <= LARGEST_NUMBER else None  # which no NaN is


def whole(value: Any, most: int = LAST_EPOCH) -> int | None:
    """`value` as a whole number from 0 to `most`, None for anything else."""
    return value if type(value) is int and 0 <= value <= most else None


def mapping(value: Any) -> dict[str, Any]:
    """`value` where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """`value` where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def entries(folder: Path, problems: list[str]) -> list[Path]:
    """What is in `folder`, by name; nothing where there is no folder or it cannot be read, which goes to `problems`."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{folder.name} cannot be read: {error.strerror}")
        return []


def read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    """The mapping in the JSON file at `path`, empty where there is none; what is wrong with it goes to `problems`."""
    if not is_file(path):
        return {}
    try:
        content = read_bytes(path, LARGEST_JSON + 1)
        value = json.loads(content.decode("utf-8")) if len(content) <= LARGEST_JSON else None
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problems.append(f"{path.name} is damaged, or too large, and is left out")
        return {}
    return value


@dataclass
class Metrics:
    """The rows of metrics.jsonl by epoch, at most some `MOST_ROWS` of them, with the seconds of all epochs together."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    epochs: int = 0
    seconds: float = 0.0

    def column(self, key: str) -> list[tuple[int, float]]:
        """(epoch from 1 on, value) of the rows that have a number at `key`."""
        pairs = [(row["epoch"] + 1, number(row.get(key))) for row in self.rows]
        return [(epoch, value) for epoch, value in pairs if value is not None]


def read_metrics(path: Path, problems: list[str]) -> Metrics:
    """The rows at `path`; a row written twice counts once, damaged ones are counted in `problems` and left out."""
    metrics, by_epoch, seconds = Metrics(), dict[int, dict[str, Any]](), dict[int, float]()
    damaged = 0
    for row in _rows(path, problems):
        epoch = whole(row.get("epoch")) if row is not None else None
        if row is None or epoch is None:
            damaged += 1
            continue
        by_epoch[epoch], seconds[epoch] = row, number(row.get("seconds")) or 0.0
        if len(by_epoch) > 2 * MOST_ROWS:
            by_epoch = _thinned(by_epoch)
    if damaged:
        problems.append(f"{path.name} has {damaged:,} damaged or unfinished rows, which are left out")
    if len(by_epoch) > MOST_ROWS:
        by_epoch = _thinned(by_epoch)
    if len(by_epoch) < len(seconds):
        problems.append(f"{path.name} has {len(seconds):,} rows; {len(by_epoch):,} of them are drawn")
    metrics.rows = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    metrics.epochs = max(by_epoch, default=-1) + 1
    metrics.seconds = sum(seconds.values())
    return metrics


def _thinned(rows: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Every other row, and the last."""
    epochs = sorted(rows)
    return {epoch: rows[epoch] for epoch in [*epochs[:-1:2], epochs[-1]]}


def _rows(path: Path, problems: list[str]) -> Iterator[dict[str, Any] | None]:
    """Each row in turn, None for a damaged one, as far as the limits on their size go."""
    if not is_file(path):
        return
    done = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_ROW):
                done += len(line)
                if done > LARGEST_METRICS:
                    problems.append(f"{path.name} is larger than {LARGEST_METRICS >> 20} MiB; its beginning was read")
                    return
                if line.strip():
                    yield _row(line)
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
