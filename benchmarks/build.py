"""Search steps of ours on random images, built as the pipeline builds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.measure import Step
from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.core.space import Form, Shape, Size
from diffnas.engine.method import Method
from diffnas.engine.search import Search
from diffnas.methods.darts import DARTS
from diffnas.runtime.device import place
from diffnas.spaces.darts_cnn.space import OPS, DartsCNN
from diffnas.tasks.images import ImageTask

CLASSES, SIDE = 10, 32


@dataclass(frozen=True)
class OurStep:
    """Called, it builds a supernet and returns its search step: one architecture step, one weight step.

    The fast form is placed as the pipeline places it; the plain one is left as torch makes it (NCHW).
    """

    form: Form = "fast"
    channels: int = 16
    layers: int = 8
    batch: int = 16
    partial: int = 1
    ops: tuple[str, ...] = OPS
    method: Method = DARTS()
    device: str = "cpu"

    def __call__(self) -> Step:
        """The step, on fresh weights."""
        torch.manual_seed(0)
        space = DartsCNN(self.channels, self.layers, ops=self.ops, partial=self.partial)
        device, last = torch.device(self.device), self.form == "fast"
        size = Size(self.channels, self.layers, self.partial)
        supernet = space.supernet(Shape(CLASSES, side=SIDE), size, form=self.form)
        supernet = place(supernet, device) if last else supernet.to(device)
        arch = self.method.arch(space, generator(0, "arch")).to(device)
        search = Search(
            method=self.method,
            space=space,
            supernet=supernet,
            arch=arch,
            weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.025, 0.9, weight_decay=3e-4, foreach=True),
            arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-4, (0.5, 0.999), weight_decay=1e-3),
            task=ImageTask(),
            clip=5.0,
        )
        batches = {half: Batch(*random_images(self.batch, device, last)) for half in ("train", "valid")}
        return lambda: self.method.step(search, batches)


def random_images(batch: int, device: torch.device, channels_last: bool) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32] and targets [N] like those of CIFAR-10."""
    images = torch.randn(batch, 3, SIDE, SIDE, device=device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.contiguous(memory_format=layout), torch.randint(CLASSES, (batch,), device=device)
