"""The options that start several processes: `--devices`, `--nodes`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from diffnas.errors import UserError
from diffnas.runtime.launch import Launch, free_port
from diffnas.runtime.launched import TIMEOUT, TORCHRUN, place_of

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
    raise SystemExit(Launch(_typed, devices, nodes * devices, first * devices, host, port, options).wait())


def _meeting(nodes: int, node_rank: int | None, main: str | None) -> tuple[int, str, int]:
    """The number of this machine, and where the processes meet."""
    if nodes == 1:
        return 0, "127.0.0.1", free_port()
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
