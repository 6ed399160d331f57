"""Keeping freed memory: a wish that the C library may grant, and that the user can forbid."""

from __future__ import annotations

import ctypes
import sys

import pytest

from diffnas.kernels.memory import keep_freed_memory

ask = keep_freed_memory.__wrapped__  # asked anew each time


def test_it_says_whether_it_could() -> None:
    assert isinstance(keep_freed_memory(), bool)
    assert keep_freed_memory() is keep_freed_memory()


@pytest.mark.parametrize("obstacle", ["forbidden", "another system", "no such function", "no such library"])
def test_it_leaves_things_as_they_are(obstacle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Library:
        def __init__(self, name: None) -> None:
            if obstacle == "no such library":
                raise OSError(name)
            if obstacle != "no such function":
                self.mallopt = lambda *option: asked.append(option)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(sys, "platform", "darwin" if obstacle == "another system" else "linux")
    monkeypatch.setenv("DIFFNAS_KEEP_MEMORY", "0" if obstacle == "forbidden" else "1")
    assert ask() is False and asked == []


@pytest.mark.parametrize(("answers", "expected"), [((1, 1), True), ((1, 0), False), ((0,), False)])
def test_both_options_must_be_granted(
    answers: tuple[int, ...], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(answers)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DIFFNAS_KEEP_MEMORY", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: type("Library", (), {"mallopt": lambda *option: left.pop(0)}))
    assert ask() is expected
