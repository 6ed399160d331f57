"""DrNAS: Dirichlet Neural Architecture Search (Chen, Wang, Cheng, Tang and Hsieh, ICLR 2021).

The shares of the ops of an edge are drawn from a Dirichlet distribution whose concentration is learned: a draw for every
pass, differentiable by its pathwise gradient.  A regulariser pulls the concentration towards 1, where all shares are equally
likely.  The progressive scheme searches the first half of the epochs on few channels and all ops, the second on more
channels and the strongest ops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import elu
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Search
from diffnas.engine.stage import Stage, Use
from diffnas.methods.sampling import dirichlet, dirichlets, sampled_mixture


@dataclass(frozen=True)
class DrNAS(Method):
    """Draw the shares of ops from learned Dirichlet distributions; by progressive=true, prune ops and widen half-way."""

    name: ClassVar[str] = "drnas"
    capture: ClassVar[Capture] = "throughout"
    draws: ClassVar[bool] = True

    regulariser: Literal["l2", "kl"] = setting(
        "l2",
        "what pulls the concentration to 1: l2 is the decay of Adam, search.arch.decay (1e-3), kl a penalty beside a"
        " decay of 0",
    )
    scale: float = setting(1e-3, "with kl: factor of the divergence, summed over edges", ge=0)
    progressive: bool = setting(False, "two stages of half the epochs each; the second has fewer ops and wider ones")
    kept_ops: int = setting(4, "progressive: ops that each edge keeps (NAS-Bench-201: 3)", ge=1)
    partial_late: int = setting(
        4,
        "progressive: K of the second stage, at most space.partial (CIFAR-10: 6, then 4; ImageNet: 6, 3;"
        " NAS-Bench-201: 4, 2)",
        ge=1,
        le=64,
    )
    warmup: int = setting(10, "first epochs of each stage that train only weights (plain on NAS-Bench-201: 0)", ge=0)
    evaluate: Literal["mean", "argmax", "sample"] = setting(
        "sample", "shares that evaluations take: the mean, all to its largest op, or a draw (published)"
    )

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that ops grow wider, never narrower."""
        if self.progressive and space.modality == "text":
            return [("name", f"{space.name} has no partial channels to widen; set method.progressive to false")]
        if not self.progressive or space.size.partial >= self.partial_late:
            return []
        return [("partial", f"must be at least method.partial_late, {self.partial_late}: ops grow wider half-way")]

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns one stage, or two that share weights and schedule."""
        if not self.progressive:
            return (Stage(epochs, size, warmup=self.warmup),)
        first, wider = max(1, epochs // 2), replace(size, partial=self.partial_late)
        late = Stage(max(1, epochs - first), wider, fresh=False, keep=self.kept_ops, warmup=self.warmup)
        return (Stage(first, size, warmup=self.warmup), late)

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Samples the shares of every edge; "eval" follows `evaluate` and does not move the search's generator."""
        if use == "eval" and self.evaluate == "mean":
            return Mixture({kind: Mix(mean(c, ok)) for kind, (c, ok) in concentrations(search).items()})
        if use == "eval" and self.evaluate == "argmax":
            return sampled_mixture(search, use, self.evaluate, _sample)
        kinds = concentrations(search)
        shares = dirichlets(list(kinds.values()), search.fork("eval") if use == "eval" else search.draw)
        return Mixture({kind: Mix(share) for kind, share in zip(kinds, shares, strict=True)})

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """[]: scale * KL(Dir(c) || Dir(1)), summed over edges and kinds; l2 is the optimizer's."""
        if self.regulariser == "l2":
            return None
        divergences = [divergence(c, ok).sum() for c, ok in concentrations(search).values()]
        return self.scale * sum(divergences[1:], divergences[0])

    @override
    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """Samples `count` genotypes, each derived from one draw of the shares as if they were the strengths."""
        genotypes, cells = [], search.space.cells
        for _ in range(count):
            draw = {kind: dirichlet(c.detach(), ok, generator) for kind, (c, ok) in concentrations(search).items()}
            nodes = {kind: engine.strongest(cell, draw[kind]) for kind, cell in cells.items()}
            genotypes.append(Genotype(search.space.name, nodes, {"source": "sampled"}))
        return genotypes


def concentration(alpha_EO: Tensor) -> Tensor:
    """[E, O]: elu(alpha) + 1, which is above 0."""
    return elu(alpha_EO) + 1.0


def concentrations(search: Search) -> dict[str, tuple[Tensor, Tensor]]:
    """Per kind, the concentration [E, O] and which entries take part [E, O] bool."""
    alphas = search.arch.get_submodule("alpha").named_parameters()
    return {kind: (concentration(alpha), search.arch.get_buffer(f"allowed_{kind}")) for kind, alpha in alphas}


def divergence(concentration_EO: Tensor, allowed: Tensor) -> Tensor:
    """[E]: KL(Dir(c) || Dir(1)) over the allowed ops of every edge; with c0 their sum and n their number,

    ln G(c0) - ln G(n) - sum ln G(c) + sum (c - 1) (psi(c) - psi(c0))
    """
    c = concentration_EO.masked_fill(~allowed, 1.0)  # where a term is 0
    closed = ~allowed.any(-1)  # counts as one op of concentration 1: no divergence
    total = concentration_EO.masked_fill(~allowed, 0.0).sum(-1) + closed
    terms = (c - 1.0) * (c.digamma() - total.digamma().unsqueeze(-1)) - c.lgamma()
    return total.lgamma() - (allowed.sum(-1) + closed).to(total).lgamma() + terms.sum(-1)


def mean(concentration_EO: Tensor, allowed: Tensor) -> Tensor:
    """[E, O]: the mean shares, c over its sum over the allowed ops of every edge; 0 elsewhere."""
    open_EO = concentration_EO.masked_fill(~allowed, 0.0)
    return open_EO / open_EO.sum(-1, keepdim=True).clamp_min(1e-30)


def _sample(alpha_EO: Tensor, allowed: Tensor, generator: torch.Generator | None) -> Mix:
    return Mix(dirichlet(concentration(alpha_EO), allowed, generator))
