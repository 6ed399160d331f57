"""The known way a differentiable search fails: skip connections, which carry no weights to train, take over the cell."""

from __future__ import annotations

from diffnas.core.genotype import Genotype

SKIP = "skip_connect"


def skips(genotype: Genotype) -> dict[str, int]:
    """The skip connections of each kind of cell."""
    return {kind: nodes.ops.count(SKIP) for kind, nodes in genotype.cells.items()}


def collapsed(genotype: Genotype) -> str | None:
    """Says in words what has collapsed, or returns None for a sound genotype.

    A cell that keeps the resolution has collapsed where more than half of its ops are skip connections: published cells
    have at most half, cells that DARTS ends with after a collapse nearly all (Liang et al., DARTS+, 2019; Zela et al., 2020).
    Reduction cells are left out: many of their published forms are pools and skips.
    """
    for kind, nodes in genotype.cells.items():
        count, ops = nodes.ops.count(SKIP), len(nodes.ops)
        if kind != "reduce" and ops and 2 * count > ops:
            return f"{count} of the {ops} ops of cell {kind} are skip connections"
    return None


ADVICE = (
    "stop earlier (search.early_stop), or use a method made against it: "
    "drnas, pdarts, darts-minus, smooth-darts, robust-darts"
)
