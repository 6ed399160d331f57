"""Starting the processes of a command on this machine, and ending them with it.

Each runs the same command line, told by the variables of torchrun which one it is.  The first one has the terminal; what the
others say is kept, and shown where the first one does not say itself why it ended.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import IO

from diffnas.runtime.launched import FOLDER, LAUNCHER, LOST, OPTIONS
from diffnas.runtime.scratch import scratch
from diffnas.runtime.terminal import say

PATIENT = 60.0  # seconds that the others have to end after one has ended in order: the first may write a report
GRACE = 15.0  # and after one was killed: to find out who it was, and to say so
SHORT = 3.0  # and where all has been said


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Launch:
    """The processes of this machine: `devices` of `size`, the first of which has the rank `first`.

    All run the command line `arguments`; `options` are those by which they were asked for.  What the first one prints goes to
    `out` (None: where that of this process goes), and `environment` is set on top for all.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        devices: int,
        size: int,
        first: int,
        host: str,
        port: int,
        options: str,
        out: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.arguments, self.out = list(arguments), out
        self.said: list[IO[bytes]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.first = first
        self.folder, self.holds = scratch("processes")
        threads = max(1, len(os.sched_getaffinity(0)) // devices) if hasattr(os, "sched_getaffinity") else 1
        shared = {
            "OMP_NUM_THREADS": str(threads),
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            **os.environ,
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(devices),
            "MASTER_ADDR": host,
            "MASTER_PORT": str(port),
            LAUNCHER: str(os.getpid()),
            FOLDER: str(self.folder),
            OPTIONS: options,
            **(environment or {}),
        }
        for local in range(devices):
            self._start({**shared, "RANK": str(first + local), "LOCAL_RANK": str(local)}, speaks=first + local == 0)

    def _start(self, environment: dict[str, str], speaks: bool) -> None:
        """Starts a process in a group of its own, so that a signal reaches it once: from here."""
        kept: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this process)
        self.said.append(kept)
        self.processes.append(
            subprocess.Popen(  # noqa: S603 (this program itself)
                [sys.executable, "-m", "diffnas", *self.arguments],
                env=environment,
                stdin=None if speaks else subprocess.DEVNULL,
                stdout=self.out if speaks else subprocess.DEVNULL,
                stderr=None if speaks else kept,
                process_group=0,
                pass_fds=self.holds,  # so that the folder is held until the last of them has ended
            )
        )

    def wait(self) -> int:
        """Waits until all have ended, and ends those that outlive one that failed; returns the exit code."""
        main = threading.current_thread() is threading.main_thread()  # elsewhere signals stay as they are
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if main and hasattr(signal, name)]
        before = {name: signal.signal(getattr(signal, name), self._pass_on) for name in names}
        end = math.inf
        try:
            while None in (codes := [process.poll() for process in self.processes]) and time.monotonic() < end:
                end = min(end, time.monotonic() + self._left(codes))
                time.sleep(0.05)
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)
        try:
            return self._code()
        finally:
            for kept in self.said:
                kept.close()
            for hold in self.holds:
                os.close(hold)

    def _left(self, codes: list[int | None]) -> float:
        """The seconds that are left to those that have not ended."""
        failed = [code for code in codes if code]
        if not failed:
            return math.inf
        if LOST in failed or (self.first == 0 and (codes[0] or 0) > 0):
            return SHORT
        return GRACE if min(failed) < 0 else PATIENT

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def _code(self) -> int:
        """The exit code of the first process, or else of one that failed; shows why where that was not said yet."""
        codes = [process.returncode for process in self.processes]
        spoken = self.first == 0 and codes[0] > 0  # the first has the terminal
        if any(codes) and not spoken:
            lines = [line for kept in self.said for line in _lines(kept)]
            for rank, code in enumerate(codes, self.first):
                if code < 0 and not lines:
                    lines.append(f"diffnas: process {rank} was ended by {signal.Signals(-code).name}")
            say(*dict.fromkeys(lines), error=True)
        positive = [1 if code == LOST else code for code in codes if code > 0]
        return positive[0] if positive else int(any(codes))


def _lines(kept: IO[bytes]) -> list[str]:
    kept.seek(0)
    return kept.read().decode(errors="replace").splitlines()
