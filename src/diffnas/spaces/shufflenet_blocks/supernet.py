"""The supernet: every block adds up the outputs of its ops by the shares of the mixture.

    block(x) = sum_o op_EO[e, o] * op_o(x)

Of a mixture that says which entries are active only those run: one op per block for SPOS and DSNAS.  Normalisations are
affine, as in DSNAS's searches, whose weights go on into the network; SPOS trained its supernet without.  DSNAS's epsilon is
1e-2 during search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape
from diffnas.spaces.shufflenet_blocks.layout import KIND, Layout, Place, places
from diffnas.spaces.shufflenet_blocks.ops import OPS
from diffnas.spaces.shufflenet_blocks.trunk import head, initialise, stem


class MixedBlock(nn.Module):
    """All allowed ops of one block: [N, C_in, H, W] -> [N, C_out, H/stride, W/stride]."""

    def __init__(self, ops: Sequence[str], allowed: Sequence[bool], place: Place, eps: float) -> None:
        super().__init__()
        self.place = place
        self.columns = {name: o for o, name in enumerate(ops) if allowed[o]}
        self.ops = nn.ModuleDict({name: OPS[name](place, eps) for name in self.columns})

    def forward(self, x: Tensor, op_O: Tensor, live: Sequence[bool] | None = None) -> Tensor:
        """The sum of the ops' outputs, weighted by `op_O` [O]; those that are not `live` do not run."""
        names = [name for name, o in self.columns.items() if live is None or live[o]]
        terms: list[Tensor] = [op_O[self.columns[name]] * self.ops[name](x) for name in names]
        if terms:
            return sum(terms[1:], terms[0])
        n, _, h, w = x.shape
        return x.new_zeros(n, self.place.outputs, h // self.place.stride, w // self.place.stride)


class Supernet(nn.Module):
    """`supernet(x, mixture)`: images [N, C_in, H, W] -> logits [N, classes]."""

    def __init__(self, cell: Cell, layout: Layout, shape: Shape, eps: float) -> None:
        super().__init__()
        self.stem = stem(layout, shape, eps)
        self.blocks = nn.ModuleList(
            MixedBlock(cell.ops, allowed, place, eps)
            for allowed, place in zip(cell.allowed, places(layout, shape.side), strict=True)
        )
        self.head = head(layout, shape, eps)
        initialise(self.stem, [self.blocks, self.head])

    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        """Spends the `Mix` that `mixture` has for `blocks`."""
        mix = mixture[KIND].cell(0)
        x, shares_EO = self.stem(x), mix.shares()
        for e, block in enumerate(self.blocks):
            x = block(x, shares_EO[e], None if mix.live is None else mix.live[e])
            if mix.edge is not None:
                x = mix.edge[e] * x
        logits: Tensor = self.head(x)
        return logits
