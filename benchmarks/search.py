"""A whole search at the paper's size on a GPU: recipe darts-cifar10, 50 epochs.

    python -m benchmarks.search --run FOLDER [--resume] [section.key=value ...]

A search that was stopped goes on with --resume; its time counts all attempts.  Without a GPU nothing runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import diffnas
from benchmarks.measure import MIB, environment
from diffnas.errors import DiffnasError, Interrupted
from diffnas.runtime.console import start_console

RECIPE = "darts-cifar10"


def main() -> int:
    """Searches and prints what it took; returns the exit code."""
    parser = argparse.ArgumentParser(description=f"A whole search by the recipe {RECIPE}, on a GPU.")
    parser.add_argument("--run", type=Path, required=True, help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on in the run folder")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe, e.g. data.path=FOLDER"
    )
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA GPU here: a whole search would take weeks; nothing was run")
        return 0
    device = torch.device("cuda")
    for key, value in environment(device).items():
        print(f"{key + ':':9} {value}")
    start_console()
    try:
        recipe = None if args.resume and not args.overrides else diffnas.read_recipe(RECIPE, args.overrides)
        run = diffnas.search(recipe, args.run, args.resume)
    except DiffnasError as error:
        print(error, file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 2
    print(summary(run.search.metrics(), torch.cuda.max_memory_allocated(device)))
    return 0


def summary(rows: list[dict[str, float]], peak: int) -> str:
    """Time, speed and memory in a line, from the rows of metrics.jsonl; `peak` in bytes."""
    seconds = sum(row["seconds"] for row in rows)
    speed = len(rows) / seconds if seconds else 0.0
    return f"search: {len(rows)} epochs in {seconds / 3600:.2f} h, {speed:.5f} epochs per second, peak {peak / MIB:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
