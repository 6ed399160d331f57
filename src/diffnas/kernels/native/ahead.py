"""Compiles on two CPUs what a table needs, where much of it was never compiled on this machine.

python -m diffnas.kernels.native.ahead KERNELS     a list in JSON, as `prepare` writes it
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

from diffnas.kernels.native.compiled import cache_folder, is_kept, kernel

Key = tuple[Any, ...]
"""The arguments of `kernel`."""
MANY = 20  # as many are compiled in the time that another process takes to begin, twice


@functools.cache
def prepare(keys: tuple[Key, ...]) -> None:
    """Compiles kernels that are not kept, half of them in another process; a few are left to who asks for them."""
    if cache_folder() is None or (os.cpu_count() or 1) < 2:
        return
    missing = [key for key in dict.fromkeys(keys) if not is_kept(*key)]
    if len(missing) < MANY:
        return
    command = [sys.executable, "-m", __name__, json.dumps(missing[::2])]
    try:
        other = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:  # then they are compiled when they are asked for
        return
    for key in missing[1::2]:
        kernel(*key)
    other.wait()


def main() -> None:
    """Compiles the kernels on the command line."""
    for key in json.loads(sys.argv[1]):
        kernel(*key)


if __name__ == "__main__":
    main()
