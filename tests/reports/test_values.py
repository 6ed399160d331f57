"""Files of metrics that grow, are cut short, or are written anew while they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffnas.reports import values
from diffnas.reports.values import MetricsFile, read_metrics


def row(epoch: int, **more: Any) -> str:
    return json.dumps({"epoch": epoch, "train_loss": 1.0 / (epoch + 1), "seconds": 2.0, **more}) + "\n"


def test_it_reads_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, parsed, plain = tmp_path / "metrics.jsonl", list[bytes](), values._row

    def note(line: bytes) -> Any:
        parsed.append(line)
        return plain(line)

    monkeypatch.setattr(values, "_row", note)
    file = MetricsFile(path)
    assert file.read([]).rows == []
    text = "".join(map(row, range(30)))
    for cut in (0, 10, 60, 61, 700, 701, len(text)):
        with path.open("a") as grown:
            grown.write(text[path.stat().st_size : cut])
        problems, others = list[str](), list[str]()
        parsed.clear()
        read = file.read(problems)
        added = len(parsed)
        assert read == read_metrics(path, others) and problems == others, cut
    assert added < 30 and read.epochs == 30 and read.seconds == 60.0
    parsed.clear()
    assert file.read([]) == read and parsed == []


@pytest.mark.parametrize(
    "after",
    [
        row(0) + row(1),  # cut short
        "".join(row(epoch, note="anew") for epoch in range(20)),  # written anew, and longer
        "",
        None,
    ],
)
def test_what_was_written_anew_is_read_anew(tmp_path: Path, after: str | None) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(map(row, range(9))) + "{damaged\n")
    file = MetricsFile(path)
    assert file.read([]).epochs == 9
    path.unlink() if after is None else path.write_text(after)
    problems, others = list[str](), list[str]()
    assert file.read(problems) == read_metrics(path, others) and problems == others == []


def test_a_file_in_another_s_place(tmp_path: Path) -> None:
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other"
    path.write_text("".join(map(row, range(9))))
    file = MetricsFile(path)
    file.read([])
    other.write_text("".join(map(row, range(9))) + row(3, train_loss=7.0))
    other.replace(path)
    assert file.read([]).rows[3]["train_loss"] == 7.0


def test_few_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(map(row, range(500))))
    problems = list[str]()
    read = MetricsFile(path, 2).read(problems)
    assert len(read.rows) <= 3 and read.rows[-1]["epoch"] == 499 and (read.epochs, read.seconds) == (500, 1000.0)
    assert problems == []


def test_a_huge_file_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "LARGEST_METRICS", 200)
    monkeypatch.setattr(values, "LONGEST_ROW", 100)
    path = tmp_path / "metrics.jsonl"
    path.write_text(row(0) + "x" * 1000 + "\n" + row(1))
    file, problems = MetricsFile(path), list[str]()
    for _ in range(2):
        problems.clear()
        assert file.read(problems).epochs == 1
    assert any("larger than" in line for line in problems)


def test_a_large_file_is_read_in_several_calls(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(map(row, range(50))) + "\n" * 100 + row(50))
    file, calls = MetricsFile(path, at_once=1000), 0
    while not calls or file.behind:
        read, calls = file.read([]), calls + 1
    assert 5 < calls < 40 and read == read_metrics(path, [])


def test_empty_lines_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "LEAST_COST", 2**20)
    path, problems = tmp_path / "metrics.jsonl", list[str]()
    path.write_text(row(0) + "\n" * 100)
    assert read_metrics(path, problems).epochs == 1 and "too many rows" in problems[0]
