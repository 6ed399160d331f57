"""P-DARTS: Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and Evaluation (Chen, Xie,
Wu and Tian, ICCV 2019).

Three searches, each on a deeper supernet and fewer ops than the one before, end near the depth that the cell is used at.
Dropout on skip connections, which fades within each stage, and a limit to their number in the result keep them from winning
by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from diffnas import engine
from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Search
from diffnas.engine.stage import Clock, Stage

SKIP = "skip_connect"
FADE = 0.2  # per epoch after the warm-up, as in the published code


@dataclass(frozen=True)
class PDARTS(Method):
    """Three searches, each deeper and on fewer ops, with dropout on skip connections and a limit to their number."""

    name: ClassVar[str] = "pdarts"
    capture: ClassVar[Capture] = "throughout"

    warmup: int = setting(10, "first epochs of each stage that train only weights (10 of 25)", ge=0)
    added_layers: tuple[int, int] = setting((6, 12), "cells that stages 2 and 3 have more than stage 1 (5, 11, 17)")
    kept_ops: tuple[int, int] = setting((5, 3), "ops that each edge keeps in stages 2 and 3 (stage 1: all 8)")
    rates: tuple[float, float, float] = setting(
        (0.1, 0.4, 0.7),
        "first rate of skip dropout in each stage, which space.skip_dropout makes room for"
        " (the paper: 0, 0.4, 0.7 on CIFAR-10 and 0.1, 0.2, 0.3 on CIFAR-100; [0, 0, 0]: none)",
    )
    max_skips: int | None = setting(2, "most skip connections in a cell that keeps the resolution (null: any)", ge=0)

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        """Checks that stages do not shrink in depth or grow in ops, and that rates are probabilities."""
        problems = []
        second, third = self.added_layers
        if not 0 <= second <= third <= 1000:
            problems.append(
                ("added_layers", f"must not fall from stage to stage, nor exceed 1000; got {list(self.added_layers)}")
            )
        second, third = self.kept_ops
        if not second >= third >= 1:
            problems.append(("kept_ops", f"must be at least 1 and not grow; got {list(self.kept_ops)}"))
        if not all(0 <= rate < 1 for rate in self.rates):
            problems.append(("rates", f"must all be at least 0 and below 1; got {list(self.rates)}"))
        return problems

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that the supernet has skip dropout and cells to stack."""
        if space.modality == "text":
            return [("name", f"{space.name} has one cell, and pdarts searches ever deeper; take another method")]
        if not any(self.rates) or getattr(space, "skip_dropout", False):
            return []
        remedy = "or set method.rates to [0, 0, 0]"
        if hasattr(space, "skip_dropout"):
            return [("skip_dropout", f"must be true for the dropout on skip connections of pdarts, {remedy}")]
        return [("name", f"{space.name} has no dropout on skip connections; take a space that has it, {remedy}")]

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns three stages that share `epochs`; each starts afresh, and only the allowed ops are handed on."""
        shares = [max(1, (epochs + 2 - k) // 3) for k in range(3)]
        sizes = [replace(size, layers=size.layers + more) for more in (0, *self.added_layers)]
        plans = zip(shares, sizes, (None, *self.kept_ops), strict=True)
        return tuple(Stage(share, deeper, keep=keep, warmup=self.warmup) for share, deeper, keep in plans)

    @override
    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        """Returns the rate of skip dropout: linear to 0 over the stage; after the warm-up anew, exponential with rate 0.2."""
        if not any(self.rates):
            return {}
        first, epoch = self.rates[clock.stage], clock.stage_epoch
        if epoch < self.warmup:
            return {"skip_dropout": first * (clock.epochs - epoch - 1) / clock.epochs}
        return {"skip_dropout": first * math.exp(-FADE * (epoch - self.warmup))}

    @override
    def derive(self, search: Search) -> Genotype:
        """Derives the strongest op of every edge and the strongest edges of every node, with at most `max_skips`."""
        strength, cells = search.strength(), search.space.cells
        limits = {kind: None if kind == "reduce" else self.max_skips for kind in cells}
        derived = {kind: restricted(cell, strength[kind], limits[kind]) for kind, cell in cells.items()}
        return Genotype(search.space.name, derived)


def restricted(cell: Cell, strength_EO: Tensor, most: int | None) -> Nodes:
    """The cell of `strength_EO` [E, O] with at most `most` skip connections (None: any), edges in the order of their sources.

    While there are more, the weakest of those in the cell loses its strength, and ops and edges are chosen anew (section
    3.3).  Of equal edges the later one counts.  Skip connections with nothing to take their place stay.
    """
    strength_EO = strength_EO.clone()
    column = cell.ops.index(SKIP) if SKIP in cell.ops else 0
    while True:
        derived = engine.strongest(cell, strength_EO, ties="last")
        inputs = tuple(tuple(sorted(node, key=lambda pair: pair[1])) for node in derived.inputs)
        skips = [
            cell.edges.index((source, node))
            for node, pairs in zip(cell.nodes, inputs, strict=True)
            for op, source in pairs
            if op == SKIP
        ]
        removable = [e for e in skips if strength_EO[e, column] > 0]
        if most is None or len(skips) <= most or not removable:
            return replace(derived, inputs=inputs)
        strength_EO[min(removable, key=lambda e: float(strength_EO[e, column])), column] = 0.0
