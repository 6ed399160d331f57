"""How the process holds on to memory.

A search step makes and drops thousands of tensors of about a megabyte.  glibc hands each back to the system at once and asks
for it again, and every page of it is then cleared anew: for the cheap convolutions of a cell that costs several times the
arithmetic.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@functools.cache
def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory for the next tensor (until the process ends); whether it could.

    Linux with glibc only; the environment variable DIFFNAS_KEEP_MEMORY=0 leaves everything as it is.
    """
    if not sys.platform.startswith("linux") or os.environ.get("DIFFNAS_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
