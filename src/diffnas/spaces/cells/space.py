"""A base for spaces of cells: say how an op is built, and the supernet, the network and all commands follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.count import Resources, Unit, count
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.settings import setting
from diffnas.core.space import AnyShape, Form, Shape, Size
from diffnas.errors import GenotypeError
from diffnas.spaces.cells.layout import INPUTS
from diffnas.spaces.cells.modules import Network, Supernet, op_costs, op_resources
from diffnas.spaces.darts_cnn.ops import FactorizedReduce, ReLUConvBN

NEUTRAL = {"stem": "cifar", "auxiliary": False, "auxiliary_norm": None, "pool_norm": "none"}


@dataclass(frozen=True)
class CellSpace:
    """Cells in a chain, each a graph whose nodes read every earlier state; derive from it and write `op`.

    `kinds` names the kinds of cell, and those in `halving` double the channels and halve the sides.  An op called `none`
    passes nothing on and is not built.  Both forms of the supernet are the plain one.  With `modality` "tensors" the cells
    work on tensors [N, C, ...] of any sides, or of none: write `stem` and `fit` as well.
    """

    name: ClassVar[str] = "cells"
    modality: ClassVar[str] = "images"
    kinds: ClassVar[tuple[str, ...]] = ("normal", "reduce")
    halving: ClassVar[frozenset[str]] = frozenset({"reduce"})

    channels: int = setting(16, "initial channels of the supernet (C)", ge=2, le=4096)
    layers: int = setting(8, "cells of the supernet (L)", ge=1, le=1000)
    nodes: int = setting(4, "nodes of a cell", ge=1, le=16)
    in_degree: int = setting(2, "edges that a derived node keeps", ge=1)
    ops: tuple[str, ...] = setting(("none",), "candidate ops of every edge, in column order", min_length=1)
    excluded: tuple[str, ...] = setting(("none",), "ops that are never derived, though they take their share")
    edge_ops: dict[str, list[list[str]]] | None = setting(
        None, "for each kind of cell, the ops of each edge in order, where edges differ (null: all ops everywhere)"
    )

    # -- what a space of one's own says

    def op(self, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
        """The op of that name: [N, channels, H, W] -> [N, channels, H/stride, W/stride], other sides likewise.

        Its normalisations have learnt scales where `affine`.
        """
        raise NotImplementedError(f"{type(self).__name__}.op builds the ops of a space")

    def stem(self, inputs: int, channels: int) -> nn.Module:
        """Builds the stem before the cells: [N, inputs, H, W] -> [N, channels, H, W]."""
        return nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def fit(self, inputs: int, channels: int, halve: bool, affine: bool) -> nn.Module:
        """Builds what fits an input of a cell to its channels, and halves the sides where `halve`."""
        kind = FactorizedReduce if halve else ReLUConvBN
        return kind(inputs, channels, affine=affine)

    def layout(self, layers: int) -> tuple[str, ...]:
        """The kind of every cell of a chain: those at one third and two thirds reduce."""
        return tuple("reduce" if index in {layers // 3, 2 * layers // 3} else "normal" for index in range(layers))

    # -- what follows from it

    @property
    def size(self) -> Size:
        """The supernet's size where a stage asks for no other."""
        return Size(self.channels, self.layers)

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cells; raises `ValueError` where the settings do not fit one another."""
        return {
            kind: Cell.dense(
                self.ops,
                INPUTS,
                self.nodes,
                in_degree=self.in_degree,
                excluded=self.excluded,
                allowed=None if self.edge_ops is None else self.edge_ops.get(kind),
            )
            for kind in self.kinds
        }

    def chain(self, size: Size | None = None) -> tuple[str, ...]:
        """The kind of every cell of a supernet of `size`, in order."""
        return self.layout((size or self.size).layers)

    def supernet(self, shape: AnyShape, size: Size | None = None, form: Form = "plain") -> nn.Module:
        """The supernet with fresh weights."""
        return Supernet(self, shape, size or self.size)

    def network(
        self,
        genotype: Genotype,
        shape: AnyShape,
        channels: int = 36,
        layers: int = 20,
        drops: bool = False,
        **others: Any,
    ) -> nn.Module:
        """The network of `genotype`; raises `GenotypeError` where it is not legal, or `others` ask for what there is not."""
        lines = [f"genotype: {key}: {reason}" for key, reason in [*_unknown(others), *self._strangers(genotype)]]
        if lines:
            raise GenotypeError(*lines)
        return Network(self, genotype, shape, channels, layers, drops)

    def _strangers(self, genotype: Genotype) -> list[tuple[str, str]]:
        """Returns the parts of `genotype` that cannot be built."""
        missing = [(kind, f"is missing; space {self.name} has {', '.join(self.kinds)}") for kind in self.kinds]
        problems = [pair for pair in missing if pair[0] not in genotype.cells]
        for kind, nodes in genotype.cells.items():
            unknown = sorted(set(nodes.ops) - set(self.ops))
            problems += [(kind, f"op {op!r} is unknown; space {self.name} has {', '.join(self.ops)}") for op in unknown]
            if nodes.first != INPUTS or min(nodes.concat) < INPUTS:
                problems.append((kind, f"must read {INPUTS} inputs and put out nodes only"))
        return problems

    @property
    def usual_sizes(self) -> Mapping[str, tuple[Shape, Mapping[str, Any]]]:
        """Returns the sizes of CIFAR's tables; none of what are no images."""
        if self.modality != "images":
            return {}
        return {"C=36 L=20, 32x32": (Shape(10, 3, 32), {"channels": 36, "layers": 20})}

    def narrow(self, keep: Mapping[str, Tensor]) -> Self:
        """Returns the space with only the [E, O] entries that are allowed and kept."""
        edge_ops = {}
        for kind, cell in self.cells.items():
            narrowed = cell.keep(keep[kind].tolist())
            edge_ops[kind] = [[op for op, ok in zip(cell.ops, row, strict=True) if ok] for row in narrowed.allowed]
        return replace(self, edge_ops=edge_ops)

    def costs(self, shape: AnyShape, unit: Unit, size: Size | None = None) -> dict[str, list[list[float]]]:
        """[E, O] per kind: the multiply-adds (of one image) or parameters that an op on an edge adds to a network of `size`."""
        return op_costs(self, shape, unit, size or self.size)

    def cell_costs(self, shape: AnyShape, size: Size | None = None) -> dict[str, list[list[list[Resources]]]]:
        """[cells, E, O] per kind: what every op costs in the supernet, cell by cell, by the rule of SNAS's code."""
        return op_resources(self, shape, size or self.size)

    def fixed_cost(self, shape: AnyShape, unit: Unit, size: Size | None = None) -> float:
        """The cost of a network of `size` without its ops; with the ops' costs it equals the `count` of the network."""
        size = size or self.size
        empty = {kind: Nodes(((),) * len(cell.nodes), cell.concat, INPUTS) for kind, cell in self.cells.items()}
        with torch.device("meta"):
            network = self.network(Genotype(self.name, empty), shape, size.channels, size.layers)
        return float(getattr(count(network, shape.sizes), unit))

    def check_size(self, shape: AnyShape, size: Size | None = None) -> list[tuple[str, str]]:
        """Returns why a supernet of this size cannot be built, as (setting, reason) pairs."""
        size = size or self.size
        problems = self._chain(shape, size.channels, size.layers)
        if size.partial != 1:
            problems.append(("name", f"space {self.name} has no partial channels; choose another method or space"))
        if len(set(self.ops)) < len(self.ops):
            problems.append(("ops", "an op is listed twice"))
        if not set(self.ops) - set(self.excluded):
            problems.append(("ops", "every op is excluded from derivation; nothing is left to choose"))
        if self.edge_ops is not None and set(self.edge_ops) != set(self.kinds):
            return [*problems, ("edge_ops", f"must have the keys {' and '.join(self.kinds)}")]
        try:
            self.cells  # noqa: B018 (its checks are wanted)
        except ValueError as error:
            problems.append(("edge_ops", str(error).partition(": ")[2]))
        return problems or self._unbuilt()

    def _unbuilt(self) -> list[tuple[str, str]]:
        """Ops that `op` does not build."""
        problems = []
        for name in self.ops:
            if name == "none":
                continue
            try:
                with torch.device("meta"):
                    self.op(name, 4, 1, False)
            except Exception as error:  # noqa: BLE001 (it is the user's code)
                problems.append(
                    ("ops", f"{name!r} is not built by {type(self).__name__}.op: {type(error).__name__}: {error}")
                )
        return problems

    def _chain(self, shape: AnyShape, channels: int, layers: int) -> list[tuple[str, str]]:
        halvings = sum(kind in self.halving for kind in self.layout(layers))
        problems = []
        if channels % 2 and halvings:
            problems.append(("channels", f"must be even, not {channels}: halving the resolution splits them"))
        odd = [side for side in shape.sizes[1:] if side % 2**halvings]
        if odd:
            what = "images whose side is" if self.modality == "images" else "sides that are"
            problems.append(("layers", f"{layers} layers need {what} a multiple of {2**halvings}, not {odd[0]}"))
        return problems

    def check_network(self, shape: AnyShape, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns why a network cannot be built, as (setting, reason) pairs."""
        asked = {key: value for key, value in settings.items() if key in NEUTRAL}
        return self._chain(shape, settings["channels"], settings["layers"]) + _unknown(asked)

    def lookup(self, genotype: Genotype) -> None:
        """Returns nothing: there is no table of this space."""
        return


def _unknown(others: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings that networks of other spaces have; their neutral values are taken."""
    said = "is not offered by this space; leave it out"
    return [(key, said) for key, value in others.items() if key not in NEUTRAL or value != NEUTRAL[key]]
