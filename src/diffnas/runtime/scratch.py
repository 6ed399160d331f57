"""Folders of processes that compute together; those that a kill left behind are removed when the next ones are made."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

YOUNG = 60.0  # seconds in which a folder may not be locked yet


def scratch(kind: str, within: str | None = None) -> tuple[Path, list[int]]:
    """Makes a folder that is this user's alone; returns it and the descriptors that hold it as long as one is open.

    It lies in the folder `within`, or where temporary files do.  Raises `OSError` where that cannot be written.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"diffnas-{kind}-", dir=within))
    held = _held(folder)
    return folder, [] if held is None else [held]


def _sweep(where: Path) -> None:
    """Removes such folders of this user that no process holds any more."""
    for folder in where.glob("diffnas-process*-*"):
        try:
            found = folder.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < YOUNG:
                continue
        except (OSError, AttributeError):
            continue
        held = _held(folder)
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _held(folder: Path) -> int | None:
    """The descriptor of a folder that is locked with it; None where another process holds it, or there are no locks."""
    try:
        import fcntl

        found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, OSError, AttributeError):
        return None
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        return None
    return found
