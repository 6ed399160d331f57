"""Recurrent cells: the original's search and training steps against ours, beside what their matrix products alone take.

    python -m benchmarks.language --root FOLDER [--only NAME ...] [--rounds N] [--threads N] [--device D] [--json FILE]

FOLDER holds `darts`, a clone that you made, whose files are patched in memory (see `benchmarks.originals`).  Penn Treebank's
sizes: 10,000 words, windows of 35; a search of 300 units in 256 columns, a training of `darts-rnn-v2` with 850 in 64.  Random
words, the published dropouts and penalties, steps in turns in one process.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import diffnas
from benchmarks import originals
from benchmarks.measure import (
    Step,
    alternate,
    arguments,
    begin,
    compare,
    comparison_head,
    table,
    time_cells,
    write_json,
)
from benchmarks.replays import graph_of
from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.core.space import Form, TextShape
from diffnas.engine.search import Search
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.tasks.language import LanguageTask

WORDS, BPTT, CLIP, SLOWNESS = 10_000, 35, 0.25, 1e-3
SEARCH, TRAIN = (256, 300), (64, 850)  # columns, units
RATES = {"dropout": 0.75, "dropouth": 0.25, "dropoutx": 0.75, "dropouti": 0.2}
PATCHES = (
    ("embed._backend.Embedding.apply(", "_embed("),  # gone from PyTorch
    (
        "import os, shutil",
        "import os, shutil\n_embed = lambda words, weights, *rest: nn.functional.embedding(words, weights)",
    ),
    ("x.view(-1) for x in xs", "x.reshape(-1) for x in xs"),
    ("theta.sub(eta, dtheta)", "theta.sub(dtheta, alpha=eta)"),
    ("p.data.add_(R, v)", "p.data.add_(v, alpha=R.item())"),
    ("p.data.sub_(2*R, v)", "p.data.sub_(v, alpha=2*R.item())"),
    ("g.data.sub_(eta * clip_coef, ig.data)", "g.data.sub_(ig.data, alpha=float(eta * clip_coef))"),
)


def random_words(columns: int, device: torch.device, rows: int = BPTT) -> tuple[Tensor, Tensor]:
    """Words and the next ones, [T, N] both."""
    words = torch.randint(WORDS, (rows + 1, columns), device=device)
    return words[:-1], words[1:]


@dataclass(frozen=True)
class Theirs:
    """Called, it builds the original's supernet, or its model of DARTS_V2, and returns a step, as its scripts have it."""

    root: Path
    searches: bool
    unrolled: bool = False
    device: str = "cpu"

    def __call__(self) -> Step:
        """The step, on fresh weights."""
        torch.manual_seed(0)
        device = torch.device(self.device)
        with originals.modules_of([self.root / "darts" / "rnn"], device, PATCHES):
            found = importlib.import_module("model_search" if self.searches else "model")
            architect = importlib.import_module("architect").Architect if self.searches else None
            genotype = importlib.import_module("genotypes").DARTS_V2
        columns, units = SEARCH if self.searches else TRAIN
        sizes = (WORDS, units, units, units, *RATES.values(), 0.0 if self.searches else 0.1)
        net = found.RNNModelSearch(*sizes) if self.searches else found.RNNModel(*sizes, genotype=genotype)
        net = net.to(device)
        optimizer = torch.optim.SGD(net.parameters(), 20.0, weight_decay=5e-7)
        (x, y), (x_valid, y_valid) = (random_words(columns, device) for _ in range(2))
        y, y_valid = y.reshape(-1), y_valid.reshape(-1)
        hidden, valid_hidden = net.init_hidden(columns), net.init_hidden(columns)
        learner = None
        if architect is not None:
            learner = architect(net, argparse.Namespace(wdecay=5e-7, clip=CLIP, arch_lr=3e-3, arch_wdecay=1e-3))

        def step() -> None:
            if learner is not None:
                learner.step(hidden, x, y, valid_hidden, x_valid, y_valid, optimizer, self.unrolled)
            optimizer.zero_grad()
            log_prob, _, raw, _ = net(x, hidden, return_h=True)
            loss = nn.functional.nll_loss(log_prob.view(-1, WORDS), y)
            loss = loss + sum(SLOWNESS * (h[1:] - h[:-1]).pow(2).mean() for h in raw[-1:])
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimizer.step()

        return step


@dataclass(frozen=True)
class Ours:
    """Called, it builds the same of ours.

    Of a search, `size` is columns and units (None: the published ones), `rows` the length of a window.
    """

    searches: bool
    unrolled: bool = False
    device: str = "cpu"
    form: Form = "fast"
    size: tuple[int, int] | None = None
    rows: int = BPTT
    graph: bool = False

    def __call__(self) -> Step:
        """The step, on fresh weights."""
        torch.manual_seed(0)
        device = torch.device(self.device)
        return self._search(device) if self.searches else self._train(device)

    def _search(self, device: torch.device) -> Step:
        columns, units = self.size or SEARCH
        space, method = DartsRNN(units=units), DARTS(unrolled=self.unrolled)
        supernet = space.supernet(TextShape(WORDS), form=self.form).to(device)
        arch = method.arch(space, generator(0, "arch")).to(device)
        search = Search(
            method=method,
            space=space,
            supernet=supernet,
            arch=arch,
            weights_optimizer=torch.optim.SGD(supernet.parameters(), 20.0, weight_decay=5e-7, foreach=True),
            arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-3, weight_decay=1e-3),
            task=LanguageTask(0.0, SLOWNESS),
            clip=CLIP,
            ahead_clip=CLIP,
        )
        carry = torch.zeros(1, columns, units, device=device)
        batches = {half: Batch(*random_words(columns, device, self.rows), carry=carry) for half in ("train", "valid")}
        if self.graph:
            return graph_of(search, batches)
        return lambda: method.step(search, batches)

    def _train(self, device: torch.device) -> Step:
        columns, units = TRAIN
        network = diffnas.build_network("darts-rnn-v2", vocabulary=WORDS, units=units, dropouts=RATES).to(device)
        weights, task = list(network.parameters()), LanguageTask(0.0, SLOWNESS)
        optimizer = torch.optim.SGD(weights, 20.0, weight_decay=5e-7, foreach=True)
        batch = Batch(*random_words(columns, device), carry=torch.zeros(1, columns, units, device=device))

        def step() -> None:
            loss = task.loss(network, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.total().backward()
            nn.utils.clip_grad_norm_(weights, CLIP, foreach=True)
            optimizer.step()

        return step


@dataclass(frozen=True)
class Products:
    """Called, it returns the matrix products of our step alone: what no way of computing the rest can go below.

    A pass forward has one product each, a pass back one for the inputs' gradient and one for the weights'.  The architecture's
    first-order pass leaves the latter out; the second order has a training pass, a validation pass and two difference passes.
    """

    searches: bool
    unrolled: bool = False
    device: str = "cpu"

    def __call__(self) -> Step:
        """The products."""
        columns, units = SEARCH if self.searches else TRAIN
        nodes = range(1, 9) if self.searches else [1] * 8
        # rows, inner and outer width, how often: words at once, then the start and each node at every moment, then the decoder
        shapes = [(BPTT * columns, units, 2 * units, 1), (columns, units, 2 * units, BPTT)]
        shapes += [(k * columns, units, 2 * units, BPTT) for k in nodes] + [(BPTT * columns, units, WORDS, 1)]
        device = torch.device(self.device)
        draw = partial(torch.randn, device=device)
        made = [(draw(m, k), draw(k, n), draw(m, n), times) for m, k, n, times in shapes]
        passes = [True]  # with the weights' gradient, or without
        if self.searches:
            passes = [True, True, False, False, True] if self.unrolled else [False, True]

        def step() -> None:
            for weights_too in passes:
                for x, w, y, times in made:
                    for _ in range(times):
                        torch.mm(x, w)
                        torch.mm(y, w.t())
                        if weights_too:
                            torch.mm(x.t(), y)

        return step


CASES = {"search-first": (True, False), "search-second": (True, True), "train": (False, False)}


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = arguments("The original's recurrent search and training steps against ours.", rounds=3)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the clone darts")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help=f"of {', '.join(CASES)}")
    args = parser.parse_args()
    if not (args.root / "darts" / "rnn").is_dir():
        print(f"--root {args.root}: get the original with: git clone {originals.CLONES['darts']} {args.root / 'darts'}")
        return 2
    device = begin(args)
    found, limits = [], []
    for name in args.only or CASES:
        searches, unrolled = CASES[name]
        theirs, ours = Theirs(args.root, searches, unrolled), Ours(searches, unrolled)
        theirs, ours = replace(theirs, device=str(device)), replace(ours, device=str(device))
        found.append(compare(name, theirs, ours, args.rounds, device))
        (products,) = alternate([Products(searches, unrolled, str(device))()], args.rounds, device)
        limits.append((name, products, found[-1].base.best / products.best))
        print(found[-1].line("theirs", f"{name}: ours"), flush=True)
    print("\n" + table(comparison_head("step", "theirs", "ours"), [each.row() for each in found]))
    head = ["its matrix products alone", "min s", "median", "spread", "theirs over them"]
    print("\n" + table(head, [[name, *time_cells(times), f"{ratio:.2f}x"] for name, times, ratio in limits]))
    records = [{**each.record(), "products": times.seconds} for each, (_, times, _) in zip(found, limits, strict=True)]
    write_json(args.json, device, {"comparisons": records})
    return 0


if __name__ == "__main__":
    sys.exit(main())
