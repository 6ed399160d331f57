"""How many kernels a search step launches on a GPU, counted where there is none: on the device `meta`, which has shapes only.

    python -m benchmarks.launches

Counts depend on neither the batch nor the sides of images.  Each operation is one launch, but those of many tensors as many
as they need, and the gradient of a convolution one for each gradient that is asked for.  A library's own kernels may be more.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.build import OurStep
from diffnas.engine.steady import SteadyAdam, SteadySGD
from diffnas.methods.darts import DARTS
from diffnas.methods.pcdarts import PCDARTS

FREE = {
    "detach",
    "lift_fresh",
    "_unsafe_view",
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
}
"""What only describes or takes memory, besides views."""
NOTES = {"_record_function_enter_new", "_record_function_exit"}
LISTED = {1: 110, 2: 64, 3: 48, 4: 36}
"""Tensors of each list that a kernel for many tensors takes at most, by the number of lists (PyTorch's MultiTensorApply)."""
JOINED = 128
"""Tensors that one kernel concatenates."""
DARTS_STEP = OurStep(batch=2, side=8, device="meta")
NB201_STEP = replace(DARTS_STEP, space="nasbench201", layers=5)
CASES = {
    "DARTS, first order": DARTS_STEP,
    "DARTS, second order": replace(DARTS_STEP, method=DARTS(unrolled=True)),
    "PC-DARTS": replace(DARTS_STEP, partial=4, method=PCDARTS()),
    "DARTS on NAS-Bench-201": NB201_STEP,
}


class Launches(TorchDispatchMode):
    """Counts them by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[function.overloadpacket.__name__] += launches(function, args)
        return function(*args, **(kwargs or {}))


def launches(function: Any, args: Any) -> int:
    """How many kernels a call of `function` needs."""
    name, made = function.overloadpacket.__name__, function._schema.returns
    if name in FREE | NOTES or any(each.alias_info and not each.alias_info.is_write for each in made):
        return 0
    if name == "convolution_backward":
        return sum(args[-1])
    lists = [arg for arg in args if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor)]
    if name in ("cat", "stack"):
        return -(-len(lists[0]) // JOINED)
    if not name.startswith("_foreach"):
        return 1
    return -(-len(lists[0]) // LISTED[len(lists) + (not name.endswith("_"))])


def counted(case: OurStep, kernels: str) -> Counter[str]:
    """The launches of a step of `case` on `meta`, with optimizers as for graphs; `kernels`: torch or triton."""
    with mock.patch.dict(os.environ, {"DIFFNAS_KERNELS": kernels}), like_a_gpu():
        search, batches = case.search(), case.batches()
        search.weights_optimizer = SteadySGD(search.supernet.parameters(), 0.025, 0.9, 3e-4)
        search.arch_optimizer = SteadyAdam(search.arch.parameters(), 3e-4, (0.5, 0.999), 1e-8, 1e-3)
        case.method.step(search, batches)  # constants are made
        with Launches() as mode:
            case.method.step(search, batches)
    return mode.found


@contextlib.contextmanager
def like_a_gpu() -> Iterator[None]:
    """Runs a block in which `meta` can do what a GPU can, as far as steps ask for it."""
    autocast = torch.autocast

    def known(kind: str, *rest: Any, **named: Any) -> Any:
        return contextlib.nullcontext() if kind == "meta" else autocast(kind, *rest, **named)

    with (
        mock.patch.object(torch, "autocast", known),
        mock.patch.object(torch, "is_autocast_enabled", lambda kind="cpu": False),
        mock.patch.object(torch, "_dirichlet_grad", lambda sample, *_: sample),
        mock.patch.object(clip_grad, "_device_has_foreach_support", lambda device: True),
        mock.patch.object(clip_grad, "_has_foreach_support", lambda *_: True),
    ):
        yield


def main() -> None:
    """Prints a line for each case."""
    print(f"{'one step, C=16, L=8 or N=5':28} {'plain':>7} {'fast':>7} {'triton':>7}")
    for name, case in CASES.items():
        forms = (replace(case, form="plain"), "torch"), (case, "torch"), (case, "triton")
        counts = [sum(counted(step, kernels).values()) for step, kernels in forms]
        print(f"{name:28} " + " ".join(f"{count:7}" for count in counts))


if __name__ == "__main__":
    main()
