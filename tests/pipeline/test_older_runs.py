"""Run folders that an earlier version left: every command reads them, and goes on with them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import diffnas
from diffnas.cli.main import main

GOLDENS = Path(__file__).parents[1] / "goldens"
NAME = "darts-digits-tiny-seed0"


@pytest.fixture(autouse=True)
def _no_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(GOLDENS / f"run_{name}.tar.gz") as file:
        file.extractall(folder, filter="data")
    return folder / name


def test_a_finished_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = unpacked("finished", tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for command in ("search", "train"):
        assert main([command, "--resume", str(run)]) == 0
        assert "has finished, after epoch 3; to go further" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main(["test", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 100
    assert main(["show", str(run), "--json"]) == 0
    assert diffnas.load_genotype(capsys.readouterr().out) == diffnas.load_genotype(run)
    assert main(["show", str(run), "--stats", "--out", str(tmp_path / "pictures")]) == 0
    assert main(["train", str(run), "--train", "new", "-q", "-s", "train.epochs=1"]) == 0
    for command in ("search", "train"):
        which = ["--train", NAME] if command == "train" else []
        assert main([command, "--resume", str(run), *which, "-q", "-s", f"{command}.epochs=4"]) == 0
    whole = diffnas.Run(run)
    for part in (whole.search, whole.train(NAME)):
        assert [row["epoch"] for row in part.metrics()] == [0, 1, 2, 3]
        assert len(json.loads((part.path / "environment.json").read_text())["attempts"]) == 2
    assert diffnas.load_genotype(run).provenance["epoch"] == 4


def test_an_interrupted_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = unpacked("interrupted", tmp_path)
    assert main(["train", str(run)]) == 2
    assert "its search has not finished (1 of 3 epochs); go on with: diffnas search --resume" in capsys.readouterr().err
    assert main(["test", str(run)]) == 2
    assert "weights.safetensors: is missing; finish the training with" in capsys.readouterr().err
    assert main(["search", "--resume", str(run), "-s", "search.batch=32"]) == 2
    assert "search.batch differs from the run's" in capsys.readouterr().err
    assert main(["search", "--resume", str(run)]) == 0 and main(["train", "--resume", str(run)]) == 0
    assert capsys.readouterr().err.count("resumed at epoch 2, step 2") == 2
    whole = diffnas.Run(run)
    for part in (whole.search, whole.train("cut")):
        assert [row["epoch"] for row in part.metrics()] == [0, 1, 2]
    assert main(["test", str(run)]) == 0
    assert main(["train", str(run), "--train", "new", "-q", "-s", "train.epochs=1"]) == 0
