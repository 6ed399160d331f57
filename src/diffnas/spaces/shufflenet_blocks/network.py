"""The network of a genotype: one op per block."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from diffnas.core.genotype import Genotype
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError
from diffnas.spaces.shufflenet_blocks.layout import KIND, Layout, places
from diffnas.spaces.shufflenet_blocks.ops import OPS
from diffnas.spaces.shufflenet_blocks.trunk import head, initialise, stem

NORM_EPS = 1e-5  # of networks trained from scratch; weights taken over from a search need the search's


class Network(nn.Module):
    """Images [N, C_in, H, W] -> logits [N, classes]; block e is `ops[e]`."""

    def __init__(self, layout: Layout, ops: Sequence[str], shape: Shape, norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        self.stem = stem(layout, shape, norm_eps)
        chain = zip(ops, places(layout, shape.side), strict=True)
        self.blocks = nn.Sequential(*(OPS[op](place, norm_eps) for op, place in chain))
        self.head = head(layout, shape, norm_eps)
        self.searched = {f"blocks.{e}": f"blocks.{e}.ops.{op}" for e, op in enumerate(ops)}
        initialise(self.stem, [self.blocks, self.head])

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.head(self.blocks(self.stem(x)))
        return logits


def require_legal(genotype: Genotype, blocks: int) -> None:
    """Raises `GenotypeError` with one line per reason why `genotype` is no chain of `blocks` blocks."""
    if set(genotype.cells) != {KIND}:
        kinds = ", ".join(genotype.cells) or "none"
        raise GenotypeError(f"genotype: a shufflenet-blocks genotype has the one cell {KIND}; its cells: {kinds}")
    nodes = genotype.cells[KIND]
    problems = []
    if nodes.first != 1:
        problems.append(f"genotype: cell {KIND}: first must be 1: the chain has one input; got {nodes.first}")
    if len(nodes.inputs) != blocks:
        problems.append(f"genotype: cell {KIND} has {len(nodes.inputs)} blocks; the space has {blocks}")
    if nodes.concat != (nodes.first + len(nodes.inputs) - 1,):
        problems.append(f"genotype: cell {KIND}: concat {list(nodes.concat)} must name the last block alone")
    for index, node in enumerate(nodes.inputs, nodes.first):
        if [source for _, source in node] != [index - 1]:
            problems.append(f"genotype: cell {KIND}, node {index} must read {index - 1} once and nothing else")
    strangers = sorted(set(nodes.ops) - set(OPS))
    problems += [f"genotype: cell {KIND}: op {op!r} is unknown; known: {', '.join(OPS)}" for op in strangers]
    if problems:
        raise GenotypeError(*problems)
