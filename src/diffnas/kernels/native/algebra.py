"""The algebra on small matrices between two phases, term by term: what `kernels.pointwise` does in torch, and describes.

Statistics come image by image: an image is kept centred by its own means, and the rows at `MEANS` hold, once folded, how far
these lie from the batch's.  All functions are made like those in `loops`, but whatever the lanes; they read the table of
`phases`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float64, njit

from diffnas.kernels.native.loops import Kernel
from diffnas.kernels.native.places import (
    BATCHES,
    CENTRED,
    CONSTANT,
    COVARIANCE,
    EPSILON,
    FOLDED,
    FROM_D,
    FROM_G,
    HO,
    INVERSE,
    MAP,
    MEANS,
    MOMENTS,
    MOMENTUM,
    NOTES,
    OUTER,
    POINT,
    PRODUCT,
    PRODUCTS,
    RUNNING_MEAN,
    RUNNING_VAR,
    SHARE_AT,
    SHARES,
    SHIFT,
    SIZE,
    TO_POINT,
    TO_SHARES,
    TO_WEIGHTS,
    TOTALS,
    WO,
    ZERO,
    C,
    N,
)  # fmt: skip
from diffnas.kernels.native.vectors import call, pointer, words


@njit
def number(address: int, at: int) -> float:
    """The floating point number at a place in a row."""
    return pointer(address + 8 * at, float64)[0]


def fold(real: Any) -> Kernel:
    """The map of a pair, scaled by its share, from the moments of what enters it; moves the running statistics."""

    def fold(shared: int, pair: int) -> None:
        w, row = words(shared), words(pair)
        n, c, pixels = w[N], w[C], w[HO] * w[WO]
        W, A, B = pointer(row[POINT], real), pointer(row[FOLDED], real), pointer(row[MAP], real)
        inverse, means = pointer(row[INVERSE], real), pointer(row[MEANS], real)
        shift, cov = pointer(row[SHIFT], real), pointer(row[COVARIANCE], real)
        s = real(1) if row[SHARE_AT] < 0 else pointer(w[SHARES], real)[row[SHARE_AT]]
        epsilon, move = real(number(pair, EPSILON)), real(number(pair, MOMENTUM))
        count = n * pixels
        if w[CENTRED] != 0:
            mean = inverse  # until it is needed
            for k in range(c):
                mean[k] = real(0)
            for i in range(n):
                for k in range(c):
                    mean[k] += means[i * c + k]
            for k in range(c):
                mean[k] /= real(n)
            for i in range(n):
                for k in range(c):
                    means[i * c + k] -= mean[k]
            moments = pointer(row[MOMENTS], real)
            for i in range(1, n):
                for at in range(c * c):
                    moments[at] += moments[i * c * c + at]
            call(w[OUTER], (row[MEANS], c, row[MEANS], row[COVARIANCE], n, c))
            for at in range(c * c):
                cov[at] = (moments[at] + cov[at] * real(pixels)) / real(count)
            call(w[PRODUCT], (row[POINT], row[COVARIANCE], c, 0, 0, 0, w[ZERO], row[FOLDED], 1, c, c * c, c, c))
            # the running statistics need the means of what leaves the pair before `inverse` is written over
            if row[RUNNING_MEAN] != 0:
                running = pointer(row[RUNNING_MEAN], real)
                for a in range(c):
                    found = real(0)
                    for k in range(c):
                        found += W[a * c + k] * mean[k]
                    running[a] += move * (found - running[a])
                words(row[BATCHES])[0] += 1
            for a in range(c):
                var = real(0)
                for k in range(c):
                    var += A[a * c + k] * W[a * c + k]
                if var < real(0):
                    var = real(0)
                if row[RUNNING_MEAN] != 0:
                    running = pointer(row[RUNNING_VAR], real)
                    running[a] += move * (var * (real(count) / real(count - 1)) - running[a])
                inverse[a] = real(1) / np.sqrt(var + epsilon)
        else:
            running = pointer(row[RUNNING_VAR], real)
            for a in range(c):
                inverse[a] = real(1) / np.sqrt(running[a] + epsilon)
        for a in range(c):
            for k in range(c):
                A[a * c + k] = W[a * c + k] * inverse[a]
                B[k * c + a] = s * A[a * c + k]
        if w[CENTRED] != 0:
            call(w[PRODUCT], (row[MEANS], row[MAP], c, 0, 0, 0, w[ZERO], row[SHIFT], 1, n, n * c, c, c))
        else:
            given = pointer(row[RUNNING_MEAN], real)
            for i in range(n):
                for a in range(c):
                    shift[i * c + a] = -s * given[a] * inverse[a]

    return fold


def pull(real: Any) -> Kernel:
    """The way back of `fold`: the gradients of share and 1x1 kernel, and the maps to the gradient to what entered the pair."""

    def pull(shared: int, pair: int) -> None:
        w, row = words(shared), words(pair)
        n, c = w[N], w[C]
        count = real(n * w[HO] * w[WO])
        W, A, inverse = pointer(row[POINT], real), pointer(row[FOLDED], real), pointer(row[INVERSE], real)
        Q, totals = pointer(row[PRODUCTS], real), pointer(row[TOTALS], real)
        from_g, from_d = pointer(row[FROM_G], real), pointer(row[FROM_D], real)
        s = real(1) if row[SHARE_AT] < 0 else pointer(w[SHARES], real)[row[SHARE_AT]]
        for i in range(1, n):
            for at in range(c * c):
                Q[at] += Q[i * c * c + at]
        q = pointer(row[CONSTANT], real)  # its first row, until it is needed
        for a in range(c):
            q[a] = real(0)
        for i in range(n):
            for a in range(c):
                q[a] += totals[i * c + a]
        if w[CENTRED] != 0:
            call(w[OUTER], (row[TOTALS], c, row[MEANS], row[FROM_D], n, c))
            for at in range(c * c):
                Q[at] += from_d[at]
        share = pointer(row[NOTES], real)
        whole = real(0)
        for a in range(c):
            found = real(0)
            for k in range(c):
                found += A[a * c + k] * Q[a * c + k]
            if w[CENTRED] == 0:
                found -= pointer(row[RUNNING_MEAN], real)[a] * inverse[a] * q[a]
            share[a] = found
            whole += found
        if row[SHARE_AT] >= 0:
            pointer(w[TO_SHARES], real)[row[SHARE_AT]] = whole
        if w[TO_WEIGHTS] != 0:
            found_W = pointer(row[TO_POINT], real)
            if w[CENTRED] != 0:
                call(w[PRODUCT], (row[FOLDED], row[COVARIANCE], c, 0, 0, 0, w[ZERO], row[TO_POINT], 1, c, c * c, c, c))
            for a in range(c):
                by = s * inverse[a]
                for k in range(c):
                    own = share[a] * found_W[a * c + k] if w[CENTRED] != 0 else real(0)
                    found_W[a * c + k] = by * (Q[a * c + k] - own)
        for a in range(c):
            for k in range(c):
                from_g[a * c + k] = W[a * c + k] * inverse[a] * s
        if w[CENTRED] == 0:
            for at in range(n * c):
                q[at] = real(0)
            return
        constant = pointer(row[NOTES] + w[SIZE] * c, real)
        for k in range(c):
            constant[k] = real(0)
        for a in range(c):
            for k in range(c):
                constant[k] -= from_g[a * c + k] * (q[a] / count)
        for a in range(c):
            by = share[a] / count
            for k in range(c):
                Q[a * c + k] = -A[a * c + k] * by
        call(w[OUTER], (row[PRODUCTS], c, row[FROM_G], row[FROM_D], c, c))
        here = row[NOTES] + w[SIZE] * c
        call(w[PRODUCT], (row[MEANS], row[FROM_D], c, 0, 0, 0, here, row[CONSTANT], 1, n, n * c, c, c))

    return pull
