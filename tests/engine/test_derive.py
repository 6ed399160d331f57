"""Deriving cells from strengths, and drawing them at random."""

from __future__ import annotations

from collections import Counter

import torch

from diffnas.core.cell import Cell
from diffnas.core.seeds import generator
from diffnas.core.space import Shape
from diffnas.engine import random_genotype, sampled_genotypes, strongest
from diffnas.spaces.darts_cnn.space import DartsCNN

OPS = ("none", "a", "b")


def test_strongest_edges_then_strongest_ops() -> None:
    cell = Cell.dense(OPS, 2, 2, in_degree=2, excluded=("none",))
    strength = torch.tensor([[0.9, 0.06, 0.04], [0.2, 0.3, 0.5], [0.4, 0.1, 0.5], [0.1, 0.7, 0.2], [0.0, 0.4, 0.6]])
    nodes = strongest(cell, strength)
    assert nodes.inputs == ((("b", 1), ("a", 0)), (("a", 1), ("b", 2)))  # `none` never wins; strongest first
    assert nodes.concat == (2, 3) and nodes.first == 2


def test_ties_go_to_the_earlier_edge_and_op() -> None:
    cell = Cell.dense(OPS, 2, 2, in_degree=1, excluded=("none",))
    assert strongest(cell, torch.full((5, 3), 0.25)).inputs == ((("a", 0),), (("a", 0),))


def test_all_edges_with_none_allowed() -> None:
    cell = Cell.dense(OPS, 1, 2)
    nodes = strongest(cell, torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]))
    assert nodes.inputs == ((("none", 0),), (("b", 0), ("a", 1)))


def test_edges_without_an_eligible_op_are_left_out() -> None:
    cell = Cell.dense(OPS, 2, 1, in_degree=2, excluded=("none",), allowed=[["none"], ["none", "b"]])
    assert strongest(cell, torch.rand(2, 3)).inputs == ((("b", 1),),)


def test_random_genotypes_are_legal_and_uniform() -> None:
    space = DartsCNN(nodes=2)
    drawn = [random_genotype(space.name, space.cells, generator(0, "random", k)) for k in range(600)]
    space.network(drawn[0], Shape(10), channels=4, layers=3)
    for genotype in drawn[:20]:
        for nodes in genotype.cells.values():
            assert all(len({source for _, source in node}) == 2 for node in nodes.inputs)
            assert "none" not in nodes.ops
    ops = Counter(op for genotype in drawn for op in genotype.cells["normal"].ops)
    assert len(ops) == 7 and max(ops.values()) < 1.3 * min(ops.values())
    sources = Counter(source for genotype in drawn for _, source in genotype.cells["normal"].inputs[1])
    assert set(sources) == {0, 1, 2} and max(sources.values()) < 1.3 * min(sources.values())
    assert drawn[0] == random_genotype(space.name, space.cells, generator(0, "random", 0)) != drawn[1]


def test_pairs_may_come_from_one_edge() -> None:
    cell = Cell.dense(OPS, 2, 1, in_degree=2, excluded=("none",))
    strength = torch.tensor([[0.9, 0.5, 0.4], [0.2, 0.3, 0.1]])
    assert strongest(cell, strength, rule="pairs").inputs == ((("a", 0), ("b", 0)),)
    assert strongest(cell, strength).inputs == ((("a", 0), ("a", 1)),)


def test_all_keeps_every_edge_whose_strongest_op_may_be_derived() -> None:
    cell = Cell.dense(OPS, 2, 2, in_degree=2, excluded=("none",))
    strength = torch.tensor([[0.9, 0.5, 0.4], [0.2, 0.3, 0.1], [0.1, 0.2, 0.3], [0.1, 0.3, 0.2], [0.0, 0.0, 0.1]])
    assert strongest(cell, strength, rule="all").inputs == ((("a", 1),), (("b", 0), ("a", 1), ("b", 2)))


def test_ties_may_go_to_the_later_edge() -> None:
    cell = Cell.dense(OPS, 2, 2, in_degree=1, excluded=("none",))
    assert strongest(cell, torch.full((5, 3), 0.25), ties="last").inputs == ((("a", 1),), (("a", 2),))


def test_sampled_genotypes_follow_the_strengths() -> None:
    space = DartsCNN(nodes=1)
    strength = {kind: torch.zeros(2, 8) for kind in space.cells}
    strength["normal"][:, 4], strength["normal"][:, 0], strength["reduce"][:, 3] = 0.25, 0.5, 1.0
    strength["normal"][:, 5] = 0.75
    found = sampled_genotypes(space, strength, 400, generator(0, "test"))
    ops = Counter(op for each in found for op in each.cells["normal"].ops)
    assert set(ops) == {"sep_conv_3x3", "sep_conv_5x5"} and 0.68 < ops["sep_conv_5x5"] / 800 < 0.82
    assert all(each.cells["reduce"].ops == ("skip_connect", "skip_connect") for each in found)
    again = sampled_genotypes(space, strength, 5, generator(0, "test"))
    assert again == found[:5]
