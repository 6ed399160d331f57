"""A folder that one process holds: who else comes is refused, and it is known when the folder is no longer there."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

from diffnas.errors import RunError
from diffnas.runtime import lock
from diffnas.runtime.lock import only_one


def test_one_at_a_time(tmp_path: Path) -> None:
    with only_one(tmp_path):
        with pytest.raises(RunError, match="another process is working in it"), only_one(tmp_path):
            pass
        with pytest.raises(RunError, match="another process is working in it"), only_one(tmp_path):
            pass
    with only_one(tmp_path) as held:
        held.require()
    assert os.listdir(tmp_path) == [".lock"]


def test_the_lock_follows_no_link_and_keeps_what_is_in_the_file(tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine", tmp_path / "folder"
    mine.write_text("precious")
    folder.mkdir()
    (folder / ".lock").symlink_to(mine)
    with pytest.raises(RunError, match=r"\.lock: is a symbolic link"), only_one(folder):
        pass
    (folder / ".lock").unlink()
    os.link(mine, folder / ".lock")
    with only_one(folder):
        pass
    assert mine.read_text() == "precious"
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()
    with pytest.raises(RunError, match=r"\.lock: cannot be opened: Is a directory"), only_one(folder):
        pass


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replaced(folder: Path) -> None:
    moved(folder)
    folder.mkdir()


@pytest.mark.parametrize("away", [moved, replaced, shutil.rmtree])
def test_a_folder_that_is_no_longer_there_is_noticed(away: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with only_one(folder) as held:
        held.require()
        away(folder)
        with pytest.raises(RunError, match="folder: was moved or removed while the run worked in it"):
            held.require()


def test_what_fails_for_that_reason_says_so_and_nothing_else_does(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), only_one(tmp_path):
        (tmp_path / "a" / "b").write_text("")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(RunError, match="was moved or removed"), only_one(folder):
        moved(folder)
        (folder / "file").write_text("")
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_does_not_hold_the_folder_longer_than_its_process(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    begun, begin = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        with only_one(tmp_path):
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.write(begin, b"1")
                os.read(reading, 1)  # until the test is over
                os._exit(0)
            os.read(begun, 1)
            with pytest.raises(RunError, match="another process"), only_one(tmp_path):
                pass
        with only_one(tmp_path):
            pass
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)


def test_a_child_closes_the_locks_that_it_inherits(tmp_path: Path) -> None:
    with only_one(tmp_path):
        (held,) = lock._LOCKS
        copy = os.dup(held)  # what a child has of it after a fork
        lock._LOCKS.remove(held)
        lock._LOCKS.add(copy)
        lock._close_inherited()
        assert not lock._LOCKS
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(copy)


def loaded_without(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> ModuleType:
    """The module as it is loaded on a system that lacks those modules and functions of `os`."""
    for name in hidden:
        if hasattr(os, name):
            monkeypatch.delattr(os, name)
        else:
            monkeypatch.setitem(sys.modules, name, None)
    spec = util.spec_from_file_location("lock_elsewhere", lock.__file__)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_there_are_no_locks_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = loaded_without(monkeypatch, "fcntl", "register_at_fork")
    with elsewhere.only_one(tmp_path) as held, elsewhere.only_one(tmp_path):
        shutil.rmtree(tmp_path)
        held.require()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with only_one(tmp_path) as held:
        held.require()
