"""The supernet and the network of a `CellSpace`, and what its ops cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.count import Resources, Unit, count, resources
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.mixture import Mix, by_cell
from diffnas.core.parts import drawn
from diffnas.core.space import AnyShape, Size
from diffnas.spaces.cells.layout import INPUTS, CellParts

NONE = "none"


@dataclass(frozen=True)
class Place:
    """A cell in the chain: its kind, channels and stride, its inputs as (channels, whether they are halved), and the
    channels that it puts out."""

    kind: str
    channels: int
    stride: int
    inputs: tuple[tuple[int, bool], ...]
    outputs: int


def places(space: CellParts, channels: int, layers: int, outputs: Mapping[str, int]) -> Iterator[Place]:
    """The cells of the chain; `outputs` is the number of nodes that a cell of each kind puts out."""
    history = [(channels, 0)] * INPUTS  # channels and halvings so far
    for kind in space.layout(layers):
        halves = kind in space.halving
        channels *= 2 if halves else 1
        level = history[-1][1]
        inputs = tuple((width, before < level) for width, before in history)
        yield Place(kind, channels, 2 if halves else 1, inputs, outputs[kind] * channels)
        history = [history[-1], (outputs[kind] * channels, level + halves)]


def fits(space: CellParts, place: Place, affine: bool) -> nn.ModuleList:
    """Builds the modules that fit each input to the cell's channels and sides."""
    return nn.ModuleList(space.fit(width, place.channels, halve, affine) for width, halve in place.inputs)


def _nothing(x: Tensor, stride: int) -> Tensor:
    """Zeros of the shape that an op of that stride makes of `x` [N, C, ...]."""
    return x[(slice(None), slice(None), *(slice(None, None, stride) for _ in x.shape[2:]))] * 0.0


def _pooled(x: Tensor) -> Tensor:
    """[N, C]: the means of `x` [N, C, ...] over all places."""
    return x.mean(tuple(range(2, x.dim()))) if x.dim() > 2 else x


class MixedCell(nn.Module):
    """A cell of the supernet: all allowed ops of every edge."""

    def __init__(self, space: CellParts, cell: Cell, place: Place) -> None:
        super().__init__()
        self.cell, self.stride = cell, place.stride
        self.fits = fits(space, place, affine=False)
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: space.op(name, place.channels, place.stride if source < INPUTS else 1, False)
                    for name, ok in zip(cell.ops, allowed, strict=True)
                    if ok and name != NONE
                }
            )
            for allowed, (source, _) in zip(cell.allowed, cell.edges, strict=True)
        )

    def forward(self, inputs: list[Tensor], mix: Mix) -> Tensor:
        """The outputs of the two cells before -> [N, nodes * C, H', W']."""
        shares_EO = mix.shares() if mix.edge is None else mix.shares() * mix.edge[:, None]
        states = [fit(x) for fit, x in zip(self.fits, inputs, strict=True)]
        for node in self.cell.nodes:
            flows = [
                self._edge(e, states[self.cell.edges[e][0]], shares_EO[e], mix) for e in self.cell.edges_into(node)
            ]
            states.append(sum(flows[1:], flows[0]))
        return torch.cat([states[i] for i in self.cell.concat], dim=1)

    def _edge(self, e: int, x: Tensor, shares_O: Tensor, mix: Mix) -> Tensor:
        """The ops of edge `e`, weighted; those that the mixture promises are idle do not run."""
        ops = self.edges[e]
        assert isinstance(ops, nn.ModuleDict)
        flows = [
            shares_O[column] * ops[name](x)
            for column, name in enumerate(self.cell.ops)
            if name in ops and (mix.live is None or mix.live[e][column])
        ]
        stride = self.stride if self.cell.edges[e][0] < INPUTS else 1
        return sum(flows[1:], flows[0]) if flows else _nothing(x, stride)


class Supernet(nn.Module):
    """`supernet(x, mixture)`: images [N, C_in, H, W], or tensors [N, C_in, ...] -> logits or outputs [N, outputs]."""

    def __init__(self, space: CellParts, shape: AnyShape, size: Size) -> None:
        super().__init__()
        cells = space.cells
        chain = list(places(space, size.channels, size.layers, {kind: len(cells[kind].concat) for kind in cells}))
        self.kinds = [place.kind for place in chain]
        self.stem = space.stem(shape.sizes[0], size.channels)
        self.cells = nn.ModuleList(MixedCell(space, cells[place.kind], place) for place in chain)
        self.classifier = nn.Linear(chain[-1].outputs, shape.outputs)

    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        """Computes the logits with `mixture`, a `Mix` for each kind of cell."""
        history = [self.stem(x)] * INPUTS
        for mix, cell in zip(by_cell(mixture, self.kinds), self.cells, strict=True):
            history = [history[-1], cell(history, mix)]
        outputs: Tensor = self.classifier(_pooled(history[-1]))
        return outputs


class GenotypeCell(nn.Module):
    """A derived cell."""

    def __init__(self, space: CellParts, nodes: Nodes, place: Place) -> None:
        super().__init__()
        self.nodes, self.stride = nodes, place.stride
        self.fits = fits(space, place, affine=True)
        self.names = [[(op, source) for op, source in node if op != NONE] for node in nodes.inputs]
        self.ops = nn.ModuleList(
            space.op(op, place.channels, place.stride if source < INPUTS else 1, True)
            for node in self.names
            for op, source in node
        )

    def forward(self, inputs: list[Tensor], dropped: Tensor | None) -> Tensor:
        """`dropped` is the drop-path probability [] (None: no drop path); identities are never dropped."""
        states = [fit(x) for fit, x in zip(self.fits, inputs, strict=True)]
        ops = iter(self.ops)
        for node in self.names:
            flows = []
            for _, source in node:
                op = next(ops)
                flow = op(states[source])
                if dropped is not None and not isinstance(op, nn.Identity):
                    flow = _thinned(flow, 1.0 - dropped)
                flows.append(flow)
            states.append(sum(flows[1:], flows[0]) if flows else _nothing(states[0], self.stride))
        return torch.cat([states[i] for i in self.nodes.concat], dim=1)


def _thinned(x: Tensor, keep: Tensor) -> Tensor:
    """Samples of `x` [N, ...] kept with probability `keep` [], scaled up; the others zero (Larsson et al., 2017)."""
    mask = drawn(lambda shape: torch.bernoulli(keep.expand(shape)), (len(x), *(1,) * (x.dim() - 1)))
    return x * (mask / keep).to(x.dtype)


class Network(nn.Module):
    """Images [N, C_in, H, W] or tensors -> logits or outputs [N, outputs].

    `drop_path` is a buffer, written each epoch, that acts with `drops`.
    """

    def __init__(
        self, space: CellParts, genotype: Genotype, shape: AnyShape, channels: int, layers: int, drops: bool
    ) -> None:
        super().__init__()
        cells, self.drops = genotype.cells, drops
        chain = list(places(space, channels, layers, {kind: len(nodes.concat) for kind, nodes in cells.items()}))
        self.stem = space.stem(shape.sizes[0], channels)
        self.cells = nn.ModuleList(GenotypeCell(space, cells[place.kind], place) for place in chain)
        self.classifier = nn.Linear(chain[-1].outputs, shape.outputs)
        self.register_buffer("drop_path", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        dropped = self.get_buffer("drop_path") if self.training and self.drops else None
        history = [self.stem(x)] * INPUTS
        for cell in self.cells:
            history = [history[-1], cell(history, dropped)]
        outputs: Tensor = self.classifier(_pooled(history[-1]))
        return outputs


def op_costs(space: CellParts, shape: AnyShape, unit: Unit, size: Size) -> dict[str, list[list[float]]]:
    """[E, O] per kind: the cost of every op of every edge, summed over the cells of the kind."""
    costs = {kind: [[0.0] * len(cell.ops) for _ in cell.edges] for kind, cell in space.cells.items()}
    for kind, edges in _edges(space, shape, size):
        for row, (stride, sizes) in zip(costs[kind], edges, strict=True):
            for column, name in enumerate(space.ops):
                if name != NONE:
                    op = _built(space, name, sizes[0], stride, affine=True)
                    row[column] += float(getattr(count(op, sizes), unit))
    return costs


def op_resources(space: CellParts, shape: AnyShape, size: Size) -> dict[str, list[list[list[Resources]]]]:
    """[cells, E, O] per kind: the cost of every op in every cell by the rule of SNAS's code."""
    rows: dict[str, list[list[list[Resources]]]] = {kind: [] for kind in space.cells}
    for kind, edges in _edges(space, shape, size):
        rows[kind].append([[_resources(space, name, *edge) for name in space.ops] for edge in edges])
    return rows


def _resources(space: CellParts, name: str, stride: int, sizes: tuple[int, ...]) -> Resources:
    op = nn.Identity() if name == NONE else _built(space, name, sizes[0], stride, affine=False)
    return resources(op, sizes)


def _built(space: CellParts, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    with torch.device("meta"):
        return space.op(name, channels, stride, affine)


def _edges(space: CellParts, shape: AnyShape, size: Size) -> Iterator[tuple[str, list[tuple[int, tuple[int, ...]]]]]:
    """Yields for every cell of the chain its kind and the (stride, sizes of what they read) of its edges."""
    cells, sides = space.cells, shape.sizes[1:]
    for place in places(space, size.channels, size.layers, {kind: len(cells[kind].concat) for kind in cells}):
        halved = tuple(side // place.stride for side in sides)
        within, after = (place.stride, (place.channels, *sides)), (1, (place.channels, *halved))
        yield place.kind, [within if source < INPUTS else after for source, _ in cells[place.kind].edges]
        sides = halved
