"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffnas.errors import RecipeError
from diffnas.methods.budget.cost_table import read_cost_table
from diffnas.recipe.recipe import read_recipe
from diffnas.runtime.files import add_text, is_file, is_folder, read_bytes, sweep, sweep_file, write_bytes, write_text


def test_written_whole_where_the_folder_is(tmp_path: Path) -> None:
    path = tmp_path / "a" / "c.txt"
    with pytest.raises(FileNotFoundError, match="c.txt"):
        write_text(path, "é\n")
    assert os.listdir(tmp_path) == []
    path.parent.mkdir()
    write_text(path, "é\n")
    write_text(path, "two\n")
    assert path.read_bytes() == b"two\n" and os.listdir(path.parent) == ["c.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace", "chmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="No space"):
                write_bytes(path, b"new")
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_a_folder_or_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_text(tmp_path / "file" / "x", "text")
    with pytest.raises(OSError):
        write_text(tmp_path, "text")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("path", ["", "gone", "x" * 5000, "a\0b"])
def test_what_is_no_path_is_neither(path: str) -> None:
    assert not is_file(path) and is_folder(path) == (path == "")


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert is_file(tmp_path / "file") and not is_folder(tmp_path / "file")
    assert is_folder(tmp_path) and not is_file(tmp_path) and not is_file(tmp_path / "file" / "x")


def test_the_umask_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_bytes(tmp_path / "private", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_a_file_is_read_and_what_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file") == b"12345" and read_bytes(tmp_path / "file", 2) == b"12"
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "gone")
    with pytest.raises(OSError, match="directory|Permission"):
        read_bytes(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path(os.devnull)):
        with pytest.raises(OSError, match="a pipe or device; save what it holds to a file"):
            read_bytes(path)
    for read in (read_recipe, read_cost_table):
        with pytest.raises(RecipeError, match="pipe.csv: cannot be read: a pipe or device"):
            read(tmp_path / "pipe.csv")


def test_nothing_is_added_to_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows")  # opening it to write would wait for a reader
    with pytest.raises(OSError, match="no file; move it away"):
        add_text(tmp_path / "rows", "row\n")


def test_what_a_kill_has_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    left = [tmp_path / ".x.json.abcd1234.tmp", tmp_path / "a" / ".y.pt.00_0__zz.tmp"]
    kept = [tmp_path / ".mine.tmp", tmp_path / "x.json", tmp_path / "a" / ".y.ABCDEFGH.tmp"]
    for path in (*left, *kept):
        path.write_text("")
    folder = tmp_path / ".f.abcd1234.tmp"
    folder.mkdir()
    sweep_file(tmp_path / "x.json")
    assert not left[0].exists() and left[1].exists()
    sweep_file(tmp_path / "f")  # a folder of that name is no file that was being written
    sweep(tmp_path)
    assert not left[1].exists() and all(path.exists() for path in (*kept, folder))
