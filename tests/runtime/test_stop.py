"""Signals: the first asks, the second stops, and handlers are put back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from diffnas.runtime.stop import Stop

needs_hangup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")


@needs_hangup
def test_a_terminal_that_closes_asks_and_may_do_so_twice() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Stop(minutes=60) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested == "SIGHUP" and stop.due()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    assert signal.getsignal(signal.SIGHUP) is before


@needs_hangup
def test_what_ignores_hang_ups_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stop(minutes=60) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_stops(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Stop(minutes=60) as stop:
        assert stop.requested is None and not stop.due()
        os.kill(os.getpid(), number)
        assert stop.requested == number.name and stop.due()
        stop.saved()
        assert stop.due()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.pause()
    assert signal.getsignal(number) is before


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), Stop(1):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_is_due_after_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("diffnas.runtime.stop.time.monotonic", lambda: now)
    stop = Stop(minutes=2)
    now = 219.0
    assert not stop.due()
    now = 220.0
    assert stop.due()
    stop.saved()
    assert not stop.due()


def test_in_another_thread_signals_stay_as_they_are() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with Stop(1):
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
