"""What commands leave beside a result: the page, sizes, and what a test says of each class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import diffnas
from diffnas.pipeline.evaluate import evaluate
from diffnas.pipeline.sizes import size_facts
from diffnas.pipeline.sources import images
from diffnas.pipeline.sources.images import load_data
from diffnas.tasks.classification import Classification

TINY = ["data.train_limit=64", "data.test_limit=64", "search.epochs=1", "train.epochs=1", "search.batch=16"]
TINY += ["train.layers=1", "train.channels=2", "train.batch=16", "search.validate_every=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "run"
    recipe = diffnas.read_recipe("darts-digits-tiny", TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest
        diffnas.search(recipe, path, note="first <try>")
        searched = (path / "report.html").read_text()
        diffnas.train(path, recipe, path)
        trained = (path / "report.html").read_text()
    diffnas.test(path)
    tested = (path / "report.html").read_text()
    assert "Training" not in searched and "It was not tested" in trained and "Confusion matrix" in tested
    return path


def test_notes_and_memory_are_recorded(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "first &lt;try&gt;" in page and page.count("GiB (process)") == 2
    before = (run / "search/metrics.jsonl").read_bytes()
    diffnas.search(None, run, resume=True, note="second")  # it has finished: only the note is added
    assert json.loads((run / "search/environment.json").read_text())["notes"] == ["first <try>", "second"]
    assert (run / "search/metrics.jsonl").read_bytes() == before


def test_sizes_are_recorded(run: Path) -> None:
    test = json.loads((run / "train/darts-digits-tiny-seed0/test.json").read_text())
    for part in (run / "search", run / "train/darts-digits-tiny-seed0"):
        found = json.loads((part / "sizes.json").read_text())
        assert found["format"] == "diffnas-sizes-1"
        (row,) = found["sizes"]
        assert (row["params"], row["macs"]) == (test["params"], test["macs"])
    recipe = diffnas.read_recipe("darts-digits-tiny", TINY)
    assert found["sizes"] == size_facts(diffnas.load_genotype(run), recipe)["sizes"]


def test_a_test_counts_per_class(run: Path) -> None:
    test = json.loads((run / "train/darts-digits-tiny-seed0/test.json").read_text())
    counts = test["confusion"]
    assert test["classes"] == [str(k) for k in range(10)]
    assert [sum(row) for row in counts] == test["class_images"] and sum(test["class_images"]) == test["n"] == 64
    assert [counts[k][k] for k in range(10)] == test["class_right"]
    assert 100.0 * sum(test["class_right"]) / 64 == pytest.approx(test["accuracy"])


class Always(nn.Module):
    """A network that takes everything for class 3."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[3].expand(len(images), 10)


def test_rows_of_the_matrix_are_true_classes() -> None:
    recipe = diffnas.read_recipe("darts-digits-tiny", TINY)
    data = load_data(recipe)
    feed = images.test_feed(recipe, data, torch.device("cpu"))
    matrix = evaluate(Always(), Classification(), feed, torch.float32, confusion=True).confusion
    assert matrix is not None
    assert [row[3] for row in matrix] == data.test.labels.bincount(minlength=10).tolist()
    assert sum(map(sum, matrix)) == 64 and all(row[k] == 0 for row in matrix for k in range(10) if k != 3)
    assert evaluate(Always(), Classification(), feed, torch.float32).per_class(("a",)) == {}


def test_a_page_that_fails_costs_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("diffnas.pipeline.leave_report.write_report", fail)
    warned: list[str] = []
    monkeypatch.setattr("diffnas.pipeline.leave_report.log.warning", lambda text, *values: warned.append(text % values))
    assert diffnas.test(run)["n"] == 64
    assert warned == [f"{run}/report.html: not written: ZeroDivisionError: on purpose"]
