"""Lambda-DARTS: Mitigating Performance Collapse by Harmonizing Operation Selection among Cells (Movahedi, Adabinejad, Imani,
Keshavarz, Dehghani, Shakery and Araabi, ICLR 2023).

All cells of a kind share one alpha, whose gradient is the sum of what each cell wants.  Where they want different things,
those near the output win, and they want skip connections.  So the weights are trained to make the cells agree: with g_l
the gradient of the loss in the shares of cell l, and L cells, the layer alignment is the mean cosine of all pairs,

    Lambda = 2 / (L (L - 1)) sum_{l < m} cos(g_l, g_m)

and the weights descend L_train - lambda Lambda.  With p_l = dLambda/dg_l, the chain rule gives dLambda/dw = d/dw sum_l p_l g_l,
a central difference of two passes whose shares are moved cell by cell:

    dLambda/dw = (dL/dw (shares + eps p) - dL/dw (shares - eps p)) / (2 eps)        eps = epsilon / |p|
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.mixture import Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Method
from diffnas.engine.search import Search


@dataclass(frozen=True)
class LambdaDARTS(Method):
    """DARTS whose weights also learn to make the cells agree about the architecture."""

    name: ClassVar[str] = "lambda-darts"

    weight: float = setting(0.125, "lambda in the last epoch; it grows linearly from 0 in the first", ge=0)
    epsilon: float = setting(1e-4, "norm of the step in the shares that the central difference takes", gt=0)
    reduce: bool = setting(False, "align the cells of kind `reduce` as well (published: the others alone)")

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that there are cells to align: two of a kind."""
        if self.aligned(space):
            return []
        return [
            ("name", f"{space.name} has no two cells of a kind to align; raise space.layers, or take another method")
        ]

    def aligned(self, space: Space) -> list[str]:
        """The kinds whose cells are aligned."""
        counts = Counter(space.chain())
        return [kind for kind in space.cells if counts[kind] > 1 and (self.reduce or kind != "reduce")]

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes a first-order step of DARTS, the weights by the loss and the alignment."""
        losses, clock = {}, search.clock
        if "valid" in batches:
            losses["valid"] = engine.arch_step(search, search.relax("arch", batches["valid"]), batches["valid"])
        if "train" not in batches:
            return losses
        batch, mixture = batches["train"], search.relax("weights", batches["train"])
        weight = self.weight * clock.epoch / max(1, clock.epochs - 1)
        if not weight:
            return {**losses, "train": engine.weight_step(search, mixture, batch)}
        apart = mixture.by_cell(search.space.chain())
        grads = engine.differentiate(search, apart, batch, {"weights", "mixture"}, whole=True)
        slopes = dict(zip(apart, grads.mixture, strict=True))
        moves = {kind: alignment_gradient(slopes[kind]) for kind in self.aligned(search.space)}
        towards = _difference(search, apart, moves, batch, self.epsilon)
        engine.apply_weights(
            search, mixture, list(torch._foreach_sub(grads.weights, towards, alpha=weight)), batch.scale
        )
        return {**losses, "train": grads.loss}


def alignment_gradient(slopes: Tensor) -> Tensor:
    """[I, E, O]: dLambda/dg_l = 2 / (L (L - 1)) (s - u_l (u_l . s)) / |g_l|, with u_l = g_l / |g_l| and s the sum of them."""
    rows, count = slopes.flatten(1), len(slopes)
    norms = rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    units = rows / norms
    total = units.sum(0)
    moves: Tensor = (total - units * (units @ total)[:, None]) / norms
    return (2.0 / (count * (count - 1)) * moves).view_as(slopes)


def _difference(
    search: Search, mixture: Mixture, moves: Mapping[str, Tensor], batch: Batch, epsilon: float
) -> list[Tensor]:
    """dLambda/dw, by two passes that leave no trace and draw the same noise; 0 where the cells agree already."""
    norm = torch.nn.utils.get_total_norm(list(moves.values()))
    eps = epsilon / norm.clamp_min(torch.finfo(norm.dtype).tiny)

    def gradients(sign: float) -> list[Tensor]:
        moved = {kind: replace(mixture[kind], op=mixture[kind].op + sign * eps * move) for kind, move in moves.items()}
        given = Mixture({**mixture, **moved})
        return engine.differentiate(search, given, batch, {"weights"}, "train_frozen_stats", whole=True).weights

    with search.differencing():
        with torch.random.fork_rng([search.device] if search.device.type == "cuda" else []):
            ahead = gradients(1.0)
        behind = gradients(-1.0)
    return [(a - b) / (2.0 * eps) for a, b in zip(ahead, behind, strict=True)]
