"""What a person is told when a command fails, and the exit code (docs/errors.md)."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from diffnas.errors import DiffnasError, UserError
from diffnas.runtime.files import write_text
from diffnas.runtime.room import lack_of_room
from diffnas.runtime.terminal import printable, say

if TYPE_CHECKING:
    pass

USAGE: Any = typer.BadParameter.__base__  # any mistake in what was typed; typer exports its subclasses only


def unforeseen(error: Exception) -> int:
    """Returns the exit code of an unexpected error: no space, an unusable path, or a bug in diffnas."""
    lack = lack_of_room(error)
    if lack is not None:
        return refused([f"{lack.said}; {lack.remedy} and start again"])
    if isinstance(error, ImportError) and not (error.name or "").startswith("diffnas"):
        said = f"{error.name or 'a package'} cannot be loaded ({error}); `diffnas doctor` says what is missing"
        return refused(UserError(said).shown)
    if isinstance(error, OSError) and error.filename:  # no permission, too long a name
        return refused([f"{error.filename!s:.200}: {error.strerror}"])
    if isinstance(error, FileNotFoundError):  # of no file: all relative paths begin there
        return refused(["the working folder is gone; change into one that is there"])
    return _failed(error)


def refused(lines: Iterable[str]) -> int:
    """Prints `lines` and returns the exit code of wrong input."""
    say(*(f"diffnas: {line}" for line in lines), error=True)
    return UserError.exit_code


def mistyped(error: Any) -> int:
    """Prints one line for an unknown command or option, or the help if nothing was typed."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    command = error.ctx.command_path if error.ctx is not None else "diffnas"
    said = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    say(f"{command}: {said}; see: {command} --help", error=True)
    return 2


def _failed(error: Exception) -> int:
    """Writes the traceback of a bug to a file and names it."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    own = _plugin_place(error)
    say(f"diffnas: {f'plug-in {own}' if own else 'failed'}: {reason}; {_written(error)}", error=True)
    return DiffnasError.exit_code


def _plugin_place(error: Exception) -> str | None:
    """Returns `FILE line N`, the last line of a plug-in that led to `error`, or None."""
    from diffnas.registry import OWNERS

    files = {owner.file for owner in OWNERS.values()}
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{places[-1].filename} line {places[-1].lineno}" if places else None


def _written(error: Exception) -> str:
    """Writes the details of `error` into the working folder, or else the temporary folder, and says where they are."""
    text = "".join(f"{printable(line)}\n" for line in "".join(traceback.format_exception(error)).split("\n"))
    for folder in (os.getcwd, tempfile.gettempdir):
        try:
            path = Path(folder()) / "diffnas-error.log"
            write_text(path, text)
        except OSError:
            continue
        return f"the details are in {path}"
    return "the details could not be written to a file"
