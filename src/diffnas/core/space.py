"""The interface between a search space and the engine.

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
    """The inputs and outputs of a network: images [N, channels, side, side] and `classes` logits."""

    classes: int
    channels: int = 3
    side: int = 32

    @property
    def sizes(self) -> tuple[int, ...]:
        """[C, H, W] of one input."""
        return self.channels, self.side, self.side

    @property
    def outputs(self) -> int:
        """The number of outputs, one for each class."""
        return self.classes


@dataclass(frozen=True)
class TextShape:
    """The vocabulary of a language model, in place of a `Shape`: words numbered from 0 to `vocabulary` - 1."""

    vocabulary: int


@dataclass(frozen=True)
class TensorShape:
    """The inputs and outputs of a network of tensors: inputs [N, *sizes] and `outputs` numbers for each."""

    sizes: tuple[int, ...]
    outputs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))  # files hold lists


AnyShape = Any
"""What a network reads and puts out: a `Shape` (images), `TextShape` (text), `TensorShape` (tensors), or what a modality of
a plug-in says of its own."""


@dataclass(frozen=True)
class Size:
    """The sizes of a supernet that a stage of a search may change: initial channels, number of cells, and K = `partial`:
    ops see one in K channels of a state."""

    channels: int
    layers: int
    partial: int = 1


Form = Literal["fast", "plain"]
"""Which of its supernets a space builds: they give the same values and gradients under the same names.  `fast` is once
differentiable; `plain` is written to be read."""


class Space(Protocol):
    """A search space; `spaces/NAME/space.py` holds one.  Its `modality` says which kind of `shape` it is asked with."""

    @property
    def name(self) -> str:
        """The name recipes and genotypes use."""

    @property
    def modality(self) -> str:
        """The name of what the networks read: "images", "text", "tensors", or a modality of a plug-in."""

    @property
    def size(self) -> Size:
        """The size of the supernet where a stage asks for no other."""

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The search space of each kind of cell."""

    def chain(self, size: Size | None = None) -> tuple[str, ...]:
        """The kind of every cell of a supernet of `size`, in order: what a mixture that differs by cell goes by."""

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
        """The cost of a network of `size` without its ops; with the ops' costs it equals the `count` of the network."""

    def narrow(self, keep: Mapping[str, Tensor]) -> Space:
        """Returns the space with only the [E, O] entries that are allowed and kept."""

    def check_size(self, shape: Any, size: Size | None = None) -> list[tuple[str, str]]:
        """Returns why a supernet of this size cannot be built, as (setting, reason) pairs; empty if it can."""

    def check_network(self, shape: Any, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns why a network with these settings cannot be built, as (setting, reason) pairs."""

    def lookup(self, genotype: Genotype) -> dict[str, dict[str, float]] | None:
        """Looks the genotype up in a table: by data set, `test` accuracy in percent, `rank`, and `gap` to the best in
        points; None if the space has no table."""
