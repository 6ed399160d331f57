"""A lock that admits one process at a time to a folder, as long as the folder is not moved."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffnas.errors import RunError

_LOCKS: set[int] = set()


def _close_inherited() -> None:
    """Closes the locks of the process that this one was forked from; in that process they stay."""
    while _LOCKS:
        os.close(_LOCKS.pop())


if hasattr(os, "register_at_fork"):  # or else a worker would hold a folder for a while after its command was killed
    os.register_at_fork(after_in_child=_close_inherited)


class Held:
    """A folder that this process works in, and an open descriptor of it (None where the system has none)."""

    def __init__(self, folder: Path, descriptor: int | None) -> None:
        self.folder, self._descriptor = folder, descriptor

    def require(self) -> None:
        """Raises `RunError` where the folder has been moved or removed since, or another one is in its place."""
        if self._descriptor is None:
            return
        try:
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self.folder)):
                return
        except OSError:
            pass
        raise RunError(
            f"{self.folder}: was moved or removed while the run worked in it, so the run has stopped; what it wrote is"
            " where the folder is now: go on there with --resume"
        )


@contextmanager
def only_one(folder: Path) -> Iterator[Held]:
    """Locks the existing `folder` for this process; raises `RunError` if another process works in it.

    The hold ends with the process, however it ends.  Where the system (Windows) or the file system has no such locks nothing
    is held.  An `OSError` within becomes a `RunError` where its cause is that the folder is no longer there.
    """
    try:
        import fcntl
    except ImportError:
        yield Held(folder, None)
        return
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock = _lock_file(folder, place)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise RunError(f"{folder}: another process is working in it; wait for it, or stop it") from None
        except OSError:  # a network's file system without locks
            pass
        held = Held(folder, place)
        _LOCKS.add(lock)
        try:
            yield held
        except OSError:
            held.require()
            raise
        finally:
            _LOCKS.discard(lock)
            os.close(lock)
    finally:
        os.close(place)


def _lock_file(folder: Path, place: int) -> int:
    """Opens `.lock` in the folder, creating it if needed; its contents stay, and no link is followed."""
    try:
        return os.open(".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666, dir_fd=place)
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened: {error.strerror}"
        raise RunError(f"{folder / '.lock'}: {reason}; see to it, or remove it") from None
