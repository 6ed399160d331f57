"""Explicit vectors for numba: what its own vectoriser does not find in plain loops.

numba cannot promise LLVM that two arrays do not overlap, so loops over channels stay scalar or are checked pixel by pixel
(a depthwise 3x3 convolution took 163 to 350 microseconds so, and takes 40 with these).  A `Vector` is a register of a
few neighbouring numbers; a "row" of vectors is a tuple of them that stays in registers.  All functions below are for use in
compiled code only.  Pointers are typed, places (`at`, `step`) count numbers, not bytes; `lanes` must be a constant.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic, models, register_model


class Vector(types.Type):
    """`lanes` numbers of `dtype` in a register."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        number = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, kind.lanes))


# ---- what the functions below are made of


def register(kind: Vector) -> ir.VectorType:
    """The type of a vector in LLVM."""
    return ir.VectorType(_number(kind.dtype), kind.lanes)


def _number(dtype: types.Type) -> ir.Type:
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def constant(kind: types.Type) -> int:
    """The value of a constant argument."""
    if not isinstance(kind, types.IntegerLiteral):
        raise RequireLiteralValue(f"{kind} is not a constant")
    return int(kind.literal_value)


def _place(b: Any, pointer: Any, at: Any, vector: ir.VectorType) -> Any:
    return b.bitcast(b.gep(pointer, [at]), vector.as_pointer())


def load_at(b: Any, pointer: Any, at: Any, vector: ir.VectorType) -> Any:
    """Emits a load."""
    return b.load(_place(b, pointer, at, vector), align=_align(vector))


def store_at(b: Any, value: Any, pointer: Any, at: Any) -> None:
    """Emits a store."""
    b.store(value, _place(b, pointer, at, value.type), align=_align(value.type))


def _align(vector: ir.VectorType) -> int:
    return 4 if isinstance(vector.element, ir.FloatType) else 8


def spread_out(b: Any, number: Any, vector: ir.VectorType) -> Any:
    """Emits a vector of one number."""
    first = b.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return b.shuffle_vector(first, ir.Constant(vector, ir.Undefined), places)


def fused(b: Any, x: Any, y: Any, total: Any) -> Any:
    """Emits x y + total, rounded once where the machine can."""
    name = f"llvm.fmuladd.v{x.type.count}f{32 if isinstance(x.type.element, ir.FloatType) else 64}"
    call = cgutils.get_or_insert_function(b.module, ir.FunctionType(x.type, [x.type] * 3), name)
    return b.call(call, [x, y, total])


def along(b: Any, at: Any, step: Any, i: int) -> Any:
    """Emits `at` + `i` steps."""
    return b.add(at, b.mul(step, ir.Constant(step.type, i)))


def zero(vector: ir.VectorType) -> Any:
    """The vector of zeros."""
    return ir.Constant(vector, None)


def positive(b: Any, x: Any) -> Any:
    """Where x is not 0 or less: where it is greater, or not a number."""
    return b.fcmp_unordered(">", x, zero(x.type))


# ---- pointers and calls


@intrinsic
def pointer(context: Any, address: Any, dtype: Any) -> Any:
    """The pointer to numbers of `dtype` at `address`."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        return b.inttoptr(given[0], _number(dtype.dtype).as_pointer())

    return types.CPointer(dtype.dtype)(types.intp, dtype), emit


@intrinsic
def words(context: Any, address: Any) -> Any:
    """The pointer to integers of 64 bits at `address`."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        return b.inttoptr(given[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.intp), emit


@intrinsic
def call(context: Any, address: Any, arguments: Any) -> Any:
    """Calls the function at `address`, which takes integers of 64 bits and returns nothing."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        word = ir.IntType(64)
        function = b.inttoptr(given[0], ir.FunctionType(ir.VoidType(), [word] * len(arguments)).as_pointer())
        b.call(function, [b.extract_value(given[1], i) for i in range(len(arguments))])
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(types.intp, arguments), emit


@intrinsic
def ask(context: Any, address: Any) -> Any:
    """What the C function `int f(void)` at `address` returns."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        function = b.inttoptr(given[0], ir.FunctionType(ir.IntType(32), []).as_pointer())
        return b.sext(b.call(function, []), ir.IntType(64))

    return types.int64(types.intp), emit


# ---- single vectors


@intrinsic
def load(context: Any, pointer: Any, at: Any, lanes: Any) -> Any:
    """The vector at `at`."""
    kind = Vector(pointer.dtype, constant(lanes))

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        return load_at(b, given[0], given[1], register(kind))

    return kind(pointer, types.intp, lanes), emit


@intrinsic
def spread(context: Any, number: Any, lanes: Any) -> Any:
    """The number in every lane."""
    kind = Vector(number, constant(lanes))

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        return spread_out(b, given[0], register(kind))

    return kind(number, lanes), emit


@intrinsic
def store(context: Any, pointer: Any, at: Any, value: Any) -> Any:
    """Writes a vector to `at`."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        store_at(b, given[2], given[0], given[1])
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(pointer, types.intp, value), emit


@intrinsic
def store_bytes(context: Any, address: Any, at: Any, value: Any) -> Any:
    """Writes a vector of whole numbers below 256 to `address` + `at`, a byte each."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        byte = ir.VectorType(ir.IntType(8), value.lanes)
        place = b.inttoptr(b.add(given[0], given[1]), byte.as_pointer())
        b.store(b.fptoui(given[2], byte), place, align=1)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.void(types.intp, types.intp, value), emit


@intrinsic
def load_bytes(context: Any, address: Any, at: Any, like: Any) -> Any:
    """What `store_bytes` wrote, as a vector of the kind of `like`."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        byte = ir.VectorType(ir.IntType(8), like.lanes)
        place = b.inttoptr(b.add(given[0], given[1]), byte.as_pointer())
        return b.uitofp(b.load(place, align=1), register(like))

    return like(types.intp, types.intp, like), emit


def _binary(emitted: Any) -> Any:
    """An intrinsic of two vectors of one kind."""

    @intrinsic
    def made(context: Any, x: Any, y: Any) -> Any:
        return x(x, y), lambda _, b, signature, given: emitted(b, *given)

    return made


plus = _binary(lambda b, x, y: b.fadd(x, y))
minus = _binary(lambda b, x, y: b.fsub(x, y))
times = _binary(lambda b, x, y: b.fmul(x, y))
where_positive = _binary(lambda b, x, y: b.select(positive(b, x), y, zero(y.type)))
"""y where x is not 0 or less, else 0."""


@intrinsic
def where_equal(context: Any, x: Any, y: Any, value: Any) -> Any:
    """`value` where x is y, else 0."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        return b.select(b.fcmp_ordered("==", given[0], given[1]), given[2], zero(given[2].type))

    return value(x, y, value), emit


@intrinsic
def fma(context: Any, x: Any, y: Any, total: Any) -> Any:
    """x y + total."""
    return x(x, y, total), lambda _, b, signature, given: fused(b, *given)


@intrinsic
def greatest(context: Any, x: Any, place: Any, best: Any, at: Any) -> Any:
    """(best, at), or (x, place) where x is greater than `best` or not a number."""

    def emit(_: Any, b: Any, signature: Any, given: Any) -> Any:
        x_, place_, best_, at_ = given
        taken = b.or_(b.fcmp_ordered(">", x_, best_), b.fcmp_unordered("uno", x_, x_))
        return cgutils.pack_array(b, [b.select(taken, x_, best_), b.select(taken, place_, at_)])

    return types.UniTuple(x, 2)(x, place, best, at), emit
