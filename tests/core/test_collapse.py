"""Skip connections that take over a cell are noticed, and sound cells are left in peace."""

from __future__ import annotations

import pytest
import torch

import diffnas
from diffnas.core.collapse import collapsed, skips
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.published_genotypes import PUBLISHED
from diffnas.engine import strongest
from diffnas.spaces.darts_cnn.layout import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN

SKIP, CONV = OPS.index("skip_connect"), OPS.index("sep_conv_3x3")


def trajectory(skip_rate: float, epochs: int = 50) -> list[str | None]:
    """What is said of the genotypes of alphas that move from noise, skip connections by `skip_rate` an epoch."""
    draw = torch.Generator().manual_seed(0)
    space, found = DartsCNN(), []
    spread = torch.rand(14, generator=draw)
    for epoch in range(epochs):
        alpha = 0.01 * torch.randn(14, 8, generator=draw)
        alpha[:, CONV] += 0.02 * epoch * spread
        alpha[:, SKIP] += skip_rate * epoch
        cells = {kind: strongest(cell, alpha.softmax(-1)) for kind, cell in space.cells.items()}
        found.append(collapsed(Genotype("darts-cnn", cells)))
    return found


def test_a_collapsing_trajectory_is_noticed_and_stays_so() -> None:
    said = trajectory(0.03)
    assert said[-1] == "8 of the 8 ops of cell normal are skip connections"
    assert said[0] is None and all(said[10:])


def test_a_sound_trajectory_is_not() -> None:
    assert not any(trajectory(0.0)) and not any(trajectory(0.004)[5:])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_are_sound(name: str) -> None:
    genotype = diffnas.load_genotype(name)
    # searched for few parameters, it is at the border; the other is made of skip connections
    many = name in ("snas-aggressive", "nb201-all-skip")
    assert (collapsed(genotype) is None) != many and set(skips(genotype)) == set(genotype.cells)


def test_the_cell_of_skips_of_nasbench201_is_collapsed() -> None:
    inputs = tuple(tuple(("skip_connect", source) for source in range(node)) for node in (1, 2, 3))
    cell = Genotype("nasbench201", {"cell": Nodes(inputs, (3,), 1)})
    assert collapsed(cell) == "6 of the 6 ops of cell cell are skip connections"
