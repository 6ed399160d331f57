"""Run folders: what is found in them, and what is said where something is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffnas.errors import RunError
from diffnas.runtime.run_folder import Part, Run, claim, new_run, open_run, unclaim


def refused(path: Path | str) -> str:
    with pytest.raises(RunError) as caught:
        open_run(path)
    (line,) = caught.value.lines
    return line


def training(run: Path, name: str) -> Path:
    folder = run / "train" / name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("")
    return folder


def test_names_within_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.search.recipe == tmp_path / "search" / "recipe.yaml"
    assert run.search.genotype.name == "genotype.json" and run.search.checkpoints.name == "checkpoint"
    assert run.train("a").weights == tmp_path / "train" / "a" / "weights.safetensors"


def test_rows_of_metrics(tmp_path: Path) -> None:
    part = Part(tmp_path)
    assert part.metrics() == []
    for epoch in range(4):
        part.add_metrics({"epoch": epoch, "loss": 0.5})
    assert [row["epoch"] for row in part.metrics()] == [0, 1, 2, 3]
    part.drop_metrics(2)
    assert [row["epoch"] for row in part.metrics()] == [0, 1]
    part.add_metrics({"epoch": 2})
    assert len((part.path / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "row",
    [
        '{"epoch": 1, "lo',
        "[1]",
        "3",
        "null",
        '{"loss": 1}',
        '{"epoch": "1"}',
        "\0\0\0",
        "{" * 9000,
        '{"a":' * 9000,
        "\ufffd",
    ],
)
def test_a_damaged_row_is_left_out_and_no_other(row: str, tmp_path: Path) -> None:
    part = Part(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b'{"epoch": 0}\n\n' + row.encode() + b'\n{"epoch": 2}\n' + row.encode())
    assert [row["epoch"] for row in part.metrics()] == [0, 2]
    part.drop_metrics(3)
    part.add_metrics({"epoch": 3})
    assert [row["epoch"] for row in part.metrics()] == [0, 2, 3]


def test_json_files(tmp_path: Path) -> None:
    part = Part(tmp_path)
    part.write_json("test.json", {"n": 3})
    assert part.read_json("test.json") == {"n": 3}
    for content in (b'{"n": ', b"", b"\xff", b"[" * 100_000):
        (tmp_path / "test.json").write_bytes(content)
        with pytest.raises(RunError, match="test.json: damaged: not valid JSON") as caught:
            part.read_json("test.json")
        assert len(caught.value.lines) == 1
    with pytest.raises(RunError, match="gone.json: cannot be read: No such file or directory"):
        part.read_json("gone.json")


def test_trainings(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.trainings() == []
    with pytest.raises(RunError, match=f"{tmp_path}: holds no training; make one with: diffnas train {tmp_path}"):
        run.training()
    training(tmp_path, "a")
    assert run.training().path.name == "a" and run.training("a") == run.training()
    training(tmp_path, "b")
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "file").write_text("")
    with pytest.raises(RunError, match="holds several trainings; choose one with --train: a, b"):
        run.training()
    with pytest.raises(RunError, match="holds no training 'c'; choose one with --train: a, b"):
        run.training("c")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "/tmp", "a b", "x" * 200, "a\0", "a\n"])
def test_the_name_of_a_training_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--train .*must be letters, digits, dots, dashes and underscores"):
        Run(tmp_path).train(name)


def test_open_run(tmp_path: Path) -> None:
    folder = training(tmp_path / "trained", "a")
    assert open_run(tmp_path / "trained").trainings() == ["a"]
    (tmp_path / "searched" / "search").mkdir(parents=True)
    assert open_run(str(tmp_path / "searched")).path == tmp_path / "searched"
    assert refused(tmp_path / "gone").endswith("gone: does not exist")
    assert "is not a run folder (it has no search/ and no train/)" in refused(tmp_path)
    (tmp_path / "file").write_text("")
    assert "is a file; name the run folder" in refused(tmp_path / "file")
    assert "does not exist" in refused(tmp_path / "file" / "x")
    assert "does not exist" in refused("x" * 5000) and len(refused("x" * 5000)) < 300
    assert "does not exist" in refused("a\0b")
    assert f"it is a part of the run {tmp_path / 'trained'}: name that" in refused(folder)
    (tmp_path / "searched" / "search" / "recipe.yaml").write_text("")
    assert f"it is a part of the run {tmp_path / 'searched'}: name that" in refused(tmp_path / "searched" / "search")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "train").mkdir()
    assert "is not a run folder" in refused(tmp_path / "half")


def test_a_new_run_is_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(3):
        run = new_run(None, "mine")
        claim(run.search, "search")
        paths.append(run.path)
    assert len(set(paths)) == 3 and all(path.parts[0] == "runs" and path.name.startswith("mine-") for path in paths)
    assert new_run("here", "mine").path == Path("here")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    run = Run(tmp_path)
    claim(run.search, "search")
    claim(run.search, "search")  # empty
    run.search.write_json("x.json", 1)
    with pytest.raises(RunError, match="is not empty, and has no recipe.yaml to go on with; name another with --run"):
        claim(run.search, "search")
    run.search.write_recipe("name: x\n")
    with pytest.raises(
        RunError, match=f"is not empty; go on with: diffnas search --resume {tmp_path}, or name another"
    ):
        claim(run.search, "search")
    claim(run.train("a"), "train")
    run.train("a").write_recipe("name: x\n")
    with pytest.raises(RunError, match=f"is not empty; go on with: diffnas train --resume {tmp_path}, or name another"):
        claim(run.train("a"), "train")
    claim(run.train("b"), "train")
    (tmp_path / "file").write_text("mine")
    for part in (Run(tmp_path / "file").search, Run(tmp_path / "file").train("a")):
        with pytest.raises(RunError, match="file: is a file; name a folder"):
            claim(part, part.path.parent.name if part.path.parent.name == "train" else "search")
    with pytest.raises(RunError, match="cannot be made: Not a directory"):
        claim(Run(tmp_path / "file" / "deeper").search, "search")
    with pytest.raises(RunError, match="cannot be made: File name too long"):
        claim(Run(tmp_path / ("x" * 300)).search, "search")
    assert (tmp_path / "file").read_text() == "mine"
    assert json.loads((tmp_path / "search" / "x.json").read_text()) == 1


def test_paths_and_commands_of_parts(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert (run.search.command, run.train("a").command) == ("search", "train")
    assert run.search.genotypes(7) == tmp_path / "search" / "genotypes" / "epoch-007.json"
    assert run.train("a").digests.name == "digests.bin"
    run.search.path.mkdir()
    assert run.search.folder("x") == run.search.folder("x") == tmp_path / "search" / "x"
    assert (tmp_path / "search" / "x").is_dir()


def test_a_recipe_is_sealed_and_its_changes_are_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = Part(tmp_path)
    part.write_recipe("seed: 1\n")
    before = part.recipe.stat().st_mtime_ns
    part.write_recipe("seed: 1\n")
    assert part.recipe.stat().st_mtime_ns == before and part.recipe_is_sealed() and not part.recipe_is_changed()
    part.warn_of_recipe()  # nothing says by which recipe it ran
    part.write_json("environment.json", {"recipe": part.recipe_digest()})
    part.warn_of_recipe()
    part.write_json("environment.json", ["damaged"])
    part.warn_of_recipe()
    assert not caplog.messages
    part.write_json("environment.json", {"recipe": "of another"})
    part.warn_of_recipe()
    part.recipe.write_text(part.recipe.read_text() + "device: cpu\n")
    assert part.recipe_is_changed() and not part.recipe_is_sealed()
    part.warn_of_recipe()
    assert caplog.messages == [f"{part.recipe}: has changed since the run wrote it; it is read as it is now"] * 2
    part.recipe.write_text("seed: 1\n")  # as runs once had it
    assert not part.recipe_is_changed() and not part.recipe_is_sealed()


def test_the_part_with_the_recipe(tmp_path: Path) -> None:
    run = Run(tmp_path)
    training(tmp_path, "a")
    assert run.main() == run.train("a")
    run.search.checkpoints.mkdir(parents=True)
    assert run.main() == run.search


def test_a_start_that_was_cut_short_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    claim(run.search, "search")
    (run.search.path / "checkpoint").mkdir()
    (run.search.path / ".lock").write_text("")
    assert not run.search.begun
    unclaim(run.search)
    assert not run.path.exists()
    claim(run.search, "search")
    run.search.checkpoints.mkdir()
    (run.search.checkpoints / "000000000001.pt").write_text("")
    unclaim(run.search)
    assert run.search.begun


def test_a_thousand_runs_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert new_run(None, "x").path.name.endswith("-999")


def test_other_things_are_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds other things; name a new folder, or an empty one"):
        claim(Run(tmp_path).search, "search")
