"""Random architectures on [E, O] logits; every draw comes from a CPU generator, so that devices draw the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise -log(-log U) in the shape, precision and place of `like`."""
    uniform = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    return -torch.log(-torch.log(uniform.clamp_min(tiny)).clamp_min(tiny)).to(like)


def one_hot(scores_EO: Tensor, allowed: Tensor) -> Tensor:
    """[E, O] bool: the largest allowed entry of every edge; none for an edge that allows none."""
    top = scores_EO.masked_fill(~allowed, -torch.inf).argmax(-1, keepdim=True)
    return torch.zeros_like(allowed).scatter_(-1, top, True) & allowed


def concrete(logits_EO: Tensor, allowed: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """[E, O]: a sample of the concrete distribution over the allowed ops of every edge, differentiable in the logits
    (Maddison et al., 2017); 0 elsewhere."""
    noisy = (logits_EO + gumbel(logits_EO, generator)) / temperature
    return noisy.masked_fill(~allowed, -torch.inf).softmax(-1).masked_fill(~allowed, 0.0)
