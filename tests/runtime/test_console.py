"""What a person sees: everything on standard error, lines where there is no terminal."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from diffnas.runtime import console
from diffnas.runtime.console import duration, log, progress, start_console


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = (log.handlers, log.level, log.propagate)
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])
    console._console = None


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


def test_progress_in_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("diffnas.runtime.console.time.monotonic", lambda: now)
    start_console()
    read = []
    with progress("search epoch 1", 4, every=30) as say:
        for step in range(1, 5):
            now = 20.0 * step
            say(step, lambda step=step: read.append(step) or f"loss {step}")  # type: ignore[misc]
    assert capsys.readouterr().err.splitlines() == [
        "search epoch 1  step 2/4  loss 2  40s left in this epoch",
        "search epoch 1  step 4/4  loss 4  0s left in this epoch",
    ]
    assert read == [2, 4]  # reading the numbers may wait for a device, so it is done only when they are shown


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    start_console()
    assert console._console is not None
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
