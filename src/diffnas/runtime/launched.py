"""What a process is told of the others that it computes with: by our own launcher, by torchrun, or by SLURM's srun.

torch is not loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffnas.errors import RunError

TIMEOUT = "DIFFNAS_RANK_TIMEOUT"
LAUNCHER = "DIFFNAS_LAUNCHER"  # the process id of our own launcher
LOST = 75  # the exit code by which our launcher is told that another process is lost; its own is 1
OPTIONS = "DIFFNAS_LAUNCH"  # the options by which it was told how many there are
FOLDER = "DIFFNAS_SCRATCH"  # where its processes may write; it is removed in the end
FAILURES = "DIFFNAS_FAILURES"  # the folder in which a Python program is told why they failed; unset: on the terminal
SECONDS = 60.0  # after which a process that does not answer is given up
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")


@dataclass(frozen=True)
class Place:
    """A process: its `rank` of `size`, the `local` number on its machine, and where the first one listens.

    `serves` says whether the first process must open that port itself.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    serves: bool = True
    attempt: str = "0"


def place_of(given: Mapping[str, str] = os.environ) -> Place:
    """The place of this process; one that was launched alone is the only one.

    srun counts by the variables of a step, which the batch script itself has not.  Raises `RunError` for variables that are
    no numbers or do not fit each other.
    """
    if all(name in given for name in TORCHRUN):
        numbers = _numbers(given, "RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK")
        rank, size, port, local = numbers
        serves = given.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        attempt = given.get("TORCHELASTIC_RESTART_COUNT", "0")
        return _checked(Place(rank, size, local, given["MASTER_ADDR"], port, serves, attempt))
    if all(name in given for name in SLURM):
        rank, size, job, local = _numbers(
            given, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_LOCALID"
        )
        host = given.get("MASTER_ADDR") or first_host(given["SLURM_STEP_NODELIST"])
        port = _numbers(given, "MASTER_PORT")[0] or 20_000 + job % 20_000
        return _checked(Place(rank, size, local, host, port)) if size > 1 else Place()
    return Place()


def seconds(given: Mapping[str, str] = os.environ) -> float:
    """The seconds after which a process that does not answer is given up (`--rank-timeout`)."""
    try:
        asked = float(given.get(TIMEOUT, SECONDS))
    except ValueError:
        asked = 0.0
    if not 5.0 <= asked <= 86_400.0:
        raise RunError(f"{TIMEOUT}: must be from 5 to 86400 seconds; got {given[TIMEOUT]!r:.40}")
    return asked


def whole_command(command: str, given: Mapping[str, str] = os.environ) -> str:
    """`command` with the options by which our own launcher was told of these processes."""
    return " ".join(filter(None, [command, given.get(OPTIONS, "")]))


def noted(kind: str, lines: Sequence[str], given: Mapping[str, str] = os.environ) -> bool:
    """Tells the Python program that launched this process of an error, by its `kind`; whether there is one."""
    folder = given.get(FAILURES)
    if not folder:
        return False
    with contextlib.suppress(OSError):
        content = json.dumps({"kind": kind, "lines": list(lines)})
        (Path(folder) / f"{int(given.get('RANK', '0')):06d}.json").write_text(content, encoding="utf-8")
    return True


def first_host(nodes: str) -> str:
    """The first machine of SLURM's list: `gpu[03-05,9],x` -> `gpu03`."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if found is None:
        raise RunError(f"SLURM_STEP_NODELIST: no machine can be read from {nodes!r:.80}; set MASTER_ADDR")
    return "".join(part or "" for part in found.groups())


def _numbers(given: Mapping[str, str], *names: str) -> list[int]:
    wrong = [name for name in names if not given.get(name, "0").isdecimal()]
    if wrong:
        raise RunError(*(f"{name}: must be a whole number; got {given[name]!r:.40}" for name in wrong))
    return [int(given.get(name, "0")) for name in names]


def _checked(place: Place) -> Place:
    if not 0 <= place.rank < place.size or not 0 < place.port < 65_536:
        raise RunError(f"the process is told to be number {place.rank} of {place.size}, by port {place.port}")
    return place
