"""Compiled kernels for the CPU: explicit vectors (`vectors`), loops over an image (`loops`), phases that go through the
images of what leaves a state (`phases`), their table (`table`), threads (`team`), and compiled code kept (`compiled`).

They need numba, which is not required: without it everything is computed by torch alone.  The environment variable
DIFFNAS_KERNELS=torch leaves them out.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffnas.kernels.native.dense_table import DenseLayout
    from diffnas.kernels.native.table import Layout
    from diffnas.kernels.native.terms import DenseEdge, Term


def usable() -> bool:
    """Whether the kernels can be had, and are wanted."""
    return os.environ.get("DIFFNAS_KERNELS") != "torch" and lack() is None


def form() -> str:
    """What computes supernets on the CPU: `numba` or `torch`."""
    return "numba" if usable() else "torch"


def described() -> str:
    """`form`, in words."""
    if usable():
        import numba

        return f"compiled kernels (numba {numba.__version__})"
    return "torch alone: " + (lack() or "DIFFNAS_KERNELS=torch")


@functools.cache
def lack() -> str | None:
    """Why there are no kernels; None where there are."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return "numba is not installed"
    except Exception as error:  # noqa: BLE001 (a numba that does not fit this Python or numpy fails in its own ways)
        return f"numba cannot be loaded ({type(error).__name__}: {error})"
    try:
        from diffnas.kernels.native.compiled import kernel

        kernel("centre", 4, 4)
    except Exception as error:  # noqa: BLE001 (so does one that does not know this machine)
        return f"numba compiles nothing here ({type(error).__name__}: {error})"
    return None


def layout(
    shape: Sequence[int],
    dtype: torch.dtype,
    stride: int,
    terms: Sequence[Term],
    edges: int,
    training: bool,
    threads: int,
) -> Layout:
    """The layout of passes through what leaves a state (see `table`); only where the kernels are `usable`."""
    from diffnas.kernels.native.table import Layout

    return Layout(shape, dtype, stride, terms, edges, training, threads)


def dense_layout(
    x: Tensor, edges: Sequence[DenseEdge], fresh: Sequence[bool], of_batch: bool, threads: int
) -> DenseLayout:
    """The layout of passes through a state `x` of NAS-Bench-201 (see `dense_table`); only where kernels are `usable`."""
    from diffnas.kernels.native.dense_table import DenseLayout

    return DenseLayout(x.shape, x.dtype, edges, fresh, of_batch, threads)
