"""Modalities: the kinds of data that networks read, as recipes see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Problems = list[tuple[str, str]]
"""(key, reason) pairs."""


def no_problems(sections: Mapping[str, Any], method: Any) -> Problems:
    """Returns no problems: every combination of keys will do."""
    return []


@dataclass(frozen=True)
class Modality:
    """A kind of data: "images", "text", "tensors", or one that a plug-in registers.

    `data`, `search` and `train` are the sections of its recipes, dataclasses of settings that derive from `Data`, `Search`
    and `Train` of `diffnas.schema`.  `sets` holds its data sets by name, each with a line `about`.  `shape(data)` returns
    what the networks read and put out, as far as the data section tells, and is given to the space; `task(data)` is the name
    of the task where a recipe has none.  `check(sections, method)` returns what contradicts itself in the sections that are
    sound.  `reading` reads the data: see `diffnas.sources.Reading`.
    """

    name: str
    data: type
    search: type
    train: type
    sets: Mapping[str, Any]
    shape: Callable[[Any], Any]
    task: Callable[[Any], str]
    check: Callable[[Mapping[str, Any], Any], Problems] = no_problems
    reading: Any = None

    @property
    def sections(self) -> dict[str, type]:
        """The sections of a recipe that depend on the modality."""
        return {"data": self.data, "search": self.search, "train": self.train}
