"""What the engine asks of a search space.

A space knows which cells there are to choose (`cells`), how to build the supernet that spends a mixture, and how to build
the network of a genotype.  It never sees a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype

if TYPE_CHECKING:
    from torch import Tensor, nn

    from diffnas.core.count import Resources, Unit


@dataclass(frozen=True)
class Shape:
    """What goes in and what comes out: images [N, channels, side, side] and `classes` logits."""

    classes: int
    channels: int = 3
    side: int = 32


@dataclass(frozen=True)
class TextShape:
    """What a language model reads and answers, in place of a `Shape`: words numbered from 0 to `vocabulary` - 1."""

    vocabulary: int


Modality = Literal["images", "text"]
"""What the networks of a space read: a `Shape` is asked of the first, `TextShape` of the second."""


@dataclass(frozen=True)
class Size:
    """What a stage of a search may change in the supernet: initial channels, number of cells, and K = `partial`: ops see
    one in K channels of a state."""

    channels: int
    layers: int
    partial: int = 1


Form = Literal["fast", "plain"]
"""Which of its supernets a space builds: they give the same values and gradients under the same names.  `fast` is once
differentiable; `plain` is written to be read."""


class Space(Protocol):
    """A search space; `spaces/NAME/space.py` holds one.  A `shape` is a `Shape` or `TextShape`, as `modality` says."""

    @property
    def name(self) -> str:
        """The name recipes and genotypes use."""

    @property
    def modality(self) -> Modality:
        """What its networks read."""

    @property
    def size(self) -> Size:
        """The size of the supernet where a stage asks for no other."""

    @property
    def cells(self) -> Mapping[str, Cell]:
        """What may be chosen, by kind of cell."""

    def supernet(self, shape: Any, size: Size | None = None, form: Form = "plain") -> nn.Module:
        """The module `supernet(inputs, mixture)` with fresh weights, for logits [N, classes] or `LanguageModelOutput`."""

    def network(self, genotype: Genotype, shape: Any, **settings: Any) -> nn.Module:
        """The network of `genotype` with fresh weights; raises `GenotypeError` where the genotype is not legal."""

    @property
    def usual_sizes(self) -> Mapping[str, tuple[Any, Mapping[str, Any]]]:
        """The sizes of networks that papers report: shape and settings of `network`, by a name that says both."""

    def costs(self, shape: Any, unit: Unit, size: Size | None = None) -> dict[str, list[list[float]]]:
        """[E, O] per kind: what an op on an edge adds to a network of `size`, in multiply-adds of one input or parameters."""

    def cell_costs(self, shape: Any, size: Size | None = None) -> dict[str, list[list[list[Resources]]]]:
        """[cells, E, O] per kind: what every op costs in the supernet, cell by cell, by the rule of SNAS's code."""

    def fixed_cost(self, shape: Any, unit: Unit, size: Size | None = None) -> float:
        """What every network of `size` costs; with the costs of the chosen ops, the `count` of a genotype's network."""

    def narrow(self, keep: Mapping[str, Tensor]) -> Space:
        """The same space with only the [E, O] entries that are allowed and kept."""

    def check_size(self, shape: Any, size: Size | None = None) -> list[tuple[str, str]]:
        """What is impossible about a supernet of this size: (setting, reason) pairs; empty where it can be built."""

    def check_network(self, shape: Any, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is impossible about a network of these settings: (setting, reason) pairs."""

    def lookup(self, genotype: Genotype) -> dict[str, dict[str, float]] | None:
        """What a table says of the genotype, untrained: by data set `test` accuracy in percent, `rank` and `gap` to the best
        in points; None where there is no table."""
