"""Files of a run that are lost, damaged or another run's: said by name, and written anew where the run still knows them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import diffnas
from diffnas.cli.main import main
from diffnas.errors import CheckpointError
from diffnas.pipeline.environment import recorded
from diffnas.runtime.checkpoint import checkpoint_path, read_checkpoint, save_checkpoint

SMALL = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=64", "data.test_limit=64"]
SMALL += ["train.layers=1", "train.channels=2", "search.validate_every=0"]
WORDS = ["space.units=2", "space.steps=1", "data.train_limit=200", "data.test_limit=100", "search.epochs=1"]
NAME = "darts-digits-tiny-seed0"
Say = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: `own` and `other`, searched and trained, and `words`, a search for text."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest
        for name, seed in (("own", 0), ("other", 5)):
            recipe = diffnas.read_recipe("darts-digits-tiny", [*SMALL, f"seed={seed}"])
            diffnas.train(diffnas.search(recipe, folder / name), recipe, folder / name, name=NAME)
        diffnas.search(diffnas.read_recipe("darts-rnn-demo", WORDS), folder / "words")
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `own`."""
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(runs / "own", tmp_path / "run")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """The exit code of a command, and what it says."""

    def command(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err

    return command


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "diffnas-finished-1", "search.epochs": "2"}', None])
def test_a_damaged_mark_is_named(content: str | None, run: Path, say: Say) -> None:
    mark = run / "search" / "finished.json"
    whole = mark.read_text()
    mark.unlink()
    if content is None:
        mark.symlink_to("/dev/null")
    else:
        mark.write_text(content)
    code, said = say("train", run, "--train", "b")
    assert code == 2 and f"{mark}: damaged" in said and f"diffnas search --resume {run}" in said
    code, said = say("search", "--resume", run)
    assert code == 0 and f"{mark}: damaged" in said and mark.read_text() == whole
    assert say("train", run, "--train", "b", "-q") == (0, "")


def test_a_lost_checkpoint_is_said(run: Path, say: Say) -> None:
    for part in ("search", f"train/{NAME}"):
        max((run / part / "checkpoint").iterdir()).unlink()
    code, said = say("search", "--resume", run, "-s", "search.epochs=3")
    lost = "no checkpoint of epoch 2 is left, or a kill came before it was written; computing anew from epoch 2"
    assert code == 0 and f"{run}/search/checkpoint: {lost}" in said
    code, said = say("train", "--resume", run)
    assert code == 0 and f"{run}/train/{NAME}/checkpoint: {lost}" in said


def test_weights_that_are_not_its_own_are_written_anew(runs: Path, run: Path, say: Say) -> None:
    weights = run / "train" / NAME / "weights.safetensors"
    whole = weights.read_bytes()
    other = (runs / "other" / "train" / NAME / "weights.safetensors").read_bytes()
    for content in (whole[:-1], whole[:7], b"", bytes([whole[0] ^ 1]) + whole[1:], other):
        weights.write_bytes(content)
        code, said = say("train", "--resume", run)
        assert code == 0 and f"{weights}: d" in said and weights.read_bytes() == whole, said
    code, said = say("train", "--resume", run)
    assert code == 0 and "has finished" in said and f"{weights}: " not in said


def test_a_lost_genotype_is_written_anew(run: Path, say: Say) -> None:
    genotype = run / "search" / "genotype.json"
    whole = genotype.read_bytes()
    for content in (None, b"", whole[:-9]):
        genotype.unlink()
        if content is not None:
            genotype.write_bytes(content)
        assert say("search", "--resume", run)[0] == 0 and genotype.read_bytes() == whole
    genotype.write_text(diffnas.load_genotype("darts-v2").to_json())  # somebody's own is kept, and said
    said = f"{genotype}: is not what the search found; it is taken as it is"
    for command in (["search", "--resume", run], ["show", run, "--json"], ["train", run, "--train", "b"]):
        assert said in say(*command)[1] and genotype.read_bytes() != whole


def test_the_recipe_of_another_run(runs: Path, run: Path, say: Say) -> None:
    recipe = run / "search" / "recipe.yaml"
    shutil.copy(runs / "other" / "search" / "recipe.yaml", recipe)
    for command in (["train", run, "--train", "b"], ["show", run, "--stats"]):
        code, said = say(*command)
        assert code == 0 and f"{recipe}: has changed since the run wrote it" in said
    code, said = say("search", "--resume", run)
    place = run / "search" / "checkpoint"
    line = f"{place}: does not fit the recipe beside it: seed was 0, and is 5 in recipe.yaml; was a file exchanged?"
    assert (code, said) == (2, f"diffnas: {line}\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_recipe_that_is_no_file_is_not_taken_from_the_training(run: Path, say: Say) -> None:
    recipe = run / "search" / "recipe.yaml"
    recipe.unlink()
    lost = say("train", run, "--train", "b")
    os.mkfifo(recipe)
    for code, said in (lost, say("train", run, "--train", "b"), say("show", run, "--stats")):
        assert code == 2 and f"{recipe}: cannot be read" in said


def test_sizes_pass_over_what_is_not_the_runs(
    runs: Path, run: Path, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    def sizes() -> str:
        capsys.readouterr()
        assert main(["show", str(run), "--stats"]) == 0
        return capsys.readouterr().out

    whole, weights = sizes(), run / "train" / NAME / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, said = say("show", run, "--stats")
    assert code == 0 and f"{weights}: damaged" in said and sizes() == whole
    weights.unlink()
    (newest,) = (runs / "words" / "search" / "checkpoint").iterdir()
    shutil.copy(newest, max((run / "search" / "checkpoint").iterdir()))
    code, said = say("show", run, "--stats")
    assert code == 2 and f"{run}/search/checkpoint: does not fit the recipe beside it" in said


@pytest.mark.parametrize("forged", ["x", 1.0, torch.tensor(0.0), torch.zeros(3, 3)])
def test_a_forged_momentum(forged: object, run: Path) -> None:
    folder = run / "search" / "checkpoint"
    position = int(max(folder.iterdir()).stem)
    state = read_checkpoint(checkpoint_path(folder, position))
    next(iter(state["state"]["search"]["weights_optimizer"]["slots"].values()))["momentum_buffer"] = forged
    save_checkpoint(folder, position, state)
    more = diffnas.read_recipe(run / "search" / "recipe.yaml", ["search.epochs=3"])
    with pytest.raises(CheckpointError, match="does not fit the recipe beside it; was a file exchanged"):
        diffnas.search(more, run, resume=True)


@pytest.mark.parametrize(("name", "key"), [("own", "classes"), ("own", "mean"), ("own", "side"), ("words", "counts")])
def test_forged_inputs(name: str, key: str, runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / name, tmp_path / "run")
    folder = run / "search" / "checkpoint"
    position = int(max(folder.iterdir()).stem)
    state = read_checkpoint(checkpoint_path(folder, position))
    forged = torch.tensor(8.0)
    state["inputs"][key] = [forged, *state["inputs"][key][1:]] if key != "side" else forged
    save_checkpoint(folder, position, state)
    more = diffnas.read_recipe(run / "search" / "recipe.yaml", ["search.epochs=3"])
    with pytest.raises(CheckpointError, match="does not fit the recipe beside it; was a file exchanged"):
        diffnas.search(more, run, resume=True)


def test_the_digest_of_weights_is_noted_before_them(run: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights say that a training has ended; what a full disk keeps from being written after them would never be."""
    part = diffnas.Run(run).training()
    noted = recorded(part)["weights"]
    part.weights.unlink()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("diffnas.pipeline.weights.write_bytes", full)
        assert say("train", "--resume", run)[0] == 2
    assert recorded(part)["weights"] == noted
    assert say("train", "--resume", run)[0] == 0 and part.weights.is_file()


def test_what_a_recipes_digest_is(run: Path) -> None:
    part = diffnas.Run(run).search
    digest = hashlib.sha256(part.recipe.read_bytes()).hexdigest()
    assert json.loads((part.path / "environment.json").read_text())["recipe"] == digest
