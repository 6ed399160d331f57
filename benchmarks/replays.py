"""Steps as CUDA graphs, or on a CPU as the tape that stands for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from benchmarks.measure import Step
from diffnas.core.batch import Batch
from diffnas.engine.replay import WARM, CudaRecorder, Replay, Steps
from diffnas.engine.search import Search
from diffnas.engine.search_steps import SearchSteps
from diffnas.engine.steady import SteadyAdam, SteadySGD
from diffnas.testing.tape import Tape


def replay(steps: Steps) -> Replay:
    """Returns `steps`, to be recorded as their device can."""
    return Replay(steps, CudaRecorder(steps.device) if steps.device.type == "cuda" else Tape())


def steadied(search: Search) -> Search:
    """Returns `search` with optimizers, and draws, that a graph can repeat; it must not have begun."""
    weights, arch = search.weights_optimizer.defaults, search.arch_optimizer.defaults
    rate, decay = weights["lr"], weights["weight_decay"]
    search.weights_optimizer = SteadySGD(search.supernet.parameters(), rate, weights["momentum"], decay)
    search.arch_optimizer = SteadyAdam(
        search.arch.parameters(), arch["lr"], arch["betas"], arch["eps"], arch["weight_decay"]
    )
    search.device_draws = True
    return search


def recorded(steps: Steps, batches: Mapping[str, Batch]) -> Step:
    """Returns what repeats a step of `steps` on `batches`, once it is recorded; raises `RuntimeError` where it cannot be."""
    own = replay(steps)
    for _ in range(WARM + 1):
        own.step(batches)
    if own.off is not None:
        raise RuntimeError(own.off)
    return lambda: own.step(batches)


def graph_of(search: Search, batches: Mapping[str, Batch]) -> Step:
    """Returns the step of `search` on `batches` as a graph."""
    with torch.enable_grad():
        return recorded(SearchSteps(steadied(search)), batches)
