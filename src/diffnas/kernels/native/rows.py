"""Rows of vectors, for numba: tuples of a few that stay in registers while a loop adds to all of them (see `vectors`)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from diffnas.kernels.native.vectors import (
    along,
    constant,
    fused,
    load_at,
    positive,
    register,
    spread_out,
    store_at,
    zero,
)


@intrinsic
def row(context: Any, value: Any, count: Any) -> Any:
    """A row of `count` copies of a vector."""
    n = constant(count)
    return types.UniTuple(value, n)(value, count), lambda _, b, signature, given: cgutils.pack_array(b, [given[0]] * n)


@intrinsic
def load_row(context: Any, pointer: Any, at: Any, step: Any, like: Any) -> Any:
    """The row of the kind of `like` whose vectors stand `step` apart."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        p, at_, step_, _like = given
        kind = register(like.dtype)
        return cgutils.pack_array(b, [load_at(b, p, along(b, at_, step_, i), kind) for i in range(like.count)])

    return like(pointer, types.intp, types.intp, like), emit


@intrinsic
def store_row(context: Any, pointer: Any, at: Any, step: Any, values: Any) -> Any:
    """Writes a row, its vectors `step` apart."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        p, at_, step_, row_ = given
        for i in range(values.count):
            store_at(b, b.extract_value(row_, i), p, along(b, at_, step_, i))
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(pointer, types.intp, types.intp, values), emit


@intrinsic
def add_numbers(context: Any, total: Any, pointer: Any, at: Any, step: Any, value: Any) -> Any:
    """Adds to each vector of a row `value` times a number; the numbers stand `step` apart."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        row_, p, at_, step_, v = given
        numbers = [b.load(b.gep(p, [along(b, at_, step_, i)])) for i in range(total.count)]
        sums = [fused(b, spread_out(b, x, v.type), v, b.extract_value(row_, i)) for i, x in enumerate(numbers)]
        return cgutils.pack_array(b, sums)

    return total(total, pointer, types.intp, types.intp, value), emit


@intrinsic
def add_vectors(context: Any, total: Any, pointer: Any, at: Any, step: Any, value: Any) -> Any:
    """Adds to each vector of a row `value` times a vector; those stand `step` apart."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        row_, p, at_, step_, v = given
        loaded = [load_at(b, p, along(b, at_, step_, i), v.type) for i in range(total.count)]
        return cgutils.pack_array(b, [fused(b, x, v, b.extract_value(row_, i)) for i, x in enumerate(loaded)])

    return total(total, pointer, types.intp, types.intp, value), emit


@intrinsic
def add_taps(
    context: Any, total: Any, x: Any, at: Any, w: Any, place: Any, c: Any, k: Any, stride: Any, dilation: Any
) -> Any:
    """Adds one row of a depthwise kernel to a row of neighbouring output pixels.

    `k` weights from `place` on and the pixels from `at` on stand `c` numbers apart; every pixel is read once.
    """
    size, apart, wide = constant(k), constant(stride), constant(dilation)

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        row_, x_, at_, w_, place_, c_ = given[:6]
        kind = register(total.dtype)
        sums = [b.extract_value(row_, i) for i in range(total.count)]
        pixels: dict[int, Any] = {}
        for tap in range(size):
            weight = load_at(b, w_, along(b, place_, c_, tap), kind)
            for i in range(total.count):
                pixel = i * apart + tap * wide
                if pixel not in pixels:
                    pixels[pixel] = load_at(b, x_, along(b, at_, c_, pixel), kind)
                sums[i] = fused(b, pixels[pixel], weight, sums[i])
        return cgutils.pack_array(b, sums)

    return total(total, x, types.intp, w, types.intp, types.intp, k, stride, dilation), emit


@intrinsic
def plus_row(context: Any, x: Any, y: Any) -> Any:
    """The sums of two rows."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        pairs = [(b.extract_value(given[0], i), b.extract_value(given[1], i)) for i in range(x.count)]
        return cgutils.pack_array(b, [b.fadd(*pair) for pair in pairs])

    return x(x, y), emit


@intrinsic
def where_positive_row(context: Any, x: Any, y: Any) -> Any:
    """y where x is not 0 or less, else 0, vector by vector."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        pairs = [(b.extract_value(given[0], i), b.extract_value(given[1], i)) for i in range(x.count)]
        return cgutils.pack_array(b, [b.select(positive(b, u), v, zero(v.type)) for u, v in pairs])

    return x(x, y), emit
