"""The whole way on real CIFAR-10: search, train, test."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffnas


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path, cifar10: Path) -> None:
    small = [f"data.path={cifar10}", "data.train_limit=2000", "data.test_limit=1000", "space.nodes=2", "space.layers=2"]
    recipe = diffnas.read_recipe("darts-cifar10-tiny", [*small, "search.batch=32", "train.batch=32"])
    run = diffnas.search(recipe, tmp_path / "run")
    diffnas.train(diffnas.load_genotype(run.path), recipe, run.path)
    rows = run.search.metrics()
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] < 2.4
    trained = run.training().metrics()
    assert trained[-1]["train_loss"] < 0.85 * trained[0]["train_loss"]
    result = diffnas.test(run)
    assert result["n"] == 1000 and result["interval"][0] > 30.0  # chance is 10
