"""What leaves a state by compiled kernels: one pass over the images for all ops of all edges, and one back.

For an edge with shares s, where r is the state's ReLU, p its pool and z = conv3x3(r):

    y = s_1 norm(W r) + s_3 norm(z) + s_s x + s_p p

The 1x1 convolution is never written down: the mean of W r is W m and its variance diag(W cov W'), where m and cov are those
of r, so y = r B + ... with B = s_1 W' / std.  The gradient comes back in the same way.  The 3x3 convolutions of all edges
are one convolution of the library.  It can be differentiated once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.kernels import native
from diffnas.kernels.native import dense_places as places

if TYPE_CHECKING:
    from diffnas.kernels.native.dense_table import DenseTable

POINT, CONV, POOL = "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"
SKIPS = ("skip_connect", "auxiliary_skip")


@dataclass(frozen=True)
class EdgeTerms:
    """The live ops of an edge: the layers of its convolutions (None: not there), and the columns of the shares of all."""

    edge: int
    point: nn.Sequential | None
    conv: nn.Sequential | None
    columns: Mapping[str, int]

    @property
    def skips(self) -> list[int]:
        """The columns of its skip connections."""
        return [self.columns[name] for name in SKIPS if name in self.columns]


class StateTerms:
    """All that leaves a state, edge by edge; `points`, `convs`, `skips` and `pools` are places among `edges`.

    `columns` is the number of ops.
    """

    def __init__(self, edges: Sequence[EdgeTerms], columns: int) -> None:
        self.edges = edges
        self.points = [i for i, edge in enumerate(edges) if edge.point is not None]
        self.convs = [i for i, edge in enumerate(edges) if edge.conv is not None]
        self.skips = [i for i, edge in enumerate(edges) if edge.skips]
        self.pools = [i for i, edge in enumerate(edges) if POOL in edge.columns]
        self.point_layers = [edge.point for edge in edges if edge.point is not None]
        self.conv_layers = [edge.conv for edge in edges if edge.conv is not None]
        self._shares = {
            name: _places([edge.edge * columns + edge.columns[name] for edge in edges if name in edge.columns])
            for name in (POINT, CONV, POOL)
        }
        skips = [(k, edges[i].edge * columns + column) for k, i in enumerate(self.skips) for column in edges[i].skips]
        self._skip_of = _places([k for k, _ in skips])
        self._skip_shares = _places([place for _, place in skips])
        self._sources = _places([4 * self.skips[k] + 1 for k, _ in skips])
        self._pool_sources = _places([4 * i + 2 for i in self.pools])
        self._templates: dict[Any, Any] = {}

    def table(self, x: Tensor, fresh: Sequence[bool]) -> DenseTable:
        """A table for a pass."""
        key = (x.shape, x.dtype, tuple(fresh), torch.get_num_threads())
        if key not in self._templates:
            sizes = len(self.edges), len(self.convs)
            self._templates[key] = native.dense_template(x, *sizes, fresh, torch.get_num_threads())
        table: DenseTable = self._templates[key].begin(x)
        return table

    @property
    def weights(self) -> list[Tensor]:
        """The kernels: those of 1x1 convolutions, then of 3x3 ones."""
        return [layer.get_parameter("1.weight") for layer in (*self.point_layers, *self.conv_layers)]

    def shares_of(self, shares: Tensor, name: str) -> Tensor:
        """[k]: the shares [E, O] of all ops of that name, in the order of the edges."""
        return shares.reshape(-1).index_select(0, self._shares[name])

    def shares_of_skips(self, shares: Tensor) -> Tensor:
        """[k]: the shares of the skip connections of each edge that has some, summed."""
        found = shares.reshape(-1).index_select(0, self._skip_shares)
        return (
            found
            if len(found) == len(self.skips)
            else found.new_zeros(len(self.skips)).index_add_(0, self._skip_of, found)
        )

    def slopes_of_shares(self, like: Tensor, sums: Tensor, points: Tensor | None, convs: Tensor | None) -> Tensor:
        """[E, O]: the gradients of the shares; `sums` [E, 4] has those of skip connections and pools at 1 and 2."""
        slopes = torch.zeros_like(like)
        flat, each = slopes.view(-1), sums.reshape(-1)
        for name, values in ((POINT, points), (CONV, convs)):
            if values is not None:
                flat.index_copy_(0, self._shares[name], values)
        if self.skips:
            flat.index_copy_(0, self._skip_shares, each.index_select(0, self._sources))
        if self.pools:
            flat.index_copy_(0, self._shares[POOL], each.index_select(0, self._pool_sources))
        return slopes


def _places(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def fits(x: Tensor, edges: Sequence[EdgeTerms]) -> bool:
    """Whether there are kernels for these numbers on this machine."""
    layers = [layer for edge in edges for layer in (edge.point, edge.conv) if layer is not None]
    norms = [layer[2] for layer in layers]
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.shape[1] % 4 == 0
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and native.usable()
        and all(layer[1].weight.dtype == x.dtype for layer in layers)
        and all(isinstance(norm, nn.BatchNorm2d) and norm.momentum is not None and not norm.affine for norm in norms)
    )


def mix(x: Tensor, shares: Tensor, terms: StateTerms, sums: Sequence[Tensor | None]) -> Sequence[Tensor]:
    """Adds to `sums` [N, C, H, W], of the nodes that the edges lead to (None: nothing so far), what flows along the edges.

    `x` is the state in channels-last memory, `shares` [E, O] those of all edges of the cell.
    """
    given = [each for each in sums if each is not None]
    fresh = [each is None for each in sums]
    return _Mix.apply(x, shares, terms, fresh, *terms.weights, *given)


@dataclass(frozen=True)
class Norms:
    """What normalisations divide by and subtract, [k, C] both, and whether these are a batch's."""

    mean: Tensor
    inverse: Tensor
    of_batch: bool


def batch_statistics(layers: Sequence[nn.Sequential]) -> bool:
    """Whether normalisations use the batch's statistics."""
    return bool(layers) and (layers[0][2].training or layers[0][2].running_mean is None)


def normalised_by(layers: Sequence[nn.Sequential], mean: Tensor, var: Tensor, count: int) -> Norms:
    """The statistics `mean` and `var` [k, C] of a batch as `layers` use them; the running ones are moved."""
    norms: list[Any] = [layer[2] for layer in layers]
    if count < 2:
        raise ValueError("Expected more than 1 value per channel when training, got 1")  # as torch says it
    if norms[0].training and norms[0].track_running_stats and norms[0].running_mean is not None:
        move = norms[0].momentum
        torch._foreach_lerp_([norm.running_mean for norm in norms], list(mean.unbind()), move)
        unbiased = var * (count / (count - 1))
        torch._foreach_lerp_([norm.running_var for norm in norms], list(unbiased.unbind()), move)
        torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    return Norms(mean, torch.rsqrt(var + norms[0].eps), True)


def given_norms(layers: Sequence[nn.Sequential]) -> Norms:
    """The running statistics of `layers`."""
    norms: list[Any] = [layer[2] for layer in layers]
    mean, var = (torch.stack([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var"))
    return Norms(mean, torch.rsqrt(var + norms[0].eps), False)


def _images(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.channels_last)


class _Mix(torch.autograd.Function):
    """`mix`: what is saved are the state, its pool, the 3x3 convolutions, and small matrices."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shares: Tensor, terms: StateTerms, fresh: Sequence[bool], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        n, c, h, width = x.shape
        count = n * h * width
        points, convs = terms.point_layers, terms.conv_layers
        sums = list(tensors[len(points) + len(convs) :])
        old = iter(sums)
        outputs = [_images(x) if new else next(old) for new in fresh]
        r = x.relu() if points or convs else x
        z = _convolved(r, terms)
        pooled = _images(x) if terms.pools else None
        table = terms.table(x, fresh)
        table.put(places.R, r)
        if pooled is not None:
            table.put(places.POOLED, pooled)
        if z is not None:
            table.put_rows(places.Z, terms.convs, z, c)
        of_batch = batch_statistics(points or convs)
        if of_batch:
            means = x.new_empty(n, c)
            products = x.new_empty(n, c, c)
            z_moments = x.new_empty(2, len(convs), n, c)
            if points:
                table.put(places.MEANS, means)
                table.put(places.MOMENTS, products)
            table.put_rows(places.Z_MEANS, terms.convs, z_moments[0])
            table.put_rows(places.Z_SQUARES, terms.convs, z_moments[1])
        table.run("dense_survey")
        constant = x.new_zeros(len(terms.edges), c)
        mean = cov = point_norms = conv_norms = maps = None
        if points:
            weights = torch.stack([layer.get_parameter("1.weight").detach().view(c, c) for layer in points])
            if of_batch:
                mean, cov = _moments(means, products, count)
                var = ((weights @ cov) * weights).sum(2).clamp_min_(0.0)
                point_norms = normalised_by(points, weights @ mean, var, count)
            else:
                point_norms = given_norms(points)
            s = terms.shares_of(shares, POINT)[:, None]
            maps = weights * point_norms.inverse[:, :, None]  # [k, out, in]
            table.put_rows(places.MAP, terms.points, (s[:, :, None] * maps).transpose(1, 2).contiguous())
            _subtract(constant, terms.points, s * point_norms.mean * point_norms.inverse)
        if convs:
            if of_batch:
                middle = z_moments[0].mean(1)
                far = (z_moments[0] - middle[:, None]).square_().sum(1) * (h * width)
                conv_norms = normalised_by(convs, middle, (z_moments[1].sum(1) + far) / count, count)
            else:
                conv_norms = given_norms(convs)
            by_z = terms.shares_of(shares, CONV)[:, None] * conv_norms.inverse
            table.put_rows(places.BY_Z, terms.convs, by_z)
            _subtract(constant, terms.convs, by_z * conv_norms.mean)
        _put_evens(table, terms, shares, c)
        table.put_each(places.Y, outputs)
        table.put_rows(places.CONSTANT, range(len(terms.edges)), constant)
        table.run("dense_blend")
        ctx.mark_dirty(*sums)
        ctx.terms, ctx.fresh, ctx.norms = terms, fresh, (point_norms, conv_norms)
        ctx.save_for_backward(x, shares, z, pooled, mean, cov, maps, *tensors[: len(points) + len(convs)])
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, shares, z, pooled, mean, cov, maps, *weights = ctx.saved_tensors
        terms, (point_norms, conv_norms) = ctx.terms, ctx.norms
        n, c, h, width = x.shape
        count, edges = n * h * width, len(terms.edges)
        slopes = [grad.contiguous(memory_format=torch.channels_last) for grad in grads]
        wants_state, wants_weights = ctx.needs_input_grad[0], any(ctx.needs_input_grad[4 : 4 + len(weights)])
        r = x.relu() if weights else x
        table = terms.table(x, ctx.fresh)
        sums = x.new_empty(edges, n, 4, c)
        table.put(places.R, r)
        if pooled is not None:
            table.put(places.POOLED, pooled)
        if z is not None:
            table.put_rows(places.Z, terms.convs, z, c)
        _put_evens(table, terms, shares, c)
        table.put_each(places.G, slopes)
        table.put_rows(places.SUMS, range(edges), sums)
        products = x.new_empty(len(terms.points), n, c, c)
        table.put_rows(places.PRODUCTS, terms.points, products)
        table.run("dense_weigh")
        found = sums.sum(1)  # [E, 4, C]
        share_slopes: dict[str, Tensor | None] = {POINT: None, CONV: None}
        to_points: list[Tensor | None] = [None] * len(terms.points)
        to_convs: list[Tensor | None] = [None] * len(terms.convs)
        dr = None
        if terms.points:
            s, g = terms.shares_of(shares, POINT)[:, None, None], _rows(found[:, 0], terms.points, edges)
            q = products.sum(1)  # [k, out, in]
            if point_norms.of_batch:
                q = torch.addcmul(q, g[:, :, None], mean, value=-1)
            along = (maps * q).sum(2)
            if not point_norms.of_batch:
                along = along - point_norms.mean * point_norms.inverse * g
            share_slopes[POINT] = along.sum(1)
            if wants_weights:
                own = torch.addcmul(q, along[:, :, None], maps @ cov, value=-1) if point_norms.of_batch else q
                by = s * point_norms.inverse[:, :, None]
                to_points = list((by * own).view(-1, c, c, 1, 1).unbind())
            if wants_state:
                from_g = s * maps
                table.put_rows(places.FROM_G, terms.points, from_g)
                if point_norms.of_batch:
                    weighted = from_g * (along / -count)[:, :, None]
                    from_d = weighted.view(-1, c).T @ maps.view(-1, c)
                    constant_d = (g / -count).view(-1) @ from_g.view(-1, c) - mean @ from_d
                    table.put(places.FROM_D, from_d)
                    table.put(places.CONSTANT_D, constant_d)
        if terms.convs:
            s, g = terms.shares_of(shares, CONV)[:, None], _rows(found[:, 0], terms.convs, edges)
            inverse, middle = conv_norms.inverse, conv_norms.mean
            along = inverse * (_rows(found[:, 3], terms.convs, edges) - middle * g)
            share_slopes[CONV] = along.sum(1)
            if wants_state or wants_weights:
                by_g = s * inverse
                by_z = by_g * inverse * along / -count if conv_norms.of_batch else torch.zeros_like(by_g)
                rest = by_g * g / -count - by_z * middle if conv_norms.of_batch else by_z
                dz = torch.empty_like(z)
                table.put_rows(places.DZ, terms.convs, dz, c)
                for place, factors in ((places.DZ_BY_G, by_g), (places.DZ_BY_Z, by_z), (places.DZ_CONSTANT, rest)):
                    table.put_rows(place, terms.convs, factors)
                table.run("dense_to_conv")
                none, one, mask = [0, 0], [1, 1], [wants_state, wants_weights, False]
                kernels = _joined(terms)
                dr, dw, _ = torch.ops.aten.convolution_backward(
                    dz, r, kernels, None, one, one, one, False, none, 1, mask
                )
                if wants_weights:
                    to_convs = list(dw.split(c))
        dx = None
        if wants_state:
            dr = torch.zeros_like(x) if dr is None else dr.contiguous(memory_format=torch.channels_last)
            dx = _images(x)
            table.put(places.DR, dr)
            table.put(places.DX, dx)
            table.run("dense_to_state")
        to_shares = terms.slopes_of_shares(shares, found.sum(2), share_slopes[POINT], share_slopes[CONV])
        old = [grad for grad, new in zip(grads, ctx.fresh, strict=True) if not new]
        return (dx, to_shares, None, None, *to_points, *to_convs, *old)


def _rows(values: Tensor, edges: Sequence[int], count: int) -> Tensor:
    """The rows of `edges`, without a copy where these are all."""
    return values if len(edges) == count else values[list(edges)]


def _subtract(constant: Tensor, edges: Sequence[int], values: Tensor) -> None:
    if len(edges) == len(constant):
        constant.sub_(values)
    else:
        constant[list(edges)] -= values


def _joined(terms: StateTerms) -> Tensor:
    """[k C, C, 3, 3]: the kernels of all 3x3 convolutions."""
    kernels = [layer.get_parameter("1.weight").detach() for layer in terms.conv_layers]
    return kernels[0] if len(kernels) == 1 else torch.cat(kernels)


def _convolved(r: Tensor, terms: StateTerms) -> Tensor | None:
    """[N, k C, H, W]: the 3x3 convolutions of all edges, side by side; None where there are none."""
    if not terms.convs:
        return None
    return F.conv2d(r, _joined(terms), padding=1).contiguous(memory_format=torch.channels_last)


def _put_evens(table: DenseTable, terms: StateTerms, shares: Tensor, c: int) -> None:
    """Puts the shares of skip connections and pools, [C] each."""
    for place, edges, values in (
        (places.BY_X, terms.skips, terms.shares_of_skips(shares)),
        (places.BY_P, terms.pools, terms.shares_of(shares, POOL)),
    ):
        table.put_rows(place, edges, values[:, None].repeat(1, c))


def _moments(means: Tensor, products: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean [C] and covariance [C, C] over all images of what has `means` [N, C] and centred `products` [N, C, C]."""
    mean = means.mean(0)
    apart = means - mean
    return mean, (products.sum(0) + (apart.T @ apart) * (count // len(means))) / count
