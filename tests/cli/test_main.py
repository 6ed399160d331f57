"""The command line: what it prints, its exit codes, and a line for whatever goes wrong."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffnas.cli import listing
from diffnas.cli.main import main
from diffnas.core.published_genotypes import PUBLISHED
from diffnas.errors import Interrupted
from diffnas.recipe.keys import recipe_keys
from diffnas.recipe.recipe import recipe_names
from diffnas.runtime import console

TINY = "darts-digits-tiny"
NAME = f"{TINY}-seed0"
SMALL = ["data.train_limit=64", "data.test_limit=64", "search.epochs=1", "train.epochs=1", "search.batch=16"]
SMALL += ["train.layers=1", "train.channels=2", "train.batch=16", "search.validate_every=0"]
SETS = [word for key in SMALL for word in ("--set", key)]
Run = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    log = console.log
    before = (log.handlers, log.level, log.propagate)
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a search and a training."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main(["search", TINY, "--run", str(run), "--quiet", *SETS]) == 0
    assert main(["train", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command that must be refused: exit code 2, nothing on standard output, and these lines on the other."""

    def check(*arguments: str) -> list[str]:
        capsys.readouterr()
        assert main(list(arguments)) == 2
        shown = capsys.readouterr()
        lines = shown.err.splitlines()
        assert shown.out == "" and lines and all(re.match(r"diffnas( \w+)?: ", line) for line in lines), shown
        assert all(len(line) < 700 for line in lines)
        assert "Traceback" not in shown.err and not (tmp_path / "diffnas-error.log").exists()
        return lines

    return check


# -- what works


def test_from_search_to_show(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(finished), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n"] == 64 and result == json.loads((finished / "train" / NAME / "test.json").read_text())
    assert main(["test", str(finished), "--train", NAME]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["test accuracy", "test loss", "inputs", "size"]
    assert main(["show", str(finished), "--stats", "--out", "pictures"]) == 0
    shown = capsys.readouterr().out
    assert "normal 2 = " in shown and "size (recipe" in shown and len(list((tmp_path / "pictures").iterdir())) == 2
    assert main(["show", str(finished), "--stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"][0]["params"] == result["params"]
    assert main(["train", "--resume", str(finished)]) == 0
    assert "weights.safetensors" in capsys.readouterr().out


def test_resume_keeps_to_the_recipe_but_for_limits(run: Path, refused: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused("search", "--resume", str(run), "--set", "search.batch=32", "--set", "seed=5")
    assert len(lines) == 2 and "search.batch differs from the run's; a resumed run may change limits" in lines[0]
    (line,) = refused("train", "--resume", str(run), "--set", "train.lr=1")
    assert "train.lr differs" in line and str(run) in line
    recipe = run / "search" / "recipe.yaml"
    before = recipe.read_text()
    assert f"name: {TINY}  # recipe {TINY}\n" in before and "  epochs: 1  # --set search.epochs\n" in before
    assert main(["search", "--resume", str(run), "--set", "search.epochs=2", "--quiet"]) == 0
    assert len((run / "search" / "metrics.jsonl").read_text().splitlines()) == 2
    changed = set(recipe.read_text().splitlines()[1:]) ^ set(before.splitlines()[1:])
    assert changed == {"  epochs: 1  # --set search.epochs", "  epochs: 2  # --set search.epochs"}


def test_results_and_progress_do_not_mix(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    assert main(["search", "--resume", str(finished)]) == 0
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["run folder", "genotype", "next"]
    assert "the search has finished, after epoch 1; to go further: diffnas search --resume" in shown.err


def test_show_of_a_published_name_and_of_texts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["show", "darts-v2", "--json"]) == 0
    text = capsys.readouterr().out
    assert main(["show", text, "--json"]) == 0
    assert capsys.readouterr().out == text and not list(tmp_path.iterdir())
    assert main(["show", text]) == 0
    assert not list(tmp_path.iterdir()) and "picture" not in capsys.readouterr().out
    assert main(["show", text, "--out", "drawn"]) == 0
    names = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.*"))]
    assert names == ["drawn/genotype-cells.png", "drawn/genotype-cells.svg"]


def test_a_log_from_standard_input_and_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = "[('sep_conv_3x3', 0), ('skip_connect', 1)]"
    line = f"genotype = Genotype(normal={node}, normal_concat=[2], reduce={node}, reduce_concat=[2])\n"
    text = f"01/01 12:00 {line.replace('sep', 'dil')}01/01 13:00 {line}"
    (tmp_path / "log.txt").write_text(text)
    for given, said in (("-", "standard input: holds 2"), ("log.txt", "log.txt: holds 2")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["show", given, "--out", "."]) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines()[0] == "normal 2 = sep_conv_3x3(0) + skip_connect(1)"
        assert f"{said} genotypes; the last is taken, line 2 (FILE:LINE names another)" in shown.err
        assert "source: Genotype(...) text, " in shown.out and "the last of 2, line 2" in shown.out
    assert main(["show", "log.txt:1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["provenance"]["from"] == "log.txt, line 1"
        and found["cells"]["normal"]["inputs"][0][0][0] == "dil_conv_3x3"
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"log.txt", *(f"{stem}-cells.{end}" for stem in ("genotype", "log") for end in ("png", "svg"))}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"9930")))
    assert main(["lookup", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["index"] == 9930
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hello = world")))
    assert main(["show", "-"]) == 2
    assert capsys.readouterr().err.startswith("diffnas: standard input: expected Genotype(normal=[...]")


@pytest.mark.parametrize("what", ["methods", "spaces", "data", "recipes", "genotypes", "keys"])
def test_lists(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    shown = capsys.readouterr()
    first = [line.split()[0] for line in shown.out.splitlines()]
    expected: dict[str, Any] = {"recipes": recipe_names(), "genotypes": list(PUBLISHED)}
    expected["keys"] = ["KEY", *(key.name for key in recipe_keys())]
    assert first == expected.get(what, first) and shown.err == ""


@pytest.mark.parametrize(("columns", "widest"), [(60, 90), (100, 100), (120, 120), (300, 120)])
def test_lists_fit_a_terminal(columns: int, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    for what in ("keys", "recipes"):
        lines = list(listing.listing(what))
        assert max(map(len, lines)) <= widest and len(lines) > 6
    assert (
        any("whole number from 1 to 9999" in " ".join(line.split()) for line in listing.listing("keys")) or columns < 90
    )


def test_lists_have_groups_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    for what, heading in (("recipes", "CIFAR-10: training of a given cell"), ("keys", "search")):
        lines = list(listing.listing(what))
        assert heading in lines and all(line == "" or line.startswith("  ") for line in lines if line[:1] in (" ", ""))
        first = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
        names = recipe_names() if what == "recipes" else [key.name for key in recipe_keys()]
        assert sorted(first) == sorted(names)


def test_a_text_that_has_no_room_beside_names_stands_below_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns, below in (("80", True), ("120", False)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = list(listing.listing("recipes"))
        named = [line for line in lines if line.startswith("  ") and line[2] != " "]
        assert all(line.endswith(("search", "train")) for line in named) == below
        assert any("4 GPU-days" in line for line in lines)


@pytest.mark.parametrize(
    ("goal", "has", "has_not"),
    [
        ("cifar10", {"darts-cifar10", "cifar10-train"}, {"pdarts-cifar100", "nb201-darts", "darts-digits"}),
        ("imagenet", {"dsnas-imagenet"}, {"darts-cifar10"}),
        ("text", {"darts-ptb", "darts-rnn-demo", "wt2-train"}, {"darts-cifar10"}),
        ("folder", {"darts-cifar10", "darts-digits"}, {"nb201-darts", "darts-ptb", "cifar10-train"}),
        ("nasbench201", {"nb201-darts"}, {"darts-cifar10"}),
    ],
)
def test_recipes_for_a_goal(goal: str, has: set[str], has_not: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "recipes", "--for", goal]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert has <= names <= set(recipe_names()) and not has_not & names


def test_keys_of_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    def keys(section: str) -> set[str]:
        assert main(["list", "keys", section]) == 0
        return {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}

    assert "search.epochs" in keys("search") and all(key.startswith("search.") for key in keys("search"))
    assert (
        keys("search.weights") < keys("search") and "method.regulariser" in keys("drnas") and "seed" in keys("recipe")
    )
    for arguments, said in (
        (["keys", "serch"], "list keys serch: is unknown; did you mean search?"),
        (["recipes", "search"], "a section chooses among keys alone"),
        (["keys", "--for", "text"], "chooses among recipes alone"),
    ):
        assert main(["list", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["search"], ["train"], ["test"], ["show"], ["list"]):
        assert main([*command, "--help"]) == 0
        assert "Usage: diffnas" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert re.fullmatch(r"diffnas \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_torch_stays_out_of_help_lists_and_refusals(tmp_path: Path) -> None:
    calls = [["--help"], ["search", "--help"], ["--version"], ["list", "recipes"], ["list", "genotypes"]]
    calls += [["search", TINY, "--set", "serch.epochs=1"], ["search", "nothing"], ["train", "nothing"], ["nothing"]]
    calls += [["train", "darts-v2", "--recipe", TINY, "--set", "trian.lr=1"], ["show", "nothing"], ["test", "nothing"]]
    code = f"import sys\nfrom diffnas.cli.main import main\nprint([main(c) for c in {calls}], 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.splitlines()[-1] == f"{[0] * 5 + [2] * 7} False", shown
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "diffnas", "--help"], capture_output=True, check=True)
    assert time.monotonic() - started < 3  # under one second on an idle machine


# -- what was typed wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serch"], "diffnas: No such command 'serch'"),
        (["search", "--foo"], "diffnas search: No such option: --foo"),
        (["search", TINY, "more"], "extra argument"),
        (["search", TINY, "--set"], "'--set' requires an argument"),
        (["list"], "diffnas list: Missing argument 'what'"),
        (["list", "method"], "diffnas list: Invalid value for 'what': 'method' is not one of 'methods', 'spaces'"),
        (["test"], "name a run folder, or weights of another program: --weights FILE"),
        (["show"], "diffnas show: Missing argument"),
        (["--nothing"], "diffnas: No such option: --nothing"),
        (["search"], "name a recipe, or go on with a run: --resume RUN"),
        (["train"], "name a genotype, or go on with a run: --resume RUN"),
        (["train", "darts-v2"], "name a recipe to train by: --recipe cifar10-train"),
        (["search", TINY, "--resume", "x"], "--resume RUN needs nothing else"),
        (["train", "darts-v2", "--resume", "x"], "--resume RUN needs nothing else"),
        (["train", "--recipe", TINY, "--resume", "x"], "--resume RUN needs nothing else"),
        (["search", "--resume", "x", "--run", "y"], "--resume RUN needs nothing else"),
        (["search", "darts-digit"], "did you mean darts-digits?"),
        (["search", TINY, "--set", "search.epochs=x"], "diffnas: --set search.epochs=x: must be a whole number"),
        (["search", TINY, "--set", "device=cuda:98"], "device: cuda:98 is not on this machine"),
        (["search", TINY, "--set", "device=mps"], "--set device=mps: must be auto, cpu, cuda or cuda:N"),
        (["search", TINY, "--set", "search.batch=500"], "search.batch 500"),
        (["search", TINY, "--set", "data.split=0.999"], "leaves none of the 256 training images"),
        (["search", TINY, "--set", "data.train_limit=5"], "the train split lacks classes"),
        (["search", TINY, "--set", "data.train_limit=99999"], "the train split has 1297 images"),
        (["search", TINY, "--set", "data.side=12"], "digits can have a side of 8 or a multiple of it"),
        (["search", TINY, "--set", "data.name=folder", "--set", "data.path=gone"], "data.path gone"),
        (["search", TINY, "--set", "data.name=folder", "--set", "data.path=a"], "data.path a"),
        (["search", "cifar10-train"], "has no search section"),
        (["search", TINY, "--set", "search=null"], "has no search section"),
        (["search", TINY, "--run", "a"], "--run a: is a file; name a folder"),
        (["search", TINY, "--run", "a/b"], "a/b/search: cannot be made: Not a directory"),
        (["search", TINY, "--run", "x" * 300], "cannot be made: File name too long"),
        (
            ["search", "--resume", "gone"],
            "gone/search: there is nothing to resume (no recipe.yaml); start with: diffnas",
        ),
        (["search", "--resume", "x" * 5000], "File name too long"),
        (["train", "--resume", "gone"], "run gone: does not exist"),
        (["train", "--resume", "a"], "run a: is a file; name the run folder"),
        (["train", "nothing", "--recipe", TINY], "is no published name, file or run folder"),
        (["train", "a", "--recipe", TINY], "a: expected Genotype(normal=[...]"),
        (["train", "darts-v2", "--recipe", "nothing"], "recipe 'nothing' is unknown"),
        (["train", "darts-v2", "--recipe", TINY, "--set", "train=null"], "has no train section"),
        (["train", "darts-v2", "--recipe", TINY, "--train", "../x"], "--train ../x: must be letters"),
        (["train", "darts-v2", "--recipe", TINY, "--run", "a"], "--run a: is a file; name a folder"),
        (["train", "op.json", "--recipe", TINY], "op.json: cell normal: op 'conv_9x9' is unknown; known:"),
        (["train", "space.json", "--recipe", TINY], "space.json: its space 'darts-mlp' is unknown; known: darts-cnn"),
        (["train", "half.json", "--recipe", TINY], "half.json: not valid JSON"),
        (["test", "gone"], "run gone: does not exist"),
        (["test", "."], "run .: is not a run folder (it has no search/ and no train/)"),
        (["test", "x" * 5000], "does not exist"),
        (["show", "darts-v3"], "did you mean darts-v2?"),
        (["show", "."], "run .: is not a run folder"),
        (["show", "a"], "a: expected Genotype(normal=[...]"),
        (["show", "half.json"], "half.json: not valid JSON"),
        (["show", "__import__('os').system('touch owned')"], "expected Genotype(normal=[...]"),
        (["show", "darts-v2", "--out", "a"], "--out a: is a file; name a folder"),
        (["show", "darts-v2", "--out", "a/b"], "a/b: "),
        (["show", "darts-v2", "--out", "x" * 300], "File name too long"),
        (["show", "space.json", "--stats", "--out", "p"], "space.json: its space 'darts-mlp' is unknown"),
        (["show", "op.json", "--stats", "--out", "p"], "op.json: cell normal: op 'conv_9x9' is unknown"),
        (["show", "darts-v2", "--stats", "--recipe", "nothing", "--out", "p"], "recipe 'nothing' is unknown"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_a_line_for_what_was_typed_wrong(
    arguments: list[str], said: str, refused: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["show", "darts-v2", "--json"]) == 0
    good = capsys.readouterr().out
    (tmp_path / "a").write_text("text")
    (tmp_path / "half.json").write_text(good[: len(good) // 2])
    (tmp_path / "space.json").write_text(good.replace("darts-cnn", "darts-mlp"))
    (tmp_path / "op.json").write_text(good.replace('["sep_conv_3x3", 0]', '["conv_9x9", 0]'))
    if arguments[0] == "show" and "--stats" in arguments:
        lines = refused_with_output(arguments, capsys)
    else:
        lines = refused(*arguments)
    assert any(said in line for line in lines), lines
    assert not (tmp_path / "owned").exists() and not (tmp_path / "runs").exists()
    assert (tmp_path / "a").read_text() == "text"


def refused_with_output(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """`show --stats` draws before it counts."""
    assert main(arguments) == 2
    return capsys.readouterr().err.splitlines()


def test_nothing_typed_is_help_and_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "Usage: diffnas" in shown.out + shown.err


# -- runs that lack something, or hold what is damaged


def test_runs_that_are_not_finished(run: Path, refused: Run) -> None:
    shutil.copytree(run / "train" / NAME, run / "train" / "second")
    (line,) = refused("test", str(run))
    assert f"holds several trainings; choose one with --train: {NAME}, second" in line
    (line,) = refused("train", "--resume", str(run))
    assert "choose one with --train" in line
    (line,) = refused("test", str(run), "--train", "third")
    assert "holds no training 'third'" in line
    shutil.rmtree(run / "train" / "second")
    (run / "train" / NAME / "weights.safetensors").unlink()
    (line,) = refused("test", str(run))
    assert f"weights.safetensors: is missing; finish the training with: diffnas train --resume {run}" in line
    (line,) = refused("train", str(run))
    assert "is not empty; go on with: diffnas train --resume" in line
    (line,) = refused("search", TINY, "--run", str(run))
    assert "is not empty; go on with: diffnas search --resume" in line
    shutil.rmtree(run / "train")
    (line,) = refused("test", str(run))
    assert f"holds no training; make one with: diffnas train {run}" in line
    (run / "search" / "genotype.json").unlink()
    (line,) = refused("show", str(run))
    assert "genotype.json: is missing; has the search finished an epoch?" in line
    (line,) = refused("test", str(run / "search"))
    assert f"it is a part of the run {run}: name that" in line
    (run / "search" / "recipe.yaml").unlink()
    (line,) = refused("search", "--resume", str(run))
    assert "there is nothing to resume (no recipe.yaml)" in line
    for path in (run / "search").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (line,) = refused("train", str(run))
    assert "genotype.json: is missing" in line


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"\xff" * 99, b"half"])
@pytest.mark.parametrize(
    ("file", "command"),
    [
        (f"train/{NAME}/weights.safetensors", "test"),
        (f"train/{NAME}/genotype.json", "test"),
        (f"train/{NAME}/recipe.yaml", "test"),
        (f"train/{NAME}/recipe.yaml", "train --resume"),
        (f"train/{NAME}/genotype.json", "train --resume"),
        (f"train/{NAME}/environment.json", "train --resume"),
        ("search/recipe.yaml", "search --resume"),
        ("search/environment.json", "search --resume"),
        ("search/genotype.json", "show"),
    ],
)
def test_damaged_files_are_named(file: str, command: str, content: bytes, run: Path, refused: Run) -> None:
    good = (run / file).read_bytes()
    (run / file).write_bytes(good[: len(good) // 2] if content == b"half" and "recipe" not in file else content)
    if content == b"half" and "recipe" in file:
        (run / file).write_bytes(good[: good.index(b"epochs:")] + b"\n  }")
    quiet = ["--quiet"] if "--resume" in command else []
    lines = refused(*command.split(), str(run), *quiet)
    assert len(lines) == 1 and str(run / file) in lines[0], lines


def test_weights_of_another_network(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = run / "train" / NAME / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  channels: 2 ", "  channels: 6 "))
    assert main(["test", str(run)]) == 2
    changed, line = capsys.readouterr().err.splitlines()
    assert "recipe.yaml: has changed since the run wrote it" in changed
    assert "weights.safetensors: does not fit the genotype and recipe beside it" in line


def test_a_damaged_checkpoint_is_passed_over_and_two_are_refused(
    run: Path, refused: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--resume", str(run), "--set", "search.epochs=2", "--quiet"]) == 0
    first, newest = sorted((run / "search" / "checkpoint").iterdir())
    newest.write_bytes(newest.read_bytes()[:-9])
    capsys.readouterr()
    assert main(["search", "--resume", str(run), "--quiet"]) == 0
    shown = capsys.readouterr().err
    assert f"{newest}: damaged: its contents do not match its digest; going back to {first.name}" in shown
    for path in (run / "search" / "checkpoint").iterdir():
        path.write_bytes(b"")
    lines = refused("search", "--resume", str(run), "--quiet")
    assert len(lines) == 3 and "start anew in another folder" in lines[-1]


def test_a_torn_row_of_metrics_is_written_again(run: Path) -> None:
    path = run / "search" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 1, "tr')
    assert main(["search", "--resume", str(run), "--set", "search.epochs=2", "--quiet"]) == 0
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1]


# -- exit codes of the rest


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "diffnas: stopped\n"),
        (Interrupted("a checkpoint is written"), 130, "diffnas: a checkpoint is written\n"),
        (PermissionError(13, "Permission denied", "runs/x"), 2, "diffnas: runs/x: Permission denied\n"),
        (OSError(28, "No space left on device", "runs/x"), 2, "diffnas: runs/x: No space left on device; free some"),
        (ZeroDivisionError("a\nb"), 1, "diffnas: failed: ZeroDivisionError: a b; the details are in "),
        (OSError("odd"), 1, "diffnas: failed: OSError: odd; the details are in "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*what: object) -> list[str]:
        raise error

    monkeypatch.setattr(listing, "listing", fail)
    assert main(["list", "data"]) == code
    shown = capsys.readouterr()
    assert shown.err.startswith(said) and shown.err.count("\n") == 1 and shown.out == ""
    assert Path("diffnas-error.log").exists() == (code == 1)
