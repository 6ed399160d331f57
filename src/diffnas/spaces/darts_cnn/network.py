"""The network of a genotype, trained from scratch: CIFAR and ImageNet forms (Liu et al., 2019, sections 3.1 and A.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.parts import drawn
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError
from diffnas.spaces.darts_cnn.head import AuxiliaryHead
from diffnas.spaces.darts_cnn.layout import CellPlan, plan_cells, reductions
from diffnas.spaces.darts_cnn.ops import OPS, PoolNorm, Zero, preprocess
from diffnas.spaces.darts_cnn.stem import Stem, cifar_stem, imagenet_stem

CONCAT_KINDS = ("normal", "reduce")


def drop_path(x: Tensor, probability: Tensor) -> Tensor:
    """Zeroes whole samples of `x` [N, C, H, W] with `probability` [] and scales up the rest (Larsson et al., 2017)."""
    keep = 1.0 - probability
    mask = drawn(lambda shape: torch.bernoulli(keep.expand(shape)), (len(x), 1, 1, 1))
    return x * (mask / keep).to(x.dtype)


class GenotypeCell(nn.Module):
    """A derived cell: [outputs of the cells before] -> [N, len(concat) * C, H', W']."""

    def __init__(self, nodes: Nodes, plan: CellPlan, pool_norm: PoolNorm) -> None:
        super().__init__()
        self.nodes = nodes
        self.preprocess = preprocess(plan, affine=True)
        self.ops = nn.ModuleList(
            OPS[op](plan.channels, plan.stride if source < nodes.first else 1, True, pool_norm)
            for node in nodes.inputs
            for op, source in node
        )
        self.searched = nodes.places()
        self.empty = Zero(plan.stride)  # the value of a node that reads nothing

    def forward(self, inputs: list[Tensor], dropped: Tensor | None) -> Tensor:
        """`dropped` is the drop-path probability [], None for no drop path; identities are never dropped."""
        states = [fit(x) for fit, x in zip(self.preprocess, inputs, strict=True)]
        ops = iter(self.ops)
        for node in self.nodes.inputs:
            flows = []
            for _, source in node:
                op = next(ops)
                flow = op(states[source])
                if dropped is not None and not isinstance(op, nn.Identity):
                    flow = drop_path(flow, dropped)
                flows.append(flow)
            states.append(sum(flows[1:], flows[0]) if flows else self.empty(states[0]))
        return torch.cat([states[i] for i in self.nodes.concat], dim=1)


class Network(nn.Module):
    """Images [N, C_in, H, W] -> logits [N, classes]; in training mode with an auxiliary head -> (logits, auxiliary logits).

    `drop_path` is a buffer: write the current probability into it each epoch (`network.drop_path.fill_(p)`).  It acts in
    training mode only, and only where the network was built with `drops=True`.
    """

    drop_path: Tensor

    def __init__(
        self,
        genotype: Genotype,
        shape: Shape,
        channels: int = 36,
        layers: int = 20,
        stem: Stem = "cifar",
        auxiliary: bool = False,
        auxiliary_norm: bool | None = None,
        pool_norm: PoolNorm = "none",
        stem_multiplier: int = 3,
        drops: bool = False,
    ) -> None:
        super().__init__()
        _require_legal(genotype)
        cells, inputs = genotype.cells, genotype.cells["normal"].first
        self.stem_kind, self.inputs, self.drops = stem, inputs, drops
        if stem == "cifar":
            width = stem_multiplier * channels
            self.stem = cifar_stem(shape.channels, width)
            before = [(width, 0)] * inputs
        else:
            self.stem0, self.stem1 = imagenet_stem(shape.channels, channels)
            before = [(channels, 0)] * (inputs - 1) + [(channels, 1)]
        outputs = {kind: len(cells[kind].concat) for kind in CONCAT_KINDS}
        plans, last = plan_cells(layers, channels, before, outputs)
        self.cells = nn.ModuleList(GenotypeCell(cells[plan.kind], plan, pool_norm) for plan in plans)
        self.auxiliary_at = reductions(layers)[-1]
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary:
            features = outputs[plans[self.auxiliary_at].kind] * plans[self.auxiliary_at].channels
            norm = stem == "cifar" if auxiliary_norm is None else auxiliary_norm
            self.auxiliary = AuxiliaryHead(features, shape.classes, 3 if stem == "cifar" else 2, norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, shape.classes)
        self.register_buffer("drop_path", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The logits; in training mode, where there is an auxiliary head, the pair of logits."""
        dropped = self.drop_path if self.training and self.drops else None
        history, extra = self._stem_states(x), None
        for index, cell in enumerate(self.cells):
            history = [*history[1:], cell(history, dropped)]
            if index == self.auxiliary_at and self.auxiliary is not None and self.training:
                if index + 1 == len(self.cells):
                    # the published head's ReLU works in place, so what follows reads its result; a following cell begins
                    # with a ReLU and cannot tell, the final pooling of a very shallow network can
                    history[-1] = torch.relu(history[-1])
                extra = self.auxiliary(history[-1])
        logits = self.classifier(self.pool(history[-1]).flatten(1))
        return logits if extra is None else (logits, extra)

    def _stem_states(self, x: Tensor) -> list[Tensor]:
        if self.stem_kind == "cifar":
            return [self.stem(x)] * self.inputs
        first = self.stem0(x)
        return [first] * (self.inputs - 1) + [self.stem1(first)]


def _require_legal(genotype: Genotype) -> None:
    """Raises `GenotypeError` with one line per reason why the genotype cannot be built here."""
    missing = [kind for kind in CONCAT_KINDS if kind not in genotype.cells]
    if missing:
        raise GenotypeError(
            f"genotype: a darts-cnn genotype has cells normal and reduce; {', '.join(missing)} is missing"
        )
    problems = []
    for kind in CONCAT_KINDS:
        nodes = genotype.cells[kind]
        strangers = sorted(set(nodes.ops) - set(OPS))
        problems += [f"genotype: cell {kind}: op {op!r} is unknown; known: {', '.join(OPS)}" for op in strangers]
        if min(nodes.concat) < nodes.first:
            problems.append(f"genotype: cell {kind}: concat {list(nodes.concat)} names an input; name nodes only")
    if genotype.cells["normal"].first != genotype.cells["reduce"].first:
        problems.append("genotype: the normal and the reduction cell must read the same number of inputs")
    elif genotype.cells["normal"].first < 1:
        problems.append("genotype: a cell must read at least one input")
    if problems:
        raise GenotypeError(*problems)
