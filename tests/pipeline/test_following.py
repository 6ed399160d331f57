"""Who follows a command: a function of the caller's, and whoever looks into the run folder; what a stop leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import diffnas
from diffnas.errors import Interrupted
from diffnas.pipeline import following
from diffnas.recipe.recipe import Recipe

TINY = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=128", "data.test_limit=100"]
TINY += ["train.layers=1", "train.channels=2", "search.validate_every=0"]


@pytest.fixture(autouse=True)
def _no_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest


def tiny() -> Recipe:
    return diffnas.read_recipe("darts-digits-tiny", TINY)


def test_a_function_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "TOLD_EVERY", 0.0)
    told: list[diffnas.Progress] = []
    run = diffnas.search(tiny(), tmp_path / "run", progress=told.append)
    steps = told[0].steps
    assert [(each.epoch, each.step) for each in told] == [(e, s) for e in (1, 2) for s in range(1, steps + 1)]
    assert {(each.command, each.epochs) for each in told} == {("search", 2)}
    assert all(each.left is not None and each.left >= 0 for each in told) and told[-1].left == 0.0
    assert set(told[-1].metrics) == {"train_loss", "train_accuracy", "valid_loss", "valid_accuracy"}
    assert run.search.metrics()[1]["train_loss"] == pytest.approx(told[-1].metrics["train_loss"])
    told.clear()
    diffnas.train(run, tiny(), run, progress=told.append)
    assert told[-1].command == "train" and (told[-1].epoch, told[-1].step) == (2, told[-1].steps)


def test_what_a_function_raises_reaches_its_caller(tmp_path: Path) -> None:
    def enough(progress: diffnas.Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        diffnas.search(tiny(), tmp_path / "run", progress=enough)
    assert json.loads((tmp_path / "run/search/progress.json").read_text())["at_work"] is False


def test_it_is_written_where_a_command_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WRITTEN_EVERY", 0.0)
    monkeypatch.setattr(following, "TOLD_EVERY", 0.0)
    path, seen = tmp_path / "run/search/progress.json", list[Any]()
    diffnas.search(tiny(), tmp_path / "run", progress=lambda _: seen.append(json.loads(path.read_text())))
    assert [(each["epoch"], each["step"]) for each in seen] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(each["at_work"] and each["epochs"] == 2 for each in seen)
    assert json.loads(path.read_text())["at_work"] is False


def test_a_stopped_command_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(progress: diffnas.Progress) -> None:
        if (progress.epoch, progress.step) == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(following, "TOLD_EVERY", 0.0)
    run, report = tmp_path / "run", tmp_path / "run/report.html"
    with pytest.raises(Interrupted):
        diffnas.search(tiny(), run, progress=stop)
    assert "not finished: 1 of 2 epochs" in report.read_text()
    diffnas.search(None, run, resume=True)
    report.unlink()
    with pytest.raises(Interrupted):
        diffnas.train(run, tiny(), run, progress=stop)
    assert "not finished: 1 of 2 epochs" in report.read_text() and "Training" in report.read_text()


def test_a_report_that_was_cut_short_leaves_nothing(tmp_path: Path) -> None:
    run = diffnas.search(tiny(), tmp_path / "run")
    left, other = run.path / ".report.html.abcd1234.tmp", run.path / ".other.abcd1234.tmp"
    left.write_text("half")
    other.write_text("another's")
    diffnas.search(None, run, resume=True)
    assert not left.exists() and other.exists()
