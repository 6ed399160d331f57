"""Adam with TensorFlow's epsilon, against the formula of its documentation and against PyTorch's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffnas.engine.optim import load_optimizer_state, optimizer_state
from diffnas.engine.tf_adam import TFAdam


def random_grads(steps: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(5, generator=draw, dtype=torch.float64) * 10.0 ** -(k % 4) for k in range(steps)]


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.99)])
def test_the_formula(betas: tuple[float, float]) -> None:
    p = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = TFAdam([p], 0.0035, betas, 1e-3, 0.0)
    value, m, v = p.detach().clone(), 0.0, 0.0
    for t, g in enumerate(random_grads(12), 1):
        p.grad = g
        optimizer.step()
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        lr = 0.0035 * (1 - betas[1] ** t) ** 0.5 / (1 - betas[0] ** t)
        value -= lr * m / (v.sqrt() + 1e-3)  # type: ignore[attr-defined]
        assert torch.allclose(p.detach(), value, rtol=1e-12, atol=1e-15)


def test_it_differs_from_the_other_epsilon() -> None:
    found = []
    for built in (TFAdam, torch.optim.Adam):
        p: Any = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = built([p], 1.0, (0.0, 0.999), 1e-3, 0.0)
        p.grad = torch.full((1,), 1e-2, dtype=torch.float64)
        optimizer.step()
        found.append(p.item())
    assert found[0] == pytest.approx(-1e-2 / (1e-2 + 1e-3 / 0.001**0.5)) and found[1] == pytest.approx(-1 / 1.1)


def test_it_goes_on_from_its_state() -> None:
    module, grads = nn.Linear(5, 1, bias=False).double(), random_grads(6)
    whole = copy.deepcopy(module)
    for net, cuts in ((whole, [0, 6]), (module, [0, 3, 6])):
        state = None
        for first, last in zip(cuts, cuts[1:], strict=False):
            optimizer = TFAdam([{"params": list(net.parameters())}], 0.1, (0.0, 0.999), 1e-3, 0.0)
            if state is not None:
                load_optimizer_state(optimizer, net, state)
            for g in grads[first:last]:
                net.weight.grad = g[None]
                optimizer.step()
            state = optimizer_state(optimizer, net)
    assert torch.equal(whole.weight, module.weight)
    empty = TFAdam([{"params": []}], 0.1, (0.0, 0.999), 1e-3, 0.0)
    empty.step()
