"""What the ops of NAS-Bench-201 cost, against networks that are built and counted."""

from __future__ import annotations

import pytest

from diffnas.core.count import Unit, count
from diffnas.core.seeds import generator
from diffnas.core.space import Shape, Size
from diffnas.engine import random_genotype
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.spaces.nasbench201.table import ops_of, size


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_fixed_and_chosen_costs_add_up_to_the_count(unit: Unit) -> None:
    space, shape, small = NASBench201(), Shape(7, 3, 16), Size(4, 2)
    costs, fixed = space.costs(shape, unit, small)["cell"], space.fixed_cost(shape, unit, small)
    for seed in range(4):
        genotype = random_genotype(space.name, space.cells, generator(seed, "test"))
        network = space.network(genotype, shape, channels=4, layers=2)
        chosen = sum(costs[e][space.ops.index(op)] for e, op in enumerate(ops_of(genotype)))
        assert fixed + chosen == getattr(count(network, (3, 16, 16)), unit)


def test_the_sizes_of_the_table_are_those_of_the_costs() -> None:
    space = NASBench201()
    genotype = random_genotype(space.name, space.cells, generator(1, "test"))
    for unit, expected in zip(("params", "macs"), size(ops_of(genotype), "cifar100"), strict=True):
        costs, fixed = space.costs(Shape(100), unit)["cell"], space.fixed_cost(Shape(100), unit)  # type: ignore[arg-type]
        assert fixed + sum(costs[e][space.ops.index(op)] for e, op in enumerate(ops_of(genotype))) == expected
