"""Small searches of every method on NAS-Bench-201 with real CIFAR-10 images, looked up in the table, beside random cells.

    python -m benchmarks.nb201 --data FOLDER [--methods drnas,gdas] [--seeds N] [--scaled] [--workers N] [--out FOLDER]
        [--json FILE]

Each search is the packaged recipe `nb201-METHOD` made small by `SMALL`, which was fixed before any result was seen: few
channels, one cell per stage, few images, epochs and warm-up in proportion.  All seeds are reported, none is chosen.  In so
short a search the architecture hardly moves at the recipe's rate; `--scaled`, added after some of those results were seen,
makes its rate as many times larger as there are fewer steps.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

import diffnas
from benchmarks.measure import table, write_json
from diffnas.core.seeds import generator
from diffnas.engine import random_genotype
from diffnas.spaces.nasbench201.space import NASBench201

METHODS = (
    "darts",
    "darts-second",
    "snas",
    "gdas",
    "enas",
    "rsws",
    "pcdarts",
    "drnas",
    "drnas-progressive",
    "darts-pt",
    "beta-darts",
)
SMALL = (
    "space.channels=8",
    "space.layers=1",
    "data.train_limit=2000",
    "data.test_limit=256",
    "search.batch=32",
    "search.epochs=12",
    "search.validate_every=0",
)
WARMUP = {"pcdarts": 2, "drnas-progressive": 1}  # as large a part of the epochs as in the recipe
OWN = {
    "darts-second": ("search.epochs=6",),  # each takes four times as long
    "enas": ("method.controller_steps=5", "method.candidates=20"),
    "rsws": ("method.candidates=100",),
    "darts-pt": ("search.epochs=9", "method.tuning=6", "method.interval=1"),
}
SCALED = ("search.arch.lr=0.03",)  # 3e-4 x (100 epochs x 391 steps) / (12 x 31)
RANDOM = 1000
DATA = ("cifar10", "cifar100", "imagenet16-120")


@dataclass(frozen=True)
class Found:
    """What one search found: the cell, its accuracies in the table, and the seconds it took."""

    method: str
    seed: int
    text: str
    accuracy: dict[str, float]
    rank: int
    seconds: float


def main() -> None:
    """Searches and prints."""
    parser = argparse.ArgumentParser(description="Small searches on NAS-Bench-201 with real images.")
    parser.add_argument("--data", required=True, help="the folder of CIFAR-10")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scaled", action="store_true", help="a rate of the architecture in proportion")
    parser.add_argument("--workers", type=int, default=2, help="searches at a time, each on one thread")
    parser.add_argument("--out", default="runs/nb201", help="folder of the runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    jobs = [
        (method, seed, args.data, f"{args.out}/{method}-{seed}", SCALED if args.scaled else ())
        for seed in range(args.seeds)
        for method in args.methods.split(",")
    ]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        found = []
        for each in pool.map(searched, *zip(*jobs, strict=True)):
            found.append(each)
            print(f"{each.method} {each.seed}: {each.accuracy['cifar10']:.2f} in {each.seconds:.0f} s", flush=True)
    chance = random_accuracies()
    print("\n" + "\n".join(report(found, chance)))
    record = {"small": SMALL, "scaled": args.scaled}
    record |= {"own": OWN, "warmup": WARMUP, "found": [vars(each) for each in found], "random": chance}
    write_json(args.json, torch.device("cpu"), record)


def searched(method: str, seed: int, data: str, out: str, more: tuple[str, ...]) -> Found:
    """One search; a folder of an earlier attempt is gone on with."""
    torch.set_num_threads(1)
    overrides = [*SMALL, f"data.path={data}", f"seed={seed}", "device=cpu", *OWN.get(method, ())]
    overrides += more
    if method in WARMUP:
        overrides.append(f"method.warmup={WARMUP[method]}")
    recipe = diffnas.read_recipe(f"nb201-{method}", overrides)
    started = time.monotonic()
    run = diffnas.search(recipe, out, resume=Path(out, "search", "checkpoint").is_dir())
    entry = diffnas.lookup(run)
    measured = {name: entry.results[name].test_200 for name in DATA}
    accuracy = {name: each.mean for name, each in measured.items() if each is not None}
    first = measured["cifar10"]
    return Found(method, seed, entry.text, accuracy, first.rank if first else 0, time.monotonic() - started)


def random_accuracies() -> dict[str, list[float]]:
    """The accuracies of 1,000 cells drawn uniformly."""
    space, stream = NASBench201(), generator(0, "random cells")
    drawn = [diffnas.lookup(random_genotype(space.name, space.cells, stream)) for _ in range(RANDOM)]
    return {name: [each.mean for entry in drawn if (each := entry.results[name].test_200)] for name in DATA}


def report(found: list[Found], chance: dict[str, list[float]]) -> list[str]:
    """A table of means, with 95 % intervals of the mean (Student's t), and the cells that were found."""
    rows = [["random cells", str(RANDOM), *(interval(chance[name]) for name in DATA), "", ""]]
    for method in dict.fromkeys(each.method for each in found):
        own = [each for each in found if each.method == method]
        ranks = ", ".join(str(each.rank) for each in own)
        seconds = statistics.mean(each.seconds for each in own)
        cells = [interval([each.accuracy[name] for each in own]) for name in DATA]
        rows.append([method, str(len(own)), *cells, ranks, f"{seconds:.0f}"])
    lines = table(["method", "n", *DATA, "ranks on cifar10", "s"], rows).splitlines()
    return [*lines, "", *(f"{each.method} {each.seed}: {each.text}" for each in found)]


T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def interval(values: list[float]) -> str:
    """`93.10 +- 0.42`: the mean and half of its 95 % interval."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    half = T95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.2f} +- {half:.2f}"


if __name__ == "__main__":
    main()
