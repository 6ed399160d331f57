"""Runs the Triton kernels in Triton's interpreter, which must be asked for before it is imported: a program of its own.

It prints, for each case, the largest relative error of any value or gradient.
"""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"
os.environ["DIFFNAS_KERNELS"] = "triton"

import torch
from torch import Tensor

from diffnas.kernels.gpu import launch, ops, proof, reference
from diffnas.kernels.gpu.flow import Flow
from diffnas.spaces.darts_cnn.fused.buffers import EdgeOp
from diffnas.spaces.darts_cnn.fused.gpu import GpuEdges, GpuPlan
from diffnas.spaces.darts_cnn.ops import OPS
from diffnas.spaces.statistics import RunningStatsUpdates

NAMES = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5")
ROWS: list[tuple[str, ...]] = [NAMES, ("sep_conv_5x5", "avg_pool_3x3"), ()]
RUN = 20  # pixels whose sums are taken together: several runs, the last one shorter


def ops_of(stride: int, training: bool) -> list[EdgeOp]:
    """Fresh ops in float64 on the edges of a state."""
    columns = list(OPS)
    return [
        EdgeOp.of(columns.index(name), e, OPS[name](6, stride, False, "plain").double().train(training))
        for e, row in enumerate(ROWS)
        for name in row
    ]


def outcome(form: ModuleType | None, dtype: torch.dtype, stride: int, training: bool) -> list[Tensor]:
    """What flows along the edges, and all gradients: by the kernels in `form`, or op by op in float64 (None)."""
    torch.manual_seed(0)
    terms = ops_of(stride, training)
    x, shares = torch.randn(2, 6, 4, 6).double(), torch.rand(len(ROWS), len(OPS)).double()
    push = torch.randn(len(ROWS), 2, 6, 4 // stride, 6 // stride).double()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if form is not None:
        x = x.to(dtype).contiguous(memory_format=torch.channels_last)
        shares = shares.to(wide)
        terms = [EdgeOp.of(term.column, term.edge, term.op.to(wide)) for term in terms]
    x, shares = x.requires_grad_(), shares.requires_grad_()
    plan = GpuPlan(tuple(terms), len(ROWS), len(OPS), stride)
    if form is None:
        flows = [torch.zeros_like(push[0]) for _ in ROWS]
        for term in plan.ordered:
            flows[term.edge] = flows[term.edge] + shares[term.edge, term.column] * term.op(x)
        made = torch.stack(flows)
    else:
        with mock.patch.object(ops, "_form", lambda like: form):
            made = GpuEdges.apply(plan, RunningStatsUpdates(), shares, x, *plan.weights)
            slopes = torch.autograd.grad(made, [shares, x, *plan.weights], push.to(made.dtype))
            return [made.detach(), *slopes]
    return [made.detach(), *torch.autograd.grad(made, [shares, x, *plan.weights], push)]


def apart(found: list[Tensor], true: list[Tensor]) -> float:
    """The largest relative error."""
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, true, strict=True))


def main() -> None:
    """Prints a line of JSON."""
    Flow.__init__.__defaults__ = (RUN,)  # type: ignore[misc]
    found = {"proof": proof.apart(torch.device("cpu"))}
    for dtype, stride, training in (
        (torch.float64, 2, True), (torch.float32, 1, True), (torch.float32, 2, True), (torch.float32, 1, False),
        (torch.bfloat16, 1, True),
    ):  # fmt: skip
        name = f"{str(dtype)[6:]} stride {stride} {'training' if training else 'evaluation'}"
        mine = outcome(launch, dtype, stride, training)
        found[f"{name}, by reference"] = apart(mine, outcome(reference, dtype, stride, training))
        found[f"{name}, by plain"] = apart(mine, outcome(None, dtype, stride, training))
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
