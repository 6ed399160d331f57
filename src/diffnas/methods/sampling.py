"""Random architectures on [E, O] logits, drawn by a generator of the host, so that devices draw the same numbers, or by None,
the device's own, whose draws a CUDA graph can repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffnas.core.constants import to_device
from diffnas.core.mixture import Mix, Mixture
from diffnas.engine.search import Alphas, Search
from diffnas.engine.stage import Use

_TINY = torch.finfo(torch.float64).tiny


def gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws standard Gumbel noise -log(-log U) with the shape, dtype and device of `like`."""
    uniform = uniform_noise(like, generator)
    exponential = -torch.log(uniform.clamp_min(torch.finfo(torch.float64).tiny))
    noise = -torch.log(exponential.clamp_min(torch.finfo(torch.float64).tiny))
    return to_device(noise, like.device, like.dtype)


def uniform_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws U(0, 1), float64 with the shape of `like`, on the host, or without a generator on its device."""
    place = like.device if generator is None else "cpu"
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=place)


def one_hot(scores_EO: Tensor, allowed: Tensor) -> Tensor:
    """[E, O] bool: the largest allowed entry of every edge; none for an edge that allows none."""
    top = scores_EO.masked_fill(~allowed, -torch.inf).argmax(-1, keepdim=True)
    return torch.zeros_like(allowed).scatter_(-1, top, True) & allowed


def concrete(logits_EO: Tensor, allowed: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """[E, O]: a sample of the concrete distribution over the allowed ops of every edge, differentiable in the logits
    (Maddison et al., 2017); 0 elsewhere."""
    noisy = (logits_EO + gumbel(logits_EO, generator)) / temperature
    return noisy.masked_fill(~allowed, -torch.inf).softmax(-1).masked_fill(~allowed, 0.0)


def dirichlet(concentration_EO: Tensor, allowed: Tensor, generator: torch.Generator | None) -> Tensor:
    """[E, O]: a sample of the Dirichlet distribution over the allowed ops of every edge, differentiable in the
    concentration by its pathwise gradient (Jankowiak and Obermeyer, 2018); 0 elsewhere."""
    return dirichlets([(concentration_EO, allowed)], generator)[0]


def dirichlets(kinds: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator | None) -> list[Tensor]:
    """A sample of each of `kinds`, concentrations and what is allowed [E, O]; the host reads them all at once."""
    doubles = [concentration_EO.double() for concentration_EO, _ in kinds]
    positive = [c.detach().masked_fill(~ok, 1.0).clamp_min(_TINY) for c, (_, ok) in zip(doubles, kinds, strict=True)]
    samples = []
    for c, (given, allowed), gammas in zip(doubles, kinds, _gammas(positive, generator), strict=True):
        sample: Tensor = _Dirichlet.apply(c, allowed, gammas)
        samples.append(sample.to(given))
    return samples


def _gammas(concentrations: Sequence[Tensor], generator: torch.Generator | None) -> list[Tensor]:
    """Standard gamma draws with these concentrations, on their device."""
    if generator is None:
        return [torch._standard_gamma(each) for each in concentrations]
    sizes = [each.numel() for each in concentrations]
    read = torch.cat([each.flatten() for each in concentrations]).cpu().split(sizes)
    shaped = [each.view_as(like) for each, like in zip(read, concentrations, strict=True)]
    drawn = [torch._standard_gamma(each, generator=generator).flatten() for each in shaped]
    sent = to_device(torch.cat(drawn), concentrations[0].device).split(sizes)
    return [each.view_as(like) for each, like in zip(sent, concentrations, strict=True)]


class _Dirichlet(torch.autograd.Function):
    """Normalised gamma draws forwards; backwards the gradient of `torch.distributions.Dirichlet` at that sample."""

    @staticmethod
    def forward(ctx: Any, concentration_EO: Tensor, allowed: Tensor, drawn: Tensor) -> Tensor:
        positive = concentration_EO.masked_fill(~allowed, 1.0).clamp_min(_TINY)
        gammas = drawn.clamp_min(_TINY).masked_fill(~allowed, 0.0)
        sample = gammas / gammas.sum(-1, keepdim=True).clamp_min(_TINY)
        ctx.save_for_backward(sample, positive, allowed)
        return sample

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        sample, positive, allowed = ctx.saved_tensors
        total = positive.masked_fill(~allowed, 0.0).sum(-1, keepdim=True).expand_as(positive)
        pace = torch._dirichlet_grad(sample, positive, total)
        pace = pace.masked_fill((sample <= 0.0) | (sample >= 1.0), 0.0)  # what is certain stays so
        return pace * (grad - (sample * grad).sum(-1, keepdim=True)), None, None


# -- What a method that samples puts into the supernet, and what it puts there to be evaluated.

Evaluate = Literal["mean", "argmax", "sample"]

Sample = Callable[[Tensor, Tensor, torch.Generator | None], Mix]
"""(alpha [E, O], allowed [E, O], generator, None for the device's own) -> a sample of one kind of cell."""


def sampled_mixture(search: Search, use: Use, evaluate: Evaluate, sample: Sample) -> Mixture:
    """Samples every kind of cell; for "eval", `evaluate` chooses a sample, the softmax of alpha or its argmax.

    Evaluations draw from a generator of their own: with or without them a search goes the same way.
    """
    arch = search.arch
    assert isinstance(arch, Alphas)
    if use == "eval" and evaluate == "mean":
        mixture: Mixture = arch()
        return mixture
    draw = search.fork("eval") if use == "eval" else search.draw
    rule = _largest if use == "eval" and evaluate == "argmax" else sample
    return Mixture({kind: rule(alpha, arch.get_buffer(f"allowed_{kind}"), draw) for kind, alpha in arch.alpha.items()})


def _largest(alpha_EO: Tensor, allowed: Tensor, generator: torch.Generator | None) -> Mix:
    top = one_hot(alpha_EO.detach(), allowed)
    return Mix(top.to(alpha_EO.dtype), active=top)
