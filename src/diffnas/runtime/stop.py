"""Signals: the first SIGTERM, SIGHUP or Ctrl-C asks for a stop at the next step, the second stops at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


class Stop:
    """A context in which `requested` says whether a signal asked to stop, and `due` whether time for a checkpoint has come."""

    def __init__(self, minutes: float) -> None:
        self.requested: str | None = None
        self._seconds = 60.0 * minutes
        self._saved = time.monotonic()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        # signals reach the main thread only; elsewhere (a notebook's worker, a test) they stay as they are
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _asking()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def due(self) -> bool:
        """Whether a checkpoint is due: a stop was asked for, or the minutes have passed."""
        return self.requested is not None or time.monotonic() - self._saved >= self._seconds

    def saved(self) -> None:
        """Notes that a checkpoint was written now."""
        self._saved = time.monotonic()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == HANGUP:
            return  # a terminal that closes may send several
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name


def _asking() -> list[int]:
    """Returns the signals that request a stop; SIGHUP is one unless the command should outlive its terminal (nohup)."""
    asking: list[int] = [signal.SIGTERM, signal.SIGINT]
    if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
        asking.append(HANGUP)
    return asking
