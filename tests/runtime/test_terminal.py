"""What is printed acts on no terminal, and a stream that is closed or full ends nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffnas.runtime import terminal
from diffnas.runtime.terminal import Steady, lost_output, printable, say, steady_streams

TINY = "-s data.train_limit=64 -s data.test_limit=64 -s search.epochs=1 -s search.batch=16 -s search.validate_every=0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain [red]text[/red] :smile:", "plain [red]text[/red] :smile:"),
        ("Größe 日本語 e\u0301 \N{GRINNING FACE}\ufe0f", "Größe 日本語 e\u0301 \N{GRINNING FACE}\ufe0f"),
        ("\x1b[31m\x1b]0;title\x07", r"\x1b[31m\x1b]0;title\x07"),
        ("a\nb\r\tc\x08\x7f", r"a\nb\r\tc\x08\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202ea\u2066b\u2069\u200e\u200f\u061c", r"\u202ea\u2066b\u2069\u200e\u200f\u061c"),
        ("\u200b\u200c\u200d\u2060\ufeff\u00ad", r"\u200b\u200c\u200d\u2060\ufeff\xad"),
        ("\u2028\u2029\U000e0041", r"\u2028\u2029\U000e0041"),
        ("\udc80\ud800", r"\udc80\ud800"),
    ],
    ids=ascii,
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown and printable(shown) == shown


def test_a_line_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb", Path("c\x1b"), 3)
    say("d\u202e", error=True)
    found = capsys.readouterr()
    assert found.out == "a\\nb\nc\\x1b\n3\n" and found.err == "d\\u202e\n"


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_the_first_error_is_kept_and_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, said in (
        (OSError(28, "No space left on device"), "No space left on device"),
        (BrokenPipeError(32, "Broken pipe"), None),
        (ValueError("I/O operation on closed file"), "I/O operation on closed file"),
    ):
        monkeypatch.setattr("sys.stdout", Steady(Broken(error)))
        say("lost")
        assert lost_output() == said
    monkeypatch.setattr("sys.stdout", Steady(io.StringIO()))
    say("kept")
    assert lost_output() is None and sys.stdout.getvalue() == "kept\n"  # type: ignore[attr-defined]


def test_what_an_encoding_lacks_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", Steady(kept))
    say("Größe")
    assert kept.buffer.getvalue() == b"Gr\\xf6\\xdfe\n"  # type: ignore[attr-defined]


def test_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), steady_streams():
        assert isinstance(sys.stdout, Steady) and isinstance(sys.stderr, Steady)
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
    monkeypatch.setattr("sys.stdout", None)  # as Python has it where the stream was closed
    with steady_streams():
        say("to nobody")
    assert sys.stdout is None


def shell(line: str, folder: Path) -> tuple[int, str, str]:
    """The exit code, output and errors of a shell's `line`, in which `diffnas` runs this one."""
    script = f'diffnas() {{ "{sys.executable}" -m diffnas "$@"; }}\n{line}'
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


needs_streams = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@needs_streams
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("diffnas list keys | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("diffnas list keys | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("diffnas list keys >&- 2>&- <&-", 0, ""),
        ("diffnas search nothing 2>&-", 2, ""),
        ("diffnas search nothing 2>/dev/full", 2, ""),
        ("diffnas show darts-v2 --json >/dev/full", 2, "diffnas: standard output: No space left on device; the result"),
    ],
)
def test_streams_that_are_closed_or_full(line: str, code: int, said: str, tmp_path: Path) -> None:
    found, _, errors = shell(line, tmp_path)
    assert found == code and errors.startswith(said) and errors.count("\n") == bool(said), errors
    assert not list(tmp_path.iterdir())


@needs_streams
def test_a_search_that_nobody_hears_is_done(tmp_path: Path) -> None:
    code, _, _ = shell(f"diffnas search darts-digits-tiny {TINY} --run r >/dev/full 2>&-", tmp_path)
    assert code == 0 and sorted(path.name for path in tmp_path.iterdir()) == ["r"]
    assert (tmp_path / "r" / "search" / "cells.png").is_file()
    for path in (tmp_path / "r").rglob("*"):  # a file that took the number of a closed stream would hold its lines
        assert path.is_dir() or b"batches that train" not in path.read_bytes()


def test_a_full_stream_is_emptied_without_a_word(tmp_path: Path) -> None:
    """What could not be written when a stream is closed is dropped, so that Python has nothing to report on exit."""
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", encoding="utf-8")
    steady = Steady(stream)
    steady.write("x")
    steady.close()
    assert isinstance(steady.lost, BrokenPipeError)
    stream.close()  # says nothing


def test_standard_streams_that_are_closed_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def closed(number: int) -> None:
        if number != 1:
            raise OSError(9, "Bad file descriptor")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", closed)
        patched.setattr(os, "open", lambda path, how: opened.append((path, how)))
        terminal._open_closed()
    assert opened == [(os.devnull, os.O_RDWR)] * 2
