"""How many kernels a search step launches on a GPU in the form of Triton kernels, counted where neither is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from benchmarks.launches import CASES, JOINED, Launches, counted

from diffnas.kernels.gpu import ops


@pytest.mark.parametrize(("case", "most"), [("DARTS, first order", 2500), ("DARTS on NAS-Bench-201", 3000)])
def test_a_step_stays_within_its_launches(case: str, most: int) -> None:
    found = counted(CASES[case], "triton")
    assert sum(found.values()) <= most, found.most_common(20)
    assert found["mix"] > 0 and found["mul"] < 20  # the form that is meant


def test_counts_depend_on_neither_batch_nor_side() -> None:
    case = replace(CASES["DARTS, first order"], layers=3)
    assert counted(case, "triton") == counted(replace(case, batch=6, side=16), "triton")


def test_what_counts_as_a_launch() -> None:
    many, weight = [torch.ones(2) for _ in range(JOINED + 1)], torch.ones(4, 2, 1, 1, requires_grad=True)
    state = torch.ones(1, 2, 3, 3)
    out = torch.nn.functional.conv2d(state, weight)
    with Launches() as mode:
        torch.cat(many).view(-1, 2).unbind()
        torch._foreach_add_(many, 1.0)
        torch._foreach_add(many, many)
        torch.empty(3).t()
        torch.autograd.grad(out.sum(), weight)
        ops.mix(torch.ones(0, 1, 1), *(torch.ones(0) for _ in range(4)), torch.ones(0, 1, 1))
    kinds = ("cat", "_foreach_add_", "_foreach_add", "sum", "convolution_backward", "mix")
    assert mode.found == Counter(dict(zip(kinds, (2, 2, 3, 1, 1, 1), strict=True))) | mode.found
    assert {name for name, count in mode.found.items() if count} <= {*kinds, "ones_like", "ones", "fill_"}
