"""`deterministic: true`: torch is asked for algorithms that give equal bits, and left as it was afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import diffnas
from diffnas.errors import RecipeError
from diffnas.tasks.classification import Classification

SETS = [
    "data.train_limit=40",
    "data.test_limit=20",
    "train.layers=1",
    "train.channels=2",
    "train.batch=16",
    "train.epochs=1",
    "search.epochs=1",
    "search.batch=8",
    "space.nodes=1",
    "device=cpu",
]


def settings() -> tuple[Any, ...]:
    memory = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, memory


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


def test_it_holds_for_a_run_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, loss, before = set(), Classification.loss, settings()

    def watched(self: Any, net: Any, batch: Any) -> Any:
        seen.add((settings(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return loss(self, net, batch)

    monkeypatch.setattr(Classification, "loss", watched)
    recipe = diffnas.read_recipe("darts-digits-tiny", [*SETS, "deterministic=true"])
    weights = []
    for name in ("a", "b"):
        run = diffnas.search(recipe, tmp_path / name)
        weights.append(load_file(diffnas.train(run, recipe).training().weights))
    assert seen == {((True, True, False, False), ":4096:8")} and settings() == before
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_an_operation_that_has_no_such_algorithm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = Classification.loss

    def puts(self: Any, net: Any, batch: Any) -> Any:
        torch.zeros(4).put_(torch.tensor([0]), torch.ones(1))
        return loss(self, net, batch)

    monkeypatch.setattr(Classification, "loss", puts)
    recipe = diffnas.read_recipe("darts-digits-tiny", [*SETS, "deterministic=true"])
    with pytest.raises(RecipeError, match="^deterministic: torch has no algorithm of put_ that gives equal bits"):
        diffnas.train("darts-v2", recipe, tmp_path / "run")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_keeps_to_it(tmp_path: Path) -> None:
    diffnas.search(diffnas.read_recipe("darts-digits-tiny", SETS), tmp_path / "run")
    other = diffnas.read_recipe("darts-digits-tiny", [*SETS, "deterministic=true", "search.draws=device"])
    with pytest.raises(RecipeError) as refused:
        diffnas.search(other, tmp_path / "run", resume=True)
    assert ["deterministic differs" in refused.value.lines[0], "search.draws differs" in refused.value.lines[1]] == [
        True,
        True,
    ]
