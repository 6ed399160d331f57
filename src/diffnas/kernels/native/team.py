"""Runs a phase on as many threads as torch computes with.

Where torch's threads are those of GNU OpenMP, as on Linux, a phase runs on these very threads: they wait awake for one
another for a moment, so that nothing has to be woken up, and no second set of threads waits beside them.  The library
is the one that torch has loaded, which need not be the system's.  Elsewhere Python's threads do: kernels hold no lock.
"""

from __future__ import annotations

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffnas.kernels.native.compiled import phase
from diffnas.kernels.native.crowded import CROWDED

_PHASE = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_ssize_t)
MAPPED = Path("/proc/self/maps")


@functools.cache
def _called(name: str) -> ctypes._CFunctionType:
    return _PHASE(phase(name))


def run(name: str, shared: int, threads: int) -> None:
    """Runs `phases.<name>` on the table at `shared`, and returns when every thread has.

    Who computes an image changes no bit of it, so that one thread may do what is laid out for several.
    """
    if threads == 1 or CROWDED.is_set():
        _called(name)(shared, 0, 1)
    elif _openmp() is not None:
        _on_openmp(name, shared, threads)
    else:
        pool = _pool(threads - 1, os.getpid())
        others = [pool.submit(_called(name), shared, thread, threads) for thread in range(1, threads)]
        _called(name)(shared, 0, threads)
        for other in others:
            other.result()


def _on_openmp(name: str, shared: int, threads: int) -> None:
    found = _openmp()
    assert found is not None
    parallel, number, count = found
    pack = np.array([number, count, phase(name), shared], np.int64)
    parallel(phase("enter"), pack.ctypes.data, threads, 0)


@functools.cache
def _openmp() -> tuple[ctypes._CFunctionType, int, int] | None:
    """GOMP_parallel of the library that torch has loaded, and the addresses of the functions that number and count threads;
    None where there is none, or it is not known which of several (other packages bring their own)."""
    try:
        lines = MAPPED.read_text().splitlines()
    except OSError:
        return None
    library = _torchs({line.split(maxsplit=5)[5] for line in lines if "/libgomp" in line}, torch.__file__)
    if library is None:
        return None
    loaded: Any = ctypes.CDLL(library)
    try:
        parallel = loaded.GOMP_parallel
        number, count = loaded.omp_get_thread_num, loaded.omp_get_num_threads
    except AttributeError:
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    number_at, count_at = (ctypes.cast(function, ctypes.c_void_p).value for function in (number, count))
    return (parallel, number_at, count_at) if number_at and count_at else None


def _torchs(paths: set[str], torch_file: str) -> str | None:
    """The library among `paths` that torch uses: its own copy, or the system's; None where that is not clear.

    Other packages bring copies of their own, in folders called NAME.libs.
    """
    beside = Path(torch_file).resolve().parents[1]
    own = {path for path in paths if path.startswith((f"{beside}/torch/", f"{beside}/torch.libs/"))}
    systems = {path for path in paths if not Path(path).parent.name.endswith(".libs")}
    found = own or systems
    return found.pop() if len(found) == 1 else None


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of `process`: a fork has none of its parent's."""
    return ThreadPoolExecutor(threads, "diffnas-kernels")
