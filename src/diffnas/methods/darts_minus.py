"""DARTS-: Robustly Stepping out of Performance Collapse Without Indicators (Chu, Wang, Zhang, Lu, Wei and Yan, ICLR 2021).

A skip connection helps a supernet to train whether or not it is a good op.  An auxiliary one on every edge, outside the
softmax, gives that help to all edges alike; its share beta goes from 1 to 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch
from diffnas.core.constants import constant
from diffnas.core.mixture import Mix, Mixture, softmax_allowed
from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Search
from diffnas.engine.stage import Use

AUXILIARY = "auxiliary_skip"


@dataclass(frozen=True)
class DARTSMinus(Method):
    """DARTS with an auxiliary skip connection on every edge, whose share falls from `beta` to 0."""

    name: ClassVar[str] = "darts-minus"
    capture: ClassVar[Capture] = "epoch"

    beta: float = setting(1.0, "share of the auxiliary skip at the first epoch; it falls linearly to 0", ge=0)

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that every edge has the auxiliary skip, and that no cell may be derived with it."""
        if space.modality == "text":
            return [("name", f"{space.name} has no skip connections that darts-minus could help; take another method")]
        cell, *_ = cells = list(space.cells.values())
        if AUXILIARY not in cell.ops:
            return [("ops", f"must hold {AUXILIARY}; write [{', '.join([*cell.ops, AUXILIARY])}]")]
        problems = []
        if not all(row[each.ops.index(AUXILIARY)] for each in cells for row in each.allowed):
            problems.append(("edge_ops", f"must hold {AUXILIARY} for every edge"))
        if AUXILIARY not in cell.excluded:
            names = [op for op in cell.ops if op in cell.excluded]
            problems.append(("excluded", f"must hold {AUXILIARY}; write [{', '.join([*names, AUXILIARY])}]"))
        return problems

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Returns the softmax over all other ops; the auxiliary skip has beta (1 - e / E) at epoch e of E."""
        return _mixture(search, self.beta * (1.0 - search.clock.epoch / search.clock.epochs))

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O] per kind: the softmax, and 0 for the auxiliary skip."""
        return {kind: mix.op.detach() for kind, mix in _mixture(search, 0.0).items()}


def _mixture(search: Search, beta: float) -> Mixture:
    assert isinstance(search.arch, engine.Alphas)
    mixes = {}
    for kind, cell in search.space.cells.items():
        alpha, allowed = search.arch.alpha[kind], search.arch.get_buffer(f"allowed_{kind}")
        auxiliary = allowed & constant(tuple(op == AUXILIARY for op in cell.ops), torch.bool, alpha.device)
        mixes[kind] = Mix(softmax_allowed(alpha, allowed & ~auxiliary).masked_fill(auxiliary, beta))
    return Mixture(mixes)
