"""Room on disk and in memory: how much there is, and how it is said that none is left."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# torch, numpy and the libraries below them name no common type
MEMORY = re.compile(
    r"out of memory|can(no|')t allocate memory|not enough memory|unable to allocate|bad_alloc|_ALLOC_FAILED"
    r"|failed to map segment|could not create a (memory|primitive)|can't start new thread",
    re.IGNORECASE,
)
ASKED = re.compile(r"(?:tried|unable) to allocate ([\d.]+) ?(bytes|[KMGTP]iB)", re.IGNORECASE)
MEASURES = ("", "Ki", "Mi", "Gi", "Ti")


@dataclass(frozen=True)
class Lack:
    """The resource that is full, in words, and a remedy."""

    said: str
    remedy: str
    of: Literal["disk", "memory"]


def lack_of_room(error: BaseException, where: str = "the disk") -> Lack | None:
    """Returns the resource that was full, at `where` if the error names no path; None for other errors."""
    if isinstance(error, OSError) and error.errno in DISK:
        remedy = "raise the limit of files (ulimit -f)" if error.errno == errno.EFBIG else "free some space"
        return Lack(f"{error.filename or where}: {error.strerror}", remedy, "disk")
    limit = memory_limit()
    if isinstance(error, MemoryError) or MEMORY.search(str(error)) or (limit and isinstance(error, SystemError)):
        place = "of the GPU " if "CUDA" in str(error) else ""
        asked = ASKED.search(str(error))
        more = f" ({_size(asked)} more were asked for)" if asked else ""
        if limit and not place:
            limited = f"this process may take {in_words(limit)} (ulimit -v)"
            return Lack(f"the memory is full{more}: {limited}", "raise that limit", "memory")
        return Lack(f"the memory {place}is full{more}", "close other programs", "memory")
    before = error.__cause__ or error.__context__  # what goes wrong when something has just gone wrong for want of room
    return None if before is None else lack_of_room(before, where)


def memory_limit() -> int | None:
    """Returns the bytes of addresses that this process may take (`ulimit -v`); None if there is no such limit.

    A limited library may lose its own errors (`SystemError`).
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _size(asked: re.Match[str]) -> str:
    number, unit = asked.groups()
    return in_words(float(number)) if unit.lower() == "bytes" else f"{number} {unit}"


def in_words(size: float) -> str:
    """`size` bytes for people: `3.2 GiB`."""
    power = 0
    while size >= 1024 and power + 1 < len(MEASURES):
        size, power = size / 1024, power + 1
    return f"{size:.{1 if power else 0}f} {MEASURES[power]}B"


def free_memory() -> int | None:
    """Returns the bytes of memory still available on the machine or in its container; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("MemAvailable:", "SwapFree:")))
    except (OSError, ValueError, IndexError):
        return None
    return min([free, *_container()])


def _container() -> list[int]:
    """Returns the memory that the control group leaves, if it sets a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such files, or "max"
        return []
    return [max(0, limit - used)]
