"""Trainings whose steps are recorded once and repeated end with the bits of those whose steps are taken one by one.

A tape (`diffnas.testing.tape`) stands for CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import diffnas
from diffnas.engine.asgd import Trigger
from diffnas.engine.replay import Losses
from diffnas.pipeline import graphs
from diffnas.testing.tape import Tape, Watched

IMAGES = [
    "data.train_limit=76",
    "data.test_limit=20",
    "train.layers=1",
    "train.channels=2",
    "train.batch=16",
    "train.epochs=3",
]
TEXT = [
    "data.train_limit=500",
    "data.test_limit=120",
    "train.units=6",
    "train.batch=4",
    "train.bptt=4",
    "train.epochs=2",
    "train.patience=null",
]


class Counting(Tape):
    """Counts what is recorded, and how often that is done again."""

    recorded = repeated = 0

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        losses, again = super().record(work)
        Counting.recorded += 1

        def counted() -> None:
            Counting.repeated += 1
            again()

        return losses, counted


class Refusing:
    """Records nothing, so that steps are taken one by one, by the same optimizers."""

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        raise RuntimeError("refused")


@pytest.fixture
def recorded_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Has steps recorded on any device."""
    Counting.recorded = Counting.repeated = 0
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")
    monkeypatch.setattr(graphs, "lack", lambda device: "")
    return lambda kind: monkeypatch.setattr(graphs, "recorder", lambda device: kind())


def trained(genotype: str, recipe: str, sets: list[str], run: Path) -> tuple[Any, list[dict[str, Any]]]:
    with Watched():
        part = diffnas.train(genotype, diffnas.read_recipe(recipe, sets), run).training()
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in part.metrics()]
    return load_file(part.weights), rows


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_with_a_short_last_batch(recorded_by: Any, tmp_path: Path, precision: str) -> None:
    sets = [*IMAGES, f"precision={precision}", "train.auxiliary=false"]
    found = {}
    for kind in (Counting, Refusing):
        recorded_by(kind)
        found[kind] = trained("darts-v2", "darts-digits-tiny", sets, tmp_path / kind.__name__)
    weights, rows = found[Counting]
    assert len({row["lr"] for row in rows}) == 3 and rows == found[Refusing][1]
    assert all(torch.equal(value, found[Refusing][0][name]) for name, value in weights.items())
    assert Counting.recorded == 2 and Counting.repeated == 2 + 9  # of 15 steps the first two of either size are eager


def test_text_in_windows_of_many_lengths(recorded_by: Any, tmp_path: Path) -> None:
    found = {}
    for kind in (Counting, Refusing):
        recorded_by(kind)
        found[kind] = trained("darts-rnn-v2", "darts-rnn-demo", TEXT, tmp_path / kind.__name__)
    assert found[Counting][1] == found[Refusing][1]
    assert all(torch.equal(value, found[Refusing][0][name]) for name, value in found[Counting][0].items())
    assert Counting.recorded > 2 and Counting.repeated > Counting.recorded


def test_sgd_that_gives_way_to_its_average_is_not_recorded_any_more(
    recorded_by: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded_by(Counting)
    monkeypatch.setattr(Trigger, "fires", lambda self, loss: True)  # after the first epoch
    recorded = []
    for epochs in (1, 2):
        Counting.recorded = 0
        sets = [*TEXT, "train.patience=1", f"train.epochs={epochs}", "data.train_limit=300"]
        _, rows = trained("darts-rnn-v2", "darts-rnn-demo", sets, tmp_path / str(epochs))
        recorded.append(Counting.recorded)
    assert rows[-1]["averaged"] == 1.0 and recorded[0] == recorded[1]


def test_checkpoints_serve_both(recorded_by: Any, tmp_path: Path) -> None:
    recorded_by(Counting)
    found = []
    for first, then in (("auto", "off"), ("off", "auto"), ("off", "off")):
        run = tmp_path / f"{first}-{then}"
        trained("darts-v2", "darts-digits-tiny", [*IMAGES, "train.epochs=2", f"train.graph={first}"], run)
        recipe = diffnas.read_recipe("darts-digits-tiny", [*IMAGES, f"train.graph={then}"])
        found.append(load_file(diffnas.train(None, recipe, run, resume=True).training().weights))
    assert Counting.recorded > 0
    for name, value in found[2].items():
        assert all(torch.allclose(other[name], value, rtol=1e-2, atol=1e-3) for other in found[:2]), name
