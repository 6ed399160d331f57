"""What a run is called in other programs, kept in the run folder, so that a resumed run goes on there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffnas.runtime.run_folder import Part

NAME, FORMAT = "sinks.json", "diffnas-sinks-1"


def title(part: Part) -> str:
    """`RUN search`, `RUN NAME`: the folder of the run, and the part of it."""
    run = part.path.absolute().parents[0 if part.command == "search" else 1]
    return f"{run.name} {part.path.name}"


def remembered(part: Part, sink: str, create: Callable[[], str]) -> str:
    """The id of `part` in `sink`, made by `create` where it has none yet."""
    known: dict[str, Any] = part.read_json(NAME) if (part.path / NAME).is_file() else {}
    if not isinstance(known.get(sink), str):
        known |= {"format": FORMAT, sink: create()}
        part.write_json(NAME, known)
    return str(known[sink])
