"""The plain supernet: what a mixture means."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from diffnas.core.genotype import parse_genotype
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape, Size
from diffnas.spaces.channels import interleave
from diffnas.spaces.nasbench201.layout import OPS
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.spaces.nasbench201.supernet import MixedCell, MixedEdge

CELL = NASBench201().cells["cell"]
SMALL = NASBench201(channels=4, layers=1)


def mix(seed: int = 0) -> Mix:
    draw = torch.Generator().manual_seed(seed)
    return Mix(torch.randn(6, 5, generator=draw, dtype=torch.float64).softmax(-1))


def test_an_edge_is_the_sum_of_its_ops() -> None:
    edge = MixedEdge(OPS, (True,) * 5, 4, True).double()
    x, shares = torch.randn(3, 4, 6, 6, dtype=torch.float64), mix().op[0]
    expected = sum(shares[o] * edge.ops[name](x) for o, name in enumerate(OPS) if name != "none")
    torch.testing.assert_close(edge(x, shares), expected)
    assert not edge(x, shares, (True, False, False, False, False)).any()


def test_a_cell_with_one_op_per_edge_is_that_of_its_genotype() -> None:
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    ops = parse_genotype(text).cells["cell"].ops
    cell = MixedCell(CELL, 4).double()
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    shares = torch.zeros(6, 5, dtype=torch.float64)
    shares[torch.arange(6), torch.tensor([OPS.index(op) for op in ops])] = 1.0
    one = cell.edge(0).ops["avg_pool_3x3"](x)
    two = cell.edge(1).ops["nor_conv_1x1"](x) + one
    three = cell.edge(4).ops["nor_conv_3x3"](one) + cell.edge(5).ops["nor_conv_1x1"](two)
    torch.testing.assert_close(cell(x, Mix(shares)), three)
    torch.testing.assert_close(cell(x, Mix(shares.softmax(-1), active=shares > 0)).shape, three.shape)


def test_idle_entries_add_neither_value_nor_gradient() -> None:
    cell = MixedCell(CELL, 4).double()
    x, live = torch.randn(3, 4, 6, 6, dtype=torch.float64), torch.rand(6, 5) < 0.5
    op = mix().op.requires_grad_()
    found = cell(x, Mix(op, active=live))
    torch.testing.assert_close(found, cell(x, Mix(op * live)))
    (grad,) = torch.autograd.grad(found.square().sum(), op)
    assert not grad[~live].any()
    counters = {e: cell.edge(e).ops["nor_conv_3x3"].get_buffer("2.num_batches_tracked") for e in range(6)}
    assert all(int(n) == (2 if live[e, 3] else 1) for e, n in counters.items())


def test_partial_channels_pass_by_and_interleave() -> None:
    """With every op idle a K = 2 cell only shuffles what passes by; an edge's weight scales it too."""
    cell = MixedCell(CELL, 4, partial=2).double()
    x, scales = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    idle = torch.zeros(6, 5, dtype=torch.bool)

    def flow(state: torch.Tensor) -> torch.Tensor:
        return interleave(torch.cat([torch.zeros_like(state[:, :2]), state[:, 2:]], dim=1), 2)

    one = scales[0] * flow(x)
    two = scales[1] * flow(x) + scales[2] * flow(one)
    three = scales[3] * flow(x) + scales[4] * flow(one) + scales[5] * flow(two)
    torch.testing.assert_close(cell(x, Mix(mix().op, scales, idle)), three)
    assert cell.edge(0).ops["nor_conv_1x1"].get_parameter("1.weight").shape == (2, 2, 1, 1)


def test_statistics_of_the_batch() -> None:
    """Cells without running statistics normalise by the batch in evaluation too; the trunk keeps its own."""
    supernet = NASBench201(channels=4, layers=1, statistics="batch").supernet(Shape(5, 3, 8)).double()
    kept = {name.rpartition(".")[0] for name, _ in supernet.named_buffers()}
    assert kept == {"stem.1", "norm", "cells.1.first.2", "cells.1.second.2", "cells.3.first.2", "cells.3.second.2"}
    cell, x = supernet.get_submodule("cells.0"), torch.randn(3, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(cell.train()(x, mix()), cell.eval()(x, mix()))


def test_the_order_of_cells() -> None:
    supernet = NASBench201(channels=4, layers=2).supernet(Shape(5, 3, 8))
    shapes = [type(module).__name__ for module in supernet.get_submodule("cells").children()]
    assert shapes == [*["MixedCell"] * 2, "Residual"] * 2 + ["MixedCell"] * 2
    assert supernet(torch.randn(2, 3, 8, 8), {"cell": Mix(mix().op.float())}).shape == (2, 5)


@pytest.mark.parametrize(("partial", "weights"), [(1, 1_686_106), (2, 476_506), (4, 174_106)])
def test_sizes(partial: int, weights: int) -> None:
    with torch.device("meta"):
        supernet = NASBench201().supernet(Shape(10), Size(16, 5, partial))
    assert sum(p.numel() for p in supernet.parameters()) == weights
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in supernet.modules()) == 15 * 12 + 6


def test_recorded_sizes(record: Any) -> None:
    rows = [row for row in record("counts")["search"] if row["network"].startswith("NB201 search (DrNAS")]
    assert len(rows) == 4
    for row in rows:
        read = re.search(r" k=(\d) ", row["network"])
        assert read is not None
        with torch.device("meta"):
            supernet = NASBench201(partial=int(read[1])).supernet(Shape(10))
        assert sum(p.numel() for p in supernet.parameters()) == row["weights"]
        assert sum(b.numel() for b in supernet.buffers()) == row["buffers"]
