"""How the steps of a command are shown: a bar on a terminal or in a notebook, lines elsewhere, or not at all."""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.progress import Task as BarTask
from rich.table import Column
from rich.text import Text

from diffnas.runtime.terminal import printable

log = logging.getLogger("diffnas")
DRAWN_EVERY = 0.5  # seconds: reading the numbers waits for the device
Say = Callable[..., None]
"""`say(done, text, left)`: so many steps are done, and the whole takes `left` seconds more, where that is known.

`text` is called only when a line or a bar is drawn, for it may wait for the device.
"""


def duration(seconds: float) -> str:
    """`seconds` for people: `42s`, `3m05s`, `2h07m`, `1d03h`."""
    whole = int(round(seconds))
    for unit, smaller, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size * 60 // size if unit != 'd' else whole % size // 3600:02d}{smaller}"
    return f"{whole}s"


class Display(Protocol):
    """Shows the steps of something."""

    def steps(self, title: str, total: int, every: float) -> AbstractContextManager[Say]:
        """Shows `total` steps under `title`, where in lines at most one in `every` seconds; gives what is told of them."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def steps(self, title: str, total: int, every: float) -> Iterator[Say]:
        """Yields what does nothing."""
        yield lambda done, text, left=None: None


class Lines:
    """Logs a line from time to time, also while one step takes long."""

    @contextmanager
    def steps(self, title: str, total: int, every: float) -> Iterator[Say]:
        """Yields what logs a line, at most one in `every` seconds."""
        start = last = time.monotonic()
        steps, ended = 0, threading.Event()

        def say(done: int, text: Callable[[], str], left: float | None = None) -> None:
            nonlocal last, steps
            now, steps = time.monotonic(), done
            if now - last >= every:
                last = now
                rest = (now - start) / max(done, 1) * (total - done) if left is None else left
                log.info("%s  step %d/%d  %s  %s left", title, done, total, text(), duration(rest))

        def wait() -> None:
            nonlocal last
            while not ended.wait(max(1.0, every)):
                now = time.monotonic()
                if now - last >= every:
                    last = now
                    log.info("%s  step %d/%d  still at work, for %s", title, steps, total, duration(now - start))

        if log.isEnabledFor(logging.INFO):
            threading.Thread(target=wait, name="progress", daemon=True).start()
        try:
            yield say
        finally:
            ended.set()


class _Times(ProgressColumn):
    """`12s, 2h07m left`: the time since these steps began, which goes on during a step, and what is left of all."""

    def render(self, task: BarTask) -> Text:
        """The times of a bar."""
        left = task.fields["left"]
        return Text(f"{duration(task.elapsed or 0)}{'' if left is None else f', {duration(left)} left'}")


class Bar:
    """Draws a bar on a terminal, gone when its steps are done."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def steps(self, title: str, total: int, every: float) -> Iterator[Say]:
        """Yields what draws the bar."""
        title = printable(title)

        def fixed(width: int) -> Column:
            return Column(no_wrap=True, min_width=width, width=width)

        columns = (
            TextColumn("{task.description}", markup=False, table_column=fixed(len(title))),
            BarColumn(bar_width=5, table_column=fixed(5)),
            MofNCompleteColumn(table_column=fixed(2 * len(str(total)) + 1)),
            _Times(table_column=fixed(16)),
            # the losses take what room is left
            TextColumn(
                "{task.fields[text]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            ),
        )
        with Bars(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=total, text="", left=None)
            due = _Due(total)

            def say(done: int, text: Callable[[], str], left: float | None = None) -> None:
                if due.now(done):
                    bar.update(task, completed=done, text=printable(text()), left=left)

            yield say


class Notebook:
    """Shows one bar below a cell of a notebook, and keeps it there for all that its command does."""

    def __init__(self) -> None:
        self._handle: Any = None

    @contextmanager
    def steps(self, title: str, total: int, every: float) -> Iterator[Say]:
        """Yields what draws the bar anew."""
        start, due = time.monotonic(), _Due(total)
        self._draw(title, 0, total, "0s")

        def say(done: int, text: Callable[[], str], left: float | None = None) -> None:
            if due.now(done):
                times = duration(time.monotonic() - start) + ("" if left is None else f", {duration(left)} left")
                self._draw(title, done, total, f"{times}  {text()}")

        yield say

    def _draw(self, title: str, done: int, total: int, said: str) -> None:
        from IPython.display import HTML, display

        said = f"{title}  step {done}/{total}  {said}"
        bar = HTML(f'<progress max="{total}" value="{done}"></progress> <code>{html.escape(printable(said))}</code>')
        if self._handle is None:
            self._handle = display(bar, display_id=True)
        else:
            self._handle.update(bar)


class _Due:
    """Whether it is time to draw again: twice a second, and at the end."""

    def __init__(self, total: int) -> None:
        self.total, self._last = total, 0.0

    def now(self, done: int) -> bool:
        """Whether it is, after `done` steps."""
        now = time.monotonic()
        if now - self._last < DRAWN_EVERY and done != self.total:
            return False
        self._last = now
        return True
