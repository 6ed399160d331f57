"""The first moments of a run: whatever cuts them short, the same command or the one with --resume goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffnas
from diffnas.errors import RunError
from diffnas.runtime.lock import only_one
from diffnas.runtime.run_folder import Run, claim

SCRIPT = Path(__file__).with_name("kill_everywhere.py")
SMALL = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=64", "data.test_limit=64"]
SMALL += ["search.epochs=1", "train.epochs=1", "train.layers=1", "train.channels=2", "search.validate_every=0"]
SETS = [word for key in SMALL for word in ("-s", key)]
COMMANDS = {
    "search": ["search", "darts-digits-tiny", *SETS],
    "train": ["train", "darts-v2", "--recipe", "darts-digits-tiny", *SETS],
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("how", "command", "every"),
    [
        ("kill", "search", 9),
        ("full", "train", 9),
        *(pytest.param(how, name, 1, marks=pytest.mark.slow) for how in ("kill", "full") for name in COMMANDS),
    ],
)
def test_broken_everywhere(how: str, command: str, every: int, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(SCRIPT), how, str(tmp_path / "run"), str(every), *COMMANDS[command]]
    shown = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=900)
    assert shown.returncode == 0, shown.stderr
    assert int(shown.stdout.splitlines()[-1]) >= 25 // every


@pytest.mark.parametrize("name", ["search", "train/a"])
def test_what_a_start_leaves_counts_as_nothing(name: str, tmp_path: Path) -> None:
    folder, command = tmp_path / name, name.partition("/")[0]
    part = Run(tmp_path).search if command == "search" else Run(tmp_path).train("a")
    assert not part.begun
    (folder / "checkpoint").mkdir(parents=True)
    for left in (
        ".lock",
        ".recipe.yaml.a1b2c3d4.tmp",
        *(["genotype.json", "environment.json"] if command == "train" else []),
    ):
        (folder / left).write_text("")
    assert not part.begun and Run(tmp_path).trainings() == []
    claim(part, command)
    for some in ("recipe.yaml", "checkpoint/000000000001.pt", "metrics.jsonl", "notes"):
        (folder / some).write_text("")
        assert part.begun
        with pytest.raises(RunError, match="is not empty"):
            claim(part, command)
        (folder / some).unlink()
    if command == "search":
        (folder / "genotype.json").write_text("")
        assert part.begun


def test_who_comes_second_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    recipe = diffnas.read_recipe("darts-digits-tiny", SMALL)
    with only_one(tmp_path / "search"), pytest.raises(RunError, match="another process is working in it"):
        diffnas.search(recipe, tmp_path)
    assert [path.name for path in (tmp_path / "search").iterdir()] == [".lock"]
