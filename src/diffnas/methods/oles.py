"""OLES: Operation-Level Early Stopping for Robustifying Differentiable NAS (Jiang, Ji, Zhu, Yuan and Huang, NeurIPS 2023).

Ops with weights overfit the training half, and then lose to skip connections on the half that the architecture learns from.
So each op stops by itself when its gradients on the two halves no longer point the same way: when its gradient matching
score over M steps is below a threshold, it keeps its weights for the rest of the search (algorithm 1).

    GM = 1/M sum_m cos(g_train, g_val)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.cell import Cell
from diffnas.core.constants import constant
from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Method
from diffnas.engine.search import Alphas, Search

SKIPS = ("skip_connect", "auxiliary_skip")  # go on learning where they have weights, at a stride


@dataclass(frozen=True)
class OLES(Method):
    """DARTS in which every op's weights stop learning when its gradients on the two halves disagree."""

    name: ClassVar[str] = "oles"

    threshold: float = setting(0.381, "score below which an op's weights stop (published: 0.4 of sums over 20)", le=1)
    window: int = setting(21, "steps that a score is the mean of (published: sums of 21 steps, divided by 20)", ge=1)
    compare: Literal["sum", "valid"] = setting(
        "sum", "gradient that the training one is compared with: both added (published code), or the validation one"
    )

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Refuses recurrent cells, whose ops have no weights of their own."""
        return [("name", f"the ops of {space.name} have no weights to stop")] if space.modality == "text" else []

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds alpha, and what is known of every op in every cell."""
        return Stopping(space.cells, space.chain(), generator)

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes a first-order step of DARTS, whose two gradients of the weights are compared op by op."""
        losses, stopping, valid = {}, search.arch, None
        assert isinstance(stopping, Stopping)
        if "valid" in batches:
            mixture = search.relax("arch", batches["valid"])
            valid = engine.differentiate(search, mixture, batches["valid"], {"weights", "mixture"})
            losses["valid"] = valid.loss
            engine.apply_arch(search, mixture, valid.mixture)
        if "train" in batches:
            mixture = search.relax("weights", batches["train"])
            train = engine.differentiate(search, mixture, batches["train"], {"weights"})
            losses["train"] = train.loss
            if valid is not None:
                other = torch._foreach_add(valid.weights, train.weights) if self.compare == "sum" else valid.weights
                watched = stopping.watched(search)
                stopping.watch(watched, op_cosines(train.weights, other, list(watched.values())), self)
            engine.apply_weights(search, mixture, train.weights, batches["train"].scale, stopping.frozen(search))
        return losses


class Stopping(Alphas):
    """alpha, and for every cell, edge and op: `scores`, the sum of this window's cosines, and `stopped`; `steps` counts."""

    def __init__(self, cells: Mapping[str, Cell], chain: Sequence[str], generator: torch.Generator) -> None:
        super().__init__(cells, generator)
        sizes = len(chain), max(len(cell.edges) for cell in cells.values()), max(len(c.ops) for c in cells.values())
        self.skips = [[cells[kind].ops.index(op) for op in SKIPS if op in cells[kind].ops] for kind in chain]
        self.register_buffer("scores", torch.zeros(sizes))
        self.register_buffer("stopped", torch.zeros(sizes, dtype=torch.bool))
        self.register_buffer("steps", torch.tensor(0))

    def watched(self, search: Search) -> dict[tuple[int, int, int], tuple[int, ...]]:
        """The places of the weights of every op that may stop."""
        return {op: own for op, own in search.op_weights.items() if op[2] not in self.skips[op[0]]}

    def watch(self, watched: Mapping[tuple[int, int, int], Any], cosines: Tensor, method: OLES) -> None:
        """Adds one step's cosines of the `watched` ops; after a window stops those whose mean is too small."""
        scores, stopped, steps = map(self.get_buffer, ("scores", "stopped", "steps"))
        index = tuple(constant(column, torch.int64, scores.device) for column in zip(*watched, strict=True))
        scores[index] += cosines.to(scores)
        steps += 1
        due = steps == method.window
        stopped |= due & (scores / method.window < method.threshold)
        scores *= ~due
        steps *= ~due

    def frozen(self, search: Search) -> frozenset[int]:
        """The places of the weights of the ops that have stopped."""
        stopped = self.get_buffer("stopped").tolist()
        return frozenset(place for (c, e, o), own in self.watched(search).items() if stopped[c][e][o] for place in own)


def op_cosines(ours: Sequence[Tensor], theirs: Sequence[Tensor], ops: Sequence[Sequence[int]]) -> Tensor:
    """[ops]: the mean over the weights of each op of the cosines of two gradients, taken along the output channels."""
    found = ours[0].new_zeros(len(ops))
    by_shape: dict[torch.Size, list[tuple[int, int, float]]] = {}
    for op, own in enumerate(ops):
        for place in own:
            by_shape.setdefault(ours[place].shape, []).append((place, op, 1.0 / len(own)))
    for places, owners, shares in (zip(*alike, strict=True) for alike in by_shape.values()):
        first, second = (torch.stack([grads[place] for place in places]) for grads in (ours, theirs))
        cosines = torch.cosine_similarity(first, second, dim=1).reshape(len(places), -1).mean(1)
        parts = cosines * constant(shares, cosines.dtype, cosines.device)
        found.index_add_(0, constant(owners, torch.int64, cosines.device), parts)
    return found
