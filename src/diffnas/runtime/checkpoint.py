"""Checkpoints that can be trusted: written whole, carrying a digest, the last two kept, nothing executed on reading.

A file is a line `diffnas-checkpoint 1 SHA256` followed by what `torch.save` wrote.  The digest finds a damaged file (a
zip archive of tensors alone would be read with flipped bits), `weights_only` refuses any pickle that is not plain data.
"""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from diffnas.errors import CheckpointError
from diffnas.runtime.files import write_bytes

MAGIC = b"diffnas-checkpoint 1 "
KEEP = 2
log = logging.getLogger("diffnas")


def save_checkpoint(folder: Path, position: int, state: dict[str, Any]) -> Path:
    """Writes `state` as the checkpoint of `position` (a step count); keeps the one before it, removes older ones."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"{position:012d}.pt"
    write_bytes(path, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    for old in _checkpoints(folder)[KEEP:]:
        old.unlink()
    return path


def load_checkpoint(folder: Path, device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """The newest state in `folder` that is whole, None where there is none at all.

    A damaged file is passed over with a warning that names it; raises `CheckpointError` where all are damaged.
    """
    paths = _checkpoints(folder)
    for path in paths:
        try:
            return read_checkpoint(path, device)
        except CheckpointError as error:
            log.warning("%s; going back to the checkpoint before it", error)
    if paths:
        raise CheckpointError(
            f"{folder}: none of its {len(paths)} checkpoints can be read; start anew in another folder"
        )
    return None


def read_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state in one file; raises `CheckpointError` where it is damaged or is not a checkpoint."""
    try:
        header, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if not header.startswith(MAGIC):
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of diffnas")
    if hashlib.sha256(content).hexdigest().encode() != header[len(MAGIC) :]:
        raise CheckpointError(f"{path}: damaged: its contents do not match its digest")
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, TypeError):
        raise CheckpointError(f"{path}: refused: it holds more than plain data and tensors") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of diffnas")
    return state


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoint files, newest first."""
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)
