"""Progress bars on a terminal, and plain lines elsewhere; a library call prints neither to standard output.

Everything goes to standard error through one logger, so that standard output stays free for results.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from diffnas.runtime.terminal import printable

log = logging.getLogger("diffnas")
log.addHandler(logging.NullHandler())
Say = Callable[[int, Callable[[], str]], None]
"""`say(done, text)`: so many steps are done; `text` is called only when a line or bar is drawn (it may read the device)."""

_console: Console | None = None


class OneLine(logging.Formatter):
    """Formats a record as its message alone, on one line, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        return printable(record.getMessage())


def start_console(quiet: bool = False) -> None:
    """Sends the logger's lines to standard error: rich on a terminal, plain where it is a file or a pipe."""
    global _console
    terminal = sys.stderr.isatty()
    _console = Console(stderr=True) if terminal and not quiet else None
    handler: logging.Handler = logging.StreamHandler()
    if _console is not None:
        handler = RichHandler(
            console=_console, highlighter=NullHighlighter(), show_time=False, show_level=False, show_path=False
        )
    handler.setFormatter(OneLine())
    log.handlers = [handler]
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False


@contextmanager
def progress(title: str, total: int, every: float) -> Iterator[Say]:
    """A bar of `total` steps on a terminal, else a line at most `every` seconds; yields `say`."""
    if _console is None:
        yield _lines(title, total, every)
        return

    title = printable(title)

    def fixed(width: int) -> Column:
        return Column(no_wrap=True, min_width=width, width=width)

    columns = (
        TextColumn("{task.description}", markup=False, table_column=fixed(len(title))),
        BarColumn(bar_width=10, table_column=fixed(10)),
        MofNCompleteColumn(table_column=fixed(2 * len(str(total)) + 1)),
        TimeRemainingColumn(compact=True, table_column=fixed(5)),
        # the losses take what room is left
        TextColumn(
            "{task.fields[text]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        ),
    )
    with Progress(*columns, console=_console, transient=True) as bar:
        task = bar.add_task(title, total=total, text="")
        drawn = 0.0

        def say(done: int, text: Callable[[], str]) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= 0.5 or done == total:  # reading the numbers waits for the device: twice a second at most
                drawn = now
                bar.update(task, completed=done, text=printable(text()))

        yield say


def _lines(title: str, total: int, every: float) -> Say:
    start = last = time.monotonic()

    def say(done: int, text: Callable[[], str]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every:
            last = now
            left = (now - start) / max(done, 1) * (total - done)
            log.info("%s  step %d/%d  %s  %s left in this epoch", title, done, total, text(), duration(left))

    return say


def duration(seconds: float) -> str:
    """`seconds` for people: `42s`, `3m05s`, `2h07m`, `1d03h`."""
    whole = int(round(seconds))
    for unit, smaller, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size * 60 // size if unit != 'd' else whole % size // 3600:02d}{smaller}"
    return f"{whole}s"
