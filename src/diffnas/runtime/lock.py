"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffnas.errors import RunError


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process; raises `RunError` where another one works in it.

    The hold ends with the process, however it ends.  Where the system has no such locks (Windows) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: another process is working in it; wait for it, or stop it") from None
        yield
