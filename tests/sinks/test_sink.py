"""Metrics in other programs: by the real ones where they are installed, without a network; none of them costs a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import diffnas
from diffnas.cli.main import main
from diffnas.errors import UserError
from diffnas.runtime.run_folder import Part
from diffnas.sinks.sink import Sinks, require_sinks, scalars_of

TINY = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=64", "data.test_limit=64"]
TINY += ["search.validate_every=0", "train.layers=1", "train.channels=2"]


class Told:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.closed = 0
        self.pictures: list[str] = []

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        self.epochs.append(epoch)
        if values.get("train_loss") == 13.0:
            raise ConnectionError("no answer\x1b[31m")

    def picture(self, path: Path) -> None:
        self.pictures.append(path.name)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Stands in the place of TensorBoard."""
    sink, module = Told(), ModuleType("diffnas.sinks.tensorboard")
    module.open_sink = lambda part, settings: sink  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diffnas.sinks.tensorboard", module)
    monkeypatch.setattr("diffnas.sinks.sink.find_spec", lambda name: name)
    return sink


def part(path: Path, epochs: int) -> Part:
    path.mkdir(parents=True, exist_ok=True)
    (path / "metrics.jsonl").write_text(
        "".join(json.dumps({"epoch": e, "train_loss": 1.0}) + "\n" for e in range(epochs))
    )
    return Part(path)


def test_numbers_of_a_row() -> None:
    row = {"epoch": 3, "train_loss": 1, "flag": True, "name": "x", "none": None, "strength": {"normal": [[1.0]]}}
    table = {"table": {"cifar10": {"test": 90.0, "index": "no"}}, "sampled": {"cifar10": [1.0]}}
    assert scalars_of(row | table) == {"train_loss": 1.0, "table/cifar10/test": 90.0}


def test_a_resumed_run_sends_what_was_before(tmp_path: Path, told: Told) -> None:
    sinks = Sinks(["tensorboard", "tensorboard"], part(tmp_path, 3), {})
    sinks.row({"epoch": 3, "train_loss": 0.5})
    sinks.picture(tmp_path / "absent.png")
    sinks.close()
    sinks.close()
    assert told.epochs == [1, 2, 3, 4] and told.closed == 1 and told.pictures == []


def test_one_that_fails_is_left_out(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr("diffnas.sinks.sink.log.warning", lambda text, *values: warned.append(text % values))
    sinks = Sinks(["tensorboard"], part(tmp_path, 1), {})
    sinks.row({"epoch": 1, "train_loss": 13.0})
    sinks.row({"epoch": 2, "train_loss": 1.0})
    sinks.close()
    assert told.epochs == [1, 2] and told.closed == 0
    assert len(warned) == 1 and warned[0].startswith(
        "--log tensorboard: left out from here on: ConnectionError: no answer"
    )


def test_commands_send_their_rows(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest
    recipe = diffnas.read_recipe("darts-digits-tiny", TINY)
    run = diffnas.search(recipe, tmp_path / "run", log=["tensorboard"])
    assert told.epochs == [1, 2] and told.closed == 1 and told.pictures == ["cells.png"]
    diffnas.train(run, recipe, run, log=["tensorboard"])
    assert told.epochs == [1, 2, 1, 2] and told.closed == 2


def test_what_is_unknown_or_missing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnas.sinks.sink.find_spec", lambda name: None)
    run = tmp_path / "run"
    assert main(["search", "darts-digits-tiny", "--run", str(run), "--log", "neptune", "--log", "wandb"]) == 2
    said = capsys.readouterr().err
    assert "--log neptune: is unknown; known: tensorboard, wandb, mlflow" in said
    assert "--log wandb: wandb is not installed: pip install 'diffnas[wandb]'" in said and not run.exists()
    with pytest.raises(UserError, match="must be a list"):
        require_sinks("tensorboard")


@pytest.mark.slow
def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from diffnas.sinks.tensorboard import FOLDER

    run = searched(tmp_path, "tensorboard")
    events = EventAccumulator(str(run.search.path / FOLDER))
    events.Reload()
    losses = events.Scalars("train_loss")
    assert [each.step for each in losses] == [1, 2, 3]
    assert [each.value for each in losses] == pytest.approx([row["train_loss"] for row in run.search.metrics()])
    assert events.Tags()["images"] == ["cell"]


@pytest.mark.slow
def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = searched(tmp_path, "wandb")
    files = sorted(run.search.path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2 and all(file.stat().st_size > 1000 for file in files)
    assert len({file.name for file in files}) == 1  # one run, in two attempts
    assert all(b"train_loss" in file.read_bytes() for file in files)


@pytest.mark.slow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name)
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = searched(tmp_path, "mlflow")
    number = json.loads((run.search.path / "sinks.json").read_text())["mlflow"]
    client = MlflowClient(f"sqlite:///{run.search.path / 'mlflow.db'}")
    points = client.get_metric_history(number, "train_loss")
    assert [point.step for point in points] == [1, 2, 3]
    assert [point.value for point in points] == pytest.approx([row["train_loss"] for row in run.search.metrics()])
    known = client.get_run(number)
    assert known.info.status == "FINISHED" and known.data.params["method.name"] == "darts"
    assert [file.path for file in client.list_artifacts(number)] == ["cells.png"]


def searched(folder: Path, sink: str) -> Any:
    """A search that is resumed for a third epoch, sent to `sink`; all that is written is within the run."""
    recipe = diffnas.read_recipe("darts-digits-tiny", TINY)
    run = diffnas.search(recipe, folder / "run", log=[sink])
    more = diffnas.read_recipe("darts-digits-tiny", [*TINY, "search.epochs=3"])
    diffnas.search(more, run, resume=True, log=[sink])
    assert [path.name for path in folder.iterdir()] == ["run"]
    return run
