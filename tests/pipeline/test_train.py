"""A training from genotype to tested weights."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import diffnas
from diffnas.errors import Interrupted, RecipeError, RunError, UserError, WeightsError
from diffnas.pipeline.evaluate import Evaluation
from diffnas.recipe.recipe import Recipe
from diffnas.registry import TASKS
from diffnas.tasks.classification import Classification

NAME = "darts-digits-tiny-seed0"


def tiny(*overrides: str) -> Recipe:
    limits = ["data.train_limit=96", "data.test_limit=100", "train.layers=1", "train.channels=2"]
    return diffnas.read_recipe("darts-digits-tiny", [*limits, *overrides])


def rows(run: diffnas.Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.training().metrics()]


def test_what_a_training_leaves(tmp_path: Path) -> None:
    genotype = diffnas.load_genotype("darts-v2")
    run = diffnas.train(genotype, tiny(), tmp_path / "run")
    part = run.training()
    assert part.path.name == NAME
    for name in (
        "recipe.yaml",
        "environment.json",
        "genotype.json",
        "metrics.jsonl",
        "weights.safetensors",
        "cells.svg",
    ):
        assert (part.path / name).is_file(), name
    with safe_open(part.weights, "pt") as file:
        metadata = file.metadata()
    inside = json.loads(metadata["diffnas"])
    assert diffnas.load_genotype(inside["genotype"]) == genotype
    assert inside["classes"] == [str(digit) for digit in range(10)]
    assert [row["epoch"] for row in rows(run)] == [0, 1] and {"train_loss", "test_accuracy"} <= set(rows(run)[1])
    result = diffnas.test(run)
    assert result == json.loads((part.path / "test.json").read_text())
    assert result["accuracy"] == pytest.approx(rows(run)[1]["test_accuracy"])
    low, high = result["interval"]
    assert 0 <= low <= result["accuracy"] <= high <= 100 and result["n"] == 100


def test_trainings_of_one_run_stand_side_by_side(tmp_path: Path) -> None:
    genotype = diffnas.load_genotype("darts-v1")
    for seed in (0, 1):
        run = diffnas.train(genotype, tiny(f"seed={seed}", "train.epochs=1"), tmp_path)
    assert run.trainings() == [NAME, "darts-digits-tiny-seed1"]
    with pytest.raises(RunError, match="choose one with --train"):
        diffnas.test(run)
    first, second = (load_file(run.train(name).weights) for name in run.trainings())
    assert not torch.equal(first["stem.0.weight"], second["stem.0.weight"])
    with pytest.raises(RunError, match="is not empty"):
        diffnas.train(genotype, tiny("train.epochs=1"), tmp_path)


@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_stopped_training_goes_on_bit_for_bit(at: int, tmp_path: Path, monkeypatch: Any) -> None:
    genotype, recipe = diffnas.load_genotype("gdas-v1"), tiny()  # three steps an epoch, with drop path and cutout
    whole = diffnas.train(genotype, recipe, tmp_path / "whole")
    seen = 0

    class Stopping(Classification):
        def loss(self, net: Any, batch: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss(net, batch)

    with monkeypatch.context() as patched:
        patched.setitem(TASKS, "classification", Stopping)
        with pytest.raises(
            Interrupted, match="stopped by SIGINT; a checkpoint is written; go on with: diffnas train --resume"
        ):
            diffnas.train(genotype, recipe, tmp_path / "part")
    with pytest.raises(RunError, match="finish the training"):
        diffnas.test(tmp_path / "part")
    part = diffnas.train(None, None, tmp_path / "part", resume=True)
    ours, theirs = load_file(part.training().weights), load_file(whole.training().weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and rows(part) == rows(whole)
    assert part.training().weights.read_bytes() == whole.training().weights.read_bytes()


def test_drop_path_grows_and_cutout_cuts(tmp_path: Path, monkeypatch: Any) -> None:
    seen = []

    class Watching(Classification):
        def loss(self, net: Any, batch: Any) -> Any:
            if getattr(net, "training", False):
                seen.append((float(net.drop_path), net.drops))
            return super().loss(net, batch)

    monkeypatch.setitem(TASKS, "classification", Watching)
    diffnas.train(diffnas.load_genotype("darts-v2"), tiny("train.drop_path=0.4", "train.epochs=4"), tmp_path)
    assert sorted(set(seen)) == [(pytest.approx(0.4 * epoch / 4), True) for epoch in range(4)]


def test_an_auxiliary_head_is_trained_where_it_fits(tmp_path: Path) -> None:
    recipe = tiny("data.side=32", "train.auxiliary=true", "train.layers=2", "train.epochs=1")
    run = diffnas.train(diffnas.load_genotype("darts-v2"), recipe, tmp_path)
    weights = load_file(run.training().weights)
    assert any(name.startswith("auxiliary.") for name in weights)
    assert diffnas.test(run)["auxiliary_params"] > 0


def test_what_is_refused(tmp_path: Path) -> None:
    genotype = diffnas.load_genotype("darts-v2")
    with pytest.raises(RecipeError, match="needs 8x8 features; here they are 2x2"):
        diffnas.train(genotype, diffnas.read_recipe("darts-digits-tiny", ["train.auxiliary=true"]), tmp_path)
    with pytest.raises(RunError, match="nothing to train"):
        diffnas.train(None, tiny(), tmp_path)
    with pytest.raises(RunError, match="name the run folder"):
        diffnas.train(None, None, resume=True)
    assert not list(tmp_path.iterdir())


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    run = diffnas.train(diffnas.load_genotype("darts-v2"), tiny("train.epochs=1"), tmp_path)
    weights = run.training().weights
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="weights.safetensors: damaged"):
        diffnas.test(run)
    weights.write_bytes(content)
    run.training().genotype.write_text(diffnas.load_genotype("nasnet").to_json())
    with pytest.raises(UserError, match="does not fit the genotype"):
        diffnas.test(run)


def test_interval_is_wilsons() -> None:
    low, high = Evaluation(0.0, 0.97, 1.0, 500).interval()
    assert (round(low, 4), round(high, 4)) == (0.9511, 0.9817)
    assert Evaluation(0.0, 1.0, 1.0, 10).interval()[1] == pytest.approx(1.0)
