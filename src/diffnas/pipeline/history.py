"""Copies of the last epochs' checkpoints, for methods that may go back to one."""

from __future__ import annotations

from typing import Any

from diffnas.runtime.checkpoint import checkpoint_path, read_checkpoint
from diffnas.runtime.distributed import world
from diffnas.runtime.files import write_bytes
from diffnas.runtime.run_folder import Part


class History:
    """The copies in search/history/ of a search that may go `max_rewind` epochs back (0: none are kept)."""

    def __init__(self, part: Part, max_rewind: int) -> None:
        self.part, self.max_rewind = part, max_rewind

    def keep(self, position: int, epoch: int) -> None:
        """Keeps the checkpoint of `position`, written after `epoch`, and drops what is too old."""
        newest = checkpoint_path(self.part.checkpoints, position)
        if not self.max_rewind or not newest.is_file():
            return
        folder = self.part.folder("history")
        write_bytes(folder / _name(epoch), newest.read_bytes())
        kept = {_name(number) for number in range(max(0, epoch - self.max_rewind), epoch + 1)}
        for path in folder.glob("epoch-*.pt"):
            if path.name not in kept:
                path.unlink()

    def read(self, epoch: int) -> dict[str, Any]:
        """The checkpoint written after `epoch`."""
        return world().of_first(lambda: read_checkpoint(self.part.path / "history" / _name(epoch)))


def _name(epoch: int) -> str:
    return f"epoch-{epoch:04d}.pt"
