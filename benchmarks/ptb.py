"""The recurrent cell of DARTS against an LSTM with as many parameters, on Penn Treebank, at a size for a CPU.

    python -m benchmarks.ptb --data FOLDER [--seeds N] [--epochs N] [--rates R ...] [--workers N] [--json FILE]

Both models share everything but the recurrence: embedding and decoder of 200 units, dropouts, penalty, clipping, windows and
optimizer are those of the recipe `ptb-train-small`.  The LSTM has 442 cells, projected to 200 units, which makes its recurrence
as large (797,368 weights; the cell of `darts-rnn-v2` has 800,000).  Seed 0 tries every learning rate; the one that is best on
validation serves all seeds.  Two epochs are not a training: the comparison asks whether the cell learns as it should.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

import diffnas
from benchmarks.measure import environment, table, write_json
from diffnas.core.batch import LanguageModelOutput
from diffnas.core.seeds import stream_seed
from diffnas.core.space import TextShape
from diffnas.engine.optim import set_learning_rate
from diffnas.pipeline.network import build
from diffnas.pipeline.sources.load import load_test_set
from diffnas.pipeline.sources.texts import TextSource
from diffnas.recipe.schema import TextTrain
from diffnas.spaces.darts_rnn.layout import Dropouts
from diffnas.spaces.darts_rnn.ops import LanguageModel, masked

CPU = torch.device("cpu")
MODELS = ("darts-rnn-v2", "lstm")
CELLS = 442


class LSTM(LanguageModel):
    """The same language model around an LSTM (Hochreiter and Schmidhuber, 1997) whose cells are projected to its units."""

    def __init__(self, vocabulary: int, units: int, dropouts: Dropouts) -> None:
        super().__init__(vocabulary, units, dropouts)
        bound = 1.0 / math.sqrt(CELLS)
        self.own, self.before = (nn.Parameter(torch.empty(units, 4 * CELLS).uniform_(-bound, bound)) for _ in range(2))
        self.out = nn.Parameter(torch.empty(CELLS, units).uniform_(-bound, bound))
        self.gates = nn.Parameter(torch.empty(4 * CELLS).uniform_(-bound, bound))

    def forward(self, inputs: tuple[Tensor, Tensor | None]) -> LanguageModelOutput:
        """What it says of the tokens; its carry [1, N, H + C] holds the hidden state and the cells."""
        tokens, carry = inputs
        units, cells = self.embedding.embedding_dim, None
        if carry is not None:
            carry, cells = carry.split((units, CELLS), dim=2)
        last: list[Tensor] = []

        def recur(x: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
            c = hidden.new_zeros(len(hidden), CELLS) if cells is None else cells[0]
            words, states = x @ self.own + self.gates, []
            for word in words:
                kept, new, seen, value = (word + masked(hidden, mask) @ self.before).chunk(4, dim=1)
                c = kept.sigmoid() * c + new.sigmoid() * value.tanh()
                hidden = (seen.sigmoid() * c.tanh()) @ self.out
                states.append(hidden)
            last.append(c)
            return torch.stack(states)

        spoken = self.speak(tokens, carry, recur)
        return spoken._replace(carry=torch.cat([spoken.carry, last[0][None]], dim=2))


@dataclass(frozen=True)
class Job:
    """One training."""

    model: str
    seed: int
    rate: float
    epochs: int
    data: str


@dataclass(frozen=True)
class Result:
    """What became of it: perplexities, the unigram model's, parameters, seconds."""

    job: Job
    valid: float
    test: float
    unigram: float
    params: int
    seconds: float


def trained(job: Job) -> Result:
    """Trains one model and tests the best epoch."""
    torch.set_num_threads(1)
    started = time.monotonic()
    sets = [f"data.path={job.data}", f"seed={job.seed}", f"train.lr={job.rate}", f"train.epochs={job.epochs}"]
    recipe = diffnas.read_recipe("ptb-train-small", sets)
    source, train = TextSource(recipe), recipe.train
    assert isinstance(train, TextTrain)
    network = build(diffnas.load_genotype(MODELS[0]), recipe, source.shape, stream_seed(job.seed, "weights"))
    if job.model == "lstm":
        assert isinstance(network, LanguageModel) and isinstance(source.shape, TextShape)
        network = LSTM(source.shape.vocabulary, train.units, network.dropouts)
    training, weights, valid = source.training(network, CPU), list(network.parameters()), math.inf
    for epoch in range(job.epochs):
        torch.manual_seed(stream_seed(job.seed, "noise", epoch))
        lr, carry = training.begin(epoch), None
        network.train()
        for batch in training.feed.epoch(epoch):
            loss = training.task.loss(network, replace(batch, carry=carry))
            carry = loss.carry
            training.optimizer.zero_grad(set_to_none=True)
            loss.total().backward()
            nn.utils.clip_grad_norm_(weights, train.clip or math.inf, foreach=True)
            set_learning_rate(training.optimizer, lr * batch.scale)
            training.optimizer.step()
        valid = min(valid, training.after(epoch)["valid_perplexity"])
    network.load_state_dict(training.result())
    found = load_test_set(recipe, source.inputs).evaluate(network, CPU)
    params = sum(p.numel() for p in network.parameters())
    return Result(job, valid, found["perplexity"], found["unigram_perplexity"], params, time.monotonic() - started)


def said(results: Iterable[Result]) -> list[list[str]]:
    """Rows of results."""
    rows = []
    for r in results:
        found = [f"{r.job.rate:g}", f"{r.valid:.2f}", f"{r.test:.2f}", f"{r.params:,}", f"{r.seconds:.0f}"]
        rows.append([r.job.model, str(r.job.seed), *found])
    return rows


def main() -> int:
    """Trains, prints, and says whether the cell is worse by more than 5 %."""
    parser = argparse.ArgumentParser(description="darts-rnn-v2 against an LSTM on Penn Treebank.")
    parser.add_argument("--data", required=True, help="the folder of Penn Treebank")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=[5.0, 10.0, 20.0])
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, each on one thread")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    for key, value in environment(CPU).items():
        print(f"{key + ':':9} {value}")
    started, head = time.monotonic(), ["model", "seed", "rate", "valid", "test", "parameters", "s"]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        jobs = [Job(model, 0, rate, args.epochs, args.data) for rate in args.rates for model in MODELS]
        first = list(pool.map(trained, jobs))
        best = {m: min((r for r in first if r.job.model == m), key=lambda r: r.valid).job for m in MODELS}
        jobs = [replace(best[m], seed=seed) for seed in range(1, args.seeds) for m in MODELS]
        rest = list(pool.map(trained, jobs))
    print("\n" + table(head, said([*first, *rest])) + "\n")
    means = {}
    for m in MODELS:
        tests = [r.test for r in [*first, *rest] if r.job.model == m and r.job.rate == best[m].rate]
        means[m] = statistics.mean(tests)
        spread = f"of {len(tests)} seeds {min(tests):.2f} to {max(tests):.2f}"
        print(f"{m}: rate {best[m].rate:g}, test perplexity {means[m]:.2f}, {spread}")
    print(f"word frequencies alone: {first[0].unigram:.2f}")
    print(f"darts-rnn-v2 over lstm: {means[MODELS[0]] / means['lstm']:.3f}, in {time.monotonic() - started:.0f} s")
    write_json(args.json, CPU, {"results": said([*first, *rest])})
    return 0


if __name__ == "__main__":
    sys.exit(main())
