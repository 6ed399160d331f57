"""Which weights of a supernet belong to which op of which cell."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from diffnas.core.space import Space

Place = tuple[int, int, int]
"""An op of a supernet: its cell, counted along the chain, its edge, and its column."""


def op_weights(space: Space, supernet: nn.Module, weights: Sequence[Tensor]) -> dict[Place, tuple[int, ...]]:
    """The places in `weights` of the weights of every op that has some.

    Raises `ValueError` where the supernet does not hold one `nn.ModuleDict` of ops by name for every edge of its chain.
    """
    cells = [space.cells[kind] for kind in space.chain()]
    edges = [(c, e, cell.ops) for c, cell in enumerate(cells) for e in range(len(cell.edges))]
    names = {name for cell in cells for name in cell.ops}
    dicts = [module for module in supernet.modules() if isinstance(module, nn.ModuleDict) and names.issuperset(module)]
    if len(dicts) != len(edges):
        raise ValueError(f"space {space.name}: its supernet holds ops by name for {len(dicts)} of {len(edges)} edges")
    places = {id(weight): place for place, weight in enumerate(weights)}
    found: dict[Place, tuple[int, ...]] = {}
    for (cell, edge, ops), modules in zip(edges, dicts, strict=True):
        for name, module in modules.items():
            own = tuple(places[id(weight)] for weight in module.parameters() if id(weight) in places)
            if own:
                found[cell, edge, ops.index(name)] = own
    return found
