"""Recurrent cells from text to perplexity: what a search and a training leave, how they go on, and what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import diffnas
from diffnas import engine
from diffnas.cli.main import main
from diffnas.core.batch import Batch, Loss
from diffnas.core.space import TextShape
from diffnas.data.texts import TEXTS
from diffnas.engine import Search, score
from diffnas.engine.method import Method
from diffnas.errors import CheckpointError, DataError, Diverged, Interrupted, RecipeError
from diffnas.pipeline.sizes import size_lines
from diffnas.pipeline.sources.load import load_source
from diffnas.pipeline.sources.texts import TextTraining
from diffnas.pipeline.test import described
from diffnas.recipe.recipe import Recipe
from diffnas.registry import TASKS
from diffnas.runtime.checkpoint import load_checkpoint
from diffnas.tasks.language import LanguageTask

CPU = torch.device("cpu")
TINY = [
    "data.train_limit=500",
    "data.test_limit=160",
    "space.units=6",
    "space.steps=2",
    "search.epochs=2",
    "search.batch=4",
    "search.bptt=16",
    "train.epochs=3",
    "train.batch=4",
    "train.bptt=20",
    "train.units=8",
    "train.test_batch=4",
]


def tiny(*overrides: str) -> Recipe:
    return diffnas.read_recipe("darts-rnn-demo", [*TINY, *overrides])


def flat(value: Any) -> Any:
    """Nested state with tensors as bytes, so that equality is identity of bits."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items() if key != "seconds"}
    return value


def state_of(part: Any) -> Any:
    state = load_checkpoint(part.checkpoints)
    assert state is not None
    return flat(state["state"]), [{k: v for k, v in row.items() if k != "seconds"} for row in part.metrics()]


class Stopping(LanguageTask):
    """The task of a training that sends a signal to its own process at a given loss."""

    at, seen = -1, 0

    def loss(self, net: Any, batch: Batch) -> Loss:
        if getattr(net, "training", True):
            Stopping.seen += 1
            if Stopping.seen == Stopping.at:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(net, batch)


def test_the_feeds_of_a_search_read_two_texts_side_by_side() -> None:
    source = load_source(tiny())
    feeds = source.search_feeds(CPU)
    assert source.shape == TextShape(len(source.names)) and source.names[0] != "<eos>" and "<eos>" in source.names
    train, valid, score = (feeds[name].epoch(0) for name in ("train", "valid", "score"))
    assert len(train) == len(valid) and train[0].inputs.shape == (16, 4) and score[0].inputs.shape[1] == 10
    assert feeds["train"].epoch(1)[0].carry is None
    corpus = source.corpus  # type: ignore[attr-defined]
    assert len(corpus.train) == 500 and len(corpus.valid) == len(corpus.test) == 160


def test_the_whole_way_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [word for text in TINY for word in ("--set", text)]
    run = str(tmp_path / "run")
    assert main(["search", "darts-rnn-demo", "--run", run, *sets]) == 0
    said = capsys.readouterr()
    assert "perplexity" in said.err and "acc" not in said.err and "recurrent 1 = " in said.err
    assert main(["train", run]) == 0
    assert "the result is the weights of epoch" in capsys.readouterr().err
    assert main(["test", run]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("test perplexity: ") and "tokens)" in lines[0]
    assert lines[1].startswith("of word frequencies alone: ")
    part = diffnas.Run(Path(run)).training()
    result = json.loads((part.path / "test.json").read_text())
    assert result["n"] == 156 and result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    low, high = result["interval"]
    assert low < result["perplexity"] < high
    with safe_open(part.weights, "pt") as file:
        inside = json.loads(file.metadata()["diffnas"])
    assert inside["shape"] == {"vocabulary": len(inside["words"])}
    assert (part.path / "cells.png").is_file()


def test_the_result_is_the_best_epoch_on_validation(tmp_path: Path) -> None:
    run = diffnas.train("darts-rnn-v2", tiny("train.epochs=5", "train.lr=60"), tmp_path)
    losses = [row["valid_loss"] for row in run.training().metrics()]
    state = load_checkpoint(run.training().checkpoints)
    assert state is not None
    best = state["state"]["training"]["best"]
    assert best["loss"] == min(losses) and best["epoch"] == 1 + losses.index(min(losses))
    ours = load_file(run.training().weights)
    assert all(torch.equal(ours[name], tensor) for name, tensor in best["weights"].items())


class AtOnce:
    """A trigger that fires after the first epoch."""

    def __init__(self, patience: int) -> None:
        self.fired = False

    def fires(self, loss: float) -> bool:
        first, self.fired = not self.fired, True
        return first

    def state_dict(self) -> dict[str, Any]:
        return {"fired": self.fired}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fired = state["fired"]


@pytest.mark.parametrize("at", [2, 6, 9, 12])
def test_a_stopped_training_goes_on_bit_for_bit_across_the_switch_to_averages(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnas.pipeline.sources.texts.Trigger", AtOnce)
    recipe = tiny("train.bptt=30")  # four or five windows an epoch, averaged from the second epoch on
    whole = diffnas.train("enas-rnn", recipe, tmp_path / "whole")
    assert [row["averaged"] for row in whole.training().metrics()] == [0.0, 1.0, 1.0]
    Stopping.at, Stopping.seen = at, 0
    with monkeypatch.context() as patched:
        patched.setitem(TASKS, "language", Stopping)
        with pytest.raises(Interrupted, match="go on with: diffnas train --resume"):
            diffnas.train("enas-rnn", recipe, tmp_path / "part")
    part = diffnas.train(None, None, tmp_path / "part", resume=True)
    assert state_of(part.training()) == state_of(whole.training())
    assert part.training().weights.read_bytes() == whole.training().weights.read_bytes()


@pytest.mark.parametrize("method", ["darts", "darts-second", "enas"])
@pytest.mark.parametrize("at", [3, 11])
def test_a_stopped_search_goes_on_bit_for_bit(
    method: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {
        "darts": [],
        "darts-second": ["method.unrolled=true"],
        "enas": ["method.name=enas", "method.controller_steps=3", "method.aggregate=2", "method.candidates=2"],
    }[method]
    recipe = tiny(*sets)
    whole = diffnas.search(recipe, tmp_path / "whole")
    kind, steps = type(recipe.method), 0
    step = kind.step

    def stopping(self: Method, search: Any, batches: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, search, batches)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "step", stopping)
        with pytest.raises(Interrupted):
            diffnas.search(recipe, tmp_path / "part")
    state = load_checkpoint(diffnas.Run(tmp_path / "part").search.checkpoints)
    assert state is not None and (state["state"]["carries"] or method == "enas")
    part = diffnas.search(None, tmp_path / "part", resume=True)
    assert state_of(part.search) == state_of(whole.search)
    assert part.search.genotype.read_text() == whole.search.genotype.read_text()


@pytest.mark.parametrize(
    "method",
    [
        "{name: drnas, warmup: 0}",
        "{name: gdas}",
        "{name: snas}",
        "{name: rsws, candidates: 3, finalists: 2, rounds: 1}",
        "{name: smooth-darts, perturbation: adv, steps: 2}",
        "{name: smooth-darts, base: drnas}",
        "{name: darts-pt, tuning: 5, interval: 1}",
        "{name: robust-darts}",
        "{name: beta-darts}",
        "{name: sgas}",
        "{name: dsnas}",
        "{name: mmrazor-darts}",
    ],
)
def test_a_method_searches_on_text(method: str, tmp_path: Path) -> None:
    run = diffnas.search(tiny(f"method={method}"), tmp_path / "run")
    genotype = diffnas.load_genotype(run)
    assert [len(node) for node in genotype.cells["recurrent"].inputs] == [1, 1] and "none" not in genotype.cells[
        "recurrent"
    ].ops
    assert all(row["train_perplexity"] < 5000 for row in run.search.metrics() if "train_perplexity" in row)


def test_plain_and_fast_find_the_same_cell(tmp_path: Path) -> None:
    found = [
        diffnas.search(tiny(f"search.supernet={form}", "search.weights.lr=0.5"), tmp_path / form)
        for form in ("plain", "fast")
    ]
    plain, fast = (run.search.metrics()[-1] for run in found)
    assert plain["train_loss"] == pytest.approx(fast["train_loss"], rel=1e-4)
    assert diffnas.load_genotype(found[0]).cells == diffnas.load_genotype(found[1]).cells


def test_the_hidden_state_goes_on_within_an_epoch_and_begins_at_zero_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []

    class Watching(LanguageTask):
        def loss(self, net: Any, batch: Batch) -> Loss:
            if getattr(net, "training", False):
                seen.append((batch.carry is None, len(seen)))
            return super().loss(net, batch)

    monkeypatch.setitem(TASKS, "language", Watching)
    training = tiny("train.epochs=2")
    diffnas.train("darts-rnn-v1", training, tmp_path)
    source = load_source(training)
    feed = TextTraining(training, source.corpus, torch.nn.Linear(2, 2), CPU).feed  # type: ignore[attr-defined]
    assert [place for fresh, place in seen if fresh] == [0, len(feed.epoch(0))]


@pytest.mark.parametrize(
    ("recipe", "sets", "said"),
    [
        ("darts-rnn-demo", ["data.side=8"], "data.side=8: is a key for images, and the data are text; leave it out"),
        ("darts-rnn-demo", ["search.cutout=8"], "search.cutout=8: is a key for images"),
        ("darts-digits-tiny", ["train.units=8"], "train.units=8: is a key for text, and the data are images"),
        ("darts-rnn-demo", ["data.path=x"], "data.path=x: must be null: the embedded text is in the package"),
        ("darts-rnn-demo", ["data.name=text"], "data.path: must say which folder"),
        ("darts-rnn-demo", ["space.name=darts-cnn"], "space.name"),
        ("darts-digits-tiny", ["space.name=darts-rnn"], "darts-rnn reads text, and digits is images"),
        ("darts-rnn-demo", ["method.name=pcdarts"], "darts-rnn has no channels that ops could see a part of"),
        ("darts-rnn-demo", ["space.partial=4"], "space.partial=4 is unknown"),
        ("darts-rnn-demo", ["method.name=drnas", "method.progressive=true"], "no partial channels to widen"),
        ("darts-rnn-demo", ["method.name=pdarts"], "darts-rnn has one cell, and pdarts searches ever deeper"),
        (
            "darts-rnn-demo",
            ["method.name=darts-minus"],
            "darts-rnn has no skip connections that darts-minus could help",
        ),
        ("darts-rnn-demo", ["method.name=darts-plus"], "darts-rnn has no skip connections to count"),
        ("darts-rnn-demo", ["method.name=budget"], "darts-rnn does not tell what its ops cost"),
        ("darts-rnn-demo", ["search.bptt=1"], "search.bptt=1: must be a whole number from 2"),
        ("darts-rnn-demo", ["train.dropoute=1"], "train.dropoute=1: must be a number of at least 0 and below 1"),
        ("darts-rnn-demo", ["search.weights.momentum=0.9"], "search.weights.momentum=0.9: is a key for images"),
    ],
)
def test_what_a_recipe_may_not_say(recipe: str, sets: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        diffnas.read_recipe(recipe, sets)
    assert any(said in line for line in refused.value.lines), refused.value.lines


def test_a_genotype_is_trained_on_what_it_reads(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ptb is text, and a genotype of darts-cnn reads images"):
        diffnas.train("darts-v2", "ptb-train", tmp_path / "a")
    with pytest.raises(RecipeError, match="digits is images, and a genotype of darts-rnn reads text"):
        diffnas.train("darts-rnn-v2", "darts-digits-tiny", tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks train.txt \(or ptb.train.txt"):
        diffnas.train("darts-rnn-v2", tiny("data.name=ptb", f"data.path={tmp_path}"), tmp_path / "run")
    for name, text in (("train", "a b c\n"), ("valid", "a b\n"), ("test", "a z\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(
        DataError, match="test.txt line 1: the word 'z' is not in .*train.txt; write <unk> for rare words"
    ):
        diffnas.train("darts-rnn-v2", tiny("data.name=text", f"data.path={tmp_path}"), tmp_path / "run")
    (tmp_path / "test.txt").write_text("a b\n")
    with pytest.raises(DataError, match="tokens are too few for 4 columns"):
        diffnas.train("darts-rnn-v2", tiny("data.name=text", f"data.path={tmp_path}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_networks_and_supernets_by_name() -> None:
    network = diffnas.build_network("darts-rnn-v2", vocabulary=30, units=8, dropouts={"dropout": 0.5})
    spoken = network((torch.randint(30, (5, 2)), None))
    assert spoken.log_probs.shape == (5, 2, 30) and network.dropouts.dropout == 0.5
    supernet = diffnas.build_supernet("darts-rnn", vocabulary=30, units=8, steps=2, form="fast")
    assert supernet.embedding.weight.shape == (30, 8)
    with pytest.raises(RecipeError, match="dropout_h is unknown"):
        diffnas.build_network("darts-rnn-v2", dropouts={"dropout_h": 0.5})
    with pytest.raises(RecipeError, match="units: must be a whole number from 1"):
        diffnas.build_network("darts-rnn-v2", units=0)


def test_scores_of_one_mixture_are_equal_though_training_drops() -> None:
    recipe = tiny()
    source = load_source(recipe)
    found = []
    assert recipe.space is not None and recipe.method is not None
    supernet = recipe.space.supernet(source.shape, form="fast")
    arch = recipe.method.arch(recipe.space, torch.Generator())
    search = Search(
        method=recipe.method,
        space=recipe.space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 1.0),
        arch_optimizer=torch.optim.Adam(arch.parameters()),
        task=source.search_task(),
    )
    batch = source.search_feeds(CPU)["score"].epoch(0)[0]
    for _ in range(2):
        found.append(score(search, search.relax("eval"), [batch]).loss)
        assert supernet.training and all(norm.track_running_stats for norm in search.norms)
    assert torch.equal(*found)
    noisy = [
        engine.differentiate(search, search.relax("eval"), batch, set(), "train_frozen_stats").loss.value
        for _ in range(2)
    ]
    assert not torch.equal(*noisy)


def test_the_rate_of_a_tuning_stage_stays_small(tmp_path: Path) -> None:
    run = diffnas.search(tiny("method={name: darts-pt, tuning: 5, interval: 1}"), tmp_path)
    assert [row["lr"] for row in run.search.metrics()] == [10.0, 10.0, *[1.0] * 5]


def test_penalties_count_in_single_level_steps_too(tmp_path: Path) -> None:
    losses = []
    for penalty in (0, 1000):
        run = diffnas.search(tiny("method.name=snas", f"search.temporal_penalty={penalty}"), tmp_path / str(penalty))
        losses.append(run.search.metrics()[-1]["train_loss"])
    assert losses[0] != losses[1]


def test_a_training_goes_on_with_its_own_words_only(tmp_path: Path) -> None:
    words = ["a", "b", "c", "d", "e", "f", "g", "h"]
    for folder, first in (("one", words), ("two", words[::-1])):
        (tmp_path / folder).mkdir()
        for part in ("train", "valid", "test"):
            (tmp_path / folder / f"{part}.txt").write_text((" ".join(first) + "\n") * 20)
    at = [f"data.path={tmp_path / 'one'}", "data.name=text", "train.epochs=1"]
    recipe = diffnas.read_recipe("darts-rnn-demo", [*TINY, *at])
    run = diffnas.train("darts-rnn-v2", recipe, tmp_path / "run")
    assert diffnas.test(run)["perplexity"] > 1
    moved = f"data.path={tmp_path / 'two'}"
    assert diffnas.test(run, overrides=[moved])["words"] == 9  # read in the words of the training
    again = diffnas.read_recipe(run.training().recipe, [moved, "train.epochs=2"])
    with pytest.raises(CheckpointError, match="the data have other classes or words"):
        diffnas.train(None, again, run, resume=True)


def test_a_diverged_training_is_no_result(tmp_path: Path) -> None:
    wild = tiny("train.bptt=200", "train.lr=1e30", "train.clip=null", "train.epochs=1")
    with pytest.raises(Diverged, match="is not finite: the training has diverged"):
        diffnas.train("darts-rnn-v2", wild, tmp_path)
    assert not diffnas.Run(tmp_path).train("darts-rnn-demo-seed0").weights.is_file()


def test_a_test_text_that_is_too_short_is_refused_before_the_training(tmp_path: Path) -> None:
    for part, lines in (("train", 60), ("valid", 60), ("test", 1)):
        (tmp_path / f"{part}.txt").write_text("a b\n" * lines)
    recipe = tiny("data.name=text", f"data.path={tmp_path}")
    with pytest.raises(DataError, match="test: 3 tokens are too few for 4 columns"):
        diffnas.train("darts-rnn-v2", recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sizes_are_those_of_the_text() -> None:
    source = load_source(tiny())
    assert isinstance(source.shape, TextShape) and TEXTS["embedded"].words == source.shape.vocabulary
    network = diffnas.build_network("darts-rnn-v2", vocabulary=source.shape.vocabulary, units=8)
    lines = list(size_lines(diffnas.load_genotype("darts-rnn-v2"), tiny()))
    assert f"1,345 words, 8 units): {diffnas.count(network, source.shape).params:,} parameters" in lines[0]


def test_a_short_test_text_gives_numbers_that_json_can_hold(tmp_path: Path) -> None:
    run = diffnas.train("darts-rnn-v2", tiny("train.epochs=1", "data.test_limit=20"), tmp_path)
    result = diffnas.test(run)
    assert result["interval"] is None and math.isfinite(result["unigram_perplexity"])
    json.loads((run.training().path / "test.json").read_text(), parse_constant=pytest.fail)
    assert "too short a text for an interval" in next(described(result))


def test_a_misspelt_text_is_one_line() -> None:
    with pytest.raises(RecipeError) as refused:
        diffnas.read_recipe("darts-rnn-demo", ["data.name=embeded"])
    assert len(refused.value.lines) == 1 and "did you mean embedded?" in refused.value.lines[0]
