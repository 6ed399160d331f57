"""The interface between a `CellSpace` and its supernets and networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import nn

from diffnas.core.cell import Cell

INPUTS = 2  # a cell reads the outputs of the two cells before it


class CellParts(Protocol):
    """The parts that cells are built of, and how they are chained; `CellSpace` says what each is."""

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cells, by kind."""

    @property
    def ops(self) -> tuple[str, ...]:
        """The candidate ops."""

    @property
    def halving(self) -> frozenset[str]:
        """The kinds of cell that halve the sides."""

    def op(self, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
        """The op of that name."""

    def stem(self, inputs: int, channels: int) -> nn.Module:
        """Builds the stem, the layers before the cells."""

    def fit(self, inputs: int, channels: int, halve: bool, affine: bool) -> nn.Module:
        """Builds what fits an input to a cell's channels and sides."""

    def layout(self, layers: int) -> tuple[str, ...]:
        """The kind of every cell of a chain."""
