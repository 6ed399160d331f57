"""A line about each run for the board's list."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffnas.boards.survey import LOCK, Survey
from diffnas.reports.run_facts import PartFacts, RunFacts, SearchFacts, TrainFacts
from diffnas.reports.values import number, read_json, sequence, text, whole
from diffnas.runtime.console import duration
from diffnas.runtime.progress import NAME as PROGRESS

RECENT = 120.0  # seconds since the last write within which a run is taken to work where locks tell nothing
STATES = ("running", "finished", "not finished", "diverged", "broken", "not read")
LEVELS = ("test", "score", "valid", "train")


@dataclass(frozen=True)
class Summary:
    """What the list says of a run; `done` is a share of its epochs, None where it is not known."""

    name: str
    key: str
    state: str
    recipe: str = ""
    method: str = ""
    space: str = ""
    data: str = ""
    epochs: str = ""
    done: float | None = None
    measure: str = ""
    tested: str = ""
    seconds: str = ""
    note: str = ""
    touched: str = ""
    now: str = ""

    def matches(self, words: Sequence[str], state: str) -> bool:
        """Whether it is in that state (any where it is empty) and has all `words` somewhere."""
        said = " ".join((self.name, self.state, self.recipe, self.method, self.space, self.data, self.note)).lower()
        return state in ("", self.state) and all(word in said for word in words)


def held_locks() -> set[int]:
    """The inodes of files that processes of this machine have locked; empty where the system does not tell."""
    inodes = set[int]()
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            inodes.add(int(line.split()[5].rpartition(":")[2]))
    return inodes


def works(seen: Survey, part: str, locks: set[int], now: float) -> bool:
    """Whether a command works in `part` of a run, as far as its lock, or what it wrote last, tells."""
    told = read_progress(seen.path / part)
    beats = [(name.rpartition("/")[2], at, inode) for name, at, inode in seen.beats if name.rpartition("/")[0] == part]
    if any(name == LOCK and inode in locks for name, _, inode in beats):
        return True
    return told.get("at_work") is not False and any(name != LOCK and now - at < RECENT for name, at, _ in beats)


def summarize(key: str, run: RunFacts, seen: Survey, locks: set[int]) -> Summary:
    """The line about `run`, which had the files `seen`."""
    now = time.time()
    parts: list[SearchFacts | TrainFacts] = [part for part in (run.search, *run.trainings) if part is not None]
    named = [(part, part.name if part is run.search else f"train/{part.name}") for part in parts]
    at_work = [part for part, name in named if _is_open(part) and works(seen, name, locks, now)]
    current = at_work[-1] if at_work else parts[-1] if parts else None
    if current is None:
        return Summary(run.name, key, "broken", touched=_touched(seen))
    asked = whole(current.recipe.values.get(f"{_section(current)}.epochs"))
    first = parts[0].recipe
    return Summary(
        name=run.name,
        key=key,
        state="running" if at_work else _state(parts),
        recipe=current.recipe.name if current.recipe.values else "",
        method=first.get("method.name"),
        space=first.get("space.name") or (text(current.genotype.space, 60) if current.genotype else ""),
        data=current.recipe.get("data.name"),
        epochs=f"{_section(current)} {current.metrics.epochs:,}" + (f" of {asked:,}" if asked else ""),
        done=min(1.0, current.metrics.epochs / asked) if asked else None,
        measure=_measure(current),
        tested="; ".join(filter(None, map(_tested, run.trainings[:3]))),
        seconds=duration(sum(part.metrics.seconds for part in parts)),
        note=_note(parts),
        touched=_touched(seen),
        now=where(run.path, at_work[-1]) if at_work else "",
    )


def where(run: Path, part: PartFacts) -> str:
    """Where a working command says that it is: `epoch 3 of 50, step 40 of 98, 2h07m left`."""
    folder = run / "search" if isinstance(part, SearchFacts) else run / "train" / part.name
    return said_progress(read_progress(folder))


def read_progress(folder: Path) -> dict[str, Any]:
    """The progress.json in `folder`; a link is not followed: the file is read without a look at where it leads."""
    path = folder / PROGRESS
    return {} if path.is_symlink() else read_json(path, [])


def said_progress(facts: dict[str, Any]) -> str:
    """A progress.json in words; empty where it says nothing."""
    epoch, epochs, step, steps = (whole(facts.get(key)) for key in ("epoch", "epochs", "step", "steps"))
    if None in (epoch, epochs, step, steps):
        return ""
    left = number(facts.get("left"))
    more = "" if left is None else f", {duration(left)} left"
    return f"epoch {epoch:,} of {epochs:,}, step {step:,} of {steps:,}{more}"


def _section(part: PartFacts) -> str:
    return "search" if isinstance(part, SearchFacts) else "train"


def _is_open(part: SearchFacts | TrainFacts) -> bool:
    return part.status == "not finished"


def _state(parts: Sequence[SearchFacts | TrainFacts]) -> str:
    if not all(part.recipe.values and part.environment for part in parts):
        return "broken"
    states = {part.status for part in parts}
    return next((state for state in ("diverged", "not finished") if state in states), "finished")


def _measure(part: PartFacts) -> str:
    """The last accuracy or perplexity of the level that tells most."""
    row = part.metrics.rows[-1] if part.metrics.rows else {}
    for level in LEVELS:
        for quantity, unit in (("accuracy", " %"), ("perplexity", "")):
            value = number(row.get(f"{level}_{quantity}"))
            if value is not None:
                return f"{level} {quantity} {value:.2f}{unit}"
    return ""


def _tested(training: TrainFacts) -> str:
    value = training.result
    if value is None:
        return ""
    return f"perplexity {value:.2f}" if training.is_text else f"{value:.2f} %"


def _note(parts: Sequence[PartFacts]) -> str:
    notes = [note for part in parts for note in sequence(part.environment.get("notes")) if isinstance(note, str)]
    return text(notes[-1], 120) if notes else ""


def _touched(seen: Survey) -> str:
    times = [at for _, at, _ in seen.beats] + [at / 1e9 for _, at, _, _ in seen.signature]
    try:
        return f"{datetime.fromtimestamp(max(times, default=0.0), UTC):%Y-%m-%d %H:%M} UTC"
    except (OSError, ValueError, OverflowError):
        return ""
