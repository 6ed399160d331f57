"""Kernels as addresses of machine code: compiled when they are first asked for, and kept for the next process.

Compiled code is kept in a folder of the user's, in files that say in their name what they were made from.  It is read only
from a folder that nobody else can write to; where there is none, or a file cannot be used, a kernel is compiled again.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config, types
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from diffnas.kernels.native import (
    algebra,
    dense,
    dense_algebra,
    dense_phases,
    loops,
    phases,
    pixels,
    pool_algebra,
    pools,
)
from diffnas.kernels.own_cache import folder_for, only_mine

REALS = {4: numba.float32, 8: numba.float64}
"""The number types by their bytes."""
MODULES = (loops, pixels, pools, dense)
ALGEBRA = (algebra, pool_algebra, dense_algebra)
"""What treats numbers one by one: compiled once, whatever the lanes."""
OPTIONS = {"nopython": True, "error_model": "numpy", "boundscheck": False}


@functools.cache
def register_bytes() -> int:
    """How many bytes a vector register has (where there are shorter ones, two of them do)."""
    features = cpu_target.target_context.codegen()._get_host_cpu_features()
    return 64 if "+avx512f" in features.split(",") else 32


def lanes(channels: int, size: int) -> int:
    """How many numbers of `size` bytes are worked on at a time, of `channels` (a multiple of 4)."""
    most = register_bytes() // size
    return next(n for n in (16, 8, 4) if n <= most and channels % n == 0)


@functools.cache
def kernel(name: str, size: int, lanes: int, *constants: int) -> int:
    """The address of a function of one of `MODULES` or `ALGEBRA`, made for numbers of `size` bytes."""
    if _is_algebra(name) and lanes != 1:
        return kernel(name, size, 1)
    module = next(each for each in (*ALGEBRA, *MODULES) if hasattr(each, name))
    made: Callable[..., None] = getattr(module, name)(REALS[size], *(() if module in ALGEBRA else (lanes, *constants)))
    return _compiled(_label(name, size, lanes, *constants), made)


def _is_algebra(name: str) -> bool:
    return any(hasattr(each, name) for each in ALGEBRA)


def _label(name: str, size: int, lanes: int, *constants: int) -> str:
    return "-".join(map(str, (name, size, 1 if _is_algebra(name) else lanes, *map(int, constants))))


def is_kept(name: str, size: int, lanes: int, *constants: int) -> bool:
    """Whether there is a file of a kernel; it may be of no use."""
    folder = cache_folder()
    path = _Kept(_label(name, size, lanes, *constants))._file(cpu_target.target_context.codegen())
    return folder is not None and (folder / path).exists()


@functools.cache
def phase(name: str) -> int:
    """The address of a function of `phases` or `dense_phases`."""
    module = phases if hasattr(phases, name) else dense_phases
    return _compiled(name, getattr(module, name))


def _compiled(name: str, function: Callable[..., None]) -> int:
    signature = types.void(*[types.intp] * function.__code__.co_argcount)
    made: Any = CFunc(function, (signature.args, signature.return_type), {}, OPTIONS)
    made._cache = _Kept(name)
    made.compile()
    _ALIVE.append(made)
    return int(made.address)


_ALIVE: list[Any] = []  # the code is freed with its object


@functools.cache
def _say_that_it_compiles() -> None:
    kept = cache_folder()
    where = (
        "in memory only: there is no folder for them that only this user can write to"
        if kept is None
        else f"kept in {kept}"
    )
    logging.getLogger("diffnas").info("compiling kernels for this machine, which takes some seconds (%s)", where)


class _Kept:
    """What numba asks for compiled code: one file for each kernel."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The code; None where there is none of use."""
        found = self._read(context)
        if found is None:
            _say_that_it_compiles()
        return found

    def _read(self, context: Any) -> Any:
        folder = cache_folder()
        if folder is None:
            return None
        context.refresh()
        try:
            path = folder / self._file(context.codegen())
            if not only_mine(path.stat()):
                return None
            return CompileResult._rebuild(context, *pickle.loads(path.read_bytes()))
        except Exception:  # noqa: BLE001 (a file that is damaged in any way is as good as none)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Writes the code, whole or not at all."""
        folder = cache_folder()
        if folder is None:
            return
        try:
            handle, written = tempfile.mkstemp(dir=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(dumps(result._reduce()))
                os.replace(written, folder / self._file(result.library.codegen))
            except BaseException:
                Path(written).unlink(missing_ok=True)
                raise
        except OSError:  # a full disk, say
            return

    def _file(self, codegen: Any) -> str:
        return f"{self.name}-{_made_from(codegen.magic_tuple())}.code"


@functools.cache
def _made_from(machine: tuple[Any, ...]) -> str:
    """A digest of what machine code depends on: source, versions, machine."""
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    versions = (numba.__version__, llvmlite.__version__, sys.version, config.OPT, machine)
    return hashlib.sha256(b"\0".join([*sources, repr(versions).encode()])).hexdigest()[:24]


@functools.cache
def cache_folder() -> Path | None:
    """Where kernels are kept; None where nowhere is safe."""
    return folder_for("kernels")
