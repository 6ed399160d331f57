"""Pools of 3x3 pixels and their gradients, made like the functions in `loops`: what lies outside an image does not count."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffnas.kernels.native.loops import Kernel
from diffnas.kernels.native.vectors import (
    greatest,
    load,
    load_bytes,
    plus,
    pointer,
    spread,
    store,
    store_bytes,
    times,
    where_equal,
)


def max_pool(real: Any, lanes: int) -> Kernel:
    """The greatest of each 3x3 pixels and, as a byte, where it was."""

    def max_pool(x: int, o: int, where: int, h: int, width: int, stride: int, c: int) -> None:
        px, po = pointer(x, real), pointer(o, real)
        out_w = (width + stride - 1) // stride
        for i in range((h + stride - 1) // stride):
            top, bottom = max(0, 1 - i * stride), min(3, h + 1 - i * stride)
            for j in range(out_w):
                left, right = max(0, 1 - j * stride), min(3, width + 1 - j * stride)
                for b in range(0, c, lanes):
                    best, at = spread(real(-np.inf), lanes), spread(real(top * 3 + left), lanes)
                    for r in range(top, bottom):
                        for s in range(left, right):
                            value = load(px, ((i * stride + r - 1) * width + j * stride + s - 1) * c + b, lanes)
                            best, at = greatest(value, spread(real(r * 3 + s), lanes), best, at)
                    store(po, (i * out_w + j) * c + b, best)
                    store_bytes(where, (i * out_w + j) * c + b, at)

    return max_pool


def max_pool_gradient(real: Any, lanes: int) -> Kernel:
    """Adds to the gradient `o` to the image the gradient `g` to the pool."""

    def max_pool_gradient(g: int, where: int, o: int, h: int, width: int, stride: int, c: int) -> None:
        pg, po = pointer(g, real), pointer(o, real)
        out_w = (width + stride - 1) // stride
        for i in range((h + stride - 1) // stride):
            top, bottom = max(0, 1 - i * stride), min(3, h + 1 - i * stride)
            for j in range(out_w):
                left, right = max(0, 1 - j * stride), min(3, width + 1 - j * stride)
                for b in range(0, c, lanes):
                    slope = load(pg, (i * out_w + j) * c + b, lanes)
                    at = load_bytes(where, (i * out_w + j) * c + b, slope)
                    for r in range(top, bottom):
                        for s in range(left, right):
                            place = ((i * stride + r - 1) * width + j * stride + s - 1) * c + b
                            part = where_equal(at, spread(real(r * 3 + s), lanes), slope)
                            store(po, place, plus(load(po, place, lanes), part))

    return max_pool_gradient


def mean_pool(real: Any, lanes: int) -> Kernel:
    """The mean of each 3x3 pixels; those outside the image do not count."""

    def mean_pool(x: int, o: int, h: int, width: int, stride: int, c: int) -> None:
        px, po = pointer(x, real), pointer(o, real)
        out_w = (width + stride - 1) // stride
        for i in range((h + stride - 1) // stride):
            top, bottom = max(0, 1 - i * stride), min(3, h + 1 - i * stride)
            for j in range(out_w):
                left, right = max(0, 1 - j * stride), min(3, width + 1 - j * stride)
                share = spread(real(1.0 / ((bottom - top) * (right - left))), lanes)
                for b in range(0, c, lanes):
                    total = spread(real(0), lanes)
                    for r in range(top, bottom):
                        for s in range(left, right):
                            place = ((i * stride + r - 1) * width + j * stride + s - 1) * c + b
                            total = plus(total, load(px, place, lanes))
                    store(po, (i * out_w + j) * c + b, times(total, share))

    return mean_pool


def mean_pool_gradient(real: Any, lanes: int) -> Kernel:
    """Adds to the gradient `o` to the image the gradient `g` to the pool."""

    def mean_pool_gradient(g: int, o: int, h: int, width: int, stride: int, c: int) -> None:
        pg, po = pointer(g, real), pointer(o, real)
        out_w = (width + stride - 1) // stride
        for i in range((h + stride - 1) // stride):
            top, bottom = max(0, 1 - i * stride), min(3, h + 1 - i * stride)
            for j in range(out_w):
                left, right = max(0, 1 - j * stride), min(3, width + 1 - j * stride)
                share = spread(real(1.0 / ((bottom - top) * (right - left))), lanes)
                for b in range(0, c, lanes):
                    slope = times(load(pg, (i * out_w + j) * c + b, lanes), share)
                    for r in range(top, bottom):
                        for s in range(left, right):
                            place = ((i * stride + r - 1) * width + j * stride + s - 1) * c + b
                            store(po, place, plus(load(po, place, lanes), slope))

    return mean_pool_gradient
