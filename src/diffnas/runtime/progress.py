"""Where a search or a training is, and how long it will go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

NAME, FORMAT = "progress.json", "diffnas-progress-1"


@dataclass(frozen=True)
class Progress:
    """Where a `command` ("search" or "train") is: in step `step` of `steps` of epoch `epoch` of `epochs`, from 1 on.

    `seconds` have passed since it began or was resumed, about `left` are still to come (None before the first step), and
    `metrics` are the means of the epoch so far.
    """

    command: str
    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float
    left: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Pace:
    """How long steps and epochs take, and so how long all of them will."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.start = time.monotonic()
        self._epoch: float | None = None  # seconds of the last whole epoch
        self._begun, self._from = self.start, 0

    def begin(self, step: int) -> None:
        """Notes that an epoch, or a part of one, begins after `step` steps."""
        self._begun, self._from = time.monotonic(), step

    def ended(self, seconds: float) -> None:
        """Notes that an epoch has taken so many seconds."""
        self._epoch = seconds

    def left(self, epoch: int, step: int, steps: int) -> float | None:
        """Seconds until the last epoch ends, after `step` of the `steps` of `epoch` (from 1); None before the first step."""
        done = step - self._from
        if done < 1:
            return None
        each = (time.monotonic() - self._begun) / done
        whole = each * steps if self._epoch is None else self._epoch
        return each * (steps - step) + whole * max(0, self.epochs - epoch)
