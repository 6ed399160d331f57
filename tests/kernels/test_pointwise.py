"""1x1 convolution, normalisation and share as algebra: the numbers of the three layers, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.kernels import pointwise
from diffnas.kernels.pointwise import (
    add_mapped,
    centred_moments,
    fold,
    fold_given,
    image,
    joined,
    mapped,
    products,
    pull,
)

EPS = 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("c", "k"), [(3, 3), (2, 5), (16, 16), (8, 20), (20, 4)])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_products_of_matrices_side_by_side(width: int, c: int, k: int, dtype: torch.dtype, close) -> None:
    torch.manual_seed(width)
    g, d = torch.randn(50, width, c, dtype=dtype), torch.randn(50, width, k, dtype=dtype)
    maps, y = torch.randn(width, c, k, dtype=dtype), torch.randn(50, width * c, dtype=dtype)
    close(products(g.flatten(1), d.flatten(1), width), torch.einsum("pwc,pwk->wck", g, d))
    expected = torch.einsum("wck,pwk->pwc", maps, d).flatten(1)
    close(mapped(d.flatten(1), maps), expected)
    total = y.clone()
    add_mapped(total, d.flatten(1), maps)
    close(total, y + expected)
    wide = torch.zeros(50, width * c + 7, dtype=dtype)  # a part of wider rows, as an edge's sum is
    add_mapped(wide[:, 3 : 3 + width * c], d.flatten(1), maps)
    close(wide[:, 3 : 3 + width * c], expected)
    assert not wide[:, :3].any() and not wide[:, 3 + width * c :].any()


def test_products_of_half_precision_are_summed_in_float32(close) -> None:
    g, d = torch.randn(4000, 6).bfloat16(), torch.randn(4000, 6).bfloat16()
    assert products(g, d, 2).dtype == torch.float32
    close(products(g, d, 2), products(g.float(), d.float(), 2))


def test_rows_and_image_are_views_of_each_other() -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    flat = pointwise.rows(x)
    assert flat.shape == (40, 3) and flat.data_ptr() == x.data_ptr()
    assert torch.equal(image(flat, x), x) and image(flat, x).is_contiguous(memory_format=torch.channels_last)


def plain(s: Tensor, W: Tensor, d: Tensor, given: tuple[Tensor, Tensor] | None) -> Tensor:
    """The three layers, term by term: d [P, n, K], W [n, C, K] -> [P, n, C]."""
    terms = []
    for i in range(len(W)):
        y = F.conv2d(d[:, i, :, None, None], W[i, :, :, None, None])
        mean, var = (None, None) if given is None else (given[0][i], given[1][i])
        terms.append(s[i] * F.batch_norm(y, mean, var, training=given is None, eps=EPS).flatten(1))
    return torch.stack(terms, 1)


def folded(
    s: Tensor | None, W: Tensor, d: Tensor, g: Tensor, given: tuple[Tensor, Tensor] | None, widths: list[int]
) -> dict[str, Tensor]:
    """The same and its gradients by the chain of the file; the terms in chunks of `widths`."""
    flats = [chunk.flatten(1).clone() for chunk in d.split(widths, 1)]
    gs = [chunk.flatten(1) for chunk in g.split(widths, 1)]
    moments = None
    if given is None:
        moments = joined([centred_moments(flat, width) for flat, width in zip(flats, widths, strict=True)])
        affine = fold(W, moments, EPS)
    else:
        affine = fold_given(W, *given, EPS)
    A = affine.A if s is None else affine.A * s[:, None, None]
    y = torch.cat([mapped(flat, part) for flat, part in zip(flats, A.split(widths), strict=True)], 1).view_as(g)
    if affine.b is not None:
        y = y + (affine.b if s is None else affine.b * s[:, None])
    Q = torch.cat([products(*pair, width) for *pair, width in zip(gs, flats, widths, strict=True)])
    pulled = pull(W, affine, moments, Q, g.sum(0), s)
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    to_d = [
        pulled.input(part, flat, end - width, end)
        for part, flat, width, end in zip(gs, flats, widths, ends, strict=True)
    ]
    assert pulled.weight is not None
    found = {"y": y, "share": pulled.share.sum(-1), "W": pulled.weight, "d": torch.cat(to_d, 1).view_as(d)}
    return found | {"mean": affine.mean, "var": affine.var}


@pytest.mark.parametrize("widths", [[1], [2, 1], [3], [1, 1, 1]])
@pytest.mark.parametrize(("c", "k"), [(4, 4), (3, 6), (18, 18)])
@pytest.mark.parametrize("use", ["batch", "given", "no share"])
def test_the_chain_is_convolution_normalisation_and_share(c: int, k: int, widths: list[int], use: str, close) -> None:
    torch.manual_seed(c + len(widths))
    n, options = sum(widths), {"dtype": torch.float64}
    s, W, d = torch.rand(n, **options), torch.randn(n, c, k, **options), torch.randn(60, n, k, **options) + 0.5
    s = torch.ones_like(s) if use == "no share" else s
    g = torch.randn(60, n, c, **options)
    given = (torch.randn(n, c, **options), torch.rand(n, c, **options) + 0.5) if use == "given" else None
    leaves = [t.requires_grad_() for t in (s.clone(), W.clone(), d.clone())]
    y = plain(*leaves, given)
    slopes = dict(zip(("share", "W", "d"), torch.autograd.grad(y, leaves, g), strict=True))
    found = folded(None if use == "no share" else s, W, d, g, given, widths)
    for name, expected in {"y": y.detach(), **slopes}.items():
        close(found[name], expected)
    if given is None:
        output = torch.einsum("nck,pnk->pnc", W, d)
        close(found["mean"], output.mean(0))
        close(found["var"], output.var(0, correction=0))


def test_weights_are_left_out_where_they_are_not_wanted() -> None:
    moments = joined([centred_moments(torch.randn(9, 2), 1)])
    W = torch.randn(1, 3, 2)
    pulled = pull(W, fold(W, moments, EPS), moments, torch.randn(1, 3, 2), torch.randn(1, 3), None, weight=False)
    assert pulled.weight is None and pulled.share.shape == (1, 3)


def test_badly_centred_inputs_keep_their_digits(close) -> None:
    """A mean of 100 deviations: float32 must not lose the variance in a difference of squares."""
    torch.manual_seed(0)
    s, W = torch.rand(2), torch.randn(2, 8, 8)
    d, g = 100.0 + torch.randn(512, 2, 8), torch.randn(512, 2, 8)
    found = folded(s, W, d, g, None, [2])
    exact = folded(s.double(), W.double(), d.double(), g.double(), None, [2])
    for name, expected in exact.items():
        close(found[name].double(), expected, 1e-4)
