"""The convolutional search space of DARTS: what may be chosen, and what is built from a choice (Liu et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.count import Resources, Unit
from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Form, Shape, Size
from diffnas.spaces.darts_cnn.costs import fixed_cost, op_costs, op_resources
from diffnas.spaces.darts_cnn.fused.supernet import FusedSupernet
from diffnas.spaces.darts_cnn.layout import KINDS, OPS, SEARCHED_OPS, reductions
from diffnas.spaces.darts_cnn.network import Network
from diffnas.spaces.darts_cnn.supernet import Extras, Supernet


@dataclass(frozen=True)
class DartsCNN:
    """Two kinds of cell, `normal` and `reduce`, in which every node reads every earlier state (14 edges of 8 ops)."""

    name: ClassVar[str] = "darts-cnn"
    modality: ClassVar[str] = "images"

    channels: int = setting(16, "initial channels of the supernet (C)", ge=2, le=4096)
    layers: int = setting(8, "cells of the supernet (L); those at L/3 and 2L/3 reduce", ge=1, le=1000)
    nodes: int = setting(4, "nodes of a cell", ge=1, le=16)
    inputs: int = setting(2, "inputs of a cell: the outputs of as many cells before it", ge=1, le=3)
    in_degree: int = setting(2, "edges that a derived node keeps", ge=1)
    ops: tuple[str, ...] = setting(OPS, "candidate ops of every edge, in column order", min_length=1)
    edge_ops: dict[str, list[list[str]]] | None = setting(
        None, "for `normal` and `reduce`, the ops of each edge in order, where edges differ (null: all ops everywhere)"
    )
    excluded: tuple[str, ...] = setting(("none",), "ops that are never derived, though they take their share")
    concat: tuple[int, ...] | None = setting(None, "nodes that a cell puts out (null: all)")
    partial: int = setting(1, "K: ops see one in K channels, the others pass by (PC-DARTS: 4)", ge=1, le=64)
    skip_dropout: bool = setting(False, "skip connections drop numbers at a rate that the method sets (P-DARTS)")
    stem: Literal["cifar", "imagenet"] = setting("cifar", "first layers: one convolution, or three that halve")
    stem_multiplier: int = setting(3, "channels of the stem, as a multiple of the initial channels", ge=1, le=64)
    dropout: float = setting(0.0, "dropout before the supernet's classifier (ENAS: 0.1)", ge=0, lt=1)
    drop_path: float = setting(
        0.0, "probability that an edge of the supernet drops an image while training (SNAS: 0.3)", ge=0, lt=1
    )
    drop_path_grows: bool = setting(
        False, "it grows linearly from 0 in the first epoch to that in the last (RobustDARTS)"
    )
    auxiliary: Literal["none", "trained", "fixed"] = setting(
        "none", "auxiliary head of the supernet, in weight steps; fixed: its own weights stay as they began (ENAS)"
    )

    @property
    def size(self) -> Size:
        """The supernet's size where a stage asks for no other."""
        return Size(self.channels, self.layers, self.partial)

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cells; raises `ValueError` where the settings do not fit one another."""
        return {
            kind: Cell.dense(
                self.ops,
                self.inputs,
                self.nodes,
                in_degree=self.in_degree,
                excluded=self.excluded,
                concat=self.concat,
                allowed=None if self.edge_ops is None else self.edge_ops.get(kind),
            )
            for kind in KINDS
        }

    def chain(self, size: Size | None = None) -> tuple[str, ...]:
        """The kind of every cell of a supernet of `size`, in order."""
        layers = (size or self.size).layers
        return tuple("reduce" if index in reductions(layers) else "normal" for index in range(layers))

    def supernet(self, shape: Shape, size: Size | None = None, form: Form = "plain") -> nn.Module:
        """The supernet with fresh weights, the same ones in both forms."""
        built = FusedSupernet if form == "fast" else Supernet
        extras = Extras(self.dropout, self.drop_path, self.drop_path_grows, self.auxiliary, self.stem)
        return built(self.cells, shape, size or self.size, self.stem_multiplier, self.skip_dropout, extras)

    def network(self, genotype: Genotype, shape: Shape, **settings: Any) -> nn.Module:
        """The network of `genotype`; `settings` are those of `Network`.  Raises `GenotypeError` where it is not legal."""
        return Network(genotype, shape, **settings)

    def narrow(self, keep: Mapping[str, Tensor]) -> DartsCNN:
        """Returns the space with only the [E, O] entries that are allowed and kept."""
        edge_ops = {}
        for kind, cell in self.cells.items():
            narrowed = cell.keep(keep[kind].tolist())
            edge_ops[kind] = [[op for op, ok in zip(cell.ops, row, strict=True) if ok] for row in narrowed.allowed]
        return replace(self, edge_ops=edge_ops)

    @property
    def usual_sizes(self) -> Mapping[str, tuple[Shape, Mapping[str, Any]]]:
        """Returns the sizes of the CIFAR and ImageNet tables of this family."""
        return {
            "CIFAR, C=36 L=20, 32x32": (
                Shape(10, 3, 32),
                {"channels": 36, "layers": 20, "stem": "cifar", "auxiliary": True},
            ),
            "ImageNet, C=48 L=14, 224x224": (
                Shape(1000, 3, 224),
                {"channels": 48, "layers": 14, "stem": "imagenet", "auxiliary": True},
            ),
        }

    def costs(self, shape: Shape, unit: Unit, size: Size | None = None) -> dict[str, list[list[float]]]:
        """[E, O] per kind: the multiply-adds (of one image) or parameters that an op on an edge adds to a network of `size`."""
        return op_costs(self.cells, shape, unit, size or self.size, self.stem)

    def cell_costs(self, shape: Shape, size: Size | None = None) -> dict[str, list[list[list[Resources]]]]:
        """[cells, E, O] per kind: what every op costs in the supernet, cell by cell, by the rule of SNAS's code."""
        return op_resources(self.cells, shape, size or self.size, self.stem)

    def fixed_cost(self, shape: Shape, unit: Unit, size: Size | None = None) -> float:
        """The cost of a network of `size` without its ops; with the ops' costs it equals the `count` of the network."""
        return fixed_cost(self.name, self.cells, shape, unit, size or self.size, self.stem)

    def check_size(self, shape: Shape, size: Size | None = None) -> list[tuple[str, str]]:
        """Returns why a supernet of this size cannot be built, as (setting, reason) pairs."""
        size = size or self.size
        problems = _channels(size.channels) + _side(shape.side, size.layers, self.stem)
        if self.auxiliary != "none" and not problems:
            problems += _head(shape.side, size.layers, self.stem, "none")
        if self.stem == "imagenet" and self.stem_multiplier * size.channels % 2:
            problems.append(("stem_multiplier", "must be even: the stem of ImageNet begins with half its channels"))
        if size.channels % size.partial:
            problems.append(("partial", f"must divide the {size.channels} channels; {size.partial} does not"))
        for key, names in (("ops", self.ops), ("excluded", self.excluded)):
            unknown = sorted(set(names) - set(SEARCHED_OPS))
            problems += [(key, f"{op!r} is unknown; known: {', '.join(SEARCHED_OPS)}") for op in unknown]
        if len(set(self.ops)) < len(self.ops):
            problems.append(("ops", "an op is listed twice"))
        if not set(self.ops) - set(self.excluded):
            problems.append(("ops", "every op is excluded from derivation; nothing is left to choose"))
        if self.inputs > 2 and size.layers < 9:
            problems.append(
                ("inputs", "three inputs need at least 9 layers, or a cell would read across two reductions")
            )
        if self.edge_ops is not None and set(self.edge_ops) != set(KINDS):
            return [*problems, ("edge_ops", "must have the keys normal and reduce")]
        try:
            self.cells  # noqa: B018 (its checks are wanted)
        except ValueError as error:
            what, _, reason = str(error).partition(": ")
            problems.append(("concat" if what == "concat" else "edge_ops", reason))
        return problems

    def lookup(self, genotype: Genotype) -> None:
        """Returns nothing: there is no table of this space."""
        return

    def check_network(self, shape: Shape, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns why a network cannot be built: odd channels, odd sides, an auxiliary head without its 8x8 features."""
        layers, stem = settings["layers"], settings["stem"]
        problems = _channels(settings["channels"]) + _side(shape.side, layers, stem)
        if settings["auxiliary"] and not problems:
            problems += _head(shape.side, layers, stem, "false")
        return problems


def _channels(channels: int) -> list[tuple[str, str]]:
    return [("channels", f"must be even, not {channels}: halving the resolution splits them")] if channels % 2 else []


def _side(side: int, layers: int, stem: str) -> list[tuple[str, str]]:
    """Sides must halve evenly at every reduction (and three times in an ImageNet stem)."""
    need = 2 ** len(reductions(layers)) * (1 if stem == "cifar" else 8)
    if side % need:
        return [("layers", f"{layers} layers need images whose side is a multiple of {need}, not {side}")]
    return []


def _head(side: int, layers: int, stem: str, absent: str) -> list[tuple[str, str]]:
    """The auxiliary head reads features of one size; `absent` is the value that leaves it out."""
    side = side // (1 if stem == "cifar" else 8) // 2 ** len(reductions(layers))
    need = 8 if stem == "cifar" else 7
    reason = f"the auxiliary head needs {need}x{need} features; here they are {side}x{side}; set it to {absent}"
    return [("auxiliary", reason)] * (side != need)
