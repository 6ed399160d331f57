"""The algebra of pools and identities, made like that in `algebra`."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffnas.kernels.native.algebra import number
from diffnas.kernels.native.loops import Kernel
from diffnas.kernels.native.places import (
    BEGIN,
    CENTRED,
    COUNT,
    E_BATCHES,
    E_EPSILON,
    E_INVERSE,
    E_MOMENTUM,
    E_RUNNING_MEAN,
    E_RUNNING_VAR,
    E_SHARE_AT,
    E_SHIFT,
    E_TOTALS,
    EVEN,
    EVEN_ROWS,
    FACTOR,
    HO,
    OWN,
    OWN_SHIFT,
    P_MEANS,
    RESULT,
    SHARES,
    SQUARES,
    TO_SHARES,
    WO,
    C,
    N,
)  # fmt: skip
from diffnas.kernels.native.vectors import pointer, words


def fold_even(real: Any) -> Kernel:
    """The scale and the shift of an identity."""

    def fold_even(shared: int, even: int) -> None:
        w, row = words(shared), words(even)
        factor, shift = pointer(row[FACTOR], real), pointer(row[E_SHIFT], real)
        s = pointer(w[SHARES], real)[row[E_SHARE_AT]]
        for k in range(w[C]):
            factor[k] = s
        for at in range(w[N] * w[C]):
            shift[at] = real(0)

    return fold_even


def pull_even(real: Any) -> Kernel:
    """The gradient of the share of an identity."""

    def pull_even(shared: int, even: int) -> None:
        w, row = words(shared), words(even)
        result = pointer(row[RESULT], real)
        whole = real(0)
        for at in range(w[N] * w[C]):
            whole += result[at]
        pointer(w[TO_SHARES], real)[row[E_SHARE_AT]] = whole

    return pull_even


def fold_pool(real: Any) -> Kernel:
    """The scales and shifts of a pool on all edges, from the statistics of its image; moves the running statistics."""

    def fold_pool(shared: int, pool: int) -> None:
        w, p = words(shared), words(pool)
        n, c, pixels = w[N], w[C], w[HO] * w[WO]
        count = n * pixels
        means, squares = pointer(p[P_MEANS], real), pointer(p[SQUARES], real)
        for k in range(c):
            mean = var = real(0)
            if w[CENTRED] != 0:
                for i in range(n):
                    mean += means[i * c + k]
                mean /= real(n)
                for i in range(n):
                    apart = means[i * c + k] - mean
                    means[i * c + k] = apart
                    var += squares[i * c + k] + real(pixels) * apart * apart
                var /= real(count)
            for e in range(p[BEGIN], p[BEGIN] + p[COUNT]):
                even = w[EVEN_ROWS] + 8 * EVEN * e
                row = words(even)
                running_mean, running_var = pointer(row[E_RUNNING_MEAN], real), pointer(row[E_RUNNING_VAR], real)
                if w[CENTRED] == 0:
                    mean, var = running_mean[k], running_var[k]
                elif row[E_RUNNING_MEAN] != 0:
                    move = real(number(even, E_MOMENTUM))
                    running_mean[k] += move * (mean - running_mean[k])
                    running_var[k] += move * (var * (real(count) / real(count - 1)) - running_var[k])
                    if k == 0:
                        words(row[E_BATCHES])[0] += 1
                inverse = real(1) / np.sqrt(var + real(number(even, E_EPSILON)))
                s = pointer(w[SHARES], real)[row[E_SHARE_AT]]
                pointer(row[E_INVERSE], real)[k] = inverse
                pointer(row[FACTOR], real)[k] = s * inverse
                shift = pointer(row[E_SHIFT], real)
                for i in range(n):
                    if w[CENTRED] != 0:
                        shift[i * c + k] = s * inverse * means[i * c + k]
                    else:
                        shift[i * c + k] = -s * inverse * mean

    return fold_pool


def pull_pool(real: Any) -> Kernel:
    """The gradients of the shares of a pool, and what the gradient to its image has of that image."""

    def pull_pool(shared: int, pool: int) -> None:
        w, p = words(shared), words(pool)
        n, c = w[N], w[C]
        count = real(n * w[HO] * w[WO])
        means, own_shift = pointer(p[P_MEANS], real), pointer(p[OWN_SHIFT], real)
        to_shares = pointer(w[TO_SHARES], real)
        for e in range(p[BEGIN], p[BEGIN] + p[COUNT]):
            to_shares[words(w[EVEN_ROWS] + 8 * EVEN * e)[E_SHARE_AT]] = real(0)
        for k in range(c):
            own = constant = real(0)
            for e in range(p[BEGIN], p[BEGIN] + p[COUNT]):
                row = words(w[EVEN_ROWS] + 8 * EVEN * e)
                totals, result = pointer(row[E_TOTALS], real), pointer(row[RESULT], real)
                inverse, factor = pointer(row[E_INVERSE], real)[k], pointer(row[FACTOR], real)[k]
                q = share = real(0)
                for i in range(n):
                    q += totals[i * c + k]
                    share += result[i * c + k]
                    if w[CENTRED] != 0:
                        share += totals[i * c + k] * means[i * c + k]
                share *= inverse
                if w[CENTRED] == 0:
                    share -= pointer(row[E_RUNNING_MEAN], real)[k] * inverse * q
                to_shares[row[E_SHARE_AT]] += share
                own -= factor * inverse * share / count
                constant -= factor * q / count
            pointer(p[OWN], real)[k] = own
            for i in range(n):
                own_shift[i * c + k] = own * means[i * c + k] + constant

    return pull_pool
