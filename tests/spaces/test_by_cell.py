"""Mixtures that differ from cell to cell, in every space and both of its supernets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffnas.core.mixture import Mix, Mixture, by_cell
from diffnas.core.space import Shape, TextShape
from diffnas.registry import SPACES, choice_class

SMALL: dict[str, dict[str, Any]] = {
    "darts-cnn": {"channels": 4, "layers": 4, "nodes": 2},
    "darts-rnn": {"units": 6, "dropout": 0.0, "dropouth": 0.0, "dropoutx": 0.0, "dropouti": 0.0, "dropoute": 0.0},
    "nasbench201": {"channels": 4, "layers": 2},
    "shufflenet-blocks": {"channels": 4, "widths": (8,), "depths": (2,), "last": 8, "stem": "cifar"},
}


def case(name: str) -> tuple[Any, Any, Any]:
    space = choice_class("space", name)(**SMALL[name])
    if space.modality == "text":
        return space, TextShape(9), (torch.arange(12).view(4, 3) % 9, None)
    return space, Shape(4, 3, 8), torch.randn(4, 3, 8, 8, dtype=torch.float64)


def different(space: Any) -> Mixture:
    """Shares, scales of edges and active entries of each cell's own."""
    mixes = {}
    for kind, cell in space.cells.items():
        sizes = space.chain().count(kind), len(cell.edges), len(cell.ops)
        active = torch.rand(sizes) < 0.8
        op = torch.rand(sizes, dtype=torch.float64).masked_fill(~active, 0.0)
        mixes[kind] = Mix(op, torch.rand(sizes[:2], dtype=torch.float64) + 0.5, active)
    return Mixture(mixes)


def value(space: Any, shape: Any, inputs: Any, mixture: Mixture, form: Any = "plain") -> torch.Tensor:
    torch.manual_seed(0)
    found = space.supernet(shape, form=form).double()(inputs, mixture)
    return found if isinstance(found, torch.Tensor) else found.log_probs


@pytest.mark.parametrize("name", SPACES)
def test_the_same_for_every_cell_is_what_it_was(name: str, close: Any) -> None:
    space, shape, inputs = case(name)
    shared = Mixture(
        {kind: Mix(torch.rand(len(c.edges), len(c.ops), dtype=torch.float64)) for kind, c in space.cells.items()}
    )
    apart = shared.by_cell(space.chain())
    assert all(len(apart[kind].op) == space.chain().count(kind) for kind in space.cells)
    assert torch.equal(value(space, shape, inputs, apart), value(space, shape, inputs, shared))


@pytest.mark.parametrize("name", SPACES)
def test_every_cell_takes_its_own(name: str, close: Any) -> None:
    space, shape, inputs = case(name)
    mixture = different(space).leaves()
    plain, fast = (value(space, shape, inputs, mixture, form) for form in ("plain", "fast"))
    close(fast, plain)
    slopes = [torch.autograd.grad(each.square().sum(), mixture.tensors()) for each in (plain, fast)]
    for ours, theirs in zip(*slopes, strict=True):
        close(ours, theirs)
        assert all(bool(cell.any()) for cell in theirs)  # no cell is left out


@pytest.mark.parametrize("name", SPACES)
def test_the_chain_is_that_of_the_supernet(name: str) -> None:
    space, shape, _ = case(name)
    mixes = list(by_cell(different(space), space.chain()))
    assert len(mixes) == len(space.chain()) and set(space.chain()) <= set(space.cells)
    for mix, kind in zip(mixes, space.chain(), strict=True):
        cell = space.cells[kind]
        assert mix.op.shape == (len(cell.edges), len(cell.ops)) and mix.edge is not None and mix.active is not None
        assert mix.live == tuple(map(tuple, mix.active.tolist()))
