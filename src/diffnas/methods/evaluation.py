"""What a method that samples puts into the supernet, and what it puts there to be evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diffnas.core.mixture import Mix, Mixture
from diffnas.engine.method import Use
from diffnas.engine.search import Alphas, Search
from diffnas.methods.sampling import one_hot

Evaluate = Literal["mean", "argmax", "sample"]

Sample = Callable[[Tensor, Tensor, torch.Generator], Mix]
"""(alpha [E, O], allowed [E, O], generator) -> a sample of one kind of cell."""


def sampled_mixture(search: Search, use: Use, evaluate: Evaluate, sample: Sample) -> Mixture:
    """A sample of every kind of cell; for use "eval" by `evaluate` that sample, the softmax of alpha or its largest entries.

    Evaluations draw from a generator of their own: with or without them a search goes the same way.
    """
    arch = search.arch
    assert isinstance(arch, Alphas)
    if use == "eval" and evaluate == "mean":
        return arch()
    draw = search.fork("eval") if use == "eval" else search.shared
    rule = _largest if use == "eval" and evaluate == "argmax" else sample
    return Mixture({kind: rule(alpha, arch.get_buffer(f"allowed_{kind}"), draw) for kind, alpha in arch.alpha.items()})


def _largest(alpha_EO: Tensor, allowed: Tensor, generator: torch.Generator) -> Mix:
    top = one_hot(alpha_EO.detach(), allowed)
    return Mix(top.to(alpha_EO.dtype), active=top)
