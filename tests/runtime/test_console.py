"""What a person sees: everything on standard error, lines where there is no terminal."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from diffnas.errors import UserError
from diffnas.runtime import console
from diffnas.runtime.console import duration, listener, log, progress, showing, start_console
from diffnas.runtime.displays import Bar, Lines, Silent
from diffnas.runtime.progress import Pace


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = (log.handlers, log.level, log.propagate)
    monkeypatch.setattr(console, "_display", console._display)
    monkeypatch.setattr(console, "_started", False)
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (3599.9, "1h00m"),
        (7623, "2h07m"),
        (86399, "23h59m"),
        (97200, "1d03h"),
        (864000, "10d00h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    start_console()
    log.info("said")
    log.warning("warned %d", 3)
    start_console(quiet=True)
    log.info("not said")
    log.warning("warned again")
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == "said\nwarned 3\nwarned again\n"


@pytest.mark.parametrize(("limit", "said"), [(None, False), (2**31, True), (2**34, False)])
def test_a_process_that_may_take_little_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, limit: int | None, said: bool
) -> None:
    monkeypatch.setattr(console, "memory_limit", lambda: limit)
    start_console()
    assert ("may take 2.0 GiB of memory (ulimit -v)" in capsys.readouterr().err) is said


def test_progress_in_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("diffnas.runtime.displays.time.monotonic", lambda: now)
    start_console()
    read = []
    with progress("search epoch 1", 4, every=30) as say:
        for step in range(1, 5):
            now = 20.0 * step
            say(step, lambda step=step: read.append(step) or f"loss {step}")  # type: ignore[misc]
    assert capsys.readouterr().err.splitlines() == [
        "search epoch 1  step 2/4  loss 2  40s left",
        "search epoch 1  step 4/4  loss 4  0s left",
    ]
    assert read == [2, 4]  # reading the numbers may wait for a device, so it is done only when they are shown


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    start_console()
    assert isinstance(console._display, Bar)
    with progress("train epoch 1", 3, every=30) as say:
        for step in range(1, 4):
            say(step, lambda: "loss 1.0")
    log.warning("[bold] stays as it is")
    shown = capsys.readouterr()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.err)
    assert shown.out == "" and "[bold] stays as it is" in plain and "3/3" in plain


def test_a_library_call_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("diffnas").info("unheard")
    with progress("search epoch 1", 1, every=0) as say:
        say(1, lambda: "")
    assert capsys.readouterr().out == ""


def test_lines_go_on_during_a_slow_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits, longer = 0.0, iter([False, False, False, True]), iter([31.0, 1.0, 30.0, 31.0])

    class Clock:
        """An event that nobody waits for."""

        def wait(self, seconds: float) -> bool:
            nonlocal now
            now += next(longer)
            return next(waits)

        def set(self) -> None:
            pass

    class AtOnce:
        """A thread that is done when it starts."""

        def __init__(self, target: Callable[[], None], **rest: object) -> None:
            self.start = target

    monkeypatch.setattr("diffnas.runtime.displays.time.monotonic", lambda: now)
    monkeypatch.setattr("diffnas.runtime.displays.threading.Event", Clock)
    monkeypatch.setattr("diffnas.runtime.displays.threading.Thread", AtOnce)
    start_console()
    with progress("search 1/50", 98, every=30):
        pass
    assert capsys.readouterr().err.splitlines() == [
        "search 1/50  step 0/98  still at work, for 31s",
        "search 1/50  step 0/98  still at work, for 1m02s",
    ]


def test_the_thread_of_lines_ends(capsys: pytest.CaptureFixture[str]) -> None:
    start_console()
    with progress("search 1/50", 98, every=30):
        (waiting,) = [thread for thread in threading.enumerate() if thread.name == "progress"]
    waiting.join(20)
    assert not waiting.is_alive()
    log.setLevel(logging.WARNING)
    with progress("search 1/50", 98, every=30):
        assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("diffnas.runtime.progress.time.monotonic", lambda: now)
    pace = Pace(10)
    pace.begin(0)
    assert pace.left(1, 0, 20) is None
    now = 104.0
    assert pace.left(1, 2, 20) == 18 * 2.0 + 9 * 40.0  # from the first steps on
    pace.ended(50.0)
    pace.begin(5)  # resumed within an epoch
    now = 105.0
    assert pace.left(2, 6, 20) == 14 * 1.0 + 8 * 50.0
    assert pace.left(12, 20, 20) is not None and pace.left(12, 20, 20) >= 0


def test_who_calls_the_library_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with showing(True):
        assert isinstance(console._display, Lines)  # no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with showing(True):
        assert isinstance(console._display, Bar) and listener() is None
    with showing(False):
        assert isinstance(console._display, Silent) and listener() is None
        with progress("search epoch 1", 1, every=0) as say:
            say(1, lambda: pytest.fail("nobody reads this"))
    with showing(print):
        assert isinstance(console._display, Silent) and listener() is print
    assert isinstance(console._display, Lines) and listener() is None
    start_console(quiet=True)
    with showing(True):
        assert isinstance(console._display, Lines)  # what the command line has chosen
    with pytest.raises(UserError, match="progress: must be True, False or a function"), showing("yes"):  # type: ignore[arg-type]
        pass


def test_a_notebook_has_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, bar: str) -> None:
            shown.append(bar)

    def display(bar: str, display_id: bool) -> Handle:
        shown.append(f"new {bar}")
        return Handle()

    ipython, html = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: type("Shell", (), {"kernel": 1})()  # type: ignore[attr-defined]
    html.HTML, html.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", html)
    monkeypatch.setattr("diffnas.runtime.displays.time.monotonic", lambda: 100.0)
    with showing(True):
        for epoch in (1, 2):
            with progress(f"search {epoch}/2", 9, every=30) as say:
                for step in range(1, 10):
                    say(step, lambda: "<b>loss</b>", 65.0)
    assert len(shown) == 2 * 3  # at the start, at once, and at the end: no time passes
    assert sum(line.startswith("new ") for line in shown) == 1
    assert "1m05s left  &lt;b&gt;loss" in shown[-1] and 'value="9"' in shown[-1]
