"""SNAS: its sample, temperature, resource term and derivation, worked out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.space import Size
from diffnas.engine import Search
from diffnas.engine.method import Phase
from diffnas.methods.snas import SNAS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

Build = Callable[..., Search]
COSTS = torch.tensor([[0.0, 1.0, 2.0], [10.0, 30.0, 70.0]], dtype=torch.float64)


def expected_sample(search: Search, alpha: Tensor, tau: float) -> Tensor:
    """The sample that the search is about to draw."""
    draw = torch.Generator()
    draw.set_state(search.shared.get_state())
    uniform = torch.rand(alpha.shape, generator=draw, dtype=torch.float64)
    powers = torch.exp((alpha - torch.log(-torch.log(uniform))) / tau)
    return powers / powers.sum(-1, keepdim=True)


def test_log_alpha_starts_at_one() -> None:
    arch: Any = SNAS().arch(DartsCNN(), torch.Generator().manual_seed(0))
    alphas = torch.cat(list(arch.alpha.values())).detach()
    assert alphas.shape == (28, 8) and abs(float(alphas.mean()) - 1.0) < 3e-3 and 0.008 < float(alphas.std()) < 0.012


def test_the_sample_is_concrete(toy: Build, close: Any) -> None:
    search = toy(SNAS())
    for epoch, tau in ((0, 1.0), (75, 0.515), (150, 0.03), (400, 0.03)):
        search.advance(epoch=epoch)
        assert search.method.tau(search) == pytest.approx(tau)
        expected = expected_sample(search, search.arch.alpha["cell"].detach(), tau)
        close(search.relax("arch")["cell"].op.detach(), expected)
        assert search.relax("weights")["cell"].active is None


def test_the_line_may_end_with_the_search(toy: Build) -> None:
    search = toy(SNAS(temperature=10.0, temperature_end=1.0, anneal_epochs=None, bilevel=True))
    search.advance(epoch=11)
    assert search.method.tau(search) == 1.0
    search.advance(epoch=0)
    assert search.method.tau(search) == 10.0


@pytest.mark.parametrize("log", [False, True])
def test_one_pass_moves_weights_and_architecture(log: bool, toy: Build, table: Batch, close: Any) -> None:
    search = toy(SNAS(resource_weight=0.3, resource_log=log))
    before = search.arch.alpha["cell"].detach().clone()
    alpha = before.clone().requires_grad_()
    sample = expected_sample(search, alpha, 1.0)
    cost = (COSTS * sample).sum()
    loss = (table.inputs * sample).sum()
    (slope,) = torch.autograd.grad(loss + 0.3 * (cost.log() if log else cost), alpha)
    assert set(search.method.step(search, {"train": table})) == {"train"}
    close(search.arch.alpha["cell"].detach(), before - slope)
    close(search.supernet.weight, 1.0 - 0.1 * loss.detach())


def test_phases(toy: Build, table: Batch) -> None:
    assert SNAS().stages(5, Size(16, 8))[0].phases == (Phase(("train",)),)
    assert SNAS(bilevel=True).stages(5, Size(16, 8))[0].phases == (Phase(),)
    search = toy(SNAS(bilevel=True))
    assert list(search.method.step(search, {"train": table, "valid": table})) == ["valid", "train"]


def test_costs_are_needed_where_they_count() -> None:
    space: Any = type("Uncounted", (), {"name": "plain", "reads": "text"})()
    assert SNAS().misfits(space) == [] == SNAS(resource_weight=1.0).misfits(DartsCNN())
    ((key, reason),) = SNAS(resource_weight=1.0).misfits(space)
    assert key == "name" and "method.resource_weight" in reason


def test_costs_are_those_of_the_space(toy: Build) -> None:
    search = toy(SNAS(resource_weight=2.0, resource_log=False))
    mixture = search.relax("arch")
    assert search.penalty(mixture).item() == pytest.approx(2.0 * (COSTS * mixture["cell"].op).sum().item())
    assert toy(SNAS()).penalty(mixture) is None


def test_every_edge_that_none_does_not_win_is_kept(make_search: Build) -> None:
    search = make_search(DartsCNN(channels=4, layers=2, nodes=2), SNAS(), scale=1.0)
    with torch.no_grad():
        for alpha in search.arch.alpha.values():
            alpha.zero_()
            alpha[:, 3] = 1.0
            alpha[[0, 3], 0] = 2.0  # none
    nodes = search.derive().cells["normal"].inputs
    assert nodes == ((("skip_connect", 1),), (("skip_connect", 0), ("skip_connect", 2)))
    object.__setattr__(search, "method", SNAS(keep="strongest"))
    assert [len(node) for node in search.derive().cells["normal"].inputs] == [2, 2]
    search = make_search(NASBench201(channels=4, layers=1), SNAS())
    assert [len(node) for node in search.derive().cells["cell"].inputs] == [1, 2, 3]


def test_what_evaluations_take(toy: Build, close: Any) -> None:
    def taken(how: Any) -> Tensor:
        search = toy(SNAS(evaluate=how))
        state = search.shared.get_state()
        found = search.relax("eval")["cell"].op.detach()
        assert torch.equal(found, search.relax("eval")["cell"].op) and torch.equal(state, search.shared.get_state())
        return found

    alpha = toy(SNAS()).arch.alpha["cell"].detach()
    close(taken("mean"), alpha.softmax(-1))
    assert torch.equal(taken("argmax").argmax(-1), alpha.argmax(-1)) and taken("argmax").sum() == 2
    assert not torch.equal(taken("sample"), taken("mean"))
