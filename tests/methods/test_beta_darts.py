"""beta-DARTS: the penalty, its gradient, and how it grows."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from diffnas.engine import Search, arch_loss_step
from diffnas.methods.beta_darts import BetaDARTS
from diffnas.spaces.darts_cnn.space import DartsCNN


@pytest.mark.parametrize("epoch", [0, 1, 37])
def test_the_penalty_and_its_gradient(
    epoch: int, make_search: Callable[..., Search], close: Callable[..., None]
) -> None:
    search = make_search(method=BetaDARTS(), scale=2.0, dtype=torch.float64)
    search.advance(epoch=epoch, epochs=100)
    alpha = torch.cat([a.detach() for a in search.arch.alpha.values()])
    penalty = search.penalty(search.relax("arch"))
    assert penalty is not None
    mean = sum(math.log(sum(math.exp(x) for x in row)) for row in alpha.tolist()) / len(alpha)
    close(penalty, torch.tensor(50.0 * epoch / 100 * mean, dtype=torch.float64))
    found = torch.cat(torch.autograd.grad(penalty, list(search.arch.parameters())))
    shares = alpha.exp() / alpha.exp().sum(1, keepdim=True)
    close(found, 50.0 * epoch / 100 * shares / len(alpha))


def test_only_allowed_ops_count(make_search: Callable[..., Search], close: Callable[..., None]) -> None:
    rows = [["max_pool_3x3", "skip_connect"]] * 4 + [[]]
    space = DartsCNN(channels=4, layers=2, nodes=2, edge_ops={"normal": rows, "reduce": rows})
    search = make_search(space, BetaDARTS(weight=1.0), scale=2.0, dtype=torch.float64)
    search.advance(epoch=1, epochs=2)
    penalty = search.penalty(search.relax("arch"))
    assert penalty is not None
    alpha = torch.cat([a.detach()[:4] for a in search.arch.alpha.values()])
    close(penalty, 0.5 * (alpha[:, 1].exp() + alpha[:, 3].exp()).log().mean())
    for grad in torch.autograd.grad(penalty, list(search.arch.parameters())):
        assert grad.isfinite().all() and not grad[4].any() and not grad[:, 0].any()


def test_it_draws_the_shares_together(make_search: Callable[..., Search]) -> None:
    search = make_search(method=BetaDARTS(), scale=2.0)
    search.advance(epoch=1, epochs=2)
    search.arch_optimizer = torch.optim.SGD(search.arch.parameters(), 0.1)
    before = search.arch.alpha["normal"].detach().softmax(-1).amax(-1)
    for _ in range(20):
        arch_loss_step(search, search.penalty(search.relax("arch")))
    assert (search.arch.alpha["normal"].detach().softmax(-1).amax(-1) < before).all()
