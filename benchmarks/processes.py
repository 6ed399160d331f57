"""What sharing a batch costs: two processes on its halves, against two that compute the same without knowing of each other.

    python -m benchmarks.processes [--quick] [--rounds N]

Both are the same two processes, of one thread each: in turns they take a few search steps on halves of a batch, with sums of
gradients over both, and as many steps on batches of that half's size, each for itself but at the same time.  Steps begin
together; what is compared is the mean time of the two processes.  Each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.build import OurStep
from benchmarks.measure import Step, environment, table
from diffnas.core.batch import Batch
from diffnas.core.parts import Part
from diffnas.methods.darts import DARTS
from diffnas.runtime.distributed import joined, world
from diffnas.runtime.launch import free_port

SIZE = 2  # processes


@dataclass(frozen=True)
class Case:
    """A search step, and how many of them a round takes; `step.batch` images are those of one process."""

    name: str
    step: OurStep
    steps: int


CASES = (
    Case("C=4 L=2 16x16 batch 2 x 8", OurStep(channels=4, layers=2, batch=8, side=16), 20),
    Case("C=8 L=5 batch 2 x 8", OurStep(channels=8, layers=5, batch=8), 4),
    Case("C=16 L=8 batch 2 x 16", OurStep(batch=16), 2),
    Case("C=16 L=8 batch 2 x 32", OurStep(batch=32), 1),
    Case("C=16 L=8 batch 2 x 4 second order", OurStep(batch=4, method=DARTS(unrolled=True)), 1),
)
QUICK = 2  # of them


def main() -> None:
    """Starts the processes; the first prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed turns of each side")
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes")
    given = parser.parse_args()
    if "RANK" in os.environ:
        measure(CASES[:QUICK] if given.quick else CASES, given.rounds)
        return
    shared = {
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(SIZE),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    own = [sys.executable, "-m", "benchmarks.processes", *sys.argv[1:]]
    ranks = [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(SIZE)]
    started = [subprocess.Popen(own, env=each) for each in ranks]  # noqa: S603 (this program itself)
    raise SystemExit(max(abs(process.wait()) for process in started))


def measure(cases: tuple[Case, ...], rounds: int) -> None:
    """Times every case in this process and the others; the first of them prints."""
    torch.set_num_threads(1)
    rows = []
    with joined() as processes, processes.hurried(False):
        for case in cases:
            step, batches = builds(case.step)
            turns = {"alone": partial(step, batches), "shared": partial(step, parts(batches))}
            found: dict[str, list[float]] = {name: [] for name in turns}
            for turn in range(rounds + 1):
                for name, one in turns.items():
                    seconds = together(one, case.steps)
                    if turn:  # the first loads libraries and makes kernels
                        found[name].append(seconds)
            rows.append(row(case, found))
        if processes.first:
            show(rows)


def builds(ours: OurStep) -> tuple[Callable[[Mapping[str, Batch]], object], Mapping[str, Batch]]:
    """A search step of batches, and batches."""
    return partial(ours.method.step, ours.search()), ours.batches()


def parts(batches: Mapping[str, Batch]) -> dict[str, Batch]:
    """The same images as this process's part of a batch that is twice as large."""
    own = {name: len(batch.targets) for name, batch in batches.items()}
    return {
        name: replace(batch, part=Part(world().rank * own[name], own[name], world().size * own[name]))
        for name, batch in batches.items()
    }


def together(step: Step, steps: int) -> float:
    """The seconds of a step, the mean over processes, which begin together."""
    world().numbers(0)
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - begun) / steps
    return float(statistics.mean(json.loads(each) for each in world().all(json.dumps(seconds))))


def row(case: Case, found: Mapping[str, list[float]]) -> list[str]:
    """The row of a case."""
    alone, shared = (statistics.median(found[name]) for name in ("alone", "shared"))
    images = SIZE * case.step.batch
    spread = "/".join(f"{100 * (max(each) - min(each)) / statistics.median(each):.0f}%" for each in found.values())
    return [case.name, *(f"{1000 * each / images:.2f}" for each in (alone, shared)), spread, f"{shared / alone:.3f}"]


def show(rows: list[list[str]]) -> None:
    """Prints where this was measured, and the table."""
    for key, value in environment(torch.device("cpu")).items():
        print(f"{key + ':':<9} {value}")
    print()
    print(table(["search step", "unconnected ms/image", "sharing ms/image", "spreads", "cost"], rows))


if __name__ == "__main__":
    main()
