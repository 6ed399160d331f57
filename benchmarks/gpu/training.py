"""Training steps of the paper's network: precisions, graphs, compilation, and what determinism costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

import diffnas
from benchmarks.build import CLASSES, OurStep, random_images
from benchmarks.gpu.context import Context, Result, Results, attempted
from benchmarks.gpu.timing import measured
from benchmarks.measure import Build, Step
from benchmarks.replays import recorded
from diffnas.core.batch import Batch
from diffnas.engine.steady import sgd
from diffnas.pipeline.train_steps import TrainSteps
from diffnas.runtime import compiling
from diffnas.runtime.compiling import Compiled
from diffnas.runtime.device import deterministic, place
from diffnas.tasks.classification import Classification

IMAGES, BATCH, SIZE, TINY = 50_000, 96, (36, 20), (2, 3)  # of an epoch, of a step; channels and layers
TRAINED = 60  # steps


@dataclass(frozen=True)
class TrainCase:
    """A training of `darts-v2`, as the pipeline has it."""

    context: Context
    precision: str = "float32"
    drop_path: float = 0.2
    graph: bool = False
    compile: bool = False

    @property
    def batch(self) -> int:
        """Images of a step."""
        return 4 if self.context.tiny else BATCH

    def steps(self) -> tuple[TrainSteps, dict[str, Batch]]:
        """The steps on fresh weights, and a batch."""
        torch.manual_seed(0)
        device, (channels, layers) = self.context.device, TINY if self.context.tiny else SIZE
        network = diffnas.build_network(
            "darts-v2", channels=channels, layers=layers, classes=CLASSES, auxiliary=True, drop_path=True
        )
        network = place(network, device)
        network.get_buffer("drop_path").fill_(self.drop_path)
        training: Any = SimpleNamespace(
            task=Classification(), optimizer=sgd(network.parameters(), 0.025, 0.9, 3e-4, steady=True)
        )
        train = SimpleNamespace(clip=5.0, accumulate=1, batch=self.batch)
        recipe: Any = SimpleNamespace(train=train, precision=self.precision)
        compiled = Compiled(network, f"benchmark {channels} {layers} {self}") if self.compile else None
        steps = TrainSteps(recipe, network, training, 0, device, compiled)
        return steps, {"train": Batch(*random_images(self.batch, device, channels_last=True))}

    def __call__(self) -> Step:
        """A step."""
        steps, batches = self.steps()
        return recorded(steps, batches) if self.graph else lambda: steps.take(batches)

    def found(self, seconds: float) -> Result:
        """Its median, and the seconds of an epoch on CIFAR-10."""
        found = measured(self, self.context, TRAINED, seconds)
        return found | {"epoch_s": found["median_ms"] / 1e3 * IMAGES / self.batch}


def train(context: Context) -> Results:
    """Steps in each precision, one by one and as a graph."""
    for precision in ("float32", "bfloat16"):
        for graph in (False, True):
            what = {"form": "graph" if graph else "eager", "precision": precision}
            yield attempted(what, partial(TrainCase(context, precision, graph=graph).found, 8.0))


def compiled(context: Context) -> Results:
    """Compiled steps, one by one and as a graph; on a CPU by a backend that needs no compiler."""
    backend = compiling.BACKEND if context.cuda else "aot_eager"
    with mock.patch.object(compiling, "BACKEND", backend):
        for precision in ("bfloat16", "float32"):
            for graph in (False, True):
                form = "compiled graph" if graph else "compiled"
                case = TrainCase(context, precision, graph=graph, compile=True)
                yield attempted({"form": form, "precision": precision}, partial(case.found, 8.0))


def determinism(context: Context) -> Results:
    """Steps with and without `deterministic: true`, and whether two runs of it end with equal bits."""
    search = OurStep(device=str(context.device), batch=64)
    if context.tiny:
        search = OurStep(device=str(context.device), channels=4, layers=1, batch=2, side=8, ops=("skip_connect",))
    cases: dict[str, Build] = {"search step": search, "training step": TrainCase(context)}
    for name, case in cases.items():
        for asked in (False, True):
            yield attempted({"case": name, "deterministic": asked}, partial(_timed, case, context, asked))
    yield attempted({"case": "equal bits"}, partial(_equal, context))


def _timed(case: Build, context: Context, asked: bool) -> Result:
    with deterministic(asked):
        return measured(case, context, 20, 2.0)


def _equal(context: Context) -> Result:
    ended = []
    for _ in range(2):
        with deterministic(True):
            steps, batches = TrainCase(context).steps()
            for _ in range(3):
                steps.take(batches)
        ended.append([weight.detach().clone() for weight in steps.weights])
    return {"ok": all(torch.equal(one, other) for one, other in zip(*ended, strict=True))}
