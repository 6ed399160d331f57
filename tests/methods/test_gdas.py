"""GDAS: the gradient of an edge by hand, its temperature, its order of steps and its pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.engine import Search, differentiate
from diffnas.methods.gdas import GDAS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

Build = Callable[..., Search]


def test_temperature_reaches_its_end_in_the_last_epoch(toy: Build) -> None:
    search = toy(GDAS())
    for epoch, tau in ((0, 10.0), (5, 5.05), (10, 0.1)):
        search.advance(epoch=epoch)
        assert search.method.tau(search) == pytest.approx(tau)
    search.clock = replace(search.clock, epoch=0, epochs=1)
    assert search.method.tau(search) == 10.0


def test_gradient_by_hand(toy: Build, table: Batch, close: Any) -> None:
    search = toy(GDAS())
    alpha = search.arch.alpha["cell"].detach()
    alpha.copy_(torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.0, -0.5]]))
    for epoch in (0, 7):
        search.advance(epoch=epoch)
        tau = search.method.tau(search)
        draw = torch.Generator()
        draw.set_state(search.shared.get_state())
        noise = -torch.log(-torch.log(torch.rand(2, 3, generator=draw, dtype=torch.float64)))
        powers = torch.exp((alpha + noise) / tau)
        p = powers / powers.sum(-1, keepdim=True)
        mixture = search.relax("arch")
        mix, k = mixture["cell"], (alpha + noise).argmax(-1)
        assert torch.equal(mix.active.int().argmax(-1), k) and torch.equal(mix.active.sum(-1), torch.ones(2))
        close(mix.op.detach(), mix.active.double())
        found = differentiate(search, mixture, table, {"mixture"}).mixture
        (grad,) = torch.autograd.grad(mix.op, search.arch.alpha["cell"], found[0])
        for e in range(2):  # dL/dalpha_j = t_k p_k (delta_kj - p_j) / tau: nothing comes from ops that did not run
            chosen, delta = int(k[e]), torch.eye(3, dtype=torch.float64)[k[e]]
            close(grad[e], table.inputs[e, chosen] * p[e, chosen] * (delta - p[e]) / tau)


def test_draws_follow_the_softmax(toy: Build) -> None:
    search = toy(GDAS())
    alpha = search.arch.alpha["cell"].detach()
    alpha.copy_(torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.0, -0.5]]))
    counts = sum(search.relax("weights")["cell"].op.detach() for _ in range(4000))
    assert torch.allclose(counts / 4000, alpha.softmax(-1), atol=0.03)


def test_weights_come_first(toy: Build, table: Batch) -> None:
    search, twin = toy(GDAS()), toy(GDAS())
    assert list(search.method.step(search, {"train": table, "valid": table})) == ["train", "valid"]
    twin.method.step(twin, {"train": table})
    assert torch.equal(search.supernet.weight, twin.supernet.weight)
    assert torch.equal(twin.arch.alpha["cell"], toy(GDAS()).arch.alpha["cell"])
    twin.method.step(twin, {"valid": table})
    assert torch.equal(search.arch.alpha["cell"], twin.arch.alpha["cell"])


def test_pairs_may_share_an_edge(make_search: Build) -> None:
    search = make_search(DartsCNN(channels=4, layers=2, nodes=1), GDAS())
    with torch.no_grad():
        search.arch.alpha["normal"].zero_()
        search.arch.alpha["normal"][1] = torch.tensor([9.0, 0.0, 0.0, 3.0, 0.0, 4.0, 0.0, 0.0])
        search.arch.alpha["normal"][1, 0] = 0.0
    assert search.derive().cells["normal"].inputs == ((("sep_conv_5x5", 1), ("skip_connect", 1)),)
    search = make_search(NASBench201(channels=4, layers=1), GDAS())
    assert [len(node) for node in search.derive().cells["cell"].inputs] == [1, 2, 3]
