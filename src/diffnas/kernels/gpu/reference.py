"""What the kernels compute, in PyTorch's own operations: for devices that have no Triton, and to test it against.

Letters: S sources, J images, T terms, E edges, P pixels, I runs of `rows` pixels, C channels.  Each function writes to its
last arguments.  With the mean m and the covariance K of an image d, a 1x1 kernel W and a share s (see `kernels.pointwise`),

    y = W d    A = W / sigma    sigma^2 = diag(W K W') + eps    an edge's sum = s A (d - m) + ...
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.kernels.gpu.layout import (
    BEGIN,
    CENTRE,
    CONSTANT,
    CONV,
    COPY,
    DILATION,
    END,
    FROM_D,
    FROM_G,
    IMAGE,
    INVERSE,
    KERNEL,
    KIND,
    MAP,
    MAX,
    NORMED,
    OFFSET,
    POINT,
    ROW,
    SHARE,
    SHIFT,
    SIDE,
    SPREAD,
    WHERE,
    YMEAN,
    YVAR,
)

_convolution_slopes = torch.ops.aten.convolution_backward
ONLY_INPUT = [True, False, False]


def expand(
    x: Tensor,
    shift: Tensor | None,
    flat: Tensor,
    images: Tensor,
    stride: int,
    rows: int,
    d: Tensor,
    where: Tensor,
    means: Tensor,
    squares: Tensor,
) -> None:
    """Makes images `d` [J, P, C] of sources `x` [S, N, H, W, C], one for all or one each, plus `shift` [J, C].

    `where` [., P, C]: which of 3x3 pixels was the largest; `means` [I, J, C] and `squares` [I, J, C, C]: the mean of a run
    of pixels and the sum of products of differences from it.
    """
    for j, image in enumerate(images.tolist()):
        source = _source(x, shift, j, flat.dtype)
        if image[KIND] == CONV:
            r = source.relu()[..., image[OFFSET] :, image[OFFSET] :]
            made = F.conv2d(r, _kernel(flat, image, r), None, stride, *_reach(image), r.shape[1])
        elif image[KIND] == COPY:
            made = source
        elif image[KIND] == MAX:
            made, at = F.max_pool2d(source, 3, stride, 1, return_indices=True)
            where[image[WHERE]].copy_(_rows(_taps(at, source, stride)))
        else:
            made = F.avg_pool2d(source, 3, stride, 1, count_include_pad=False)
        d[j].copy_(_rows(made))
        for i, run in enumerate(d[j].to(means.dtype).split(rows)):
            means[i, j], apart = run.mean(0), run - run.mean(0)
            squares[i, j] = apart.T @ apart


def fold(
    means: Tensor,
    squares: Tensor,
    flat: Tensor,
    terms: Tensor,
    shares: Tensor,
    given: Tensor | None,
    first: int,
    last: int,
    first_image: int,
    pixels: int,
    rows: int,
    eps: float,
    matrices: Tensor,
    vectors: Tensor,
) -> None:
    """Makes the maps of terms `first` to `last` - 1, of images from `first_image` on, from `means` and `squares` of `expand`.

    `given` [2, T, C] are running means and variances to normalise by (None: by the batch).  Writes `MAP` (s A)', `SPREAD`
    A K, and rows: `SHIFT`, what completes d `MAP`; `INVERSE`; `CENTRE`, the mean that the way back takes off; `YMEAN` and
    `YVAR`, the statistics by which running ones move.
    """
    counts = torch.tensor([min(rows, pixels - rows * i) for i in range(len(means))], dtype=means.dtype)
    counts = counts.to(means.device)[:, None, None]
    mean = (means * counts).sum(0) / pixels
    apart = means - mean
    cov = (squares.sum(0) + torch.einsum("ijk,ijl->jkl", apart * counts, apart)) / pixels
    table = terms.tolist()
    for t in range(first, last):
        term, j = table[t], table[t][IMAGE] - first_image
        W, s = _point(flat, term, mean.shape[-1]), _share(shares, term)
        spread, ymean = W @ cov[j], W @ mean[j]
        var = (spread * W).sum(-1).clamp_min(0.0)
        centre = mean[j]
        vectors[YMEAN, t], vectors[YVAR, t] = ymean, var * (pixels / max(pixels - 1, 1))
        if given is not None:
            ymean, var, centre = given[0, t], given[1, t], torch.zeros_like(centre)
        inverse = torch.rsqrt(var + eps)
        if not term[NORMED]:
            ymean, inverse, centre = torch.zeros_like(var), torch.ones_like(var), torch.zeros_like(centre)
        matrices[MAP, t] = (W * (inverse * s)[:, None]).T
        matrices[SPREAD, t] = spread * inverse[:, None]
        vectors[SHIFT, t], vectors[INVERSE, t], vectors[CENTRE, t] = -s * inverse * ymean, inverse, centre


def mix(d: Tensor, matrices: Tensor, vectors: Tensor, terms: Tensor, edges: Tensor, out: Tensor) -> None:
    """Sums up what the terms of each edge make of their images: `out` [E, P, C]."""
    listed, table = edges.tolist(), terms.tolist()
    for e in range(len(out)):
        total = torch.zeros_like(out[e], dtype=matrices.dtype)
        for t in listed[listed[e] : listed[e + 1]]:
            total += d[table[t][IMAGE]].to(total.dtype) @ matrices[MAP, t] + vectors[SHIFT, t]
        out[e].copy_(total)


def products(
    g: Tensor, d: Tensor, vectors: Tensor, terms: Tensor, first: int, rows: int, outer: Tensor, totals: Tensor
) -> None:
    """Sums over runs of pixels, for terms from `first` on: `outer` [I, T, C, C] of G (d - centre)', `totals` [I, T, C] of G."""
    table = terms.tolist()
    for n in range(totals.shape[1]):
        t = first + n
        slope = g[table[t][ROW]].to(totals.dtype).split(rows)
        image = (d[table[t][IMAGE]].to(totals.dtype) - vectors[CENTRE, t]).split(rows)
        for i, (a, b) in enumerate(zip(slope, image, strict=True)):
            outer[i, n], totals[i, n] = a.T @ b, a.sum(0)


def pull(
    outer: Tensor,
    totals: Tensor,
    flat: Tensor,
    terms: Tensor,
    shares: Tensor,
    given: Tensor | None,
    first: int,
    pixels: int,
    matrices: Tensor,
    vectors: Tensor,
    to_flat: Tensor,
    to_shares: Tensor,
) -> None:
    """The way back of `fold`, from `outer` and `totals` of `products`.

    The gradient to an image is, row by row, G `FROM_G` + (d - centre) `FROM_D` + `CONSTANT`, summed over its terms.
    `to_flat` and `to_shares` take the gradients of 1x1 kernels and shares; where they are empty, those are not wanted.
    """
    for n, term in enumerate(terms.tolist()[first : first + totals.shape[1]]):
        t = first + n
        Q, q = outer[:, n].sum(0), totals[:, n].sum(0)
        W, s, inverse = _point(flat, term, len(q)), _share(shares, term), vectors[INVERSE, t]
        A, scale = W * inverse[:, None], s * inverse
        by_batch, share = given is None and bool(term[NORMED]), (A * Q).sum(-1)
        if given is not None and term[NORMED]:
            share = share - given[0, t] * inverse * q
        if len(to_shares) and term[SHARE] >= 0:
            to_shares[term[SHARE]] += share.sum()
        own = share[:, None] * matrices[SPREAD, t] if by_batch else 0.0
        if len(to_flat):
            to_flat[term[POINT] : term[POINT] + W.numel()] = (scale[:, None] * (Q - own)).flatten()
        matrices[FROM_G, t] = from_g = W * scale[:, None]
        back = from_g / pixels if by_batch else torch.zeros_like(from_g)
        matrices[FROM_D, t] = -(back * share[:, None]).T @ A
        vectors[CONSTANT, t] = -(q @ back)


def slopes(
    g: Tensor, d: Tensor, matrices: Tensor, vectors: Tensor, images: Tensor, terms: Tensor, first: int, out: Tensor
) -> None:
    """The gradients `out` [n, P, C] to the images from `first` on."""
    listed, table = images.tolist(), terms.tolist()
    for n in range(len(out)):
        image = d[first + n].to(matrices.dtype)
        total = torch.zeros_like(image)
        for t in range(listed[first + n][BEGIN], listed[first + n][END]):
            slope, apart = g[table[t][ROW]].to(total.dtype), image - vectors[CENTRE, t]
            total += slope @ matrices[FROM_G, t] + apart @ matrices[FROM_D, t] + vectors[CONSTANT, t]
        out[n].copy_(total)


def kernel_slopes(
    slope: Tensor, x: Tensor, shift: Tensor | None, images: Tensor, stride: int, rows: int, taps: int, out: Tensor
) -> None:
    """The gradients of depthwise kernels, run by run of pixels: `out` [I, .], where the kernels stand in `flat`.

    `slope` [J, P, C] are those to the images, `x` and `shift` what they were made of; no kernel has more than `taps` numbers
    a channel.
    """
    for j, image in enumerate(images.tolist()):
        if image[KIND] != CONV or image[KERNEL] >= out.shape[1]:
            continue
        r = _source(x, shift, j, out.dtype).relu()
        windows = _windows(r, image[SIDE], stride, image[DILATION])  # [P, C, k k]
        found = slope[j].to(out.dtype)[..., None] * windows
        for i, run in enumerate(found.split(rows)):
            out[i, image[KERNEL] :][: run[0].numel()] = run.sum(0).flatten()


def state_slope(
    slope: Tensor,
    x: Tensor,
    shift: Tensor | None,
    where: Tensor,
    flat: Tensor,
    images: Tensor,
    stride: int,
    out: Tensor,
) -> None:
    """The gradient `out` [S, N, H, W, C] to the sources `x`, of which each has one image, or the only one all of them."""
    total = torch.zeros(out.shape, dtype=flat.dtype, device=out.device)
    for j, image in enumerate(images.tolist()):
        source = _source(x, shift, j, flat.dtype)
        n, c, h, w = source.shape
        g = slope[j].to(flat.dtype).view(n, -(-h // stride), -(-w // stride), c).permute(0, 3, 1, 2)
        if image[KIND] == CONV:
            r, o = source.relu(), image[OFFSET]
            cut = r[..., o:, o:]
            sizes = [[stride] * 2, *([each] * 2 for each in _reach(image))]
            back = _convolution_slopes(g, cut, _kernel(flat, image, r), None, *sizes, False, [0, 0], c, ONLY_INPUT)[0]
            found = F.pad(back, (o, 0, o, 0)) * (r > 0)
        elif image[KIND] == COPY:
            found = g
        else:
            found = _pool_slope(image, g, source, where, stride)
        total[0 if len(out) == 1 else j] += found.permute(0, 2, 3, 1)
    out.copy_(total)


def _pool_slope(image: list[int], g: Tensor, source: Tensor, where: Tensor, stride: int) -> Tensor:
    if image[KIND] != MAX:
        back: Tensor = torch.ops.aten.avg_pool2d_backward(g, source, [3, 3], [stride] * 2, [1, 1], False, False, None)
        return back
    n, c, h, w = source.shape
    taps = where[image[WHERE]].view(n, *g.shape[2:], c).permute(0, 3, 1, 2).flatten(2)
    spread = F.one_hot(taps.long(), 9).to(g.dtype) * g.flatten(2)[..., None]  # [N, C, P, 9]
    return F.fold(spread.transpose(2, 3).reshape(n, c * 9, -1), (h, w), 3, padding=1, stride=stride)


def _source(x: Tensor, shift: Tensor | None, j: int, dtype: torch.dtype) -> Tensor:
    """[N, C, H, W]: what image `j` is made of."""
    source = x[0 if len(x) == 1 else j].to(dtype)
    return (source if shift is None else source + shift[j]).permute(0, 3, 1, 2)


def _kernel(flat: Tensor, image: list[int], like: Tensor) -> Tensor:
    c, side = like.shape[1], image[SIDE]
    return flat[image[KERNEL] :][: c * side * side].view(c, 1, side, side)


def _reach(image: list[int]) -> tuple[int, int]:  # padding and dilation
    return image[DILATION] * (image[SIDE] // 2), image[DILATION]


def _point(flat: Tensor, term: list[int], c: int) -> Tensor:
    return flat[term[POINT] :][: c * c].view(c, c)


def _share(shares: Tensor, term: list[int]) -> Tensor:
    return shares[term[SHARE]] if term[SHARE] >= 0 else torch.ones_like(shares[0])


def _rows(x: Tensor) -> Tensor:  # [P, C]
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _taps(at: Tensor, source: Tensor, stride: int) -> Tensor:
    """Which of 3x3 pixels places `at` in an image are."""
    width = source.shape[3]
    top, left = (stride * torch.arange(n, device=at.device) - 1 for n in at.shape[2:])
    return 3 * (at // width - top[:, None]) + at % width - left


def _windows(r: Tensor, side: int, stride: int, dilation: int) -> Tensor:
    """[P, C, k k]: what each pixel of a convolution reads."""
    n, c = r.shape[:2]
    columns = F.unfold(r, side, dilation, dilation * (side // 2), stride).view(n, c, side * side, -1)
    return columns.permute(0, 3, 1, 2).reshape(-1, c, side * side)
