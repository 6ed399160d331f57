"""DSNAS: its gradient against enumeration, its cost term, and how edges are decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mixture
from diffnas.core.space import Shape, Size
from diffnas.engine import Search, differentiate
from diffnas.engine.stage import Phase, Transition
from diffnas.methods.dsnas import DSNAS, _scored_sample
from diffnas.methods.snas import OpenAlphas
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
        grads = differentiate(search, mixture, table, {"mixture"}).mixture
        (grad,) = torch.autograd.grad(mix.op, search.arch.alpha["cell"], grads[0])
        reward = (table.inputs * mix.op).sum(-1, keepdim=True)
        close(grad, (reward * (mix.op - p)).detach())  # (sum_o dL/dZ_o) dlog p(Z)/dalpha
        found[tuple(mix.op.argmax(-1).tolist())] = grad
    assert len(found) == 9
    mean = sum(p[0, a] * p[1, b] * grad for (a, b), grad in found.items())
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
    ops = float((chosen * COSTS).sum())
    for of, total in (("ops", ops), ("network", 5.0 + ops)):  # 5 is what every network costs
        for limit, counts in ((total, True), (total + 1e-6, False)):
            other = at(toy(DSNAS(cost_weight=0.1, cost_threshold=limit, cost_of=of)))  # type: ignore[arg-type]
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
    search.method.step(search, {"train": table})
    assert bool(arch.get_buffer("allowed_cell").all())  # nothing falls within an epoch
    search.advance(step=3)
    search.method.on_epoch_boundary(search, 1)  # asked by a search that resumes there
    assert bool(arch.get_buffer("allowed_cell").all())
    search.advance(step=0)
    assert search.method.on_epoch_boundary(search, 1) == Transition()
    assert arch.get_buffer("allowed_cell").tolist() == [[True, False, False], [True, True, True]]
    at(search, torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 9.0]]))  # an edge does not go back
    state = search.arch.state_dict()
    search = at(toy(DSNAS()))
    search.arch.load_state_dict(state)
    mixture = search.relax("arch")
    assert mixture["cell"].op[0].tolist() == [1.0, 0.0, 0.0]
    grads = differentiate(search, mixture, table, {"mixture"}).mixture
    assert not torch.autograd.grad(mixture["cell"].op, search.arch.alpha["cell"], grads[0])[0][0].any()
    assert search.method.on_epoch_boundary(search, 1) == Transition()
    assert [node[0][0] for node in search.derive().cells["cell"].inputs] == ["a", "c"]
    object.__setattr__(search, "method", DSNAS(stop_when_decided=True))
    assert search.method.on_epoch_boundary(search, 0) == Transition()
    assert search.method.on_epoch_boundary(search, 1) == Transition(stop=True, reason="every edge is decided")


def test_edges_may_be_decided_after_every_step(toy: Build, table: Batch) -> None:
    search = at(toy(DSNAS(decide="step")), torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.1, 0.0]]))
    assert search.method.on_epoch_boundary(search, 0) == Transition() and bool(
        search.arch.get_buffer("allowed_cell").all()
    )
    search.method.step(search, {"train": table})
    assert search.arch.get_buffer("allowed_cell")[0].tolist() == [True, False, False]


def test_the_original_gradient_and_cost(oracle: Any, close: Any, monkeypatch: Any) -> None:
    """Its block reward times the score function, and the cost term: millions of multiply-adds at a coefficient of 1e-6."""
    call, space = oracle("k_dsnas_gradient"), ShuffleNetBlocks()
    costs = torch.tensor(space.costs(Shape(10, 3, 224), "macs")["blocks"])
    close(costs / 1e6, call.given["flops_millions"])
    monkeypatch.setattr("diffnas.methods.dsnas.gumbel", lambda like, generator: 1e6 * call.given["draw"])
    for weight, expected in ((0.0, "grad"), (1e-6, "grad_with_flops_coef_1")):
        arch: Any = OpenAlphas(space.cells, torch.Generator().manual_seed(0))
        arch.alpha["blocks"].detach().copy_(call.given["alpha"])
        search: Any = type("At", (), {"arch": arch, "space": space, "shape": Shape(10, 3, 224)})()
        mix = _scored_sample(arch.alpha["blocks"], arch.get_buffer("allowed_blocks"), torch.Generator())
        assert torch.equal(mix.op.detach(), call.given["draw"])
        outputs, grads = [mix.op], [call.given["slope"]]
        if weight:
            assert float((costs * mix.op.detach()).sum()) / 1e6 == pytest.approx(
                float(call.found["total_flops_millions"])
            )
            outputs.append(DSNAS(cost_weight=weight).penalty(search, Mixture({"blocks": mix})))
            grads.append(torch.ones(()))
        (grad,) = torch.autograd.grad(outputs, [arch.alpha["blocks"]], grads)
        close(grad, call.found[expected])


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
    space: Any = type("Uncounted", (), {"name": "plain", "modality": "text"})()
    assert DSNAS().check_space(space) == [] == DSNAS(cost_weight=1.0).check_space(ShuffleNetBlocks())
    assert [key for key, _ in DSNAS(cost_weight=1.0).check_space(space)] == ["name"]
