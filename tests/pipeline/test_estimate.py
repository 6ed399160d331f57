"""Estimates: what is measured, what is computed from it, and that nothing is written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import diffnas
from diffnas.cli.main import main
from diffnas.core.published_genotypes import published
from diffnas.core.space import Shape
from diffnas.errors import RecipeError, ResourceError, UserError
from diffnas.pipeline import estimate as parent
from diffnas.pipeline.estimate import described
from diffnas.pipeline.measure import extrapolated, measure, timed_batch
from diffnas.pipeline.measure import main as measure_main
from diffnas.recipe.recipe import read_recipe
from diffnas.tasks.classification import Classification

TINY = ["device=cpu", "space.channels=2", "space.layers=2", "search.batch=32", "data.train_limit=200"]
TINY += ["train.channels=2", "train.layers=2", "train.batch=32"]
WARM = [*TINY, "method.name=pcdarts", "method.warmup=3", "space.partial=2", "search.epochs=5"]


def measured(recipe: str, settings: list[str], part: str, genotype: str | None = None) -> dict[str, Any]:
    learnt: dict[str, Any] = {}
    cell = None if genotype is None else published(genotype)
    measure(read_recipe(recipe, settings), part, cell, 0.01, learnt.update)
    return learnt


def test_a_search_has_epochs_of_weights_alone() -> None:
    learnt = measured("darts-digits-tiny", WARM, "search")
    warm, full = learnt["stages"]
    space = read_recipe("darts-digits-tiny", WARM).space
    assert space is not None
    supernet = space.supernet(Shape(10, 1, 8))
    assert (warm["epochs"], full["epochs"]) == (3, 2) and warm["steps"] == full["steps"] == 4
    assert warm["weights"] == sum(p.numel() for p in supernet.parameters())
    assert warm["step"] > 0 and full["step"] > 0 and full["evaluation"] > 0
    assert learnt["data"]["train"]["images"] == 200 and learnt["data"]["classes"] == 10
    assert list(learnt["weighed"]) == [2, 4] and learnt["peak_memory"] >= max(learnt["weighed"].values())


def test_every_stage_of_a_search_is_measured() -> None:
    progressive = ["method.name=drnas", "method.progressive=true", "method.warmup=0", "method.kept_ops=2"]
    progressive += ["method.partial_late=1", "space.partial=2", "search.epochs=5"]
    first, second = measured("darts-digits-tiny", [*TINY, *progressive], "search")["stages"]
    assert (first["epochs"], second["epochs"]) == (2, 3) and first["weights"] != second["weights"]


def test_a_training() -> None:
    (stage,) = measured("darts-digits-tiny", [*TINY, "train.epochs=7", "train.test_every=0"], "train", "darts-v1")[
        "stages"
    ]
    network = diffnas.build_network("darts-v1", channels=2, layers=2, in_channels=1, side=8)
    assert (stage["epochs"], stage["steps"]) == (7, 7)
    assert stage["weights"] == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("part", ["search", "train"])
def test_small_batches_are_weighed_first(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    loss = Classification.loss

    def watched(self: Any, network: Any, batch: Any, *rest: Any) -> Any:
        seen.append(len(batch.targets))
        return loss(self, network, batch, *rest)

    monkeypatch.setattr(Classification, "loss", watched)
    monkeypatch.setattr("diffnas.pipeline.measure.LONGEST", 1e9)
    learnt = measured("darts-digits-tiny", [*TINY, "train.batch=48", "search.batch=48"], part, "darts-v1")
    assert list(dict.fromkeys(size for size in seen if size in (3, 6, 48))) == [3, 6, 48]
    assert list(learnt["weighed"]) == [3, 6] and learnt["timed_batch"] == 48


@pytest.mark.parametrize("part", ["search", "train"])
def test_where_a_step_takes_long_a_part_of_the_batch_is_timed(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed_batch(768, 12.0, 32) == 768 and timed_batch(768, 12.1, 32) == 384
    assert timed_batch(768, 1e6, 32) == 32 and timed_batch(97, 30.0, 8) == 33
    settings = [*TINY, "train.batch=48", "search.batch=48"]
    monkeypatch.setattr("diffnas.pipeline.measure.LONGEST", 1e9)
    (whole,) = measured("darts-digits-tiny", settings, part, "darts-v1")["stages"]
    monkeypatch.setattr("diffnas.pipeline.measure.LONGEST", 0.0001)
    learnt = measured("darts-digits-tiny", settings, part, "darts-v1")
    (stage,) = learnt["stages"]
    assert learnt["timed_batch"] == 12 and stage["steps"] == whole["steps"]
    assert learnt["peak_memory"] >= max(learnt["weighed"].values())


@pytest.mark.parametrize("part", ["search", "train"])
def test_text(part: str) -> None:
    small = ["data.train_limit=1200", "data.test_limit=300", "device=cpu", "space.units=4", "train.units=4"]
    small += [
        "search.batch=8",
        "search.bptt=8",
        "train.batch=8",
        "train.bptt=8",
        "train.valid_batch=4",
        "train.test_batch=4",
    ]
    learnt = measured("darts-rnn-demo", small, part, "darts-rnn-v1")
    assert learnt["stages"][0]["step"] > 0 and learnt["data"]["train"]["tokens"] == 1200
    assert learnt["data"]["words"] == 1345


def fake(recipe: Any, part: str, genotype: Any, seconds: float) -> dict[str, Any]:
    stages = [
        {"epochs": 2, "steps": 10, "step": 1.0, "evaluation": 5.0, "weights": 100},
        {"epochs": 3, "steps": 10, "step": 3.0, "evaluation": 5.0, "weights": 200},
    ]
    data = {"name": "digits", "train": {"images": 1000}, "test": {"images": 10}}
    found = {"data": data, "device": "cpu", "threads": 1, "reading_seconds": 0.5, "weighed": {"2": 1200, "4": 1400}}
    return {**found, "stages": stages, "peak_memory": 7400, "free_memory": 10_000, "extrapolated": False}


def test_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_measured", fake)
    found = diffnas.estimate(read_recipe("darts-digits-tiny", ["search.batch=64"]), part="search")
    facts = found["search"]
    assert facts["seconds"] == 2 * 15 + 3 * 35 and facts["epoch_seconds"] == 135 / 5
    assert facts["step_seconds"] == (2 * 10 + 3 * 30) / 50 and facts["weights"] == 200 and facts["epochs"] == 5
    assert facts["batch_fits"] and facts["largest_batch"] == 2 + int((0.9 * 11_200 - 1200) / 100)
    lines = list(described(found))
    assert lines[0] == "data:    digits: train 1,000 images, test 10 images; read in 0s"
    assert "a step takes 2.2 s, an epoch 27s, all of it 2m15s" in lines[3]
    assert "part 2: 3 epochs, 200 weights, 3 s a step" in lines[5] and "a batch of 64 fits" in lines[-1]


def test_a_batch_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any) -> dict[str, Any]:
        learnt = {**fake(*_), "extrapolated": True, "peak_memory": 90_000}
        del learnt["stages"]
        return learnt

    monkeypatch.setattr(parent, "_measured", too_large)
    found = diffnas.estimate("darts-digits-tiny", part="train")["train"]
    assert not found["batch_fits"] and found["seconds"] is None and found["largest_batch"] < found["batch"]
    *_, fits, remedy = described({**fake(*[0] * 4), "train": found})
    assert "a batch of 32 does not fit; the largest is about" in fits
    assert all(word in remedy for word in ("train.accumulate=", "precision=bfloat16", "--devices"))


def test_a_straight_line() -> None:
    assert extrapolated({2: 1200, 4: 1400}, 64) == 7400
    assert extrapolated({2: 1400, 4: 1400}, 64) == 1400 and extrapolated({2: 1200}, 64) is None


def test_what_has_nothing_to_estimate() -> None:
    with pytest.raises(RecipeError, match="has no search section"):
        diffnas.estimate("cifar10-train", part="search")
    with pytest.raises(UserError, match="is search or train"):
        diffnas.estimate("cifar10-train", part="test")


def test_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a process of its own, whose refusals are said as the command's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parent, "SECONDS", 0.01)
    settings = [part for each in [*TINY, "train.epochs=2"] for part in ("-s", each)]
    assert main(["train", "darts-v2", "--recipe", "darts-digits-tiny", "--dry-run", *settings]) == 0
    out = capsys.readouterr().out
    assert "train:   " in out and "weights of darts-v2; 2 epochs of 7 steps" in out and "a batch of 32 fits" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "learnt", "error", "said"),
    [
        (-9, {"weighed": {}}, ResourceError, r"the memory is full after a step of train; lower train\.batch"),
        (0, {"full": True}, ResourceError, "the memory is full"),
        (0, {"refused": ["data.path none: there is no such folder"]}, UserError, "none: there is no such folder"),
        (0, {"failed": "KeyError: 'x'"}, RuntimeError, "train cannot be measured: KeyError: 'x'"),
        (1, {}, UserError, "ended with code 1; its message is above"),
    ],
)
def test_what_the_process_may_say(
    code: int, learnt: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done:
        stdout, returncode = json.dumps(learnt) + "\n", code

    monkeypatch.setattr(parent.subprocess, "run", lambda *_, **__: Done())
    with pytest.raises(error, match=said):
        diffnas.estimate("darts-digits-tiny", part="train")


def test_what_the_process_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    request = {"recipe": "cifar10-train", "part": "train", "genotype": None, "plugins": [], "seconds": 0.01}
    monkeypatch.setattr("diffnas.pipeline.measure.load_source", lambda recipe: 1 / 0)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    measure_main()
    assert json.loads(capsys.readouterr().out) == {"failed": "ZeroDivisionError: division by zero"}
    monkeypatch.undo()
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**request, "recipe": "no-such"})))
    measure_main()
    assert "no-such" in json.loads(capsys.readouterr().out)["refused"][0]
