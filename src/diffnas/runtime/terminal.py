"""Output to terminals: lines without control characters, to streams that may be closed or full.

Everything the program prints passes through `printable`; standard output and error are `Steady` while a command runs, so that
a reader who has left, a closed window or a full disk never ends a search whose results are in files.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def printable(text: str) -> str:
    """`text` as one line, with what does not print as itself spelt out: `\\x1b`, `\\u202e`, `\\n`.

    That are control characters, marks that turn the direction of writing, characters without width, separators of lines and
    bytes that are no text.  Letters of every script, combining marks and emoji stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say(*lines: object, error: bool = False) -> None:
    """Writes `lines`, each made printable, to standard output, or to standard error."""
    stream = sys.stderr if error else sys.stdout
    stream.write("".join(f"{printable(str(line))}\n" for line in lines))
    stream.flush()


class Steady:
    """A standard stream that never fails: `lost` keeps the first error of writing to it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        """Writes `text`, or nothing; what the stream's encoding lacks is spelt out."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self._try(self.stream.write, text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream; errors are kept in `lost`."""
        self._try(self.stream.flush)

    def close(self) -> None:
        """Flushes for the last time and drops what cannot be written, so that Python does not report it on exit."""
        self.flush()
        if self.lost is not None:
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), self.stream.fileno())
                self.stream.flush()

    def _try(self, act: Any, *arguments: str) -> None:
        try:
            act(*arguments)
        except (OSError, ValueError) as error:  # gone, full or closed
            self.lost = self.lost or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def steady_streams() -> Iterator[None]:
    """Makes standard output and error `Steady`; one that was closed takes everything and shows nothing."""
    _open_closed()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        steady = [Steady(stream or nothing) for stream in before]
        sys.stdout, sys.stderr = steady
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            for stream in steady:
                stream.close()


def _open_closed() -> None:
    """Opens standard streams that were closed, or the next file that is opened would be taken for one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def lost_output() -> str | None:
    """Returns why output did not arrive, or None if it did or its reader wanted no more."""
    lost = getattr(sys.stdout, "lost", None)
    if lost is None or isinstance(lost, BrokenPipeError):
        return None
    return getattr(lost, "strerror", None) or str(lost)
