"""The single-path space of SPOS (Guo et al., 2020, section 4) and DSNAS (Hu et al., 2020): a chain of ShuffleNetV2 blocks.

Edge e of the one cell `blocks` is block e; which block runs there is the choice.  The first block of every stage halves the
resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.count import Resources, Unit
from diffnas.core.genotype import LARGEST, Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Form, Shape, Size
from diffnas.errors import RecipeError
from diffnas.spaces.shufflenet_blocks.costs import block_costs, block_resources, fixed_cost
from diffnas.spaces.shufflenet_blocks.layout import KIND, OPS, Layout, Stem
from diffnas.spaces.shufflenet_blocks.network import NORM_EPS, Network, require_legal
from diffnas.spaces.shufflenet_blocks.supernet import Supernet

SETTINGS = frozenset(
    {"channels", "layers", "stem", "auxiliary", "auxiliary_norm", "pool_norm", "drops", "norm_eps"}
)  # of a network; what there is none of may be asked for as long as the answer is no
Problems = list[tuple[str, str]]


@dataclass(frozen=True)
class ShuffleNetBlocks:
    """A chain of blocks, ShuffleNetV2 with a kernel of 3, 5 or 7 or an Xception one each (SPOS, DSNAS: 20 blocks of 4 ops)."""

    name: ClassVar[str] = "shufflenet-blocks"
    modality: ClassVar[str] = "images"

    channels: int = setting(16, "channels of the stem", ge=1, le=4096)
    widths: tuple[int, ...] = setting((64, 160, 320, 640), "channels of the blocks, stage by stage", min_length=1)
    depths: tuple[int, ...] = setting(
        (4, 4, 8, 4), "blocks of every stage; its first halves the resolution", min_length=1
    )
    last: int = setting(1024, "channels of the 1x1 convolution before the classifier", ge=1, le=65536)
    stem: Stem = setting("imagenet", "first convolution: of stride 2 (imagenet), or 1 for small images (cifar)")
    block_ops: list[list[str]] | None = setting(
        None, "the ops that each block may carry, in order (null: all four everywhere)"
    )
    norm_eps: float = setting(1e-2, "epsilon of the supernet's normalisation (DSNAS: 1e-2; networks have 1e-5)", gt=0)
    dropout: float = setting(0.0, "dropout before the classifier (SPOS and DSNAS: 0.1)", ge=0, lt=1)

    @property
    def size(self) -> Size:
        """The supernet's size: channels of the stem, number of blocks."""
        return Size(self.channels, sum(self.depths))

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The chain as a cell whose node e + 1 reads node e; raises `ValueError` where `block_ops` does not fit."""
        edges = tuple((e, e + 1) for e in range(sum(self.depths)))
        rows = [list(OPS)] * len(edges) if self.block_ops is None else self.block_ops
        allowed = tuple(tuple(op in row for op in OPS) for _, row in zip(edges, rows, strict=True))
        return {KIND: Cell(OPS, edges, 1, None, frozenset(), allowed, (len(edges),))}

    def chain(self, size: Size | None = None) -> tuple[str, ...]:
        """The kind of every cell of a supernet of `size`, in order."""
        return (KIND,)

    def supernet(self, shape: Shape, size: Size | None = None, form: Form = "plain") -> nn.Module:
        """The supernet with fresh weights.  Both forms are the same module: of a one-hot mixture it runs one op per block."""
        return Supernet(self.cells[KIND], self._sized(size)._layout, shape, self.norm_eps)

    def network(self, genotype: Genotype, shape: Shape, **settings: Any) -> nn.Module:
        """The network of `genotype` with fresh weights.

        `settings`: `channels` and `stem` (default: the space's), `layers`, which must be the number of blocks, and
        `norm_eps` (1e-5).  Raises `GenotypeError` where the genotype is not legal, `RecipeError` where a setting asks for
        what these networks do not have.
        """
        if settings.keys() - SETTINGS:
            raise TypeError(f"a network has no settings {', '.join(sorted(settings.keys() - SETTINGS))}")
        require_legal(genotype, sum(self.depths))
        refused = self.check_network(shape, settings)
        if refused:
            raise RecipeError(*(f"{key}: {reason}" for key, reason in refused))
        ops = genotype.cells[KIND].ops
        return Network(self._of(settings)._layout, ops, shape, settings.get("norm_eps", NORM_EPS))

    def narrow(self, keep: Mapping[str, Tensor]) -> ShuffleNetBlocks:
        """Returns the space with only the [E, O] entries that are allowed and kept."""
        narrowed = self.cells[KIND].keep(keep[KIND].tolist())
        rows = [[op for op, ok in zip(OPS, row, strict=True) if ok] for row in narrowed.allowed]
        return replace(self, block_ops=rows)

    @property
    def usual_sizes(self) -> Mapping[str, tuple[Shape, Mapping[str, Any]]]:
        """Returns the size of the ImageNet tables."""
        return {
            "ImageNet, 20 blocks, 224x224": (Shape(1000, 3, 224), {"channels": 16, "layers": 20, "stem": "imagenet"})
        }

    def costs(self, shape: Shape, unit: Unit, size: Size | None = None) -> dict[str, list[list[float]]]:
        """[E, O] per kind: the multiply-adds (of one image) or parameters of every op of every block, where it stands."""
        return {KIND: block_costs(self._sized(size)._layout, shape, unit)}

    def cell_costs(self, shape: Shape, size: Size | None = None) -> dict[str, list[list[list[Resources]]]]:
        """[1, E, O] per kind: what every op of every block costs by the rule of SNAS's code."""
        return {KIND: [block_resources(self._sized(size)._layout, shape)]}

    def fixed_cost(self, shape: Shape, unit: Unit, size: Size | None = None) -> float:
        """Returns the cost of stem and head; with one op's cost per block it equals the `count` of the network."""
        return fixed_cost(self._sized(size)._layout, shape, unit)

    def check_size(self, shape: Shape, size: Size | None = None) -> Problems:
        """Returns why a supernet of this size cannot be built, as (setting, reason) pairs."""
        problems = self._chain()
        if problems:
            return problems
        size = size or self.size
        problems = self._fit(shape, size.channels, size.layers, self.stem)
        if size.partial != 1:
            problems.append(("partial", f"must be 1, not {size.partial}: blocks see all channels"))
        return problems + self._ops()

    def lookup(self, genotype: Genotype) -> None:
        """Returns nothing: there is no table of this space."""
        return

    def check_network(self, shape: Shape, settings: Mapping[str, Any]) -> Problems:
        """Returns why a network cannot be built, as (setting, reason) pairs."""
        problems = self._chain()
        if problems:
            return problems
        of = self._of(settings)
        problems = self._fit(shape, of.channels, settings.get("layers", sum(self.depths)), of.stem)
        if settings.get("auxiliary"):
            problems.append(("auxiliary", "must be false: these networks have no auxiliary head"))
        if settings.get("pool_norm", "none") != "none":
            problems.append(("pool_norm", "must be none: these blocks do not pool"))
        if settings.get("drop_path") or settings.get("drops"):
            problems.append(("drop_path", "must be 0: these networks have no drop path"))
        return problems

    @property
    def _layout(self) -> Layout:
        return Layout(self.channels, self.widths, self.depths, self.last, self.stem, self.dropout)

    def _of(self, settings: Mapping[str, Any]) -> ShuffleNetBlocks:
        """The space with the channels and the stem of a network's settings."""
        return replace(self, **{key: settings[key] for key in ("channels", "stem") if settings.get(key) is not None})

    def _sized(self, size: Size | None) -> ShuffleNetBlocks:
        """The space with the stem's channels of `size`."""
        return self if size is None else replace(self, channels=size.channels)

    def _chain(self) -> Problems:
        """Checks the stages themselves."""
        if len(self.depths) != len(self.widths):
            return [("depths", f"must hold one number per stage, {len(self.widths)}; got {len(self.depths)}")]
        problems = []
        if any(width < 2 or width % 2 for width in self.widths):
            problems.append(("widths", f"must be even: a block splits its channels; got {list(self.widths)}"))
        if any(narrow >= wide for narrow, wide in zip(self.widths, self.widths[1:], strict=False)):
            reason = f"must grow from stage to stage: what passes by is joined by new channels; got {list(self.widths)}"
            problems.append(("widths", reason))
        if min(self.depths) < 1 or sum(self.depths) > LARGEST:
            problems.append(("depths", f"must be at least 1 each and {LARGEST} together; got {list(self.depths)}"))
        return problems

    def _fit(self, shape: Shape, channels: int, layers: int, stem: str) -> Problems:
        """Checks a size, of a supernet or of a network."""
        problems = []
        if channels >= self.widths[0]:
            problems.append(("channels", f"must be below the {self.widths[0]} of the first block; got {channels}"))
        if layers != sum(self.depths):
            problems.append(("layers", f"must be {sum(self.depths)}, the number of blocks; got {layers}"))
        need = 2 ** (len(self.depths) + (stem == "imagenet"))
        if shape.side % need:
            reason = f"{stem} and {len(self.depths)} stages need images whose side is a multiple of {need}"
            problems.append(("stem", f"{reason}, not {shape.side}"))
        return problems

    def _ops(self) -> Problems:
        """Checks the ops."""
        if self.block_ops is None:
            return []
        problems = []
        if len(self.block_ops) != sum(self.depths):
            problems.append(("block_ops", f"{len(self.block_ops)} lists for {sum(self.depths)} blocks"))
        strangers = sorted({op for row in self.block_ops for op in row} - set(OPS))
        problems += [("block_ops", f"{op!r} is unknown; known: {', '.join(OPS)}") for op in strangers]
        problems += [("block_ops", f"block {e} has no op") for e, row in enumerate(self.block_ops) if not row]
        return problems
