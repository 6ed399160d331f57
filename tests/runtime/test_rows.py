"""Rows of metrics: added whole, read without what is damaged, and nothing dropped that is not kept beside."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from diffnas.errors import RunError
from diffnas.runtime.rows import add_row, keep_rows, plain_json, read_rows


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    row = {"epoch": 0, "loss": math.nan, "all": [math.inf, (-math.inf, 1.5)], "in": {"a": math.nan}, "name": "nan"}
    add_row(tmp_path / "m.jsonl", row)
    found = json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=pytest.fail)
    assert found == {"epoch": 0, "loss": None, "all": [None, [None, 1.5]], "in": {"a": None}, "name": "nan"}
    assert json.loads(plain_json([math.inf], indent=1)) == [None]


def test_a_row_is_on_the_disk_before_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    add_row(tmp_path / "m.jsonl", {"epoch": 0})
    assert synced == [len('{"epoch": 0}\n')]


def test_what_is_dropped_is_kept_beside_and_gaps_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"epoch": 0, "loss": 1.50}',
        '{"epoch": 1, "lo',
        '{"epoch": 2}',
        '{"epoch": 2, "again": 1}',
        '{"epoch": 4}',
    ]
    path.write_text("\n".join(lines))
    keep_rows(path, 4)
    assert path.read_text() == f"{lines[0]}\n{lines[2]}\n"
    assert (tmp_path / "metrics.dropped.jsonl").read_text().splitlines() == [lines[1], lines[3], lines[4]]
    assert f"{path}: damaged rows: 1; they are left out here and kept in metrics.dropped.jsonl" in caplog.messages
    assert f"{path}: has no row of epoch 2, 4; the run itself does not need them" in caplog.messages
    keep_rows(path, 1)
    assert len((tmp_path / "metrics.dropped.jsonl").read_text().splitlines()) == 4
    caplog.clear()
    path.unlink()
    keep_rows(path, 40)
    assert caplog.messages == [
        f"{path}: has no row of epoch 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 30 more; the run itself does not need them"
    ]
    assert not path.exists()


def test_whole_rows_are_left_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    keep_rows(path, 0)
    path.write_text('{"epoch": 0, "x": 1e0}\n{"epoch": 1}\n')
    before = path.stat()
    keep_rows(path, 2)
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["metrics.jsonl"] and not caplog.messages
    path.write_text('{"epoch": 0}')  # whole, but for its end
    keep_rows(path, 1)
    add_row(path, {"epoch": 1})
    assert [row["epoch"] for row in read_rows(path)] == [0, 1]


def test_what_cannot_be_read_is_refused_and_not_taken_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_rows(path) == []
    path.write_bytes('{"epoch": 0}\n'.encode("utf-16"))
    with pytest.raises(RunError, match=r"metrics\.jsonl: damaged: not a text file \(UTF-8\); move it away"):
        keep_rows(path, 1)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be read: Is a directory"):
        read_rows(path)
    path.rmdir()
    path.symlink_to("metrics.jsonl")
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be read: "):
        read_rows(path)
