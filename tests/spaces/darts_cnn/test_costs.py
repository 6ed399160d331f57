"""What ops cost: fixed and chosen costs together are the count of the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffnas.core.count import Unit, count
from diffnas.core.genotype import Genotype
from diffnas.core.published_genotypes import published
from diffnas.core.space import Shape, Size
from diffnas.engine import random_genotype
from diffnas.spaces.darts_cnn.space import DartsCNN

UNITS: tuple[Unit, Unit] = ("macs", "params")


def total(space: DartsCNN, genotype: Genotype, shape: Shape, unit: Unit, size: Size) -> float:
    costs, cost = space.costs(shape, unit, size), space.fixed_cost(shape, unit, size)
    for kind, cell in space.cells.items():
        for node, inputs in zip(cell.nodes, genotype.cells[kind].inputs, strict=True):
            cost += sum(costs[kind][cell.edges.index((source, node))][cell.ops.index(op)] for op, source in inputs)
    return cost


@pytest.mark.parametrize(
    ("settings", "size", "shape"),
    [
        ({}, Size(4, 8), Shape(10)),
        ({"excluded": ()}, Size(6, 5, partial=2), Shape(7, 1, 16)),
        ({"nodes": 3, "concat": (3, 4), "in_degree": 1}, Size(4, 3), Shape(10, 3, 8)),
        ({"nodes": 2, "inputs": 1}, Size(4, 2), Shape(10, 3, 8)),
        ({"nodes": 1, "inputs": 3}, Size(4, 9), Shape(10, 3, 8)),
        ({"nodes": 1}, Size(4, 1), Shape(10, 3, 6)),
        ({"stem": "imagenet"}, Size(4, 5), Shape(10, 3, 64)),
    ],
)
def test_the_costs_of_a_random_network_add_up(settings: dict[str, Any], size: Size, shape: Shape) -> None:
    space = DartsCNN(**settings)
    for seed in range(3):
        genotype = random_genotype(space.name, space.cells, torch.Generator().manual_seed(seed))
        with torch.device("meta"):
            network = space.network(genotype, shape, channels=size.channels, layers=size.layers, stem=space.stem)
        found = count(network, (shape.channels, shape.side, shape.side))
        for unit in UNITS:
            assert total(space, genotype, shape, unit, size) == getattr(found, unit)


def test_the_costs_of_darts_are_the_published_size() -> None:
    found = [total(DartsCNN(), published("darts-v2"), Shape(10), unit, Size(36, 20)) for unit in UNITS]
    assert round(found[0] / 1e6, 1) == 528.4 and found[1] == 3_349_342


def test_what_costs_nothing() -> None:
    space = DartsCNN(channels=4, layers=3)
    for unit in UNITS:
        costs = space.costs(Shape(10), unit)
        for kind, cell in space.cells.items():
            for (source, _), row in zip(cell.edges, costs[kind], strict=True):
                cost = dict(zip(cell.ops, row, strict=True))
                assert cost["none"] == cost["max_pool_3x3"] == cost["avg_pool_3x3"] == 0.0
                halves = kind == "reduce" and source < cell.inputs
                assert (cost["skip_connect"] > 0.0) == halves  # it is two convolutions there
                assert 0.0 < cost["sep_conv_3x3"] < cost["sep_conv_5x5"]


def test_a_cost_by_hand() -> None:
    """dil_conv_3x3 in the one cell of a network of one layer, at 4 * 2 channels: a depthwise, a 1x1 convolution, a norm."""
    row = {unit: DartsCNN(nodes=1).costs(Shape(10, 3, 8), unit, Size(4, 1))["reduce"][0] for unit in UNITS}
    assert row["params"][6] == 8 * 9 + 8 * 8 + 2 * 8
    assert row["macs"][6] == (8 * 9 + 8 * 8) * 4 * 4
    assert DartsCNN(nodes=1).costs(Shape(10, 3, 8), "macs", Size(4, 1))["normal"] == [[0.0] * 8] * 2
