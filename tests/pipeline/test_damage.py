"""Every file of a run, damaged in turn: a command that reads it names it, or comes to what it would have come to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import diffnas
from diffnas.cli.main import main

NAME = "darts-digits-tiny-seed0"
SMALL = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=64", "data.test_limit=64"]
SMALL += ["search.epochs=1", "train.epochs=1", "train.layers=1", "train.channels=2", "search.validate_every=0"]
COMMANDS = {
    "search": [["search", "--resume"], ["show", "--json"], ["report"]],
    "train": [["train", "--resume"], ["test"], ["report"]],
    "report.html": [["report"]],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest
        recipe = diffnas.read_recipe("darts-digits-tiny", SMALL)
        diffnas.train(diffnas.search(recipe, folder), recipe, folder)
    return folder


def damaged(content: bytes, how: str) -> bytes:
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]
    return {"empty": b"", "cut": content[:middle], "zero": bytes(len(content)), "flipped": flipped}[how]


@pytest.mark.parametrize("how", ["empty", "cut", "zero", "flipped"])
def test_no_damage_is_a_failure_of_the_program(
    how: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size):
        whole = path.read_bytes()
        for command in COMMANDS[path.relative_to(run).parts[0]]:
            path.write_bytes(damaged(whole, how))
            capsys.readouterr()
            code = main([*command, str(run)])
            said = capsys.readouterr().err
            assert code in (0, 2) and "failed:" not in said and "Traceback" not in said, (path, command, said)
            assert code == 0 or str(path.relative_to(run)) in said, (path, command, said)
            shutil.rmtree(run)
            shutil.copytree(finished, run)
