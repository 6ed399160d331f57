"""Starting the processes of a command: `--devices`, `--nodes`.

Each runs the same command line, told by the variables of torchrun which one it is.  The first one has the terminal; what the
others say is kept, and shown where the first one does not say itself why it ended.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO, Annotated

import typer

from diffnas.errors import UserError
from diffnas.runtime.launched import FOLDER, LAUNCHER, LOST, OPTIONS, TIMEOUT, TORCHRUN, place_of
from diffnas.runtime.scratch import scratch
from diffnas.runtime.terminal import say

Devices = Annotated[
    int, typer.Option("--devices", metavar="N", min=1, max=1024, help="Processes on this machine, one a GPU.")
]
Nodes = Annotated[int, typer.Option("--nodes", metavar="N", min=1, max=4096, help="Machines; run the command on each.")]
NodeRank = Annotated[
    int | None, typer.Option("--node-rank", metavar="K", min=0, help="Which of the machines this is, from 0.")
]
Main = Annotated[
    str | None,
    typer.Option("--main", metavar="HOST:PORT", help="With --nodes: the first machine, and a free port of it."),
]
RankTimeout = Annotated[
    float | None,
    typer.Option(
        "--rank-timeout", metavar="SECONDS", min=5, help="Give a process up that does not answer (default 60)."
    ),
]
PATIENT = 60.0  # seconds that the others have to end after one has ended in order: the first may write a report
GRACE = 15.0  # and after one was killed: to find out who it was, and to say so
SHORT = 3.0  # and where all has been said
_typed: list[str] = []


def remember(arguments: Sequence[str]) -> None:
    """Keeps what was typed, for the processes that are to run it."""
    _typed[:] = arguments


def launch(devices: int, nodes: int, node_rank: int | None, main: str | None, timeout: float | None) -> None:
    """Starts as many processes as asked for, and ends this one with their exit code; does nothing where one is enough.

    Raises `UserError` where it is not clear how they are to meet.
    """
    if timeout is not None:
        os.environ[TIMEOUT] = str(timeout)
    if devices * nodes == 1 or all(name in os.environ for name in TORCHRUN) or place_of().size > 1:
        return
    first, host, port = _meeting(nodes, node_rank, main)
    options = _options(devices, nodes, node_rank, main, timeout)
    raise SystemExit(Launch(devices, nodes * devices, first * devices, host, port, options).wait())


def _meeting(nodes: int, node_rank: int | None, main: str | None) -> tuple[int, str, int]:
    """The number of this machine, and where the processes meet."""
    if nodes == 1:
        return 0, "127.0.0.1", _free_port()
    host, _, port = (main or "").rpartition(":")
    if node_rank is None or node_rank >= nodes or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        said = (
            f"--nodes {nodes} needs --node-rank, from 0 to {nodes - 1}, and --main HOST:PORT, the same on every machine"
        )
        raise UserError(said)
    return node_rank, host, int(port)


def _options(devices: int, nodes: int, node_rank: int | None, main: str | None, timeout: float | None) -> str:
    """What was typed of these processes, for the line that says how to go on."""
    words = ["--devices", str(devices)]
    if nodes > 1:
        words += ["--nodes", str(nodes), "--node-rank", str(node_rank), "--main", str(main)]
    if timeout is not None:
        words += ["--rank-timeout", f"{timeout:g}"]
    return shlex.join(words)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Launch:
    """The processes of this machine: `devices` of `size`, the first of which has the rank `first`."""

    def __init__(self, devices: int, size: int, first: int, host: str, port: int, options: str) -> None:
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
        }
        for local in range(devices):
            self._start({**shared, "RANK": str(first + local), "LOCAL_RANK": str(local)}, speaks=first + local == 0)

    def _start(self, environment: dict[str, str], speaks: bool) -> None:
        """Starts a process in a group of its own, so that a signal reaches it once: from here."""
        kept: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this process)
        self.said.append(kept)
        self.processes.append(
            subprocess.Popen(  # noqa: S603 (this program itself)
                [sys.executable, "-m", "diffnas", *_typed],
                env=environment,
                stdin=None if speaks else subprocess.DEVNULL,
                stdout=None if speaks else subprocess.DEVNULL,
                stderr=None if speaks else kept,
                process_group=0,
                pass_fds=self.holds,  # so that the folder is held until the last of them has ended
            )
        )

    def wait(self) -> int:
        """Waits until all have ended, and ends those that outlive one that failed; returns the exit code."""
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
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
        return self._code()

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
