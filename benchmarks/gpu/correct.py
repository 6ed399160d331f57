"""Gradients of a search step against float64 on the CPU, with TF32 off: forms, precisions, orders, spaces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor

from benchmarks.build import OurStep
from benchmarks.gpu.context import Context, Result, Results, absent, attempted
from benchmarks.gpu.forms import SUPERNETS, kernels, lack
from diffnas.core.batch import Batch
from diffnas.engine import Search, differentiate
from diffnas.engine.gradients import hypergradient
from diffnas.engine.precision import full_float32

Order = Literal["first", "second"]
Found = dict[str, Tensor]
"""The gradients of the architecture, and those of the weights, each in a row, float64 on the CPU."""

LIMITS: dict[str, dict[Order, float]] = {
    "float32": {"first": 1e-3, "second": 5e-2},
    "bfloat16": {"first": 0.5, "second": 0.7},
}
"""Largest |found - true| / |true|.  A CPU has 1e-6 in float32, and a third to a half of the limit in bfloat16."""
DRAWS = 4
"""Batches that are tried until one is within the limit: a mistake shows with all of them, a number that rounding takes across
the kink of a ReLU with some (on a CPU with every third; the second order divides what that changes by a small step)."""


def run(context: Context) -> Results:
    """Every combination."""
    reference = OurStep(channels=8, layers=3, batch=8, side=16)
    if context.tiny:
        reference = replace(
            reference, channels=2, layers=1, batch=4, side=8, ops=("none", "skip_connect", "sep_conv_3x3")
        )
    cases = {"darts-cnn": reference, "nasbench201": replace(reference, space="nasbench201", layers=1)}
    with full_float32():
        for name, case in cases.items():
            yield from _compared(context, name, case)


def _compared(context: Context, space: str, case: OurStep) -> Iterator[Result]:
    plain = replace(case, form="plain")

    @cache
    def batches(draw: int) -> dict[str, Batch]:
        torch.manual_seed(draw)
        return plain.batches()

    @cache
    def truth(order: Order, draw: int) -> Found:
        return found_by(exact(plain.search()), _sent(batches(draw), torch.device("cpu"), torch.float64), order)

    def errors(order: Order, name: str, precision: str, draw: int) -> dict[str, float]:
        true, (form, by) = truth(order, draw), SUPERNETS[name]
        with kernels(by):
            search = replace(case, form=form, precision=precision, device=str(context.device)).search()
            found = found_by(search, _sent(batches(draw), context.device, torch.float32), order)
        return {name: float((found[name] - value).norm() / value.norm()) for name, value in true.items()}

    def least(order: Order, form: str, precision: str) -> Result:
        limit, best = LIMITS[precision][order], {"none": math.inf}
        for draw in range(DRAWS):
            best = min(best, errors(order, form, precision, draw), key=lambda each: max(each.values()))
            if max(best.values()) < limit:
                break
        return {**best, "draws": draw + 1, "limit": limit, "ok": max(best.values()) < limit}

    orders: tuple[Order, ...] = ("first", "second")
    for order in orders:
        for precision in LIMITS:
            for form in SUPERNETS:
                what = {"space": space, "order": order, "precision": precision, "form": form}
                without = lack(form, context.device)
                yield absent(what, without) if without else attempted(what, partial(least, order, form, precision))


def exact(search: Search) -> Search:
    """The same search in float64."""
    search.supernet.double()
    search.arch.double()
    return search


def found_by(search: Search, batches: dict[str, Batch], order: Order) -> Found:
    """The gradients of one step of `search`, before anything moves."""
    mixture = search.relax("arch")
    if order == "second":
        slopes = hypergradient(search, mixture, batches["train"], batches["valid"])[1]
        return {"arch": _row(slopes)}
    slopes = differentiate(search, mixture, batches["valid"], {"mixture"}).mixture
    weights = differentiate(search, mixture, batches["train"], {"weights"}).weights
    return {"arch": _row(slopes), "weights": _row(weights)}


def _row(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().cpu().double().flatten() for tensor in tensors])


def _sent(batches: dict[str, Batch], device: torch.device, dtype: torch.dtype) -> dict[str, Batch]:
    return {
        name: replace(batch, inputs=batch.inputs.to(device, dtype), targets=batch.targets.to(device))
        for name, batch in batches.items()
    }
