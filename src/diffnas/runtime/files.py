"""Files that are whole or absent: written beside their place, flushed, then moved into it."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path


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
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def _umask() -> int:
    """The bits the caller wants cleared; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
