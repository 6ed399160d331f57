"""DrNAS on NAS-Bench-201 with as many steps as published, on a supernet small enough for two CPU cores; what it finds and why.

    python -m benchmarks.nb201_drnas --data FOLDER --out FOLDER [--seeds 0 1 2] [--report]

`SETTINGS` were fixed before any result was seen: the packaged recipe `nb201-drnas` with its rates, its 100 epochs of 391 steps
(so the architecture moves as far as published, and against as many draws), but 4 channels, one cell per stage, batches of 32
and therefore half of the images.  Runs go on where they were stopped.  `--report` only reads them: accuracy of the cell by the
table, entropy and strongest ops over the epochs, and how the supernet ranks 200 cells, which are drawn evenly from ten bins of
accuracy between the table's 5th and 100th percentile, against the table (Kendall's tau-b; 1,024 images of the architecture's
half, batch statistics).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

import diffnas
from benchmarks.measure import environment, table
from diffnas.core.genotype import read_genotype_file
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.seeds import generator
from diffnas.engine import Search, score
from diffnas.engine.stage import Clock
from diffnas.pipeline.sources.load import load_source
from diffnas.pipeline.stages import build
from diffnas.runtime.checkpoint import load_checkpoint
from diffnas.spaces.nasbench201.table import ops_at, packaged

SETTINGS = (
    "space.channels=4",
    "space.layers=1",
    "search.batch=32",
    "data.train_limit=25024",
    "data.test_limit=2000",
    "search.epochs=100",
)
CELLS, BINS, LOWEST = 200, 10, 0.05
BATCHES = 8  # of 128 images, that each cell is scored on
MOMENTS = {1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100}


def main() -> None:
    """Searches what is missing, then prints what the runs say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, seedN in it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="search nothing")
    args = parser.parse_args()
    runs = [args.out / f"seed{seed}" for seed in args.seeds]
    for seed, run in zip(args.seeds, runs, strict=True):
        if not args.report:
            search(run, seed, args.data)
    for key, value in environment(torch.device("cpu")).items():
        print(f"{key + ':':<9} {value}")
    print()
    print(report([diffnas.Run(run) for run in runs if (run / "search" / "genotype.json").is_file()]))


def search(run: Path, seed: int, data: str) -> None:
    """Searches in `run`, or goes on there."""
    begun = (run / "search" / "recipe.yaml").is_file()
    settings = [*SETTINGS, f"seed={seed}", f"data.path={data}"]
    diffnas.search(None if begun else diffnas.read_recipe("nb201-drnas", settings), run, resume=begun)


def report(runs: list[diffnas.Run]) -> str:
    """The tables of results and of the epochs on the way."""
    rows, progress = [], []
    cells = binned_cells()
    for run in runs:
        metrics, genotype = run.search.metrics(), diffnas.load_genotype(run)
        entry = diffnas.lookup(genotype)
        accuracies = [entry.results[data].test_200 for data in ("cifar10", "cifar100", "imagenet16-120")]
        shown = [f"{accuracy.mean:.2f}" if accuracy is not None else "-" for accuracy in accuracies]
        tau = rank_correlation(run, cells)
        rows.append([run.path.name, str(len(metrics)), *shown, f"{tau:.3f}", entry.text])
        progress += [_progress(run, row) for row in metrics if (row["epoch"] + 1) in MOMENTS]
    head = ["search", "epochs", "cifar10", "cifar100", "imagenet16-120", "tau", "cell"]
    moments = ["search", "epoch", "entropy", "strongest", "skips", "cifar10"]
    return "\n".join([table(head, rows), "", table(moments, progress)])


def _progress(run: diffnas.Run, row: dict[str, Any]) -> list[str]:
    strengths = torch.tensor(row["strength"]["cell"], dtype=torch.float64)
    shares = strengths / strengths.sum(1, keepdim=True)
    entropy = float(-(shares * shares.clamp_min(1e-12).log()).sum(1).mean()) / math.log(shares.shape[1])
    genotype = read_genotype_file(run.search.genotypes(row["epoch"] + 1))
    entry = diffnas.lookup(genotype).results["cifar10"].test_200
    skips = str(row.get("skips_cell", "-"))
    said = "-" if entry is None else f"{entry.mean:.2f}"
    return [run.path.name, str(row["epoch"] + 1), f"{entropy:.3f}", f"{float(shares.amax(1).mean()):.3f}", skips, said]


def binned_cells() -> list[int]:
    """The official indices of `CELLS` cells, as many from each of `BINS` bins of equal width in accuracy on CIFAR-10."""
    accuracy = packaged().mean("cifar10")
    low, high = np.nanquantile(accuracy, LOWEST), np.nanmax(accuracy)
    edges = np.linspace(low, high, BINS + 1)
    draws, found = generator(0, "binned-cells"), []
    for below, above in zip(edges, edges[1:], strict=False):
        inside = np.flatnonzero((accuracy >= below) & (accuracy <= above))
        chosen = torch.randperm(len(inside), generator=draws)[: CELLS // BINS]
        found += [int(inside[place]) for place in chosen]
    return found


@torch.no_grad()
def rank_correlation(run: diffnas.Run, cells: list[int]) -> float:
    """Kendall's tau-b of the accuracies that the supernet of `run` gives `cells` and those of the table."""
    found, accuracy = supernet(run), packaged().mean("cifar10")
    ops = found.space.cells["cell"].ops
    batches = list(found.feeds["score"].epoch(0))[:BATCHES]
    scores = []
    for index in cells:
        one_hot = torch.zeros(6, len(ops))
        for edge, op in enumerate(ops_at(index)):
            one_hot[edge, ops.index(op)] = 1.0
        mixture = Mixture({"cell": Mix(one_hot, None, one_hot > 0)})
        scores.append(float(score(found, mixture, batches).accuracy))
    return float(kendalltau(scores, [accuracy[index] for index in cells]).statistic)


def supernet(run: diffnas.Run) -> Search:
    """The search of `run` as its newest checkpoint has it."""
    recipe, checkpoint = diffnas.read_recipe(run.search.recipe), load_checkpoint(run.search.checkpoints)
    assert (
        checkpoint is not None and recipe.method is not None and recipe.search is not None and recipe.space is not None
    )
    source, device = load_source(recipe), torch.device("cpu")
    stage = recipe.method.stages(recipe.search.epochs, recipe.space.size)[0]
    feeds, task = source.search_feeds(device), source.search_task()
    found = build(recipe, recipe.space, stage, Clock(), source.search_weights(), 1.0, device, feeds, source.shape, task)
    found.load_state_dict(checkpoint["state"]["search"])
    return found


if __name__ == "__main__":
    main()
