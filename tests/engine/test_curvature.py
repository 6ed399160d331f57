"""The largest eigenvalue: Lanczos against dense matrices, and the search's Hessian against differentiating twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.engine import Search, largest_eigenvalue
from diffnas.engine.curvature import lanczos
from diffnas.spaces.darts_cnn.space import DartsCNN

SMOOTH = DartsCNN(channels=2, layers=1, nodes=2, ops=("skip_connect", "avg_pool_3x3", "max_pool_3x3"))


def symmetric(size: int, seed: int) -> Tensor:
    square = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return square + square.T


def batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 3, 8, 8, generator=draw, dtype=torch.float64)
    return Batch(images, torch.randint(0, 10, (6,), generator=draw))


def dense(search: Search, data: Batch) -> Tensor:
    """The Hessian of the loss in all alphas, by differentiating twice."""
    alphas = list(search.arch.parameters())
    loss = search.task.loss(lambda x: search.supernet(x, search.relax("eval")), data).value
    grads = torch.autograd.grad(loss, alphas, create_graph=True, allow_unused=True)
    flat = torch.cat([(torch.zeros_like(a) if s is None else s).flatten() for s, a in zip(grads, alphas, strict=True)])
    rows = []
    for entry in flat:
        if not entry.requires_grad:
            rows.append(torch.zeros_like(flat))
            continue
        found = torch.autograd.grad(entry, alphas, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat([(torch.zeros_like(a) if f is None else f).flatten() for f, a in zip(found, alphas, strict=True)])
        )
    return torch.stack(rows)


@pytest.mark.parametrize(("size", "seed"), [(1, 0), (2, 1), (7, 2), (30, 3)])
def test_lanczos_is_exact_after_as_many_products_as_rows(size: int, seed: int) -> None:
    matrix = symmetric(size, seed)
    found = lanczos(lambda v: matrix @ v, size, 2 * size, torch.Generator().manual_seed(seed))
    assert found == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-10)


def test_lanczos_is_near_after_a_few_products_and_never_above() -> None:
    for seed in range(5):
        matrix = symmetric(200, seed)
        top = float(torch.linalg.eigvalsh(matrix)[-1])
        found = [
            lanczos(lambda v, m=matrix: m @ v, 200, steps, torch.Generator().manual_seed(9)) for steps in (5, 20, 60)
        ]
        assert found == sorted(found) and found[-1] <= top * (1 + 1e-10)
        assert found[1] > 0.93 * top and found[2] > 0.999 * top


def test_lanczos_stops_where_nothing_new_comes() -> None:
    generator = torch.Generator().manual_seed(0)
    assert lanczos(lambda v: 3.0 * v, 10, 10, generator) == pytest.approx(3.0)
    assert lanczos(torch.zeros_like, 10, 10, generator) == 0.0
    low_rank = torch.zeros(10, 10, dtype=torch.float64)
    low_rank[2, 2], low_rank[5, 5] = 2.0, -7.0
    assert lanczos(lambda v: low_rank @ v, 10, 10, generator) == pytest.approx(2.0)


@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_the_eigenvalue_is_that_of_the_dense_hessian(make_search: Callable[..., Search], scale: float) -> None:
    search, data = make_search(SMOOTH, dtype=torch.float64, scale=scale), batch(0)
    matrix = dense(search, data)
    assert torch.allclose(matrix, matrix.T, atol=1e-10) and matrix.abs().max() > 1e-3
    values = torch.linalg.eigvalsh(matrix)
    found = largest_eigenvalue(search, data, steps=len(values), eps=1e-4)
    assert found == pytest.approx(float(values[-1]), rel=1e-5)
    assert largest_eigenvalue(search, data, decay=0.5, steps=len(values), eps=1e-4) == pytest.approx(found + 0.5)


def test_it_leaves_no_trace(make_search: Callable[..., Search]) -> None:
    search = make_search(
        DartsCNN(channels=2, layers=1, nodes=1, ops=("noise", "skip_connect", "sep_conv_3x3")), scale=0.5
    )
    data = Batch(batch(0).inputs.float(), batch(0).targets)
    search.precision = torch.bfloat16
    before = {k: t.clone() for k, t in (search.supernet.state_dict() | search.arch.state_dict()).items()}
    state, shared = torch.get_rng_state(), search.shared.get_state()
    first = largest_eigenvalue(search, data)
    assert first == largest_eigenvalue(search, data)  # ops that are noise draw the same in every pass
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(shared, search.shared.get_state())
    after = search.supernet.state_dict() | search.arch.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert search.precision == torch.bfloat16 and search.supernet.training
    search.precision = torch.float32
    assert first == largest_eigenvalue(search, data)  # it was computed in float32


def test_an_architecture_without_gradients_is_flat(make_search: Callable[..., Search]) -> None:
    search, data = make_search(SMOOTH, dtype=torch.float64), batch(0)
    search.arch.requires_grad_(False)
    assert largest_eigenvalue(search, data, decay=0.25) == 0.25
    search.arch.extra = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    assert largest_eigenvalue(search, data, decay=0.25) == 0.25
