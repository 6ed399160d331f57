"""Going on with a run: by the recipe it began with, from where it stands, in the folder it stands in; and when it has ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas.cli.main import main
from diffnas.engine.search import Search
from diffnas.engine.stage import Transition
from diffnas.errors import Interrupted, RecipeError, RunError
from diffnas.kernels import native
from diffnas.methods.darts import DARTS
from diffnas.methods.dsnas import DSNAS
from diffnas.pipeline.environment import as_begun
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.checkpoint import load_checkpoint
from diffnas.runtime.run_folder import Part
from diffnas.tasks.classification import Classification

NAME = "darts-digits-tiny-seed0"
SMALL = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=128", "data.test_limit=100"]
SMALL += ["search.validate_every=0", "train.layers=1", "train.channels=2", "train.test_every=0"]
ENOUGH = Transition(stop=True, reason="enough")
Step = Callable[[int], None]


def tiny(*overrides: str) -> Recipe:
    return diffnas.read_recipe("darts-digits-tiny", [*SMALL, *overrides])


def stop(step: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def at_step(monkeypatch: pytest.MonkeyPatch, at: int, act: Step, kind: type = DARTS, hook: str = "step") -> None:
    """Calls `act` before step number `at` of a search (there are two an epoch), or loss of a training."""
    seen, whole = 0, getattr(kind, hook)

    def watched(*arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == at:
            act(seen)
        return whole(*arguments, **named)

    monkeypatch.setattr(kind, hook, watched)


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, at: int = 3, *overrides: str) -> Path:
    """A search that was stopped before step `at` ended: 3 is within the second epoch."""
    with monkeypatch.context() as patch:
        at_step(patch, at, stop)
        with pytest.raises(Interrupted):
            diffnas.search(tiny(*overrides), folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def _no_png() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")  # it takes longer than the rest
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, _no_png: None) -> Path:
    run = diffnas.search(tiny("search.epochs=1"), tmp_path_factory.mktemp("finished") / "run")
    return diffnas.train(run, tiny("train.epochs=1"), run).path


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# -- a search that has not ended


def test_an_unfinished_search_is_not_trained_as_if_it_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupted(tmp_path / "run", monkeypatch)
    said = f"its search has not finished (1 of 2 epochs); go on with: diffnas search --resume {run}"
    assert main(["train", str(run)]) == 2
    assert said in capsys.readouterr().err
    with pytest.raises(RunError, match="has not finished"):
        diffnas.train(str(run), tiny(), run)
    assert not (run / "train").exists()
    assert main(["show", str(run), "--json"]) == 0
    assert capsys.readouterr().err == f"run {run}: its search has not finished (1 of 2 epochs)\n"
    assert main(["train", str(run), "--partial", "-q", "-s", "train.epochs=1"]) == 0
    environment = json.loads((run / "train" / NAME / "environment.json").read_text())
    assert environment["partial"] == {"run": str(run), "epochs": 1, "of": 2}
    diffnas.search(None, run, resume=True)
    capsys.readouterr()
    assert main(["train", str(run), "--train", "whole", "-q", "-s", "train.epochs=1"]) == 0
    assert "partial" not in json.loads((run / "train" / "whole" / "environment.json").read_text())
    assert capsys.readouterr().out.endswith(f"next:       diffnas test {run} --train whole\n")


def test_a_search_that_goes_on_has_not_finished_any_more(finished: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    with monkeypatch.context() as patch:
        at_step(patch, 3, stop)
        with pytest.raises(Interrupted):
            diffnas.search(tiny("search.epochs=3"), run, resume=True)
    with pytest.raises(RunError, match=r"has not finished \(2 of 3 epochs\)"):
        diffnas.train(run, tiny(), run, name="more")
    assert not (run / "search" / "cells.svg").exists()  # it showed an earlier result


def test_a_damaged_or_missing_mark_is_no_mark(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    mark = run / "search" / "finished.json"
    assert json.loads(mark.read_text())["epochs"] == 1
    mark.write_text(mark.read_text()[:20])
    with pytest.raises(RunError, match="has not finished"):
        diffnas.train(run, tiny(), run, name="more")
    mark.unlink()  # as in older runs: the genotype says that all epochs are done
    diffnas.train(run, tiny("train.epochs=1"), run, name="more")


def test_without_its_recipe_nobody_can_tell(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "search" / "recipe.yaml").unlink()
    with pytest.raises(RecipeError, match=r"search/recipe\.yaml: cannot be read: No such file"):
        diffnas.train(run, tiny(), run, name="more")


def test_a_search_that_ends_early_has_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DARTS, "on_epoch_boundary", lambda self, search, epoch: ENOUGH if epoch == 1 else Transition())
    run = diffnas.search(tiny("search.epochs=5"), tmp_path / "run")
    mark = json.loads((run.search.path / "finished.json").read_text())
    assert (mark["epochs"], mark["search.epochs"], mark["reason"]) == (1, 5, "enough")
    diffnas.train(run, tiny("train.epochs=1"), run)


def test_fewer_epochs_than_were_begun_end_with_the_last_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = interrupted(tmp_path / "run", monkeypatch, 5, "search.epochs=4", "search.arch.lr=10")  # within epoch 3
    again = Path(shutil.copytree(run, tmp_path / "again"))
    kept = (run / "search" / "genotype.json").read_text()
    caplog.set_level("INFO", logger="diffnas")
    diffnas.search(tiny("search.epochs=2", "search.arch.lr=10"), run, resume=True)
    assert (run / "search" / "genotype.json").read_text() == kept
    at = caplog.messages.index("found after 2 epochs:") + 1
    expected = diffnas.load_genotype(run).to_text().splitlines()
    assert caplog.messages[at : at + len(expected)] == expected
    assert "search.epochs: fewer asked for than begun; the result is the cell of epoch 2" in caplog.messages
    diffnas.search(tiny("search.epochs=4", "search.arch.lr=10"), run, resume=True)
    diffnas.search(None, again, resume=True)  # what was begun of epoch 3 is not lost
    rows = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in diffnas.Run(p).search.metrics()] for p in (run, again)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 4


def test_within_an_epoch_the_method_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def on_epoch_boundary(self: DARTS, search: Search, epoch: int) -> Any:
        asked.append((epoch, search.clock.step))
        return Transition()

    monkeypatch.setattr(DARTS, "on_epoch_boundary", on_epoch_boundary)
    run = interrupted(tmp_path / "run", monkeypatch, 3)
    diffnas.search(None, run, resume=True)
    assert asked == [(0, 0), (1, 0), (2, 0)]


# -- the recipe


@pytest.mark.parametrize(
    ("line", "other", "key"),
    [
        ("seed: 0 ", "seed: 1 ", "seed"),
        ("  batch: 32 ", "  batch: 64 ", "search.batch"),
        ("    lr: 0.0003 ", "    lr: 0.003 ", "search.arch.lr"),
        ("    decay: 0.0003 ", "    decay: 0 ", "search.weights.decay"),
        ("  unrolled: false ", "  unrolled: true ", "method.unrolled"),
    ],
)
def test_an_edited_recipe_is_refused_by_key_and_left_alone(
    line: str, other: str, key: str, finished: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    recipe = run / "search" / "recipe.yaml"
    text = recipe.read_text()
    assert text.count(line) >= 1
    recipe.write_text(text.replace(line, other, 1))
    before = contents(run)
    assert main(["search", "--resume", str(run), "--set", "search.epochs=2"]) == 2
    with pytest.raises(RecipeError, match=rf"recipe\.yaml: {key} differs from the run's; .*; it was ") as caught:
        diffnas.search(None, run, resume=True)
    assert len(caught.value.lines) == 1 and contents(run) == before
    old = line.partition(":")[2].strip()
    assert main(["search", "--resume", str(run), "--set", f"{key}={old}", "-q"]) == 0  # put back


def test_a_recipe_cut_at_a_line_is_refused(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    recipe = run / "search" / "recipe.yaml"
    lines = recipe.read_text().splitlines(keepends=True)
    at = next(k for k, line in enumerate(lines) if line.startswith("  sampling:"))
    recipe.write_text("".join(lines[:at]))  # the rest of search and all of train are gone
    with pytest.raises(RecipeError) as caught:
        diffnas.search(None, run, resume=True)
    assert f"{recipe}: its section train is missing; put the file back as it was" in caught.value.lines
    assert recipe.read_text() == "".join(lines[:at])


def test_a_recipe_changed_before_the_first_checkpoint_is_refused(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    recipe = run / "search" / "recipe.yaml"
    shutil.rmtree(run / "search" / "checkpoint")
    recipe.write_text(recipe.read_text().replace("seed: 0 ", "seed: 1 "))
    with pytest.raises(RecipeError, match="has changed since the run wrote it; put it back"):
        diffnas.search(None, run, resume=True)


def test_a_changed_recipe_is_said_where_a_training_reads_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for part in ("search", f"train/{NAME}"):
        recipe = run / part / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("    decay: 0.0003 ", "    decay: 0.0004 "))
    assert main(["train", str(run), "--train", "more", "-q"]) == 0
    assert f"{run}/search/recipe.yaml: has changed since the run wrote it" in capsys.readouterr().err
    assert main(["test", str(run), "--train", NAME]) == 0
    assert f"{run}/train/{NAME}/recipe.yaml: has changed since the run wrote it" in capsys.readouterr().err
    recipe.write_text(recipe.read_text().partition("\ntrain:")[0])
    assert main(["test", str(run), "--train", NAME]) == 2
    assert "recipe.yaml: its section train is missing; put the file back as it was" in capsys.readouterr().err


def test_limits_that_change_are_said(finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    caplog.set_level("INFO", logger="diffnas")
    diffnas.search(tiny("search.epochs=2", "log.every=5"), run, resume=True)
    assert [line for line in caplog.messages if "now, and was" in line] == ["search.epochs is 2 now, and was 1"]


def test_settings_of_a_method_within_count_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = ["method={name: smooth-darts, base: darts, base_settings: {unrolled: false}}"]
    run = interrupted(tmp_path / "run", monkeypatch, 3, *wrapped)
    recipe = run / "search" / "recipe.yaml"
    changed = recipe.read_text().replace("    unrolled: false", "    unrolled: true")
    recipe.write_text(changed)
    with pytest.raises(RecipeError, match="method.base_settings differs from the run's"):
        diffnas.search(None, run, resume=True)


def test_a_changed_genotype_is_not_trained_on(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    genotype = run / "train" / NAME / "genotype.json"
    genotype.write_text(diffnas.load_genotype("darts-v2").to_json())
    with pytest.raises(RunError, match=r"genotype\.json: is not the genotype that was trained so far; put it back"):
        diffnas.train(None, tiny("train.epochs=2"), run, resume=True)


# -- threads, versions, devices


def test_the_threads_of_the_first_start_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = []

    def note(step: int) -> None:
        seen.append(torch.get_num_threads())
        stop(step)

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with monkeypatch.context() as patch:
            at_step(patch, 1, note)
            with pytest.raises(Interrupted):
                diffnas.search(tiny(), tmp_path / "run")
        torch.set_num_threads(1)
        with monkeypatch.context() as patch:
            at_step(patch, 1, note)
            with pytest.raises(Interrupted):
                diffnas.search(None, tmp_path / "run", resume=True)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert seen == [2, 2]
    said = "OMP_NUM_THREADS=1: the run began with 2 and keeps to that, so that its numbers stay the same"
    assert said in caplog.messages
    attempts = json.loads((tmp_path / "run" / "search" / "environment.json").read_text())["attempts"]
    assert [attempt["threads"] for attempt in attempts] == [2, 2]


def test_another_version_of_torch_is_said(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        diffnas.search(tiny("search.epochs=2"), run, resume=True)
    lines = [line for line in caplog.messages if line.startswith("torch: ")]
    assert len(lines) == 1 and "goes on with 9.9" in lines[0]


def test_compiled_kernels_go_on_bit_by_bit_and_another_form_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if native.lack() is not None:
        pytest.skip(str(native.lack()))
    sizes = ("space.channels=4", "data.side=8")
    monkeypatch.setenv("DIFFNAS_KERNELS", "numba")
    whole = diffnas.search(tiny("search.epochs=2", *sizes), tmp_path / "whole").search
    attempts = json.loads((whole.path / "environment.json").read_text())["attempts"]
    assert [attempt["kernels"] for attempt in attempts] == ["numba"]
    halves = []
    for form in ("numba", "torch"):
        monkeypatch.setenv("DIFFNAS_KERNELS", "numba")
        run = interrupted(tmp_path / form, monkeypatch, 3, *sizes)
        monkeypatch.setenv("DIFFNAS_KERNELS", form)
        diffnas.search(None, run, resume=True)
        halves.append(load_checkpoint(Part(run / "search").checkpoints)["state"]["search"]["weights"])
    expected = load_checkpoint(whole.checkpoints)["state"]["search"]["weights"]
    for name, tensor in expected.items():
        same, other = (half[name] for half in halves)
        assert torch.equal(same, tensor), name
        assert torch.allclose(other.double(), tensor.double(), rtol=1e-5, atol=1e-5), name  # they differ by 1e-7
    lines = [line for line in caplog.messages if line.startswith("kernels: ")]
    assert lines == [
        "kernels: the run comes from numba and goes on with torch; its last digits may differ from here on"
    ]


def test_another_device_is_said_and_so_is_what_an_old_checkpoint_cannot_tell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part, now, cpu = Part(tmp_path), str(torch.__version__), torch.device("cpu")
    with as_begun(part, {"makers": {"torch": now, "device": "NVIDIA H200", "threads": 1}}, cpu):
        pass
    said = (
        "device: the run comes from NVIDIA H200 and goes on with cpu; its last digits may differ from here on; so do"
        " numbers that a GPU draws (dropout, search.draws=device)"
    )
    assert said in caplog.messages
    caplog.clear()
    attempts = [{"threads": threads, "device": "cpu", "torch": now} for threads in (3, 1)]
    before = torch.get_num_threads()
    for damage in (1, "2", 0, None):
        attempts[1]["threads"] = damage  # the first start counts
        part.write_json("environment.json", {"attempts": attempts})
        with as_begun(part, {}, cpu):
            assert torch.get_num_threads() == 3
    part.write_json("environment.json", {"attempts": [{"threads": -1}]})
    with as_begun(part, {}, cpu):
        assert torch.get_num_threads() == before
    assert not [line for line in caplog.messages if line.startswith("device")]


# -- runs that have finished


def test_a_finished_run_says_so_and_nothing_changes(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(finished)
    for command, key in (("search", "search.epochs"), ("train", "train.epochs")):
        assert main([command, "--resume", str(finished)]) == 0
        shown = capsys.readouterr()
        said = f"has finished, after epoch 1; to go further: diffnas {command} --resume {finished} --set {key}=N\n"
        assert shown.err.endswith(said) and shown.out.startswith(f"run folder: {finished}\n")
    assert contents(finished) == before


def test_weights_of_a_training_that_goes_on_are_kept_beside(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    part = run / "train" / NAME
    diffnas.test(run)
    weights, test = (part / "weights.safetensors").read_bytes(), (part / "test.json").read_bytes()
    with monkeypatch.context() as patch:
        at_step(patch, 2, stop, Classification, "loss")
        with pytest.raises(Interrupted):
            diffnas.train(None, tiny("train.epochs=2"), run, resume=True)
    with pytest.raises(RunError, match=r"weights\.safetensors: is missing; finish the training"):
        diffnas.test(run)
    assert (part / "weights-epoch-001.safetensors").read_bytes() == weights
    assert (part / "test-epoch-001.json").read_bytes() == test
    diffnas.train(None, None, run, resume=True)
    assert (part / "weights.safetensors").read_bytes() != weights


def test_a_training_ends_after_the_epochs_it_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genotype = diffnas.load_genotype("darts-v2")
    with monkeypatch.context() as patch:
        at_step(patch, 6, stop, Classification, "loss")  # four steps an epoch
        with pytest.raises(Interrupted):
            diffnas.train(genotype, tiny("train.epochs=3"), tmp_path)
    diffnas.train(None, tiny("train.epochs=1"), tmp_path, resume=True)
    assert "train.epochs: 1 asked for, 2 begun: the training ends with those" in caplog.messages
    part = diffnas.Run(tmp_path).training()
    assert [row["epoch"] for row in part.metrics()] == [0, 1] and diffnas.read_recipe(part.recipe).train.epochs == 2
    assert "test_accuracy" in part.metrics()[1]  # it is the last one


def test_without_a_checkpoint_nothing_is_done_all_over(tmp_path: Path) -> None:
    run = diffnas.search(tiny(), tmp_path / "run")
    shutil.rmtree(run.search.checkpoints)
    before = contents(run.path)
    with pytest.raises(RunError, match="no checkpoint is left to go on from; start anew in another folder"):
        diffnas.search(tiny("search.epochs=3"), run.path, resume=True)
    assert contents(run.path) == before


# -- the folder


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def exchange(folder: Path) -> None:
    rename(folder)
    (folder / "search").mkdir(parents=True)
    (folder / "train" / NAME).mkdir(parents=True)


@pytest.mark.parametrize("away", [remove, rename, exchange])
@pytest.mark.parametrize("at", [1, 4])
def test_a_search_whose_folder_is_gone_stops_and_makes_no_other(
    away: Callable[[Path], None], at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    at_step(monkeypatch, at, lambda step: away(folder))
    with pytest.raises(RunError, match="search: was moved or removed while the run worked in it") as caught:
        diffnas.search(tiny(), folder)
    assert len(caught.value.lines) == 1
    assert not [path for path in folder.rglob("*") if path.is_file()] and (away is exchange or not folder.exists())
    if away is not remove:
        resumed = diffnas.search(None, tmp_path / "elsewhere", resume=True)
        assert len(resumed.search.metrics()) == 2


@pytest.mark.parametrize("away", [remove, rename, exchange])
def test_a_training_whose_folder_is_gone_stops_and_makes_no_other(
    away: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    at_step(monkeypatch, 6, lambda step: away(folder), Classification, "loss")
    with pytest.raises(RunError, match=f"{NAME}: was moved or removed while the run worked in it"):
        diffnas.train(diffnas.load_genotype("darts-v2"), tiny(), folder)
    assert not [path for path in folder.rglob("*") if path.is_file()] and (away is exchange or not folder.exists())


def test_what_a_kill_left_of_a_write_is_swept_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    left = ["search/.recipe.yaml.ab12cd_x.tmp", "search/checkpoint/.000100000000.pt.zzzzzzzz.tmp"]
    mine = ["search/.mine.tmp", "search/notes.tmp", ".top.abcdefgh.tmp"]
    for name in [*left, *mine]:
        (run / name).write_text("x")
    diffnas.search(None, run, resume=True)
    assert not any((run / name).exists() for name in left) and all((run / name).exists() for name in mine)


# -- hints


def test_what_comes_after_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["space.channels=2", "space.layers=1", "data.name=digits", "data.train_limit=64", "data.test_limit=64"]
    sets = [word for key in (*small, "search.batch=16", "search.epochs=1") for word in ("-s", key)]
    assert main(["search", "nb201-gdas", "--run", str(tmp_path / "nb"), "-q", *sets]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next:       diffnas lookup {tmp_path / 'nb'}"
    assert main(["lookup", str(tmp_path / "nb")]) == 0
    sets = [word for key in (*SMALL[:6], "search.epochs=1", "train=null") for word in ("-s", key)]
    assert main(["search", "darts-digits-tiny", "--run", str(tmp_path / "run"), "-q", *sets]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"next:       diffnas train {tmp_path / 'run'} --recipe RECIPE  (diffnas list recipes)"


def test_the_end_of_a_method_is_asked_between_epochs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DSNAS ends when every edge is decided, which may happen in the middle of an epoch."""
    recipe = tiny(
        "method={name: dsnas, margin: 1e-9, decide: step, stop_when_decided: true}", "data.split=1", "search.epochs=3"
    )
    whole = diffnas.search(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_step(patch, 2, stop, DSNAS)
        with pytest.raises(Interrupted):
            diffnas.search(recipe, tmp_path / "part")
    diffnas.search(None, tmp_path / "part", resume=True)
    states = [load_checkpoint(diffnas.Run(tmp_path / name).search.checkpoints) for name in ("whole", "part")]
    clocks = [state["state"]["search"]["clock"] for state in states if state]
    assert clocks[0] == clocks[1] and whole.search.metrics()[-1]["epoch"] == 0
