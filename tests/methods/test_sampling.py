"""Gumbel and Dirichlet draws: their moments, their gradient, and where they come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet

from diffnas.core.seeds import generator
from diffnas.methods.sampling import concrete, dirichlet, gumbel, one_hot

ALL = torch.ones(3, 4, dtype=torch.bool)
SOME = torch.tensor([[True, True, False, True], [False, False, True, False], [False, False, False, False]])


def concentration(low: float = 0.3, high: float = 4.0) -> Tensor:
    return low + (high - low) * torch.rand(3, 4, generator=generator(0, "concentration"), dtype=torch.float64)


def test_moments() -> None:
    c = concentration()
    draws = dirichlet(c.repeat(20_000, 1), ALL.repeat(20_000, 1), generator(0, "moments")).view(-1, 3, 4)
    expected = Dirichlet(c)
    torch.testing.assert_close(draws.sum(-1), torch.ones_like(draws[..., 0]))
    torch.testing.assert_close(draws.mean(0), expected.mean, rtol=0.02, atol=0.0)
    torch.testing.assert_close(draws.var(0), expected.variance, rtol=0.05, atol=0.0)


def test_the_mean_of_the_gradient_is_the_gradient_of_the_mean() -> None:
    c = concentration(0.5, 3.0).repeat(20_000, 1).requires_grad_()
    draws = dirichlet(c, ALL.repeat(20_000, 1), generator(0, "pathwise"))
    (grads,) = torch.autograd.grad(draws[:, 0].square().sum(), c)
    exact = concentration(0.5, 3.0).requires_grad_()
    total = exact.sum(-1)
    second_moment = exact[:, 0] * (exact[:, 0] + 1.0) / (total * (total + 1.0))
    (expected,) = torch.autograd.grad(second_moment.sum(), exact)
    torch.testing.assert_close(grads.view(-1, 3, 4).mean(0), expected, rtol=0.05, atol=0.002)


def test_its_gradient_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = concentration().requires_grad_(), concentration().requires_grad_()
    weights = torch.randn(3, 4, generator=generator(0, "weights"), dtype=torch.float64)
    sample = dirichlet(ours, ALL, generator(0, "gradient"))
    (found,) = torch.autograd.grad((sample * weights).sum(), ours)
    monkeypatch.setattr(torch, "_sample_dirichlet", lambda *_: sample.detach().clone())
    (expected,) = torch.autograd.grad((Dirichlet(theirs).rsample() * weights).sum(), theirs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_only_allowed_entries_take_part() -> None:
    c = concentration().requires_grad_()
    draws = torch.stack([dirichlet(c, SOME, generator(0, "some", k)) for k in range(4000)])
    assert torch.equal(draws != 0.0, SOME.expand_as(draws))
    assert torch.equal(draws[:, 1, 2], torch.ones(4000, dtype=torch.float64))
    first = c.detach()[0, [0, 1, 3]]
    torch.testing.assert_close(draws[:, 0, [0, 1, 3]].mean(0).detach(), first / first.sum(), rtol=0.05, atol=0.0)
    (grad,) = torch.autograd.grad(draws[0].square().sum(), c)
    moves = SOME & (SOME.sum(-1, keepdim=True) > 1)
    assert torch.equal(grad != 0.0, moves)  # an op alone on its edge has nothing to learn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1e-8, 1e-3, 1e4])
def test_extremes_stay_finite(value: float, dtype: Any) -> None:
    c = torch.full((200, 7), value, dtype=dtype, requires_grad=True)
    sample = dirichlet(c, torch.ones(200, 7, dtype=torch.bool), generator(0, "extreme"))
    (grad,) = torch.autograd.grad(sample[:, 0].sum(), c)
    assert sample.isfinite().all() and grad.isfinite().all()
    torch.testing.assert_close(sample.detach().sum(-1), torch.ones(200, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_come_from_the_generator_alone(dtype: Any) -> None:
    c = concentration().to(dtype)
    state = torch.get_rng_state()
    first, again = (dirichlet(c, ALL, generator(7, "draw")) for _ in range(2))
    stream = generator(7, "draw")
    assert first.dtype == dtype and torch.equal(first, again) and torch.equal(dirichlet(c, ALL, stream), first)
    assert not torch.equal(dirichlet(c, ALL, stream), first)
    assert torch.equal(state, torch.get_rng_state())


def test_gumbel_noise_has_the_moments_of_its_distribution() -> None:
    draw = gumbel(torch.zeros(400, 500, dtype=torch.float64), generator(0, "test"))
    assert bool(draw.isfinite().all())
    assert float(draw.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(draw.var()) == pytest.approx(torch.pi**2 / 6, rel=0.02)


def test_the_largest_noisy_logit_is_a_draw_from_the_softmax() -> None:
    logits, allowed = torch.tensor([[0.0, 1.0, 2.0, 5.0]]).double().expand(20000, 4), torch.tensor([True] * 3 + [False])
    stream = generator(1, "test")
    hot = one_hot(logits + gumbel(logits, stream), allowed.expand(20000, 4))
    torch.testing.assert_close(hot.double().mean(0)[:3], logits[0, :3].softmax(0), atol=0.01, rtol=0)
    assert not hot[:, 3].any() and bool((hot.sum(1) == 1).all())
    sample = concrete(logits, allowed.expand(20000, 4), 0.05, stream)
    assert bool((sample[:, 3] == 0).all()) and float(sample.max(1).values.mean()) > 0.9
    torch.testing.assert_close(sample.sum(1), torch.ones(20000).double(), rtol=1e-12, atol=0.0)
