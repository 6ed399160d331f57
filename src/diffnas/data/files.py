"""Long lists of files in little memory: of a million files the names alone, as one text that processes share."""

from __future__ import annotations

import bisect
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import overload

import numpy as np


class Paths(Sequence[str]):
    """The paths of files, in order; each is made when it is asked for."""

    @abstractmethod
    def at(self, place: int) -> str:
        """Returns the file at a place from 0 on."""

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        """The file at a place, or those in a range."""
        if isinstance(at, slice):
            return Picked(self, np.arange(len(self))[at])
        if not -len(self) <= at < len(self):
            raise IndexError(f"file {at} of {len(self)}")
        return self.at(at % len(self))


class Files(Paths):
    """Files whose paths begin with `start`."""

    def __init__(self, names: Iterable[str] = (), start: str = "") -> None:
        encoded = [os.fsencode(name) for name in names]
        self._start, self._text = start, b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def at(self, place: int) -> str:
        """Returns the file at a place."""
        return self._start + os.fsdecode(self._text[self._ends[place] : self._ends[place + 1]])


class Joined(Paths):
    """The files of several parts, one after another."""

    def __init__(self, parts: Iterable[Sequence[str]]) -> None:
        self._parts = list(parts)
        self._starts = [0, *accumulate(map(len, self._parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def at(self, place: int) -> str:
        """Returns the file at a place."""
        part = bisect.bisect_right(self._starts, place) - 1
        return self._parts[part][place - self._starts[part]]


class Picked(Paths):
    """Some files of a list, in another order."""

    def __init__(self, files: Sequence[str], places: np.ndarray) -> None:
        self._files, self._places = files, places

    def __len__(self) -> int:
        return len(self._places)

    def at(self, place: int) -> str:
        """Returns the file at a place."""
        return self._files[int(self._places[place])]
