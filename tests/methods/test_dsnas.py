"""DSNAS: its gradient against enumeration, its cost term, and how edges are decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.space import Size
from diffnas.engine import Search, gradients
from diffnas.engine.method import Phase, Turn
from diffnas.methods.dsnas import DSNAS
from diffnas.spaces.shufflenet_blocks.space import ShuffleNetBlocks

Build = Callable[..., Search]
ALPHA = torch.tensor([[0.5, -0.2, 0.4], [0.0, 0.3, 0.1]], dtype=torch.float64)
COSTS = torch.tensor([[0.0, 1.0, 2.0], [10.0, 30.0, 70.0]], dtype=torch.float64)


def at(search: Search, alpha: torch.Tensor = ALPHA) -> Search:
    search.arch.alpha["cell"].detach().copy_(alpha)
    return search


def test_the_mean_gradient_is_that_of_the_expected_loss(toy: Build, table: Batch, close: Any) -> None:
    search, p = at(toy(DSNAS())), ALPHA.softmax(-1)
    found = {}
    for _ in range(300):
        mixture = search.relax("arch")
        mix = mixture["cell"]
        assert torch.equal(mix.op, mix.active.double())
        slopes = gradients(search, mixture, table, {"mixture"}).mixture
        (slope,) = torch.autograd.grad(mix.op, search.arch.alpha["cell"], slopes[0])
        reward = (table.inputs * mix.op).sum(-1, keepdim=True)
        close(slope, (reward * (mix.op - p)).detach())  # (sum_o dL/dZ_o) dlog p(Z)/dalpha
        found[tuple(mix.op.argmax(-1).tolist())] = slope
    assert len(found) == 9
    mean = sum(p[0, a] * p[1, b] * slope for (a, b), slope in found.items())
    alpha = ALPHA.clone().requires_grad_()
    (expected,) = torch.autograd.grad((table.inputs * alpha.softmax(-1)).sum(), alpha)
    close(mean, expected)


@pytest.mark.parametrize("threshold", [0.0, 1e3])
def test_cost_term(threshold: float, toy: Build, close: Any) -> None:
    search = at(toy(DSNAS(cost_weight=0.1, cost_threshold=threshold)))
    mixture = search.relax("arch")
    chosen = mixture["cell"].op.detach()
    alpha = ALPHA.clone().requires_grad_()
    value = 0.1 * (alpha.softmax(-1) * chosen * COSTS).sum() * (threshold == 0.0)
    term = search.penalty(mixture)
    close(term, value.detach())
    close(torch.autograd.grad(term, search.arch.alpha["cell"])[0], torch.autograd.grad(value, alpha)[0])
    total = 5.0 + float((chosen * COSTS).sum())  # what every network has, and the ops
    for limit, counts in ((total, True), (total + 1e-6, False)):
        other = at(toy(DSNAS(cost_weight=0.1, cost_threshold=limit)))
        assert bool(other.penalty(mixture) > 0) == counts
    assert toy(DSNAS()).penalty(mixture) is None


def test_step_is_joint_after_the_warmup(toy: Build, table: Batch) -> None:
    assert DSNAS().stages(5, Size(16, 20))[0].phases == (Phase(("train",)),)
    search = at(toy(DSNAS(warmup=1)))
    search.method.step(search, {"train": table})
    assert torch.equal(search.arch.alpha["cell"], ALPHA) and search.supernet.weight != 1.0
    search.advance(stage_epoch=1)
    search.method.step(search, {"train": table})
    assert not torch.equal(search.arch.alpha["cell"], ALPHA)


def test_edges_are_decided_once_and_for_good(toy: Build, table: Batch) -> None:
    search = at(toy(DSNAS()), torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.1, 0.0]]))
    arch: Any = search.arch
    arch.decide(0.3)
    assert arch.get_buffer("allowed_cell").tolist() == [[True, False, False], [True, True, True]]
    assert search.method.turn(search, 1) == Turn()
    at(search, torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 9.0]]))  # an edge does not go back
    state = search.arch.state_dict()
    search = at(toy(DSNAS()))
    search.arch.load_state_dict(state)
    mixture = search.relax("arch")
    assert mixture["cell"].op[0].tolist() == [1.0, 0.0, 0.0]
    slopes = gradients(search, mixture, table, {"mixture"}).mixture
    assert not torch.autograd.grad(mixture["cell"].op, search.arch.alpha["cell"], slopes[0])[0][0].any()
    search.method.step(search, {"train": table})
    assert [node[0][0] for node in search.derive().cells["cell"].inputs] == ["a", "c"]
    assert search.method.turn(search, 0) == Turn()
    assert search.method.turn(search, 1) == Turn(stop=True, reason="every edge is decided")


def test_a_margin_that_is_not_reached_decides_nothing(toy: Build) -> None:
    search = at(toy(DSNAS()), torch.tensor([[0.55, 0.0, -0.1], [0.0, 0.0, 0.0]]))
    p = torch.tensor([0.55, 0.0, -0.1]).softmax(-1)
    assert 0.15 < float(p[0] - p[1]) < 0.3
    arch: Any = search.arch
    arch.decide(0.3)
    assert bool(arch.get_buffer("allowed_cell").all())
    arch.decide(0.15)
    assert arch.get_buffer("allowed_cell")[0].tolist() == [True, False, False]


def test_costs_are_needed_where_they_count() -> None:
    space: Any = type("Uncounted", (), {"name": "plain", "reads": "text"})()
    assert DSNAS().misfits(space) == [] == DSNAS(cost_weight=1.0).misfits(ShuffleNetBlocks())
    assert [key for key, _ in DSNAS(cost_weight=1.0).misfits(space)] == ["name"]
