"""Memory that steps take on a GPU, modelled: tensors alive at once, walked on the device `meta`, which holds no numbers.

    python -m benchmarks.peak

Counts what PyTorch allocates for tensors, in bytes as they are; what libraries take to work in, and what falls between
blocks, is not in it (a GPU's own peak was never compared).
"""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.build import OurStep
from benchmarks.language import Ours
from benchmarks.measure import Build, table
from benchmarks.train import TrainStep
from diffnas.methods.darts import DARTS
from diffnas.methods.pcdarts import PCDARTS

META = "meta"


class Alive(TorchDispatchMode):
    """Adds up the storages that are made, as long as they live; `peak` is the most there was."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.seen: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Does a call, and counts what is new."""
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == META:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self.seen:
            return
        self.seen.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self.seen.discard(place)
            self.now -= size

        weakref.finalize(storage, gone)


def peak(build: Build) -> float:
    """GiB alive at once while a step is built and taken twice."""
    unknown: dict[str, Any] = {
        "is_autocast_enabled": lambda kind="cpu": False,
        "autocast": lambda *_, **__: contextlib.nullcontext(),
    }
    no_clip = mock.patch.object(torch.nn.utils, "clip_grad_norm_")  # nor does the norm of many
    with mock.patch.multiple(torch, **unknown), no_clip, Alive() as alive:  # autocast does not know the device
        step = build()
        for _ in range(2):
            step()
    return alive.peak / 2**30


def cases() -> dict[str, Build]:
    """Steps at published sizes."""
    darts = OurStep(batch=64, device=META)
    return {
        "DARTS, first order, batch 64": darts,
        "DARTS, second order, batch 64": replace(darts, method=DARTS(unrolled=True)),
        "PC-DARTS, batch 256": replace(darts, batch=256, partial=4, method=PCDARTS()),
        "NAS-Bench-201, N=5, batch 64": replace(darts, space="nasbench201", layers=5),
        "recurrent search, 300 units, 256 columns": Ours(searches=True, device=META),
        "training, C=36 L=20, batch 96": TrainStep(placed=True, batch=96, device=META),
    }


def main() -> None:
    """Prints the table."""
    rows = []
    for name, case in cases().items():
        rows.append([name, f"{peak(case):.1f}"])
    print(table(["step", "GiB, modelled"], rows))


if __name__ == "__main__":
    main()
