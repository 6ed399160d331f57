"""The algebra on small matrices between two phases of `dense_phases`, edge by edge, made like the functions in `algebra`.

With W the kernel of a 1x1 convolution of r, the mean of W r is W m and its variance diag(W cov W'), where m and cov are
those of r.  What is called a map is W, its rows divided by the deviations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffnas.kernels.native.algebra import number

from diffnas.kernels.native.dense_places import (  # isort: skip
    ALL_WEIGHTED, ALONG, BATCHES, BY_P, BY_X, BY_Z, C, COLUMN_SUMS, CONSTANT, CONSTANT_D, COVARIANCE, DZ_BY_G, DZ_BY_Z,
    DZ_CONSTANT, EDGE, EDGES, EPSILON, FROM_D, FROM_G, INVERSE, MAP, MAPS, MAP_TURNED, MEAN, MEANS, MEAN_OUT, MOMENTS,
    MOMENTUM, N, OF_BATCH, OUTER, PIXELS, POINT, POINTS, PRODUCT, PRODUCTS, ROWS, RUNNING_MEAN, RUNNING_VAR, SHARES,
    SHARE_CONV, SHARE_POINT, SHARE_POOL, SHARE_SKIP, SHARE_SKIP_2, SUMMED, SUMS, TO_POINT, TO_SHARES, TO_WEIGHTS, WEIGHTED,
    ZERO, Z_BATCHES, Z_EPSILON, Z_INVERSE, Z_MEAN, Z_MEANS, Z_MOMENTUM, Z_RUNNING_MEAN, Z_RUNNING_VAR, Z_SQUARES,
)  # fmt: skip
from diffnas.kernels.native.loops import Kernel
from diffnas.kernels.native.vectors import call, pointer, words


def fold_state(real: Any) -> Kernel:
    """The mean and the covariance of r, from those of each image about its own mean."""

    def fold_state(shared: int) -> None:
        w = words(shared)
        n, c = w[N], w[C]
        means, mean = pointer(w[MEANS], real), pointer(w[MEAN], real)
        cov, moments = pointer(w[COVARIANCE], real), pointer(w[MOMENTS], real)
        pixels, count = real(w[PIXELS]), real(n * w[PIXELS])
        call(w[COLUMN_SUMS], (w[MEANS], n, n, w[MEAN], c))
        for i in range(n):
            for k in range(c):
                means[i * c + k] -= mean[k]
        call(w[SUMMED], (w[MOMENTS], n, c * c))
        call(w[OUTER], (w[MEANS], c, w[MEANS], w[COVARIANCE], n, c))
        for at in range(c * c):
            cov[at] = (moments[at] + cov[at] * pixels) / count

    return fold_state


def fold_point(real: Any) -> Kernel:
    """The map of a 1x1 convolution, and what the mixture takes of it; moves the running statistics."""

    def fold_point(shared: int, edge: int) -> None:
        w, row = words(shared), words(edge)
        c, count = w[C], w[N] * w[PIXELS]
        W, A, B = pointer(row[POINT], real), pointer(row[MAP], real), pointer(row[MAP_TURNED], real)
        inverse, out = pointer(row[INVERSE], real), pointer(row[MEAN_OUT], real)
        s = pointer(w[SHARES], real)[row[SHARE_POINT]]
        running_mean, running_var = pointer(row[RUNNING_MEAN], real), pointer(row[RUNNING_VAR], real)
        epsilon, move = real(number(edge, EPSILON)), real(number(edge, MOMENTUM))
        if w[OF_BATCH] != 0:
            mean = pointer(w[MEAN], real)
            call(w[PRODUCT], (row[POINT], w[COVARIANCE], c, 0, 0, 0, w[ZERO], row[MAP], 1, c, c * c, c, c))
            for a in range(c):
                var = found = real(0)
                for k in range(c):
                    var += A[a * c + k] * W[a * c + k]
                    found += W[a * c + k] * mean[k]
                if var < real(0):
                    var = real(0)
                if row[RUNNING_MEAN] != 0:
                    running_mean[a] += move * (found - running_mean[a])
                    running_var[a] += move * (var * (real(count) / real(count - 1)) - running_var[a])
                inverse[a], out[a] = real(1) / np.sqrt(var + epsilon), found
            if row[RUNNING_MEAN] != 0:
                words(row[BATCHES])[0] += 1
        else:
            for a in range(c):
                inverse[a], out[a] = real(1) / np.sqrt(running_var[a] + epsilon), running_mean[a]
        constant = pointer(row[CONSTANT], real)
        for a in range(c):
            for k in range(c):
                A[a * c + k] = W[a * c + k] * inverse[a]
                B[k * c + a] = s * A[a * c + k]
            constant[a] -= s * out[a] * inverse[a]

    return fold_point


def fold_conv(real: Any) -> Kernel:
    """What the mixture takes of a 3x3 convolution; moves the running statistics."""

    def fold_conv(shared: int, edge: int) -> None:
        w, row = words(shared), words(edge)
        n, c, pixels = w[N], w[C], w[PIXELS]
        count = n * pixels
        mean, inverse, by = pointer(row[Z_MEAN], real), pointer(row[Z_INVERSE], real), pointer(row[BY_Z], real)
        s = pointer(w[SHARES], real)[row[SHARE_CONV]]
        running_mean, running_var = pointer(row[Z_RUNNING_MEAN], real), pointer(row[Z_RUNNING_VAR], real)
        epsilon, move = real(number(edge, Z_EPSILON)), real(number(edge, Z_MOMENTUM))
        if w[OF_BATCH] != 0:
            means, squares = pointer(row[Z_MEANS], real), pointer(row[Z_SQUARES], real)
            call(w[COLUMN_SUMS], (row[Z_MEANS], n, n, row[Z_MEAN], c))
            for a in range(c):
                near = far = real(0)
                for i in range(n):
                    apart = means[i * c + a] - mean[a]
                    near += squares[i * c + a]
                    far += apart * apart
                var = (near + far * real(pixels)) / real(count)
                if row[Z_RUNNING_MEAN] != 0:
                    running_mean[a] += move * (mean[a] - running_mean[a])
                    running_var[a] += move * (var * (real(count) / real(count - 1)) - running_var[a])
                inverse[a] = real(1) / np.sqrt(var + epsilon)
            if row[Z_RUNNING_MEAN] != 0:
                words(row[Z_BATCHES])[0] += 1
        else:
            for a in range(c):
                inverse[a], mean[a] = real(1) / np.sqrt(running_var[a] + epsilon), running_mean[a]
        constant = pointer(row[CONSTANT], real)
        for a in range(c):
            by[a] = s * inverse[a]
            constant[a] -= by[a] * mean[a]

    return fold_conv


def fold_share(real: Any) -> Kernel:
    """The shares of skip connections and of the pool, for every channel; clears the constant."""

    def fold_share(shared: int, edge: int) -> None:
        w, row = words(shared), words(edge)
        shares, constant = pointer(w[SHARES], real), pointer(row[CONSTANT], real)
        skip = pool = real(0)
        if row[SHARE_SKIP] >= 0:
            skip += shares[row[SHARE_SKIP]]
        if row[SHARE_SKIP_2] >= 0:
            skip += shares[row[SHARE_SKIP_2]]
        if row[SHARE_POOL] >= 0:
            pool = shares[row[SHARE_POOL]]
        for k in range(w[C]):
            constant[k] = real(0)
            if row[BY_X] != 0:
                pointer(row[BY_X], real)[k] = skip
            if row[BY_P] != 0:
                pointer(row[BY_P], real)[k] = pool

    return fold_share


def pull_share(real: Any) -> Kernel:
    """Sums what was weighed over the images, and with it the gradients of the shares of skip connections and pool."""

    def pull_share(shared: int, edge: int) -> None:
        w, row = words(shared), words(edge)
        c = w[C]
        call(w[SUMMED], (row[SUMS], w[N], 4 * c))
        sums, to_shares = pointer(row[SUMS], real), pointer(w[TO_SHARES], real)
        skip = pool = real(0)
        for k in range(c):
            skip += sums[c + k]
            pool += sums[2 * c + k]
        if row[SHARE_SKIP] >= 0:
            to_shares[row[SHARE_SKIP]] = skip
        if row[SHARE_SKIP_2] >= 0:
            to_shares[row[SHARE_SKIP_2]] = skip
        if row[SHARE_POOL] >= 0:
            to_shares[row[SHARE_POOL]] = pool

    return pull_share


def pull_point(real: Any) -> Kernel:
    """The way back of `fold_point`: the gradients of share and kernel, and the maps to the gradient to r."""

    def pull_point(shared: int, edge: int) -> None:
        w, row = words(shared), words(edge)
        c, of_batch = w[C], w[OF_BATCH] != 0
        A, Q, g = pointer(row[MAP], real), pointer(row[PRODUCTS], real), pointer(row[SUMS], real)
        inverse, out, mean = pointer(row[INVERSE], real), pointer(row[MEAN_OUT], real), pointer(w[MEAN], real)
        along = pointer(row[ALONG], real)
        s = pointer(w[SHARES], real)[row[SHARE_POINT]]
        count = real(w[N] * w[PIXELS])
        call(w[SUMMED], (row[PRODUCTS], w[N], c * c))
        whole = real(0)
        for a in range(c):
            found = real(0)
            for k in range(c):
                if of_batch:
                    Q[a * c + k] -= g[a] * mean[k]
                found += A[a * c + k] * Q[a * c + k]
            if not of_batch:
                found -= out[a] * inverse[a] * g[a]
            along[a] = found
            whole += found
        pointer(w[TO_SHARES], real)[row[SHARE_POINT]] = whole
        if w[TO_WEIGHTS] != 0:
            to_W = pointer(row[TO_POINT], real)
            if of_batch:
                call(w[PRODUCT], (row[MAP], w[COVARIANCE], c, 0, 0, 0, w[ZERO], row[TO_POINT], 1, c, c * c, c, c))
            for a in range(c):
                by = s * inverse[a]
                for k in range(c):
                    own = along[a] * to_W[a * c + k] if of_batch else real(0)
                    to_W[a * c + k] = by * (Q[a * c + k] - own)
        from_g, weighted = pointer(row[FROM_G], real), pointer(row[WEIGHTED], real)
        for a in range(c):
            by = along[a] / -count
            for k in range(c):
                from_g[a * c + k] = s * A[a * c + k]
                if of_batch:
                    weighted[a * c + k] = from_g[a * c + k] * by

    return pull_point


def pull_conv(real: Any) -> Kernel:
    """The way back of `fold_conv`: the gradient of the share, and the factors of that to the convolution."""

    def pull_conv(shared: int, edge: int) -> None:
        w, row = words(shared), words(edge)
        c = w[C]
        mean, inverse, g = pointer(row[Z_MEAN], real), pointer(row[Z_INVERSE], real), pointer(row[SUMS], real)
        by_g, by_z = pointer(row[DZ_BY_G], real), pointer(row[DZ_BY_Z], real)
        rest = pointer(row[DZ_CONSTANT], real)
        s = pointer(w[SHARES], real)[row[SHARE_CONV]]
        count = real(w[N] * w[PIXELS])
        whole = real(0)
        for a in range(c):
            along = inverse[a] * (g[3 * c + a] - mean[a] * g[a])
            whole += along
            by_g[a] = s * inverse[a]
            by_z[a] = rest[a] = real(0)
            if w[OF_BATCH] != 0:
                by_z[a] = by_g[a] * inverse[a] * along / -count
                rest[a] = by_g[a] * g[a] / -count - by_z[a] * mean[a]
        pointer(w[TO_SHARES], real)[row[SHARE_CONV]] = whole

    return pull_conv


def pull_state(real: Any) -> Kernel:
    """The map from r to its gradient, by the statistics of all 1x1 convolutions, and its constant."""

    def pull_state(shared: int) -> None:
        w = words(shared)
        c, count = w[C], real(w[N] * w[PIXELS])
        call(w[OUTER], (w[ALL_WEIGHTED], c, w[MAPS], w[FROM_D], w[POINTS] * c, c))
        mean, from_d, constant = pointer(w[MEAN], real), pointer(w[FROM_D], real), pointer(w[CONSTANT_D], real)
        for k in range(c):
            constant[k] = real(0)
        for e in range(w[EDGES]):
            row = words(w[ROWS] + 8 * EDGE * e)
            if row[FROM_G] != 0:
                from_g, g = pointer(row[FROM_G], real), pointer(row[SUMS], real)
                for a in range(c):
                    for k in range(c):
                        constant[k] -= from_g[a * c + k] * (g[a] / count)
        for a in range(c):
            for k in range(c):
                constant[k] -= mean[a] * from_d[a * c + k]

    return pull_state
