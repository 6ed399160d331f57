"""Where a command is: told to a function of the caller's, and written into the run folder for others to see."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from diffnas.errors import RunError
from diffnas.runtime.console import listener
from diffnas.runtime.lock import Held
from diffnas.runtime.progress import FORMAT, NAME, Pace, Progress
from diffnas.runtime.run_folder import Part

TOLD_EVERY, WRITTEN_EVERY = 0.5, 5.0  # seconds
Means = Callable[[], Mapping[str, float]]


class Following:
    """Follows a command on one part of a run, whose folder is `held`."""

    def __init__(self, part: Part, held: Held) -> None:
        self.part, self.held = part, held
        self.pace = Pace(0)
        self._epoch = self._total = self._step = 0
        self._told = self._written = float("-inf")

    def begin(self, epoch: int, epochs: int, done: int, total: int) -> None:
        """Notes that the steps of `epoch` (from 1) go on after `done` of `total`."""
        self.pace.epochs, self._epoch, self._total, self._step = epochs, epoch, total, done
        self.pace.begin(done)
        self._write(None, at_work=True)

    def at(self, step: int, means: Means) -> float | None:
        """Notes that `step` steps are done; returns about how many seconds the command goes on."""
        self._step, now = step, time.monotonic()
        left = self.pace.left(self._epoch, step, self._total)
        told = listener()
        if told is not None and (now - self._told >= TOLD_EVERY or step == self._total):
            self._told = now
            seconds = now - self.pace.start
            told(Progress(self.part.command, self._epoch, self.pace.epochs, step, self._total, seconds, left, means()))
        if now - self._written >= WRITTEN_EVERY:
            self._write(left, at_work=True)
        return left

    def close(self) -> None:
        """Notes that the command ends, well or not."""
        self._write(None, at_work=False)

    def _write(self, left: float | None, at_work: bool) -> None:
        """Writes where the command is; the run itself does not need it."""
        self._written = time.monotonic()
        facts = {"epoch": self._epoch, "epochs": self.pace.epochs, "step": self._step, "steps": self._total}
        with suppress(OSError, RunError):
            self.held.require()
            self.part.write_json(NAME, {"format": FORMAT, "at_work": at_work, **facts, "left": left})
