"""What `diffnas estimate` says beside what the commands then take: seconds and peak memory of five recipes on this machine.

    python -m benchmarks.estimates [--data FOLDER] [--only NAME...] [--out FILE]

FOLDER holds cifar10, ptb and imagenet-sample (default: $DIFFNAS_SHARED/data).  Sizes are the published ones; the data is cut so
that a run takes minutes.  The seconds compared are those of the epochs, without the start; the first epoch of a run of several
is left out where kernels might be compiled in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import environment, table
from diffnas.core.published_genotypes import published
from diffnas.pipeline.estimate import Part, estimate
from diffnas.recipe.recipe import read_recipe

PTB = ["data.path={}/ptb", "data.train_limit=20000", "data.test_limit=5000"]
CIFAR = ["data.path={}/cifar10", "data.train_limit=1280", "data.test_limit=256"]
LEAST = ["data.path={}/imagenet-sample", "data.test_limit=10"]


@dataclass(frozen=True)
class Case:
    """A part of a recipe and how it is cut; `genotype` is what a training trains."""

    part: Part
    recipe: str
    settings: list[str]
    genotype: str = ""


CASES = {
    "digits": Case("search", "darts-digits", ["search.epochs=4"]),
    "cifar10": Case("search", "darts-cifar10", [*CIFAR, "search.epochs=2"]),
    "drnas": Case("search", "nb201-drnas", [*CIFAR, "search.epochs=3", "search.batch=64"]),
    "network": Case("train", "cifar10-train", [*CIFAR, "data.train_limit=384", "train.epochs=2"], "darts-v2"),
    "ptb": Case("train", "darts-ptb", [*PTB, "train.epochs=2"], "darts-rnn-v2"),
    "imagenet": Case("train", "imagenet-train-drnas", [*LEAST, "train.epochs=2", "train.batch=48"], "drnas-imagenet"),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DIFFNAS_SHARED", "../shared")) / "data")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = []
    for name in asked.only:
        rows.append(row(CASES[name], [each.format(asked.data.resolve()) for each in CASES[name].settings]))
        print(rows[-1], flush=True)
    head = ["part", "recipe", "s an epoch: said", "taken", "said/taken", "MiB: said", "taken", "said/taken"]
    facts = [f"{key + ':':<9} {value}" for key, value in environment(torch.device("cpu")).items()]
    text = "\n".join([*facts, "", table(head, rows)])
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


def row(case: Case, settings: list[str]) -> list[str]:
    """What was said and what was taken."""
    chosen = [part for each in settings for part in ("-s", each)]
    cell = published(case.genotype) if case.genotype else None
    said = estimate(read_recipe(case.recipe, settings), cell, [case.part])[case.part]
    with tempfile.TemporaryDirectory() as folder:
        first = [case.recipe] if case.part == "search" else [case.genotype, "--recipe", case.recipe]
        command = [sys.executable, "-m", "diffnas", case.part, *first, "--run", folder, "-q", *chosen]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds, mebibytes = taken(next(Path(folder).rglob("metrics.jsonl")).parent)
    memory = said["peak_memory"] / 2**20
    found = [said["epoch_seconds"], seconds, said["epoch_seconds"] / seconds, memory, mebibytes, memory / mebibytes]
    return [case.part, case.recipe, *(f"{value:.2f}" if value < 100 else f"{value:.0f}" for value in found)]


def taken(part: Path) -> tuple[float, float]:
    """Seconds of the epochs after the first, in the mean, and MiB at most."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in (part / "metrics.jsonl").read_text().splitlines()]
    later = [each["seconds"] for each in rows[1:] or rows]
    peak = json.loads((part / "environment.json").read_text())["peak_memory"]["bytes"]
    return sum(later) / len(later), peak / 2**20


if __name__ == "__main__":
    main()
