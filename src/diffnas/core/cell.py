"""One kind of cell: its edges, the ops that each may carry, and the edges that a derived node keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cell:
    """E edges, each of which mixes O ops; a record that spaces make and everything else reads.

    States 0 to `inputs` - 1 are the cell's inputs, the next ones its nodes.  `allowed[e][o]` is False where edge e may not
    carry op o.  `in_degree` is the number of edges a derived node keeps (None: all), `excluded` names the ops that are
    never derived (they still take their share of the mixture), `concat` the states that the cell puts out.
    """

    ops: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]  # (source, target), sorted by target, then source
    inputs: int
    in_degree: int | None
    excluded: frozenset[str]
    allowed: tuple[tuple[bool, ...], ...]
    concat: tuple[int, ...]

    @classmethod
    def dense(
        cls,
        ops: Sequence[str],
        inputs: int,
        nodes: int,
        in_degree: int | None = None,
        excluded: Sequence[str] = (),
        concat: Sequence[int] | None = None,
        allowed: Sequence[Sequence[str]] | None = None,
    ) -> Cell:
        """A cell in which every node reads every earlier state; `allowed` lists the op names of each edge, in order.

        Raises `ValueError` where the parts do not fit one another.
        """
        edges = tuple((source, target) for target in range(inputs, inputs + nodes) for source in range(target))
        subsets = [tuple(ops)] * len(edges) if allowed is None else [tuple(names) for names in allowed]
        if len(subsets) != len(edges):
            raise ValueError(f"ops per edge: {len(subsets)} lists for {len(edges)} edges")
        strangers = sorted({name for names in subsets for name in names} - set(ops))
        if strangers:
            raise ValueError(f"ops per edge: {', '.join(strangers)} not among the ops {', '.join(ops)}")
        concat = range(inputs, inputs + nodes) if concat is None else concat
        outside = [i for i in concat if not inputs <= i < inputs + nodes]
        if outside or not concat:
            raise ValueError(f"concat: {list(concat)} must name nodes among {inputs} to {inputs + nodes - 1}")
        if len(set(concat)) < len(concat):
            raise ValueError(f"concat: {list(concat)} names a node twice")
        mask = tuple(tuple(op in names for op in ops) for names in subsets)
        return cls(tuple(ops), edges, inputs, in_degree, frozenset(excluded), mask, tuple(concat))

    @property
    def nodes(self) -> tuple[int, ...]:
        """The indices of the nodes, in order."""
        return tuple(sorted({target for _, target in self.edges}))

    def edges_into(self, node: int) -> tuple[int, ...]:
        """The indices of the edges that end in `node`, by source."""
        return tuple(e for e, (_, target) in enumerate(self.edges) if target == node)

    def eligible(self, edge: int) -> list[int]:
        """The columns of the ops that may be derived on `edge`."""
        return [o for o, op in enumerate(self.ops) if self.allowed[edge][o] and op not in self.excluded]

    def keep(self, chosen: Sequence[Sequence[bool]]) -> Cell:
        """Returns the cell narrowed to the [E, O] entries that are allowed and `chosen`."""
        mask = tuple(
            tuple(bool(a and c) for a, c in zip(allowed, row, strict=True))
            for allowed, row in zip(self.allowed, chosen, strict=True)
        )
        return replace(self, allowed=mask)
