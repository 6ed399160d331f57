"""What a command says while it works: lines of one logger on standard error, and its progress.

Standard output stays free for results.  A call of the library shows a bar on a terminal and in a notebook, and no lines.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler

from diffnas.errors import UserError
from diffnas.runtime.displays import Bar, Display, Lines, Notebook, Say, Silent, duration
from diffnas.runtime.launched import place_of
from diffnas.runtime.progress import Progress
from diffnas.runtime.room import in_words, memory_limit
from diffnas.runtime.terminal import printable

__all__ = ["Listener", "duration", "listener", "log", "progress", "showing", "start_console"]
log = logging.getLogger("diffnas")
log.addHandler(logging.NullHandler())
Listener = Callable[[Progress], object]
"""A function of the caller's that is told of progress."""
LOADED = 4 * 2**30
"""Bytes of addresses that torch with its libraries for GPUs takes before anything is computed."""

_display: Display = Lines()
_started = False  # whether the command line has chosen the display
_listener: Listener | None = None


class OneLine(logging.Formatter):
    """Formats a record as its message alone, on one line, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        return printable(record.getMessage())


def start_console(quiet: bool = False) -> None:
    """Sends the logger's lines to standard error: rich on a terminal, plain where it is a file or a pipe."""
    global _display, _started
    _started = True
    if place_of().rank:  # the first of several processes speaks for all
        _display, log.handlers, log.propagate = Silent(), [logging.NullHandler()], False
        return
    console = Console(stderr=True) if sys.stderr.isatty() and not quiet else None
    _display = Lines() if console is None else Bar(console)
    handler: logging.Handler = logging.StreamHandler()
    if console is not None:
        handler = RichHandler(
            console=console, highlighter=NullHighlighter(), show_time=False, show_level=False, show_path=False
        )
    handler.setFormatter(OneLine())
    log.handlers = [handler]
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
    limit = memory_limit()
    if limit and limit < LOADED:  # libraries may end the process without a word of ours
        log.warning("this process may take %s of memory (ulimit -v), and torch alone may need more", in_words(limit))


@contextmanager
def showing(how: bool | Listener) -> Iterator[None]:
    """Shows the progress of what is done within: True for a bar where one can be seen, False for none, or tells a function."""
    global _display, _listener
    if not (isinstance(how, bool) or callable(how)):
        raise UserError(f"progress: must be True, False or a function; got {how!r:.60}")
    before = _display, _listener
    if how is not True:
        _display, _listener = Silent(), how or None
    elif not _started:
        _display = _fitting()
    try:
        yield
    finally:
        _display, _listener = before


def _fitting() -> Display:
    """The display for who calls the library."""
    if _in_notebook():
        return Notebook()
    return Bar(Console(stderr=True)) if sys.stderr.isatty() else Lines()


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def listener() -> Listener | None:
    """The function that is told of progress, None where there is none."""
    return _listener


def progress(title: str, total: int, every: float) -> AbstractContextManager[Say]:
    """Shows `total` steps: a bar on a terminal or in a notebook, else a line at most `every` seconds."""
    return _display.steps(title, total, every)
