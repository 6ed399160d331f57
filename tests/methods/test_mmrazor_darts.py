"""DARTS as MMRazor has it: its shares of edges, its derivation, and the second order it means to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.space import Shape
from diffnas.engine import Search
from diffnas.engine.gradients import hypergradient
from diffnas.methods.mmrazor_darts import MMRazorDARTS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

SPACE = DartsCNN(channels=4, layers=3, nodes=2)


@pytest.fixture
def make(make_search: Callable[..., Search]) -> Callable[..., Search]:
    """Builds a search with what the method itself learns, drawn from N(0, 1)."""

    def build(method: MMRazorDARTS | None = None, space: Any = SPACE) -> Search:
        method = method or MMRazorDARTS()
        search = make_search(space, method, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        search.arch = method.arch(space, generator).double()
        search.arch_optimizer = torch.optim.Adam(search.arch.parameters(), 3e-4)
        with torch.no_grad():
            for parameter in search.arch.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return search

    return build


def test_shares_of_ops_and_of_edges(make: Callable[..., Search], close: Callable[..., None]) -> None:
    search = make()
    for kind, mix in search.relax("weights").items():
        alpha, beta = search.arch.alpha[kind].detach().exp(), search.arch.beta[kind].detach().exp()
        close(mix.op, alpha / alpha.sum(1, keepdim=True))
        close(mix.edge, torch.cat([beta[:2] / beta[:2].sum(), beta[2:] / beta[2:].sum()]))
        assert mix.active is None
        close(search.strength()[kind].amax(1), mix.edge.detach())


def test_edges_by_their_share_and_ops_by_theirs_none_included(make: Callable[..., Search]) -> None:
    search = make()
    cell = SPACE.cells["normal"]
    with torch.no_grad():
        search.arch.alpha["normal"].zero_()
        search.arch.alpha["normal"][[0, 1, 2, 3, 4], [4, 0, 5, 3, 7]] = torch.tensor([0.1, 2.0, 9.0, 0.5, 0.2]).double()
        search.arch.beta["normal"].copy_(torch.tensor([0.0, 1.0, -2.0, 0.3, 0.4]))
    genotype = search.derive()
    assert genotype is not None and "none" in cell.excluded
    assert genotype.cells["normal"].inputs == (
        (("none", 1), ("sep_conv_3x3", 0)),
        (("dil_conv_5x5", 2), ("skip_connect", 1)),  # the surest op, sep_conv_5x5 of edge 2, is on the weakest edge
    )
    network = SPACE.network(genotype, Shape(10, 3, 8), channels=4, layers=3)
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_where_all_edges_stay(make: Callable[..., Search]) -> None:
    search = make(space=NASBench201(channels=4, layers=1))
    genotype = search.derive()
    assert genotype is not None
    ops = search.space.cells["cell"].ops
    strongest = [ops[int(row.argmax())] for row in search.arch.alpha["cell"]]
    assert sorted(genotype.cells["cell"].ops) == sorted(strongest)


def test_the_second_order_is_that_of_darts(make: Callable[..., Search], close: Callable[..., None]) -> None:
    torch.manual_seed(1)
    data = {
        name: Batch(torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(0, 10, (4,)))
        for name in ("train", "valid")
    }
    search, twin = make(MMRazorDARTS(unrolled=True)), make()
    for each in (search, twin):
        each.arch_optimizer = torch.optim.SGD(each.arch.parameters(), 0.1)
    weights = [w.detach().clone() for w in search.weights]
    mixture = twin.relax("arch")
    _, grads = hypergradient(twin, mixture, data["train"], data["valid"])
    expected = torch.autograd.grad(mixture.tensors(), list(twin.arch.parameters()), grads)
    before = [p.detach().clone() for p in search.arch.parameters()]
    search.method.step(search, data)
    for start, grad, now in zip(before, expected, search.arch.parameters(), strict=True):
        assert grad.any()
        close(now, start - 0.1 * grad)
    assert not torch.equal(weights[0], search.weights[0])
    assert MMRazorDARTS(exact=True).check_settings()
