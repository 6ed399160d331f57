"""The network of a genotype: sizes of published cells, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from diffnas.core.count import count
from diffnas.core.genotype import Genotype, Nodes, parse_genotype
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError
from diffnas.spaces.nasbench201.space import NASBench201


def all_of(op: str) -> Genotype:
    """The cell whose every edge is `op`."""
    return parse_genotype(f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|")


@pytest.mark.parametrize(
    ("op", "params", "macs"),
    [
        ("nor_conv_3x3", 1_531_546, 220_119_680),
        ("nor_conv_1x1", 241_306, 31_376_000),
        ("skip_connect", 73_306, 7_783_040),
        ("none", 73_306, 7_783_040),
        ("avg_pool_3x3", 73_306, 7_783_040),
    ],
)
def test_sizes(op: str, params: int, macs: int) -> None:
    with torch.device("meta"):
        network = NASBench201().network(all_of(op), Shape(10))
    found = count(network, (3, 32, 32))
    assert (found.params, found.macs, found.auxiliary) == (params, macs, 0)


def test_recorded_sizes(record: Any) -> None:
    rows = [row for row in record("counts")["search"] if row["network"].startswith("NB201 eval")]
    assert len(rows) >= 12
    for row in rows:
        read = re.fullmatch(r"NB201 eval C=16 N=5 classes=(\d+) (.*)", row["network"])
        assert read is not None
        side = 16 if "16x16" in row["note"] else 32
        with torch.device("meta"):
            network = NASBench201().network(parse_genotype(read[2]), Shape(int(read[1]), 3, side))
        found = count(network, (3, side, side))
        assert (found.params, found.macs) == (row["weights"], row["macs_full_forward"])
        assert sum(buffer.numel() for buffer in network.buffers()) == row["buffers"]


def test_a_node_may_read_nothing_or_one_state_twice() -> None:
    nodes = Nodes(((), (("skip_connect", 0), ("nor_conv_1x1", 0)), (("skip_connect", 2),)), (3,), first=1)
    network = NASBench201().network(Genotype("nasbench201", {"cell": nodes}), Shape(4, 1, 8), channels=2, layers=1)
    x = torch.randn(2, 1, 8, 8)
    assert network(x).shape == (2, 4)
    cell = network.get_submodule("cells.0").double().eval()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(cell(x), x + cell.get_submodule("ops.1")(x))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"normal": Nodes(((("none", 0),),), (1,), 1)}, "has one cell, cell; this one has normal"),
        ({"cell": Nodes(((("sep_conv_3x3", 0),),), (1,), 1)}, "op 'sep_conv_3x3' is unknown"),
        ({"cell": Nodes(((("none", 0),),), (2,), 2)}, "must read one input, not 2"),
        ({"cell": Nodes(((("none", 0),),), (0, 1), 1)}, "must put out one state; concat names 2"),
    ],
)
def test_illegal_genotypes(cells: dict[str, Nodes], said: str) -> None:
    with pytest.raises(GenotypeError, match=said):
        NASBench201().network(Genotype("nasbench201", cells), Shape(10))
