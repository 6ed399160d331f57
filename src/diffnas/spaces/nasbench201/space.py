"""The search space of NAS-Bench-201: what may be chosen, and what is built from a choice (Dong and Yang, 2020, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.count import Resources, Unit, count, resources
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.settings import setting
from diffnas.core.space import Form, Shape, Size
from diffnas.errors import GenotypeError
from diffnas.spaces.nasbench201.fused import FusedSupernet
from diffnas.spaces.nasbench201.layout import AUXILIARY, KIND, NODES, OPS, STAGES
from diffnas.spaces.nasbench201.network import Network
from diffnas.spaces.nasbench201.ops import OPS as BUILDERS
from diffnas.spaces.nasbench201.supernet import Supernet
from diffnas.spaces.nasbench201.table import lookup as look_up

ABSENT: dict[str, tuple[Any, str]] = {
    "auxiliary": (False, "have no auxiliary head; set it to false"),
    "stem": ("cifar", "have one stem; set it to cifar"),
    "pool_norm": ("none", "have no normalisation after pooling; set it to none"),
    "drop_path": (0.0, "have no drop path; set it to 0"),
}
"""What networks of other spaces may have and these have not: the value that asks for none of it, and what to say."""


@dataclass(frozen=True)
class NASBench201:
    """The space of NAS-Bench-201: `cell`, an input and three nodes that read every earlier state (6 edges of 5 ops).

    All edges stay; the strongest op of each is derived, `none` included.
    """

    name: ClassVar[str] = "nasbench201"
    modality: ClassVar[str] = "images"

    channels: int = setting(16, "channels of the first of three stages (C)", ge=1, le=4096)
    layers: int = setting(5, "cells of each of the three stages (N)", ge=1, le=1000)
    partial: int = setting(1, "K: ops see one in K channels, the others pass by (DrNAS: 4, then 2)", ge=1, le=64)
    ops: tuple[str, ...] = setting(OPS, "candidate ops of every edge, in column order", min_length=1)
    edge_ops: dict[str, list[list[str]]] | None = setting(
        None, "for `cell`, the ops of each edge in order, where edges differ (null: all ops everywhere)"
    )
    statistics: Literal["running", "batch"] = setting(
        "running", "cells in evaluation normalise by running statistics, or by the batch's (later code of NATS-Bench)"
    )

    @property
    def size(self) -> Size:
        """The supernet's size where a stage asks for no other."""
        return Size(self.channels, self.layers, self.partial)

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cell; raises `ValueError` where the settings do not fit one another."""
        allowed = None if self.edge_ops is None else self.edge_ops.get(KIND)
        excluded = [AUXILIARY] * (AUXILIARY in self.ops)
        return {KIND: Cell.dense(self.ops, 1, NODES, concat=(NODES,), allowed=allowed, excluded=excluded)}

    def chain(self, size: Size | None = None) -> tuple[str, ...]:
        """The kind of every cell of a supernet of `size`, in order."""
        return (KIND,) * (STAGES * (size or self.size).layers)

    def supernet(self, shape: Shape, size: Size | None = None, form: Form = "plain") -> nn.Module:
        """The supernet with fresh weights, the same ones in both forms."""
        built = FusedSupernet if form == "fast" else Supernet
        return built(self.cells[KIND], shape, size or self.size, self.statistics == "running")

    def network(
        self, genotype: Genotype, shape: Shape, channels: int = 16, layers: int = 5, drops: bool = False, **others: Any
    ) -> nn.Module:
        """The network of `genotype`, `layers` cells in each of three stages.

        Raises `GenotypeError` where the genotype is not legal, or `drops` or `others` ask for what there is not.
        """
        refused = _unknown_parts({"drop_path": float(drops), **others})
        if refused:
            raise GenotypeError(*(f"genotype: {key}: {reason}" for key, reason in refused))
        return Network(genotype, shape, channels, layers)

    @property
    def usual_sizes(self) -> Mapping[str, tuple[Shape, Mapping[str, Any]]]:
        """Returns the size of the benchmark."""
        size = {"channels": 16, "layers": 5}
        return {
            "CIFAR-10, C=16 N=5, 32x32": (Shape(10, 3, 32), size),
            "CIFAR-100, C=16 N=5, 32x32": (Shape(100, 3, 32), size),
            "ImageNet16-120, C=16 N=5, 16x16": (Shape(120, 3, 16), size),
        }

    def costs(self, shape: Shape, unit: Unit, size: Size | None = None) -> dict[str, list[list[float]]]:
        """[E, O] per kind: the multiply-adds (of one image) or parameters that an op on an edge adds to a network of `size`."""
        size = size or self.size
        row = [self._cost(op, shape, unit, size) for op in self.ops]
        return {KIND: [row] * len(self.cells[KIND].edges)}

    def cell_costs(self, shape: Shape, size: Size | None = None) -> dict[str, list[list[list[Resources]]]]:
        """[cells, E, O] per kind: what every op costs in the supernet, cell by cell, by the rule of SNAS's code."""
        size, edges, rows = size or self.size, len(self.cells[KIND].edges), []
        for stage in range(STAGES):
            channels, side = size.channels << stage, shape.side >> stage
            with torch.device("meta"):
                row = [resources(BUILDERS[op](channels, False, True), (channels, side, side)) for op in self.ops]
            rows += [[row] * edges] * size.layers
        return {KIND: rows}

    def fixed_cost(self, shape: Shape, unit: Unit, size: Size | None = None) -> float:
        """The cost of a network of `size` without its ops; with the ops' costs it equals the `count` of the network."""
        size = size or self.size
        empty = Genotype(self.name, {KIND: Nodes(((),) * NODES, (NODES,), 1)})
        with torch.device("meta"):
            network = self.network(empty, shape, size.channels, size.layers)
        return float(getattr(count(network, (shape.channels, shape.side, shape.side)), unit))

    @staticmethod
    def _cost(op: str, shape: Shape, unit: Unit, size: Size) -> float:
        """Returns an op's cost on one edge of all cells: a convolution of kernel k, and its normalisation's 2 C parameters."""
        if not op.startswith("nor_conv"):
            return 0.0
        taps, total = int(op[-1]) ** 2, 0
        for stage in range(STAGES):
            channels, side = size.channels << stage, shape.side >> stage
            total += taps * channels**2 * (side**2 if unit == "macs" else 1) + (0 if unit == "macs" else 2 * channels)
        return float(size.layers * total)

    def narrow(self, keep: Mapping[str, Tensor]) -> NASBench201:
        """Returns the space with only the [E, O] entries that are allowed and kept."""
        cell = self.cells[KIND].keep(keep[KIND].tolist())
        rows = [[op for op, ok in zip(cell.ops, row, strict=True) if ok] for row in cell.allowed]
        return replace(self, edge_ops={KIND: rows})

    def check_size(self, shape: Shape, size: Size | None = None) -> list[tuple[str, str]]:
        """Returns why a supernet of this size cannot be built, as (setting, reason) pairs."""
        size = size or self.size
        problems = _side(shape.side)
        if size.channels % size.partial:
            problems.append(("partial", f"must divide the {size.channels} channels; {size.partial} does not"))
        unknown = sorted(set(self.ops) - {*OPS, AUXILIARY})
        problems += [("ops", f"{op!r} is unknown; known: {', '.join((*OPS, AUXILIARY))}") for op in unknown]
        if set(self.ops) == {AUXILIARY}:
            problems.append(("ops", f"{AUXILIARY} is never derived; nothing is left to choose"))
        if len(set(self.ops)) < len(self.ops):
            problems.append(("ops", "an op is listed twice"))
        if self.edge_ops is not None and set(self.edge_ops) != {KIND}:
            return [*problems, ("edge_ops", f"must have the one key {KIND}")]
        try:
            self.cells  # noqa: B018 (its checks are wanted)
        except ValueError as error:
            problems.append(("edge_ops", str(error).partition(": ")[2]))
        return problems

    def lookup(self, genotype: Genotype) -> dict[str, dict[str, float]] | None:
        """Test accuracies of NAS-Bench-201 after 200 epochs: mean over its seeds, rank among its cells, gap to the best."""
        results = {data: result.test_200 for data, result in look_up(genotype).results.items()}
        return {
            data: {"test": round(each.mean, 4), "rank": each.rank, "gap": round(each.gap, 4)}
            for data, each in results.items()
            if each is not None
        }

    def check_network(self, shape: Shape, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns why a network cannot be built: settings of other spaces, and sides that do not halve twice."""
        return _unknown_parts(settings) + _side(shape.side)


def _unknown_parts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (key, f"networks of nasbench201 {said}")
        for key, (absent, said) in ABSENT.items()
        if settings.get(key, absent) != absent
    ]


def _side(side: int) -> list[tuple[str, str]]:
    """Sides must halve evenly at both residual blocks."""
    return [("layers", f"the three stages need images whose side is a multiple of 4, not {side}")] if side % 4 else []
