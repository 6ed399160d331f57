"""The supernet of DARTS, written to be read: the truth that faster versions are tested against (Liu et al., 2019).

Every edge computes all of its allowed ops and adds them up by the shares of the mixture:

    edge(x) = sum_o op_EO[e, o] * op_o(x)        node = sum of its edges        cell = concatenation of its nodes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix, by_cell
from diffnas.core.parts import drawn, dropout
from diffnas.core.space import Shape, Size
from diffnas.spaces.channels import interleave
from diffnas.spaces.darts_cnn.head import AuxiliaryHead
from diffnas.spaces.darts_cnn.layout import CellPlan, plan_cells, reductions
from diffnas.spaces.darts_cnn.ops import OPS, SkipDropout, preprocess
from diffnas.spaces.darts_cnn.stem import Stem, cifar_stem, imagenet_stem


@dataclass(frozen=True)
class Extras:
    """The additions of some programs to the supernet of DARTS: dropout before the classifier, drop path of whole edges, at a
    constant probability or one that `grows` from 0, an auxiliary head, whose own weights may be `fixed`, and the `stem` for
    images of ImageNet's size."""

    dropout: float = 0.0
    drop_path: float = 0.0
    grows: bool = False
    auxiliary: Literal["none", "trained", "fixed"] = "none"
    stem: Stem = "cifar"


def thinned(flow: Tensor, kept_EN: Tensor | None, e: int) -> Tensor:
    """[N, C, H, W]: the flow of edge `e`, scaled image by image by its row of `kept_EN` (None: by 1)."""
    return flow if kept_EN is None else flow * kept_EN[e, :, None, None, None].to(flow.dtype)


class MixedEdge(nn.Module):
    """All allowed ops of one edge: [N, C, H, W] -> [N, C, H/stride, W/stride].

    `none` adds nothing and is not built; its share still counts in whatever made the mixture.
    """

    def __init__(
        self, ops: tuple[str, ...], allowed: tuple[bool, ...], channels: int, stride: int, skip_dropout: bool = False
    ) -> None:
        super().__init__()
        self.columns = {name: o for o, name in enumerate(ops) if allowed[o] and name != "none"}
        built = {name: OPS[name](channels, stride, False, "plain") for name in self.columns}
        if skip_dropout and isinstance(built.get("skip_connect"), nn.Identity):
            built["skip_connect"] = SkipDropout()
        self.ops = nn.ModuleDict(built)
        self.stride = stride

    def forward(self, x: Tensor, op_O: Tensor, live: Sequence[bool] | None = None) -> Tensor:
        """The sum of the ops' outputs, weighted by `op_O` [O]; those that are not `live` do not run."""
        names = [name for name in self.ops if live is None or live[self.columns[name]]]
        terms = [op_O[self.columns[name]] * self.ops[name](x) for name in names]
        return sum(terms[1:], terms[0]) if terms else x[:, :, :: self.stride, :: self.stride] * 0.0


class MixedCell(nn.Module):
    """A cell of the supernet: its inputs, fitted to its channels, then its nodes, in order.

    With `partial` K > 1, the ops of every edge see the first C/K channels; the others pass by (pooled where the edge has a
    stride), and the K groups of channels are interleaved (Xu et al., PC-DARTS, 2020, equation 2).
    """

    def __init__(self, cell: Cell, plan: CellPlan, partial: int = 1, skip_dropout: bool = False) -> None:
        super().__init__()
        self.cell, self.stride, self.partial = cell, plan.stride, partial
        self.preprocess = preprocess(plan, affine=False)
        self.edges = nn.ModuleList(
            MixedEdge(cell.ops, allowed, plan.channels // partial, self.stride_of(source), skip_dropout)
            for allowed, (source, _) in zip(cell.allowed, cell.edges, strict=True)
        )

    def forward(self, inputs: list[Tensor], mix: Mix, kept_EN: Tensor | None = None) -> Tensor:
        """`inputs`: the outputs of the cells before, oldest first -> [N, len(concat) * C, H', W'].

        `kept_EN` [E, N] scales what each edge passes of each image (None: by 1).
        """
        shares_EO = mix.shares()
        states = [fit(x) for fit, x in zip(self.preprocess, inputs, strict=True)]
        for node in self.cell.nodes:
            flows = []
            for e in self.cell.edges_into(node):
                source = self.cell.edges[e][0]
                seen, passed = self.split(states[source], source)
                mixed = self.edges[e](seen, shares_EO[e], None if mix.live is None else mix.live[e])
                flow = mixed if passed is None else interleave(torch.cat([mixed, passed], dim=1), self.partial)
                flows.append(thinned(flow if mix.edge is None else mix.edge[e] * flow, kept_EN, e))
            states.append(sum(flows[1:], flows[0]))
        return torch.cat([states[i] for i in self.cell.concat], dim=1)

    def edge(self, e: int) -> MixedEdge:
        """Returns edge `e`."""
        edge = self.edges[e]
        assert isinstance(edge, MixedEdge)
        return edge

    def stride_of(self, source: int) -> int:
        """The stride of the edges that leave state `source`."""
        return self.stride if source < self.cell.inputs else 1

    def split(self, x: Tensor, source: int) -> tuple[Tensor, Tensor | None]:
        """Splits state `source` into the channels that its edges' ops see and those that bypass them (None: none)."""
        if self.partial == 1:
            return x, None
        few = x.shape[1] // self.partial
        seen, passed = x.split([few, x.shape[1] - few], dim=1)
        stride = self.stride_of(source)
        return seen, passed if stride == 1 else nn.functional.max_pool2d(passed, stride, stride)


class Supernet(nn.Module):
    """`supernet(x, mixture)`: images [N, C_in, H, W] -> logits [N, classes].

    The normalisations of the stem are the only affine ones.  Sides must be divisible by 4 (two halvings), with the stem of
    ImageNet by 32 (three more).  With `skip_dropout` it has
    a buffer of that name, the probability with which skip connections of stride 1 drop numbers.  With an auxiliary head it
    gives (logits, the head's logits) in training mode.  Where drop path grows, the buffer `progress` says how far the search
    has come, from 0 to 1.
    """

    cell_class: ClassVar[type[MixedCell]] = MixedCell

    def __init__(
        self,
        cells: Mapping[str, Cell],
        shape: Shape,
        size: Size,
        stem_multiplier: int = 3,
        skip_dropout: bool = False,
        extras: Extras = Extras(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.extras = extras
        width = stem_multiplier * size.channels
        self.inputs = inputs = next(iter(cells.values())).inputs
        before = [(width, 0)] * inputs
        if extras.stem == "cifar":
            self.stem = cifar_stem(shape.channels, width)
        else:
            self.stem0, self.stem1 = imagenet_stem(shape.channels, width)
            before = [*before[1:], (width, 1)]
        outputs = {kind: len(cell.concat) for kind, cell in cells.items()}
        plans, last = plan_cells(size.layers, size.channels, before, outputs)
        self.kinds = [plan.kind for plan in plans]
        self.cells = nn.ModuleList(
            self.cell_class(cells[plan.kind], plan, size.partial, skip_dropout) for plan in plans
        )
        self.skips = [layer for layer in self.modules() if isinstance(layer, SkipDropout)]
        if skip_dropout:
            self.register_buffer("skip_dropout", torch.zeros(()), persistent=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, shape.classes)
        if extras.grows:
            self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.auxiliary_at = reductions(size.layers)[-1]
        self.auxiliary: AuxiliaryHead | None = None
        if extras.auxiliary != "none":
            plan = plans[self.auxiliary_at]
            features, small = outputs[plan.kind] * plan.channels, extras.stem == "cifar"
            head = AuxiliaryHead(features, shape.classes, 3 if small else 2, second_norm=small)
            self.auxiliary = head.requires_grad_(extras.auxiliary == "trained")

    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor | tuple[Tensor, Tensor]:
        """Computes the logits with `mixture`, a `Mix` for `normal` and one for `reduce`."""
        for skip in self.skips:
            skip.rate = self.get_buffer("skip_dropout")
        history, extra = self._stem_states(x), None
        for index, (mix, cell) in enumerate(zip(by_cell(mixture, self.kinds), self.cells, strict=True)):
            kept_EN = self._kept(len(mix.op), len(x))
            history = [*history[1:], cell(history, mix, kept_EN)]
            if index == self.auxiliary_at and self.auxiliary is not None and self.training:
                extra = self.auxiliary(history[-1])
        features = self.pool(history[-1]).flatten(1)
        if self.extras.dropout:
            features = dropout(features, self.extras.dropout, self.training)
        logits = self.classifier(features)
        return logits if extra is None else (logits, extra)

    def _stem_states(self, x: Tensor) -> list[Tensor]:
        if self.extras.stem == "cifar":
            return [self.stem(x)] * self.inputs
        first = self.stem0(x)
        return [first] * (self.inputs - 1) + [self.stem1(first)]

    def _kept(self, edges: int, images: int) -> Tensor | None:
        """[E, N]: 0 where an edge drops an image, elsewhere what makes up for it; None where nothing is dropped."""
        if not self.extras.drop_path or not self.training:
            return None
        weight = self.classifier.weight
        keep = torch.full_like(weight[0, 0], 1.0 - self.extras.drop_path)
        if self.extras.grows:
            keep = 1.0 - self.extras.drop_path * self.get_buffer("progress").to(weight)
        return drawn(lambda shape: torch.bernoulli(keep.expand(shape)), (edges, images), 1) / keep
