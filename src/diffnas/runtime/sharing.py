"""Sharing a machine: how many CPUs other programs keep busy, and what a run does so as not to wait for them.

The threads of one operation wait for the slowest of them, and torch's spin while they wait: where other programs need the
CPUs, a step takes many times as long as its share of the machine would allow.  So a command begins with as many threads as
there are free CPUs, and while it computes, threads that wait go to sleep whenever CPUs are short.  Linux only; elsewhere
nothing is changed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from diffnas.kernels.native.crowded import CROWDED
from diffnas.runtime.console import log

STATISTICS = Path("/proc/stat")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
LOOK = 0.25  # seconds that a look takes before a run begins; the system counts in hundredths
EVERY = 0.25  # seconds between two looks while a run computes
CALM = 12  # looks without other programs after which threads may spin again
FIXED = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # who sets these has decided how threads wait


@dataclass(frozen=True)
class Usage:
    """The CPU seconds that all programs, and this one, have used up to a moment."""

    moment: float
    every: float
    own: float


def usage(statistics: Path = STATISTICS) -> Usage | None:
    """Measures the use of the CPUs that this process may run on; None if the system does not tell."""
    try:
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split() for line in statistics.read_text(encoding="ascii").splitlines()]
        # user, system, interrupts; programs of low priority and other machines on this one's CPUs are left out
        spent = sum(int(row[at]) for row in rows if row and row[0] in mine for at in (1, 3, 6, 7))
    except (AttributeError, OSError, ValueError, IndexError):
        return None
    return Usage(time.monotonic(), spent / TICKS, time.process_time())


def taken(before: Usage, now: Usage) -> float:
    """Returns the number of CPUs that other programs kept busy between two moments."""
    passed = max(now.moment - before.moment, 1e-9)
    return max(0.0, (now.every - before.every - (now.own - before.own)) / passed)


def cpus() -> int:
    """Returns the number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def fitted_threads() -> Iterator[None]:
    """Runs a block with as many torch threads as there are free CPUs; logs a line if that is not all of them.

    Nothing changes where OMP_NUM_THREADS says how many.  A run keeps the number that it began with.
    """
    threads = torch.get_num_threads()
    others = 0.0 if threads == 1 or "OMP_NUM_THREADS" in os.environ else taken_now()
    fitting = fitting_threads(threads, cpus(), others)
    if fitting < threads:
        text = "the machine is busy: other programs use %.1f of its %d CPUs, so %d of %d threads compute"
        log.warning(f"{text} (OMP_NUM_THREADS sets how many)", others, cpus(), fitting, threads)
    torch.set_num_threads(min(fitting, threads))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def taken_now() -> float:
    """Measures for `LOOK` seconds how many CPUs other programs keep busy; 0 if the system does not tell."""
    before = usage()
    time.sleep(LOOK if before else 0.0)
    now = usage()
    return taken(before, now) if before and now else 0.0


def fitting_threads(threads: int, count: int, others: float) -> int:
    """Returns how many of `threads` find a free CPU, of `count`, while other programs keep `others` busy; at least one."""
    return max(1, min(threads, int(count - others + 0.5)))


@contextmanager
def sharing() -> Iterator[None]:
    """Runs a block in which waiting threads sleep while other programs need the CPUs, and spin otherwise."""
    if torch.get_num_threads() == 1 or usage() is None or any(name in os.environ for name in FIXED):
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(ended,), name="diffnas-sharing", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(ended: threading.Event) -> None:
    """Looks at the machine until `ended`; a line says when it is busy for the first time."""
    before, crowd, calm, said = usage(), None, 0, False
    while not ended.wait(EVERY):
        now = usage()
        if before is None or now is None:
            break
        others = taken(before, now)
        before = now
        short = others + torch.get_num_threads() > cpus() + 0.5
        calm = 0 if short else calm + 1
        if short and crowd is None:
            crowd = Crowd()
            if not said:
                log.warning("the machine is busy: other programs use %.1f of its %d CPUs", others, cpus())
            said = True
        elif crowd is not None and calm >= CALM:
            crowd.leave()
            crowd = None
    if crowd is not None:
        crowd.leave()


class Crowd:
    """A second team of threads, idle until it is told to `leave`.

    While there are more threads than CPUs, the library below torch (libgomp) lets those that wait sleep at once instead of
    spinning for milliseconds: its variable `gomp_throttled_spin_count_var`.  Compiled kernels are left to one thread.  What
    is computed stays the same.
    """

    def __init__(self) -> None:
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._stay, name="diffnas-crowd", daemon=True)
        self._thread.start()
        CROWDED.set()

    def leave(self) -> None:
        """Ends the team."""
        CROWDED.clear()
        self._left.set()
        self._thread.join()

    def _stay(self) -> None:
        torch.zeros(
            1 << 17
        ).exp_()  # large enough to be shared among threads, which makes this thread a team of its own
        self._left.wait()
