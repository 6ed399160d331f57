"""Checkpoints that can be trusted: written whole, carrying a digest, the last two kept, nothing executed on reading.

A file is a line `diffnas-checkpoint 1 SHA256` followed by what `torch.save` wrote.  The digest finds a damaged file (a
zip archive of tensors alone would be read with flipped bits), `weights_only` refuses any pickle that is not plain data.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from diffnas.errors import CheckpointError
from diffnas.runtime.files import read_bytes, write_bytes
from diffnas.runtime.room import lack_of_room

MAGIC = b"diffnas-checkpoint 1 "
KEEP = 2
# what torch.load raises on contents that nobody meant to be read; a digest is no proof against a forger
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
)
log = logging.getLogger("diffnas")


def save_checkpoint(folder: Path, position: int, state: dict[str, Any]) -> Path:
    """Writes `state` as the checkpoint of `position` (a step count), and keeps the one before it.

    Removes older ones, and later ones, which could not be read when the run was resumed from an earlier one.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    folder.mkdir(exist_ok=True)
    path = checkpoint_path(folder, position)
    write_bytes(path, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    before = [other for other in _checkpoints(folder) if _position(other) < position]
    for other in _checkpoints(folder):
        if other != path and other not in before[: KEEP - 1]:
            other.unlink()
    return path


def checkpoint_path(folder: Path, position: int) -> Path:
    """The file of the checkpoint of `position`."""
    return folder / f"{position:012d}.pt"


def load_checkpoint(folder: Path, device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """Loads the newest undamaged state in `folder`; None if there is no checkpoint.

    A damaged file is passed over with a warning that names it; raises `CheckpointError` where all are damaged.
    """
    damaged: list[str] = []
    for path in _checkpoints(folder):
        try:
            state = read_checkpoint(path, device)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for line in damaged:
            log.warning("%s; going back to %s", line, path.name)
        return state
    if damaged:
        raise CheckpointError(*damaged, f"{folder}: no checkpoint can be read; start anew in another folder")
    return None


def read_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state in one file; raises `CheckpointError` where it is damaged or is not a checkpoint."""
    try:
        header, _, content = read_bytes(path).partition(b"\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if not header.startswith(MAGIC):
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of diffnas")
    if hashlib.sha256(content).hexdigest().encode() != header[len(MAGIC) :]:
        raise CheckpointError(f"{path}: damaged: its contents do not match its digest")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles it refuses a moment later
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except UNREADABLE as error:
        if lack_of_room(error) is not None:
            raise
        raise CheckpointError(f"{path}: refused: it holds more than plain data and tensors") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of diffnas")
    return state


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files, newest first."""
    return sorted((path for path in folder.glob("*.pt") if path.stem.isdecimal()), key=_position, reverse=True)


def _position(path: Path) -> int:
    return int(path.stem)
