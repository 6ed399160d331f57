"""Kills a command at every file operation in its run folder, one after the other, and goes on each time.

    python kill_everywhere.py kill|full FOLDER EVERY COMMAND...

Each attempt is a forked process.  With `kill` it ends without any clean-up, as by kill -9: before an operation, or in the
middle of a write.  With `full` the disk is full from that operation on, which must be said in one line.  Afterwards the same
command, or the one with --resume that it names, must come to the same end as an unbroken one.  Prints how many attempts were
broken; exits with 1 after the first that nothing could follow.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import diffnas.pipeline.search  # noqa: F401 (loaded before the forks)
import diffnas.pipeline.train  # noqa: F401
from diffnas import draw
from diffnas.cli.main import main

KILLED = 9
FULL = (errno.ENOSPC, "No space left on device")
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.chmod"}


def break_at(count: int, folder: Path, full: bool) -> None:
    """Ends this process at operation number `count` within `folder`, or makes the disk full from there on."""
    done, flush = 0, os.fsync

    def next_one(path: str | None, needs_room: bool, written: int | None = None) -> None:
        nonlocal done
        done += 1
        if full and done >= count and needs_room:
            raise OSError(*FULL) if path is None else OSError(*FULL, path)
        if not full and done == count:
            if written is not None:
                os.ftruncate(written, os.fstat(written).st_size // 2)
            os._exit(KILLED)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in EVENTS or not isinstance(arguments[0], str | Path):
            return
        path = str(arguments[0])
        makes = event == "os.mkdir" or (event == "open" and bool(int(str(arguments[2])) & os.O_CREAT))
        if (event != "open" or makes) and (path == ".lock" or str(folder) in path):
            next_one(path, makes)

    def fsync(handle: int) -> None:
        next_one(None, True, handle)
        flush(handle)

    sys.addaudithook(hook)
    os.fsync = fsync


def forked(work: Callable[[], int]) -> tuple[int, str]:
    """The exit code of `work` in a process of its own, and what it wrote on standard error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = work()
        os.write(writer, said.getvalue().encode()[:60_000])
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def contents(folder: Path) -> dict[str, bytes]:
    """The results in a run folder."""
    names = ("genotype.json", "weights.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in names}


def everywhere(full: bool, folder: Path, every: int, command: list[str]) -> int:
    """Breaks every `every`-th operation until an attempt is through; returns how many were broken."""
    again = [*command, "--run", str(folder), "--quiet"]
    resume = [command[0], "--resume", str(folder), "--quiet"]

    def broken(count: int) -> int:
        break_at(count, folder, full)
        return main(again)

    assert main(again) == 0  # not in a process of its own, so that the forks find everything loaded
    whole = contents(folder)
    for attempts in range(10_000):
        count = 1 + attempts * every
        shutil.rmtree(folder, ignore_errors=True)
        code, text = forked(lambda: broken(count))  # noqa: B023
        if code == 0:
            return attempts
        if code != (2 if full else KILLED) or full and ("No space left" not in text or text.count("\n") != 1):
            sys.exit(f"operation {count}: {code}: {text}")
        code, text = forked(lambda: main(again))
        if code == 2 and "--resume" in text:
            code, text = forked(lambda: main(resume))
        left = list(folder.rglob("*.tmp"))
        if code != 0 or contents(folder) != whole or left:
            sys.exit(f"after operation {count}: {code}: {text} {left}")
    raise AssertionError("no end")


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw.write_cells = lambda genotype, folder: []  # pictures take longer than the rest
    print(everywhere(sys.argv[1] == "full", Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
