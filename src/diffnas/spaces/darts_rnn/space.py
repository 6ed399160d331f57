"""The recurrent search space of DARTS: what may be chosen, and what is built from a choice (Liu et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.count import Resources, Unit
from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Form, Shape, Size, TextShape
from diffnas.errors import RecipeError
from diffnas.spaces.darts_rnn.fused import FusedSupernet
from diffnas.spaces.darts_rnn.layout import KIND, OPS, Dropouts
from diffnas.spaces.darts_rnn.network import Network
from diffnas.spaces.darts_rnn.supernet import Supernet

READS_WORDS = ("name", "darts-rnn reads words, not images; choose text data, or another space")


@dataclass(frozen=True)
class DartsRNN:
    """The space of recurrent cells: a start, and eight nodes that read every earlier state (36 edges of 5 activations)."""

    name: ClassVar[str] = "darts-rnn"
    modality: ClassVar[str] = "text"

    units: int = setting(300, "width of embedding and hidden state of the supernet", ge=1, le=16384)
    steps: int = setting(8, "nodes of the cell", ge=1, le=32)
    ops: tuple[str, ...] = setting(OPS, "candidate activations of every edge, in column order", min_length=1)
    edge_ops: dict[str, list[list[str]]] | None = setting(
        None, "for `recurrent`, the ops of each edge in order, where edges differ (null: all ops everywhere)"
    )
    excluded: tuple[str, ...] = setting(("none",), "ops that are never derived, though they take their share")
    concat: int | None = setting(None, "the last so many nodes, whose mean the cell puts out (null: all)", ge=1)
    dropout: float = setting(0.75, "share of the supernet's output that is dropped", ge=0, lt=1)
    dropouth: float = setting(0.25, "share dropped of what every node reads", ge=0, lt=1)
    dropoutx: float = setting(0.75, "share dropped of the cell's input", ge=0, lt=1)
    dropouti: float = setting(0.2, "share dropped of the embedded words", ge=0, lt=1)
    dropoute: float = setting(0.0, "share of words dropped from the embedding", ge=0, lt=1)

    @property
    def size(self) -> Size:
        """The supernet's size where a stage asks for no other: `channels` are units, of one layer."""
        return Size(self.units, 1)

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cell; raises `ValueError` where the settings do not fit one another."""
        last = self.steps if self.concat is None else self.concat
        cell = Cell.dense(
            self.ops,
            1,
            self.steps,
            in_degree=1,
            excluded=self.excluded,
            concat=range(1 + self.steps - last, 1 + self.steps),
            allowed=None if self.edge_ops is None else self.edge_ops.get(KIND),
        )
        return {KIND: cell}

    def chain(self, size: Size | None = None) -> tuple[str, ...]:
        """The kind of every cell of a supernet of `size`, in order."""
        return (KIND,)

    def supernet(self, shape: Shape | TextShape, size: Size | None = None, form: Form = "plain") -> nn.Module:
        """The supernet with fresh weights, the same ones in both forms."""
        built = FusedSupernet if form == "fast" else Supernet
        rates = Dropouts(self.dropout, self.dropouth, self.dropoutx, self.dropouti, self.dropoute)
        return built(self.cells[KIND], _vocabulary(shape), (size or self.size).channels, rates)

    def network(self, genotype: Genotype, shape: Shape | TextShape, units: int = 850, **dropouts: float) -> nn.Module:
        """The network of `genotype`; `dropouts` are fields of `Dropouts`.

        Raises `GenotypeError` where the genotype is not legal.
        """
        return Network(genotype, _vocabulary(shape), units, Dropouts(**dropouts))

    def narrow(self, keep: Mapping[str, Tensor]) -> DartsRNN:
        """Returns the space with only the [E, O] entries that are allowed and kept."""
        cell = self.cells[KIND].keep(keep[KIND].tolist())
        rows = [[op for op, ok in zip(cell.ops, row, strict=True) if ok] for row in cell.allowed]
        return replace(self, edge_ops={KIND: rows})

    @property
    def usual_sizes(self) -> Mapping[str, tuple[Any, Mapping[str, Any]]]:
        """Returns the sizes of the paper's tables."""
        return {
            "Penn Treebank, 10,000 words, 850 units": (TextShape(10_000), {"units": 850}),
            "WikiText-2, 33,278 words, 700 units": (TextShape(33_278), {"units": 700}),
        }

    def costs(self, shape: Shape | TextShape, unit: Unit, size: Size | None = None) -> dict[str, list[list[float]]]:
        """[E, O] per kind: all 0, for weights belong to nodes and activations have none."""
        return {kind: [[0.0] * len(cell.ops) for _ in cell.edges] for kind, cell in self.cells.items()}

    def cell_costs(self, shape: Shape | TextShape, size: Size | None = None) -> dict[str, list[list[list[Resources]]]]:
        """[1, E, O] per kind: all 0."""
        return {k: [[[Resources(0, 0, 0)] * len(cell.ops) for _ in cell.edges]] for k, cell in self.cells.items()}

    def fixed_cost(self, shape: Shape | TextShape, unit: Unit, size: Size | None = None) -> float:
        """Returns the cost of any network of `size`: parameters, or multiply-adds of the matrix products for one word."""
        return float(network_cost(_vocabulary(shape), (size or self.size).channels, self.steps, unit))

    def check_size(self, shape: Shape | TextShape, size: Size | None = None) -> list[tuple[str, str]]:
        """Returns why a supernet of this size cannot be built, as (setting, reason) pairs."""
        size = size or self.size
        problems = [] if isinstance(shape, TextShape) else [READS_WORDS]
        if size.partial != 1:
            problems.append(("partial", f"must be 1, not {size.partial}: a recurrent cell has no channels to pass by"))
        if size.layers != 1:
            problems.append(("layers", f"must be 1, not {size.layers}: there is one recurrent cell"))
        for key, names in (("ops", self.ops), ("excluded", self.excluded)):
            problems += [(key, f"{op!r} is unknown; known: {', '.join(OPS)}") for op in sorted(set(names) - set(OPS))]
        if len(set(self.ops)) < len(self.ops):
            problems.append(("ops", "an op is listed twice"))
        if not set(self.ops) - {*self.excluded, "none"}:
            problems.append(("ops", "no activation may be derived; nothing is left to choose"))
        if self.concat is not None and self.concat > self.steps:
            return [*problems, ("concat", f"must not exceed the {self.steps} nodes; got {self.concat}")]
        if self.edge_ops is not None and set(self.edge_ops) != {KIND}:
            return [*problems, ("edge_ops", f"must have the one key {KIND}")]
        try:
            self.cells  # noqa: B018 (its checks are wanted)
        except ValueError as error:
            problems.append(("edge_ops", str(error).partition(": ")[2]))
        return problems

    def check_network(self, shape: Shape | TextShape, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Returns why a network cannot be built: settings that only image networks have."""
        return [] if isinstance(shape, TextShape) else [READS_WORDS]

    def lookup(self, genotype: Genotype) -> None:
        """Returns nothing: there is no table of this space."""
        return


def network_cost(vocabulary: int, units: int, nodes: int, unit: Unit) -> int:
    """Parameters of a network with that many nodes, or multiply-adds of one word; the embedding is the decoder as well."""
    cell = (2 * units) * (2 * units) + nodes * units * (2 * units)
    return cell + vocabulary * units + (vocabulary if unit == "params" else 0)


def _vocabulary(shape: Shape | TextShape) -> int:
    if not isinstance(shape, TextShape):
        raise RecipeError(f"space {READS_WORDS[1]}")
    return shape.vocabulary
