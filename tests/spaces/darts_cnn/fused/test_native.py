"""The compiled kernels compute what the parts by torch do, whatever the sizes, threads and numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffnas.kernels import native
from diffnas.spaces.darts_cnn.fused.buffers import EdgeOp
from diffnas.spaces.darts_cnn.fused.edges import FusedEdges, Plan
from diffnas.spaces.darts_cnn.fused.native import fits
from diffnas.spaces.darts_cnn.ops import OPS

if native.lack() is not None:
    pytest.skip(str(native.lack()), allow_module_level=True)


@pytest.fixture(autouse=True)
def _wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFNAS_KERNELS", "numba")


ALL = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")


def terms_of(rows: Sequence[Sequence[str]], channels: int, stride: int, dtype: torch.dtype) -> tuple[EdgeOp, ...]:
    """Fresh ops on the edges of a state; columns follow `OPS`."""
    torch.manual_seed(0)
    columns = list(OPS)
    return tuple(
        EdgeOp.of(columns.index(name), edge, OPS[name](channels, stride, False, "plain").to(dtype))
        for edge, row in enumerate(rows)
        for name in row
    )


def outcome(terms: tuple[EdgeOp, ...], edges: int, stride: int, x: Tensor, compiled: bool) -> list[Tensor]:
    """What flows along the edges, and all gradients of a fixed function of it, in the order of the terms."""
    plan = Plan(terms, edges, len(OPS), stride, 1, compiled)
    shares = torch.linspace(0.1, 1.0, edges * len(OPS), dtype=x.dtype).view(edges, -1).requires_grad_()
    x = x.detach().requires_grad_()
    flows = FusedEdges.apply(plan, shares, x, *plan.weights)
    draw = torch.Generator().manual_seed(1)
    pushes = [torch.randn(flow.shape, generator=draw, dtype=torch.float64).to(flow) for flow in flows]
    weights = [weight for term in terms for weight in term.weights]
    return [*(flow.detach() for flow in flows), *torch.autograd.grad(list(flows), [shares, x, *weights], pushes)]


def image(*size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, dtype=dtype).to(memory_format=torch.channels_last)


def require_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for i, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        size = float(theirs.abs().max()) + 1e-30
        assert float((mine - theirs).abs().max()) <= tolerance * size, (i, tuple(mine.shape))


@pytest.mark.parametrize("side", [(1, 1), (2, 3), (5, 9), (8, 17)])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_size(side: tuple[int, int], stride: int) -> None:
    """Sides shorter than a kernel reaches, odd ones, and more than one run of pixels."""
    rows = [[name for name in ALL if stride == 1 or name != "skip_connect"], ["sep_conv_3x3", "avg_pool_3x3"], []]
    terms = terms_of(rows, 4, stride, torch.float64)
    x = image(3, 4, *side)
    assert fits(x, terms)
    require_close(*(outcome(terms, 3, stride, x, compiled) for compiled in (True, False)), 1e-9)


@pytest.mark.parametrize("channels", [12, 32])
def test_any_channels_in_float32(channels: int) -> None:
    """As many lanes as divide the channels; plain float32 is as far from float64 (asserted)."""
    rows = [ALL, ["sep_conv_5x5"]]
    exact = outcome(terms_of(rows, channels, 1, torch.float64), 2, 1, image(2, channels, 6, 9), False)
    terms = terms_of(rows, channels, 1, torch.float32)
    terms_of(rows, channels, 1, torch.float64)  # draws as above, so that the image is the same
    x = image(2, channels, 6, 9).float()
    for compiled in (False, True):
        require_close([t.double() for t in outcome(terms, 2, 1, x, compiled)], exact, 1e-4)


def test_what_has_no_kernels() -> None:
    terms = terms_of([ALL], 4, 1, torch.float64)
    assert fits(image(2, 4, 5, 5), terms)
    assert not fits(image(2, 6, 5, 5), terms_of([ALL], 6, 1, torch.float64))
    assert not fits(image(2, 4, 5, 5, dtype=torch.float32), terms)
    assert not fits(image(2, 4, 5, 5).bfloat16(), terms)
    assert not fits(image(2, 4, 5, 5).to("meta"), terms)
    assert not fits(image(0, 4, 5, 5), terms)
    halving = terms_of([["skip_connect", "sep_conv_3x3"]], 4, 2, torch.float64)
    assert fits(image(2, 4, 6, 6), halving)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_passes_as_in_torch(bad: float) -> None:
    """Pools without statistics and the identity, where a bad number stays local; then all ops, where it spreads."""
    x = image(2, 4, 5, 6)
    x[0, 1, 2, 3] = bad
    names = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
    for rows, training in (([names], False), ([["sep_conv_3x3", "dil_conv_5x5"]], False), ([ALL], True)):
        terms = terms_of(rows, 4, 1, torch.float64)
        for term in terms:
            term.op.train(training)
        found, expected = (outcome(terms, 1, 1, x, compiled) for compiled in (True, False))
        for mine, theirs in zip(found[:1] if training else found, expected, strict=False):
            assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9, equal_nan=True), rows


@pytest.mark.parametrize("on_openmp", [True, False])
def test_threads_do_not_change_a_bit(on_openmp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However images are shared out, and whoever runs them."""
    from diffnas.kernels.native import team

    if not on_openmp:
        monkeypatch.setattr(team, "_openmp", lambda: None)
    elif team._openmp() is None:
        pytest.skip("torch's threads are not those of GNU OpenMP")
    terms = terms_of([ALL, ALL], 4, 1, torch.float64)
    x, before = image(5, 4, 6, 7), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(outcome(terms, 2, 1, x, True))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(other, found[0], strict=True))
