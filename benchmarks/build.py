"""Search steps of ours on random images, built as the pipeline builds them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Step
from benchmarks.replays import graph_of
from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.core.space import Form, Shape, Space
from diffnas.engine.method import Method
from diffnas.engine.search import Search
from diffnas.methods.darts import DARTS
from diffnas.runtime.device import PRECISIONS, place
from diffnas.spaces.darts_cnn.layout import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.tasks.classification import Classification

CLASSES, SIDE = 10, 32


@dataclass(frozen=True)
class OurStep:
    """Called, it builds a supernet and returns its search step: one architecture step, one weight step.

    The fast form is placed as the pipeline places it; the plain one is left as torch makes it (NCHW).  With `graph` the step
    is a CUDA graph.
    """

    form: Form = "fast"
    channels: int = 16
    layers: int = 8
    batch: int = 16
    partial: int = 1
    ops: tuple[str, ...] = OPS
    method: Method = DARTS()
    device: str = "cpu"
    space: str = "darts-cnn"
    side: int = SIDE
    precision: str = "float32"
    graph: bool = False

    def __call__(self) -> Step:
        """The step, on fresh weights."""
        search = self.search()
        batches = self.batches()
        if self.graph:
            return graph_of(search, batches)
        return lambda: self.method.step(search, batches)

    def search(self) -> Search:
        """The search, on fresh weights."""
        torch.manual_seed(0)
        device, last = torch.device(self.device), self.form == "fast"
        space = self._space()
        supernet = space.supernet(Shape(CLASSES, side=self.side), form=self.form)
        supernet = place(supernet, device) if last else supernet.to(device)
        arch = self.method.arch(space, generator(0, "arch")).to(device)
        return Search(
            method=self.method,
            space=space,
            supernet=supernet,
            arch=arch,
            weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.025, 0.9, weight_decay=3e-4, foreach=True),
            arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-4, (0.5, 0.999), weight_decay=1e-3),
            task=Classification(),
            clip=5.0,
            precision=PRECISIONS[self.precision],
        )

    def batches(self) -> dict[str, Batch]:
        """A batch of each half."""
        images = partial(random_images, self.batch, torch.device(self.device), self.form == "fast", self.side)
        return {half: Batch(*images()) for half in ("train", "valid")}

    def _space(self) -> Space:
        if self.space == "nasbench201":
            return NASBench201(self.channels, self.layers, self.partial)
        return DartsCNN(self.channels, self.layers, ops=self.ops, partial=self.partial)


def random_images(batch: int, device: torch.device, channels_last: bool, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32] and targets [N] like those of CIFAR-10, the same on every device."""
    images, targets = torch.randn(batch, 3, side, side), torch.randint(CLASSES, (batch,))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device).contiguous(memory_format=layout), targets.to(device)
