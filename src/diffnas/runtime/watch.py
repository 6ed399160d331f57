"""Watching over the other processes: each says every second that it lives, and one that does not is named.

A process that waits for the others' numbers cannot be interrupted, so the watch ends it from without: with exit code 1, after
one line that the first of those left over on each machine prints.  Checkpoints are written whole or not at all, and stay.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from diffnas.errors import ProcessLost
from diffnas.runtime.launched import LAUNCHER, LOST, Place, noted
from diffnas.runtime.terminal import say

BEAT = 1.0  # seconds from one sign of life to the next
SHARE = 0.8  # of the time allowed after which a process is given up: some is needed to notice and to end
PATIENCE = 30  # times as long may a process take between two epochs, and to read data
QUIET = 4.0  # seconds without a sign of life that are enough once a connection has broken
LONGEST = 300  # characters of a reason
SILENT = "has died, has stopped, or its connection is lost"


def quoted(error: BaseException) -> str:
    """What the others are told of an error: its kind and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"[:LONGEST]


class Other:
    """What is known of another process: its last sign of life, when that came, and how far it is."""

    def __init__(self, now: float) -> None:
        self.sign, self.at = b"", now
        self.met, self.hurried = 0, False
        self.gone: str | None = None

    def heard(self, sign: bytes, now: float) -> None:
        """Notes a sign of life, `NUMBER MET HURRIED` or `gone REASON`."""
        if sign.startswith(b"gone"):
            self.gone = sign[5:].decode(errors="replace")
        elif sign != self.sign:
            _, met, hurried = sign.split()
            self.sign, self.at, self.met, self.hurried = sign, now, int(met), hurried == b"1"


class Watch:
    """The watch of the process at `place`; `store` is what all processes can write to and read.

    `allowed` are the seconds after which one that does not answer is given up; `cleared` is called before the process ends.
    """

    def __init__(self, store: Any, place: Place, allowed: float, cleared: Callable[[], object]) -> None:
        self.store = self.shared = store
        self.place, self.allowed, self.cleared = place, allowed, cleared
        self.go_on = ""  # the command that goes on with what is computed
        now = time.monotonic()
        self.others = {rank: Other(now) for rank in range(place.size) if rank != place.rank}
        self.hurried = False
        self.met, self.since = 0, 0.0  # sums begun, and the moment of the one that is waited for (0: none)
        self.answered, self.failed = now, False  # of the store
        self.machines = [""] * place.size  # the addresses of their machines
        self.over = threading.Event()

    def meet(self, patience: float) -> list[int]:
        """Waits until all processes have come, but no longer than `patience`; returns those that have."""
        self._beat(0)
        end = time.monotonic() + patience
        while True:
            met = [rank for rank in range(self.place.size) if self.store.check([_key(rank)])]
            if len(met) == self.place.size or time.monotonic() > end:
                return met
            time.sleep(0.1)

    def start(self, name: str) -> None:
        """Begins to watch, by a connection of its own to what is written under `name`."""
        import torch.distributed as dist

        host, port = self.place.host, self.place.port
        own = dist.TCPStore(host, port, None, False, timedelta(seconds=self.allowed), False)  # type: ignore[attr-defined]
        self.store = dist.PrefixStore(name, own)  # type: ignore[attr-defined]
        now = time.monotonic()
        self.answered = now
        for other in self.others.values():
            other.at = now
        for work in (self._signs, self._judge):
            threading.Thread(target=work, name="diffnas-watch", daemon=True).start()

    def end(self, reason: str) -> None:
        """Ends the watch; the others are told the `reason`, where there is one."""
        self.over.set()
        with contextlib.suppress(Exception):  # who was to be told may be gone
            self.store.set(_key(self.place.rank), f"gone {reason}")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Runs a block that waits for all processes; raises `ProcessLost` where a connection breaks."""
        outer, self.since = self.since, time.monotonic()
        self.met += 1
        try:
            yield
        except RuntimeError as error:
            raise ProcessLost(self._broken(error)) from error
        finally:
            self.since = outer

    # -- who is lost

    def lost(self, quiet: float, late: float) -> tuple[int, str] | None:
        """The first process that is lost, and how; `quiet` and `late` are the seconds without a sign and without progress."""
        now = time.monotonic()
        waited = now - self.since if self.since else 0.0
        for rank, other in self.others.items():
            if other.gone and waited > QUIET / 2:  # this process may be about to end for the same reason
                return rank, f"has ended: {other.gone}"
        if self.place.rank and (self.failed or now - self.answered > quiet):  # it is the first that keeps the store
            return 0, SILENT
        for rank, other in self.others.items():
            if now - other.at > quiet and other.gone is None:
                return rank, SILENT
        for rank, other in self.others.items():
            if other.gone is not None and waited > 3 * QUIET:
                return rank, "has ended, since it lost its connection to another one"
        return self._late(waited) if waited > late else None

    def _late(self, waited: float) -> tuple[int, str] | None:
        """A process that lives, but that is waited for in vain."""
        behind = [rank for rank, other in self.others.items() if other.met < self.met]
        if not behind:
            return min(self.others), "cannot be reached: a connection is lost"
        if all(self.others[rank].hurried for rank in behind):
            return behind[0], "hangs, or needs longer for a step than --rank-timeout allows"
        longest = PATIENCE * self.allowed
        return (behind[0], f"hangs: it has been waited for {longest:.0f} s") if waited > longest else None

    def _broken(self, error: RuntimeError) -> str:
        """The line for a connection that broke: whose it was is told by the signs of life that stop."""
        end = time.monotonic() + 3 * QUIET
        found = None
        while found is None and time.monotonic() < end:
            time.sleep(BEAT / 4)
            found = self.lost(QUIET, self.allowed)
        if found is None:
            text = str(error).strip().splitlines()
            found = min(self.others), f"cannot be reached: a connection is lost ({text[0] if text else 'no reason'})"
        self.over.set()
        self._leave_to_first(found[0])
        return self._line(*found)

    def _line(self, rank: int, how: str) -> str:
        where = f" on {self.machines[rank]}" if len({*self.machines}) > 1 else ""
        what = f"go on from the last checkpoint with: {self.go_on}" if self.go_on else "run the same command again"
        return f"process {rank} of {self.place.size}{where} {how}"[: 2 * LONGEST] + f"; {what}"

    def _leave_to_first(self, lost: int) -> None:
        """Ends this process in silence where another one of its machine says who is lost, or the lost one itself did."""
        first = self.place.rank - self.place.local
        said = lost == first == 0 and self.others[0].gone
        if said or self.place.rank != (first if first != lost else first + 1):
            self._leave()

    def _leave(self) -> None:
        with contextlib.suppress(Exception):
            self.cleared()
        os._exit(LOST if os.environ.get(LAUNCHER) else 1)

    # -- what runs beside the program

    def _signs(self) -> None:
        """Gives and collects signs of life until the watch is over."""
        ranks, number, orphaned = list(self.others), 1, 0.0
        while not self.over.wait(BEAT):
            try:
                self._beat(number)
                signs = self.store.multi_get([_key(rank) for rank in ranks])
            except Exception:  # noqa: BLE001 (whatever it is, the store does not answer any more)
                self.failed = True
                return
            number, now = number + 1, time.monotonic()
            self.answered = now
            for rank, sign in zip(ranks, signs, strict=True):
                self.others[rank].heard(bytes(sign), now)
            orphaned = self._orphaned(orphaned)

    def _orphaned(self, since: float) -> float:
        """Asks this process to stop once the launcher is dead, and in the end ends it; since when that is (0: it lives)."""
        launcher, now = int(os.environ.get(LAUNCHER, "0") or 0), time.monotonic()
        if not launcher or os.getppid() == launcher:
            return 0.0
        if not since:
            os.kill(os.getpid(), signal.SIGTERM)  # nobody would end this process any more
        elif now - since > PATIENCE * self.allowed:
            self._leave()
        return since or now

    def _judge(self) -> None:
        """Ends the process where another one is lost."""
        allowed = SHARE * self.allowed
        while not self.over.wait(BEAT / 2):
            found = self.lost(allowed, allowed + 2 * BEAT)  # who gives no sign is named as such
            if found is not None and not self.over.is_set():
                self.over.set()
                self._leave_to_first(found[0])
                if not noted("ProcessLost", [self._line(*found)]):
                    say(f"diffnas: {self._line(*found)}", error=True)
                sys.stderr.flush()
                self._leave()

    def _beat(self, number: int) -> None:
        self.store.set(_key(self.place.rank), f"{number} {self.met} {int(self.hurried)}")


def _key(rank: int) -> str:
    return f"sign/{rank}"
