"""A search small enough to enumerate: one cell, and a loss that is a sum over its mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch, Loss
from diffnas.core.cell import Cell
from diffnas.core.count import Resources
from diffnas.core.mixture import Mix
from diffnas.core.seeds import generator
from diffnas.engine import Search
from diffnas.engine.method import Method
from diffnas.engine.stage import Clock

CHAIN = Cell(("a", "b", "c"), ((0, 1), (1, 2)), 1, None, frozenset(), ((True,) * 3,) * 2, (2,))
PRICES = [[0.0, 1.0, 2.0], [10.0, 30.0, 70.0]]


@dataclass(frozen=True)
class Toy:
    """The space: `CHAIN` has two edges of three ops, which cost `PRICES`."""

    cell: Cell = CHAIN
    name: str = "toy"
    modality: str = "images"

    @property
    def cells(self) -> dict[str, Cell]:
        return {"cell": self.cell}

    def costs(self, shape: Any, unit: str) -> dict[str, list[list[float]]]:
        return {"cell": PRICES}

    def cell_costs(self, shape: Any) -> dict[str, list[list[list[Resources]]]]:
        return {"cell": [[[Resources(int(p), int(k * p), 7) for p in row] for row in PRICES] for k in (1, 3)]}

    def fixed_cost(self, shape: Any, unit: str) -> float:
        return 5.0


class Supernet(nn.Module):
    """The sum of the shares times the inputs [E, O]: both the loss and the accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, table_EO: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        return self.weight * (table_EO * mixture["cell"].shares()).sum()


class Task:
    def loss(self, net: Callable[[Tensor], Tensor], batch: Batch) -> Loss:
        value = net(batch.inputs)
        return Loss(value, value.detach(), 1)

    def reward(self, loss: Tensor, accuracy: Tensor) -> Tensor:
        return accuracy


@dataclass(frozen=True)
class Feed:
    batches: list[Batch]

    @property
    def steps(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int) -> list[Batch]:
        return self.batches


@pytest.fixture
def toy() -> Callable[..., Search]:
    """Builds the search of a method on `cell`, in float64, by plain gradient descent."""

    def build(method: Method, cell: Cell = CHAIN, seed: int = 0, score: list[Tensor] | None = None) -> Search:
        space: Any = Toy(cell)
        supernet = Supernet()
        arch = method.arch(space, generator(seed, "arch")).double()
        return Search(
            method=method,
            space=space,
            supernet=supernet,
            arch=arch,
            weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.1),
            arch_optimizer=torch.optim.SGD([{"params": list(arch.parameters())}], 1.0),
            task=Task(),
            seed=seed,
            clock=Clock(epochs=11),
            feeds={"score": Feed([Batch(table, torch.zeros(1)) for table in score or []])},
        )

    return build


@pytest.fixture
def table() -> Batch:
    """The reward of every op of every edge."""
    return Batch(torch.tensor([[0.1, 0.5, 0.9], [0.7, 0.2, 0.3]], dtype=torch.float64), torch.zeros(1))
