"""The stages, in order of worth, and how one is run: within its time, and so that its failure is its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.gpu import correct, depthwise, graphs, machine, searches, steps, training
from benchmarks.gpu.context import Context, Results
from benchmarks.gpu.record import Record, read_mark


@dataclass(frozen=True)
class Stage:
    """What `run` finds in at most `seconds`; with `rest`, in all that the stages after it leave."""

    name: str
    seconds: float
    run: Callable[[Context], Results]
    rest: bool = False


STAGES = (
    Stage("machine", 15, machine.run),
    Stage("correct", 50, correct.run),
    Stage("graph", 30, graphs.run),
    Stage("depthwise", 20, depthwise.run),
    Stage("steps", 100, steps.run),
    Stage("search", 75, searches.darts),
    Stage("nb201", 60, searches.nb201, rest=True),
    Stage("train", 40, training.train),
    Stage("deterministic", 15, training.determinism),
    Stage("profile", 25, steps.profile),
    Stage("compile", 80, training.compiled, rest=True),
)


class TimeUp(BaseException):
    """The stage's time is over; no `except Exception` on the way holds it up."""


def main(told: dict[str, Any]) -> int:
    """Runs the stages named in `told`; the exit code is 0, 1 where one failed, `lost` where the device is lost."""
    out = Path(told["out"])
    record, device = Record(out), torch.device(told["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        print("--device cuda: there is no GPU here; use --device cpu --tiny", file=sys.stderr)
        return 1
    data = None if told["data"] is None else Path(told["data"])
    record.add("environment", machine.environment(device))
    end, failed = time.monotonic() + told["seconds"], False
    left = [stage for stage in STAGES if stage.name in told["names"]]
    while left:
        stage, *left = left
        seconds = end - time.monotonic()
        if stage.rest:
            seconds -= sum(later.seconds for later in left)
        else:
            seconds = min(seconds, stage.seconds)
        if seconds < 1:
            record.add(stage.name, {"status": "no time left"})
            continue
        read_mark(out).write_text(json.dumps([stage.name, time.time() + seconds]))
        failed |= not run(stage, Context(device, told["tiny"], data, record, time.monotonic() + seconds))
        if _is_lost(device):
            record.add(stage.name, {"error": "the device answers no more; the others go on in a new process"})
            return int(told["lost"])
    read_mark(out).unlink(missing_ok=True)
    return int(failed)


def run(stage: Stage, context: Context) -> bool:
    """Runs one stage; whether it went well.  A stage that its time ends has not failed."""
    started = time.monotonic()
    status: dict[str, Any] = {"status": "done"}
    try:
        with _alarm(context.left()):
            for result in stage.run(context):
                context.record.add(stage.name, result)
    except TimeUp:
        status = {"status": "cut"}
    except Exception as error:  # noqa: BLE001 (whatever it is, the other stages can do without this one)
        where = traceback.extract_tb(error.__traceback__)[-1]
        status = {
            "status": "failed",
            "error": f"{type(error).__name__}: {error}",
            "at": f"{where.filename}:{where.lineno}",
        }
    context.record.add(stage.name, {**status, "seconds": time.monotonic() - started})
    return status["status"] != "failed"


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises `TimeUp` in a block that takes longer."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_lost(device: torch.device) -> bool:
    """Whether a mistake in a kernel has left the process without its GPU."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)  # without the destructors of a device that may be lost
