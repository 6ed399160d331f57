"""Files that are whole or absent: written beside their place, flushed, then moved into it."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from pathlib import Path

LEFT_OVER = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
"""What a file is called until it is whole; a kill leaves it behind."""


def is_file(path: str | Path) -> bool:
    """Whether there is a file at `path`; False also for what cannot be a path (too long a name, say)."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder at `path`; False also for what cannot be a path."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, most: int = -1) -> bytes:
    """The first `most` bytes of the file at `path` (-1: all); raises `OSError` also for a pipe or device: it may never end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or device; save what it holds to a file", str(path))
    with path.open("rb") as file:
        return file.read(most)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part.

    The folder must be there: one that was moved away while a run works in it shall not come back empty.  Raises `OSError`
    with the name `path`.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _named(error, path) from None


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def add_text(path: Path, text: str) -> None:
    """Adds `text` at the end of the file at `path`, and waits until it is on the disk."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "no file; move it away", str(path))
        with path.open("ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _named(error, path) from None


def _named(error: OSError, path: Path) -> OSError:
    """Returns `error` with `path` as its file: a full disk names no file, and the temporary file's name would not help."""
    return OSError(error.errno, error.strerror, str(path)) if error.errno else error


def sweep(folder: Path) -> None:
    """Removes what writes that were cut short have left in `folder` and in the folders within it."""
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in folder.glob(pattern):
            if LEFT_OVER.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def sweep_file(path: Path) -> None:
    """Removes what writes of the file at `path` that were cut short have left beside it."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if LEFT_OVER.fullmatch(left.name) and left.is_file():
            left.unlink(missing_ok=True)


def _umask() -> int:
    """Returns the process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
