"""A method on a space at the smallest size, and batches that hold something to learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from diffnas.core.batch import Batch
from diffnas.core.genotype import Genotype
from diffnas.core.seeds import generator
from diffnas.core.space import AnyShape, Form, Shape, Space, TensorShape, TextShape
from diffnas.engine import Clock, Method, Search, Stage
from diffnas.tasks.classification import Classification
from diffnas.tasks.language import LanguageTask

EPOCHS = 12
SHAPES: dict[str, AnyShape] = {"images": Shape(4, 1, 8), "text": TextShape(9)}


@dataclass(frozen=True)
class Case:
    """A `method` on a `space`, which should be small, in one `form` of its supernet.

    `shape` is that of the data (None: 8x8 images of one channel in four classes, or text of nine words), `task` their task, and
    `sizes` the settings of a network (None: as large as the supernet).  `data(number)` makes a batch (None: random inputs
    that tell their class).
    """

    method: Method
    space: Space
    form: Form = "plain"
    shape: AnyShape = None
    task: Any = None
    sizes: Mapping[str, Any] | None = None
    data: Callable[[int], Batch] | None = field(default=None, repr=False)

    @property
    def inputs(self) -> AnyShape:
        """The shape of the data; raises `ValueError` where it must be given."""
        if self.shape is not None:
            return self.shape
        if self.space.modality not in SHAPES:
            raise ValueError(
                f"space {self.space.name} reads {self.space.modality}: give the shape of its data (shape=...)"
            )
        return SHAPES[self.space.modality]

    @property
    def stage(self) -> Stage:
        """The first stage of the method, which the checks walk."""
        return self.method.stages(EPOCHS, self.space.size)[0]

    def search(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Search:
        """A search that has taken no step."""
        stage, space = self.stage, self.space
        torch.manual_seed(seed)
        supernet = space.supernet(self.inputs, stage.size, self.form).to(dtype)
        arch = self.method.arch(space, generator(seed, "arch")).to(dtype)
        search = Search(
            method=self.method,
            space=space,
            supernet=supernet,
            arch=arch,
            weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.05, 0.9, weight_decay=3e-4),
            arch_optimizer=torch.optim.Adam([{"params": list(arch.parameters())}], 3e-2, (0.5, 0.999)),
            task=self.task or (LanguageTask() if space.modality == "text" else Classification()),
            seed=seed,
            clip=5.0,
            clock=Clock(epochs=stage.epochs, epoch=stage.warmup, stage_epoch=stage.warmup, total=stage.warmup),
            feeds={name: Feed(self, first) for name, first in (("train", 100), ("valid", 200), ("score", 300))},
            shape=self.inputs,
        )
        buffers = dict(supernet.named_buffers(recurse=False))
        for name, value in self.method.supernet_buffers(search.clock).items():
            buffers[name].fill_(value)
        return search

    def batch(self, number: int, dtype: torch.dtype = torch.float32) -> Batch:
        """The batch of that number, always the same."""
        made = self.data(number) if self.data else made_batch(self.inputs, number)
        floats = isinstance(made.inputs, torch.Tensor) and made.inputs.is_floating_point()
        return replace(made, inputs=made.inputs.to(dtype)) if floats else made

    def given(self, number: int) -> Any:
        """What a network is given: the inputs of a batch, and for text a hidden state."""
        inputs = self.batch(number).inputs
        return (inputs, None) if self.space.modality == "text" else inputs

    def walk(self, search: Search, steps: range, dtype: torch.dtype = torch.float32) -> list[float]:
        """Takes steps of every phase of the stage in turn, and returns the losses of the weights."""
        losses = []
        for step in steps:
            for phase in self.stage.phases:
                given = {name: self.batch(2 * step + (name == "valid"), dtype) for name in phase.feeds}
                found = search.method.step(search, given)
                losses += [float(found["train"].value)] if "train" in found else []
        return losses

    def network(self, genotype: Genotype) -> nn.Module:
        """The network of `genotype` with fresh weights."""
        usual = {"units": 4} if self.space.modality == "text" else {}
        size = self.space.size
        sizes = self.sizes if self.sizes is not None else usual or {"channels": size.channels, "layers": size.layers}
        return self.space.network(genotype, self.inputs, **sizes)


class Feed:
    """Two batches, the same ones every epoch."""

    def __init__(self, case: Case, first: int) -> None:
        self.case, self.first, self.steps = case, first, 2

    def epoch(self, epoch: int) -> list[Batch]:
        """The batches, by step."""
        return [self.case.batch(self.first + step) for step in range(self.steps)]


def made_batch(shape: AnyShape, number: int) -> Batch:
    """Images whose class is their brightest quarter, words that mostly follow their order, or tensors whose mean tells it."""
    draw = torch.Generator().manual_seed(number)
    if isinstance(shape, TextShape):
        noise = torch.randint(0, 5, (7, 3), generator=draw) // 4
        first = torch.randint(0, shape.vocabulary, (1, 3), generator=draw)
        words = (first + torch.arange(7)[:, None] + noise) % shape.vocabulary
        return Batch(words[:-1], words[1:])
    inputs = 0.3 * torch.randn(16, *shape.sizes, generator=draw)
    classes = torch.randint(0, shape.outputs, (16,), generator=draw)
    if isinstance(shape, TensorShape):
        means = torch.randn(shape.outputs, *shape.sizes, generator=torch.Generator().manual_seed(0))
        return Batch(inputs + means[classes], classes)
    half = shape.sizes[-1] // 2
    for image, label in zip(inputs, classes.tolist(), strict=True):
        top, left = half * (label // 2 % 2), half * (label % 2)
        image[:, top : top + half, left : left + half] += 1.5
    return Batch(inputs, classes)
