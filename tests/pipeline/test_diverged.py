"""Numbers that are no longer finite: the epoch does not end, nothing of it is written, and only rates may fall after that."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas.cli.main import main
from diffnas.core.batch import Loss
from diffnas.engine.curvature import lanczos
from diffnas.engine.scoring import Scores
from diffnas.engine.search import Search
from diffnas.errors import Diverged, RecipeError
from diffnas.methods.darts import DARTS
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.checkpoint import load_checkpoint
from diffnas.tasks.classification import Classification

SMALL = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=128", "data.test_limit=100"]
SMALL += ["search.validate_every=0", "train.layers=1", "train.channels=2"]
SCORE = Scores(torch.tensor(1.0), torch.tensor(0.5), torch.tensor(0.5))


def tiny(*overrides: str) -> Recipe:
    return diffnas.read_recipe("darts-digits-tiny", [*SMALL, *overrides])


def diverges(folder: Path, said: str, *overrides: str) -> diffnas.Run:
    """A search that ends with these words, leaving nothing of its first epoch."""
    with pytest.raises(Diverged, match=f"{said}.*lower the learning rate .* diffnas search --resume {folder} --set"):
        diffnas.search(tiny(*overrides), folder)
    run = diffnas.Run(folder)
    assert run.search.metrics() == [] and not run.search.genotype.exists() and not run.search.checkpoints.exists()
    assert said in json.loads((folder / "search" / "environment.json").read_text())["attempts"][-1]["diverged"]
    return run


@pytest.fixture(autouse=True)
def _no_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest


@pytest.mark.parametrize(
    "method",
    [
        "drnas, warmup: 0",
        "drnas, warmup: 0, regulariser: kl",
        "gdas",
        "enas, controller_steps: 3, aggregate: 2, candidates: 2",
    ],
)
def test_architecture_parameters(method: str, tmp_path: Path) -> None:
    """These draw one-hot or normalised shares, which stay finite whatever the parameters are."""
    diverges(
        tmp_path / "run",
        "after epoch 1 the architecture parameters are not finite",
        f"method={{name: {method}}}",
        "search.arch.lr=1e36",
        "search.epochs=1",
        "data.train_limit=256",
        "search.batch=16",
    )


def poisoned(monkeypatch: pytest.MonkeyPatch, at: int, what: str) -> None:
    """Makes a tensor of the search nan after step `at`, as the last step of an epoch would, whose losses are known before."""
    seen, whole = 0, DARTS.step

    def step(self: DARTS, search: Search, batches: Any) -> Any:
        nonlocal seen
        losses = whole(self, search, batches)
        seen += 1
        if seen == at:
            with torch.no_grad():
                found = {"alpha": search.arch.parameters(), "weights": search.weights, "buffers": search.arch.buffers()}
                next(t for t in found[what] if t.is_floating_point()).view(-1)[0] = math.nan
        return losses

    monkeypatch.setattr(DARTS, "step", step)


@pytest.mark.parametrize("order", ["false", "true"])
@pytest.mark.parametrize(
    ("what", "name"), [("alpha", "architecture parameters"), ("weights", "weights of the supernet")]
)
def test_after_the_last_step(order: str, what: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 2, what)
    diverges(tmp_path / "run", f"after epoch 1 the {name} are not finite", f"method.unrolled={order}")


def test_the_sharing_of_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffnas.methods.pcdarts import PCDARTS

    def step(self: Any, search: Search, batches: Any) -> dict[str, Loss]:
        with torch.no_grad():
            dict(search.arch.named_parameters())["beta.normal"][0] = math.inf
        return {}

    monkeypatch.setattr(PCDARTS, "step", step)
    method = ["method={name: pcdarts, warmup: 0}", "space.partial=2"]
    diverges(tmp_path / "run", "after epoch 1 the architecture parameters are not finite", *method)


def test_what_a_method_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.engine.score", lambda *a: replace(SCORE, reward=torch.tensor(math.nan)))
    method = "method={name: rsws, rounds: 1, candidates: 2, finalists: 1}"
    with pytest.raises(Diverged, match="after epoch 2 what the method remembers are not finite"):
        diffnas.search(tiny(method, "search.epochs=1"), tmp_path / "run")
    assert len(diffnas.Run(tmp_path / "run").search.metrics()) == 1


@pytest.mark.parametrize("quantity", ["score loss", "eigenvalue"])
def test_what_is_measured_after_the_epoch(quantity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = torch.tensor(math.nan)
    monkeypatch.setattr("diffnas.pipeline.search_report.score", lambda *a, **k: replace(SCORE, loss=bad))
    monkeypatch.setattr("diffnas.pipeline.search_report.largest_eigenvalue", lambda *a: math.inf)
    every = "search.validate_every=1" if quantity == "score loss" else "search.eigenvalue_every=1"
    diverges(tmp_path / "run", f"the {quantity} of epoch 1 is not finite", every)


def test_an_eigenvalue_that_cannot_be_found_is_nan() -> None:
    found = lanczos(lambda v: v * math.nan, 4, 3, torch.Generator().manual_seed(0))
    assert math.isnan(found)


def test_losses_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genotype = diffnas.load_genotype("darts-v2")
    with pytest.raises(Diverged, match="epoch 1 .*not finite: the training has diverged; lower the learning rate"):
        diffnas.train(genotype, tiny("train.lr=1e30", "train.clip=null"), tmp_path / "a")
    whole = Classification.loss

    def loss(self: Classification, net: Any, batch: Any) -> Loss:
        found = whole(self, net, batch)
        return found if found.value.requires_grad else replace(found, value=found.value * math.inf)

    monkeypatch.setattr(Classification, "loss", loss)
    with pytest.raises(Diverged, match="the test loss of epoch 1 is not finite"):
        diffnas.train(genotype, tiny(), tmp_path / "b")
    for name in ("a", "b"):
        part = diffnas.Run(tmp_path / name).training()
        assert part.metrics() == [] and not part.checkpoints.exists() and not part.weights.exists()


def test_a_checkpoint_within_an_epoch_holds_nothing_that_diverged(tmp_path: Path, monkeypatch: Any) -> None:
    whole = DARTS.step

    def step(self: DARTS, search: Search, batches: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        found = whole(self, search, batches)
        with torch.no_grad():
            search.weights[0].fill_(math.nan)
        return found

    monkeypatch.setattr(DARTS, "step", step)
    diverges(tmp_path / "run", "after step 1 of epoch 1 the weights of the supernet are not finite")


# -- going on


def rate(run: Path) -> float:
    state = load_checkpoint(diffnas.Run(run).search.checkpoints)
    assert state is not None
    return float(state["state"]["search"]["arch_optimizer"]["lr"][0])


def test_after_a_divergence_rates_may_fall_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        poisoned(patch, 4, "alpha")
        with pytest.raises(Diverged, match="after epoch 2 the architecture"):
            diffnas.search(tiny(), run)
    before = (run / "search" / "recipe.yaml").read_text()
    for key, value, rule in (
        ("search.arch.lr", "1", "a run that diverged may lower learning rates, not raise them; it was 0.0003"),
        ("search.arch.decay", "0", "a resumed run may change limits"),
        ("search.batch", "16", "a resumed run may change limits"),
    ):
        with pytest.raises(RecipeError, match=f"{key} differs from the run's; {rule}"):
            diffnas.search(tiny(f"{key}={value}"), run, resume=True)
    assert (run / "search" / "recipe.yaml").read_text() == before
    lower = ["-s", "search.arch.lr=1e-4", "-s", "search.weights.lr=0.01"]
    assert main(["search", "--resume", str(run), "-q", *lower]) == 0
    attempts = json.loads((run / "search" / "environment.json").read_text())["attempts"]
    assert attempts[-1]["lowered"] == {"search.arch.lr": [3e-4, 1e-4], "search.weights.lr": [0.025, 0.01]}
    assert "diverged" in attempts[0] and "diverged" not in attempts[1]
    assert rate(run) == 1e-4 and diffnas.Run(run).search.metrics()[1]["lr"] < 0.01
    assert diffnas.read_recipe(run / "search" / "recipe.yaml").search.arch.lr == 1e-4  # type: ignore[union-attr]
    capsys.readouterr()
    assert main(["search", "--resume", str(run), "-s", "search.arch.lr=1e-5", "-s", "search.epochs=3"]) == 2
    assert "search.arch.lr differs from the run's; a resumed run may change limits" in capsys.readouterr().err


def test_lower_rates_hold_although_the_attempt_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint is that of the higher rates until it is written again, which is the first thing that happens."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        poisoned(patch, 4, "alpha")
        with pytest.raises(Diverged):
            diffnas.search(tiny(), run)

    class Killed(BaseException):
        """What nothing handles."""

    def kill(*arguments: Any, **named: Any) -> None:
        raise Killed

    for place in ("diffnas.pipeline.session.save_checkpoint", "diffnas.pipeline.session.record_attempt"):
        with monkeypatch.context() as patch:
            patch.setattr(place, kill)
            with pytest.raises(Killed):
                diffnas.search(tiny("search.arch.lr=1e-4"), run, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(DARTS, "step", kill)
        with pytest.raises(Killed):
            diffnas.search(None, run, resume=True)
    diffnas.search(None, run, resume=True)
    assert rate(run) == 1e-4


def test_a_training_goes_on_with_a_lower_rate(tmp_path: Path) -> None:
    genotype = diffnas.load_genotype("darts-v2")
    with pytest.raises(Diverged):
        diffnas.train(genotype, tiny("train.lr=1e30", "train.clip=null"), tmp_path)
    run = diffnas.train(None, tiny("train.lr=0.01", "train.clip=null"), tmp_path, resume=True)
    assert diffnas.test(run)["n"] == 100


def test_the_command_line_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [word for key in (*SMALL, "search.weights.lr=1e30", "search.weights.clip=null") for word in ("-s", key)]
    assert main(["search", "darts-digits-tiny", "--run", str(tmp_path / "run"), "-q", *sets]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "loss of epoch 1 is not finite" in shown.err
