"""Folders in the user's cache for compiled code, which is read back only from where nobody else can write."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def folder_for(kind: str) -> Path | None:
    """Where compiled code of a kind is kept; None where no folder is to be had that only this user can write to."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "diffnas" / kind
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    return folder if stat.S_ISDIR(found.st_mode) and only_mine(found) and os.access(folder, os.W_OK) else None


def only_mine(found: os.stat_result) -> bool:
    """Whether a file or folder is this user's, and no one else may write to it."""
    if not hasattr(os, "getuid"):  # Windows: a profile is its user's
        return True
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
