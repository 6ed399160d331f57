"""What graphs must keep: the steps are those taken one by one, at every rate, and each repetition draws anew."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.build import OurStep
from benchmarks.gpu.context import Context, Result, Results, attempted
from benchmarks.gpu.steps import OPS
from benchmarks.gpu.training import TrainCase
from benchmarks.replays import replay, steadied
from diffnas.engine.optim import set_learning_rate
from diffnas.engine.precision import full_float32
from diffnas.engine.replay import WARM
from diffnas.engine.search import Search
from diffnas.engine.search_steps import SearchSteps
from diffnas.methods.darts import DARTS
from diffnas.methods.drnas import DrNAS
from diffnas.methods.pcdarts import PCDARTS

STEPS, LIMIT = 5, 2e-2  # replays; largest |graph - eager| / |eager|, of five steps of rounding


def run(context: Context) -> Results:
    """Steps of searches, then draws of a training."""
    reference = OurStep(channels=8, layers=3, batch=16, side=16, device=str(context.device))
    if context.tiny:
        reference = replace(reference, channels=4, layers=1, batch=4, side=8, ops=OPS)
    cases = {
        "darts first order": reference,
        "darts second order": replace(reference, method=DARTS(unrolled=True)),
        "pcdarts": replace(reference, partial=2, method=PCDARTS()),
        "nasbench201 drnas": replace(reference, space="nasbench201", layers=1, method=DrNAS()),
    }
    for name, case in cases.items():
        yield attempted({"case": "graph equals eager", "search": name}, partial(_compared, case))
    yield attempted({"case": "each repetition drops other paths"}, partial(_drops, context))


def _compared(case: OurStep) -> Result:
    """Five steps by a graph and one by one from the same state, on two batches in turns, at a rate that falls."""
    batches = [case.batches() for _ in range(2)]
    moved = []
    with full_float32():
        for graph in (False, True):
            search = steadied(case.search())
            own = replay(SearchSteps(search))
            torch.manual_seed(1)
            before: Any = None
            for step in range(WARM + 1 + STEPS):
                if step == WARM + 1:
                    before = _row(search)
                set_learning_rate(search.weights_optimizer, 0.025 / (step + 1))
                given = batches[step % 2]
                own.step(given) if graph else case.method.step(search, given)
            if own.off is not None:
                raise RuntimeError(own.off)
            moved.append(_row(search) - before)
    apart = float((moved[1] - moved[0]).norm() / moved[0].norm())
    return {"apart": apart, "limit": LIMIT, "ok": apart < LIMIT}


def _row(search: Search) -> torch.Tensor:
    tensors = [*search.weights, *search.arch.parameters()]
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def _drops(context: Context) -> Result:
    """Losses of repetitions on one batch at a rate of 0: they differ by the paths that are dropped."""
    steps, batches = TrainCase(context, drop_path=0.5).steps()
    own = replay(steps)
    set_learning_rate(steps.training.optimizer, 0.0)
    losses = [own.step(batches)["train"].value.item() for _ in range(WARM + 4)]
    repeated = losses[-3:]
    return {"losses": repeated, "ok": own.off is None and len(set(repeated)) == 3}
