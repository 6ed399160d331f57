"""Reads what files of a run folder hold, whoever wrote them: any value may be missing, damaged, or anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from diffnas.runtime.files import is_file, read_bytes
from diffnas.runtime.terminal import printable

LONGEST = 300
LARGEST_JSON = 32 * 2**20
LARGEST_METRICS, LONGEST_ROW = 64 * 2**20, 4 * 2**20  # bytes
LEAST_COST = 100  # bytes that a row takes as long as, however short
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


class MetricsFile:
    """Reads a file of metrics that may still grow: at each call only what was added since the one before.

    A file that was written anew, as a resumed run does, is read from its beginning.  Some `most` rows are kept, evenly spread,
    the last among them.  A call reads about `at_once` bytes; `behind` tells whether there are more.
    """

    def __init__(self, path: Path, most: int = MOST_ROWS, at_once: int = LARGEST_METRICS) -> None:
        self.path, self.most, self.at_once, self.behind = path, most, at_once, False
        self._forget()

    def _forget(self) -> None:
        self._rows, self._seconds = dict[int, dict[str, Any]](), dict[int, float]()
        self._done = self._damaged = 0
        self._last, self._inode = b"", -1

    def read(self, problems: list[str]) -> Metrics:
        """The rows so far; a row written twice counts once, damaged ones are counted in `problems` and left out."""
        unfinished = 0
        try:
            if is_file(self.path):
                unfinished = self._read_on(problems)
            else:
                self._forget()
        except OSError as error:
            problems.append(f"{self.path.name} cannot be read: {error.strerror}")
        damaged = self._damaged + unfinished
        if damaged:
            problems.append(f"{self.path.name} has {damaged:,} damaged or unfinished rows, which are left out")
        rows = _thinned(self._rows) if len(self._rows) > self.most else self._rows
        if len(rows) < len(self._seconds) and self.most == MOST_ROWS:
            problems.append(f"{self.path.name} has {len(self._seconds):,} rows; {len(rows):,} of them are drawn")
        last = max(self._seconds, default=-1)
        return Metrics([rows[epoch] for epoch in sorted(rows)], last + 1, sum(self._seconds.values()))

    def _read_on(self, problems: list[str]) -> int:
        """Reads what was added; returns 1 where the end is the beginning of a row, else 0."""
        self.behind = False
        with self.path.open("rb") as file:
            if not self._goes_on(file):
                self._forget()
            self._inode = os.fstat(file.fileno()).st_ino
            file.seek(self._done)
            return self._read_rows(file, problems)

    def _read_rows(self, file: BinaryIO, problems: list[str]) -> int:
        """Reads rows from where `file` stands, as `_read_on`."""
        cost = 0
        while cost < self.at_once and (line := file.readline(LONGEST_ROW)):
            cost += max(len(line), LEAST_COST)
            if self._done + len(line) > LARGEST_METRICS:
                problems.append(f"{self.path.name} is larger than {LARGEST_METRICS >> 20} MiB; its beginning was read")
                return 0
            row = _row(line) if line.strip() else None
            if not line.endswith(b"\n") and len(line) < LONGEST_ROW:  # the rest may follow
                self._add(row)
                return int(row is None)
            self._done, self._last = self._done + len(line), line[-64:]
            self._damaged += bool(line.strip()) and not self._add(row)
        self.behind = cost >= self.at_once
        return 0

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether what was read before is still at its place in `file`."""
        facts = os.fstat(file.fileno())
        if facts.st_ino != self._inode or facts.st_size < self._done:
            return False
        file.seek(self._done - len(self._last))
        return file.read(len(self._last)) == self._last

    def _add(self, row: dict[str, Any] | None) -> bool:
        """Adds `row`; returns whether it is sound."""
        epoch = whole(row.get("epoch")) if row is not None else None
        if row is None or epoch is None:
            return False
        self._rows[epoch], self._seconds[epoch] = row, number(row.get("seconds")) or 0.0
        if len(self._rows) > 2 * self.most:
            self._rows = _thinned(self._rows)
        return True


def read_metrics(path: Path, problems: list[str]) -> Metrics:
    """The rows at `path`; a row written twice counts once, damaged ones are counted in `problems` and left out."""
    file = MetricsFile(path)
    metrics = file.read(problems)
    if file.behind:
        problems.append(f"{path.name} has too many rows; its beginning was read")
    return metrics


def _thinned(rows: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Every other row, and the last."""
    epochs = sorted(rows)
    return {epoch: rows[epoch] for epoch in [*epochs[:-1:2], epochs[-1]]}


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
