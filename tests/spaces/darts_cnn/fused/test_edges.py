"""All that flows out of a state: which ops it knows, how it groups them, and its gradients by finite differences."""

from __future__ import annotations

import pytest
import torch

from diffnas.spaces.darts_cnn.fused.buffers import EdgeOp
from diffnas.spaces.darts_cnn.fused.edges import FusedEdges, Plan, kind_of
from diffnas.spaces.darts_cnn.ops import OPS

KINDS = {
    "max_pool_3x3": ("pool", "pool"),
    "avg_pool_3x3": ("pool", "pool"),
    "skip_connect": ("identity", "halving"),
    "auxiliary_skip": ("identity", "halving"),
    "sep_conv_3x3": ("separable", "separable"),
    "sep_conv_5x5": ("separable", "separable"),
    "sep_conv_7x7": ("separable", "separable"),
    "dil_conv_3x3": ("dilated", "dilated"),
    "dil_conv_5x5": ("dilated", "dilated"),
}


def plan_of(names: list[list[str]], stride: int, width: int, channels: int = 2) -> Plan:
    """The plan of a state whose edges carry `names`, on fresh float64 ops; columns follow `OPS`."""
    torch.manual_seed(0)
    columns = list(OPS)
    terms = [
        EdgeOp.of(columns.index(name), edge, OPS[name](channels, stride, False, "plain").double())
        for edge, row in enumerate(names)
        for name in row
    ]
    return Plan(tuple(terms), len(names), len(columns), stride, width)


@pytest.mark.parametrize("name", OPS)
def test_which_ops_it_knows(name: str) -> None:
    found = tuple(kind_of(OPS[name](4, stride, False, "plain")) for stride in (1, 2))
    assert found == KINDS.get(name, (None, None))


def test_terms_that_are_computed_alike_stand_together() -> None:
    """Each pool by itself, all separable ones together, and in a group by column, then edge."""
    rows = [["sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3"], ["sep_conv_3x3", "sep_conv_5x5", "skip_connect"]]
    rows.append(["max_pool_3x3", "dil_conv_3x3"])
    plan = plan_of(rows, 1, 1)
    names = list(OPS)
    found = [[(names[term.column], term.edge) for term in group] for group in plan.groups]
    assert sorted(map(sorted, found)) == [
        [("avg_pool_3x3", 0)],
        [("dil_conv_3x3", 2)],
        [("max_pool_3x3", 0), ("max_pool_3x3", 2)],
        [("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1)],
        [("skip_connect", 1)],
    ]
    assert all(group == sorted(group, key=lambda pair: (names.index(pair[0]), pair[1])) for group in found)
    assert [len(part.terms) for part in plan.parts()] == [len(group) for group in plan.groups]
    assert sum(w.numel() for w in plan.weights) == sum(w.numel() for t in plan.terms for w in t.op.parameters())
    places = [term.edge * len(names) + term.column for group in plan.groups for term in group]
    assert plan.places(torch.device("cpu")).tolist() == places


ROWS = {
    "pools": [["max_pool_3x3", "avg_pool_3x3"], ["avg_pool_3x3"]],
    "skips": [["skip_connect"], ["skip_connect"]],
    "separable": [["sep_conv_3x3"], ["sep_conv_3x3"]],
    "dilated": [["dil_conv_3x3"], [], ["dil_conv_3x3"]],
    "mixed": [["dil_conv_3x3", "skip_connect"], ["dil_conv_3x3", "max_pool_3x3"]],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_differences_of_values(name: str, stride: int, training: bool) -> None:
    plan = plan_of(ROWS[name], stride, width=2)
    for term in plan.terms:
        term.op.train(training)
    torch.manual_seed(1)
    shares = torch.rand(plan.edges, plan.ops, dtype=torch.float64).requires_grad_()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()

    def flows(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return FusedEdges.apply(plan, *tensors)

    # the numbers are differentiated along one random direction in and out, which is what `fast_mode` means
    assert torch.autograd.gradcheck(flows, (shares, x, *plan.weights), eps=1e-7, atol=1e-5, fast_mode=True)


def test_flows_are_images_in_channels_last_and_zero_where_nothing_flows() -> None:
    plan = plan_of([["skip_connect"], [], ["max_pool_3x3"]], 1, 3)
    x = torch.randn(2, 2, 4, 6, dtype=torch.float64).to(memory_format=torch.channels_last)
    shares = torch.full((3, len(OPS)), 0.25, dtype=torch.float64)
    whole, none, _ = FusedEdges.apply(plan, shares, x)
    assert torch.equal(whole, 0.25 * x) and torch.equal(none, torch.zeros_like(x))
    assert [flow.permute(0, 2, 3, 1).stride(-1) for flow in (whole, none)] == [1, 1]


def test_passes_do_not_disturb_each_other() -> None:
    """Two passes before either backward, and one backward done twice."""
    plan = plan_of([[*KINDS], ["sep_conv_3x3", "max_pool_3x3"]], 2, 2)
    shares = torch.rand(2, len(OPS), dtype=torch.float64).requires_grad_()
    xs = [torch.randn(2, 2, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last) for _ in range(2)]
    targets = [shares, *plan.weights]

    def value(x: torch.Tensor) -> torch.Tensor:
        return sum(flow.square().sum() for flow in FusedEdges.apply(plan, shares, x, *plan.weights))

    alone = [torch.autograd.grad(value(x), targets) for x in xs]
    values = [value(x) for x in xs]
    for number in (0, 1, 0):
        found = torch.autograd.grad(values[number], targets, retain_graph=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, alone[number], strict=True))
