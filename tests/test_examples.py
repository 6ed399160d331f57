"""The examples: each runs by the commands that it names, and the pages show the files themselves."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

import diffnas
from diffnas import plugins, registry, testing
from diffnas.cli.main import main
from diffnas.data.registered import TENSORS
from diffnas.spaces.darts_cnn.ops import OPS

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "demo.py")
TINY = {
    "search": [
        "search.epochs=1",
        "data.train_limit=128",
        "data.test_limit=64",
        "space.channels=4",
        "space.layers=3",
        "space.nodes=2",
    ],
    "train": ["train.epochs=1", "train.channels=4", "train.layers=3"],
    "test": [],
}


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever an example registers is gone after its test."""
    names = ("SPACES", "METHODS", "TASKS", "OWNERS")
    before = [(getattr(registry, name), dict(getattr(registry, name))) for name in names]
    before += [(table, dict(table)) for table in (TENSORS, OPS)]
    ops = list(registry.SEARCHED_OPS)
    monkeypatch.setattr(plugins, "_files", {})
    monkeypatch.chdir(ROOT)
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)
    registry.SEARCHED_OPS[:] = ops


def commands(path: Path) -> list[list[str]]:
    """The commands that the docstring of an example names, each as its words."""
    text = path.read_text(encoding="utf-8").split('"""')[1].replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("diffnas ")]


def loaded(path: Path) -> ModuleType:
    spec = util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look types up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_goes_the_whole_way(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = commands(path)
    assert [words[0] for words in found] == ["search", "train", "test"]
    for words in found:
        typed = [re.sub(r"^runs/", f"{tmp_path}/", word) for word in words]
        tiny = [word for text in TINY[words[0]] for word in ("-s", text)]
        assert main([*typed, *tiny]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "test accuracy:" in printed
    # what a command says to do next can be typed as it stands
    following = [shlex.split(line.partition(":")[2])[1:] for line in printed.splitlines() if line.startswith("next:")]
    assert [words[0] for words in following] == ["train", "test"]
    assert all(words[-2:] == ["--plugin", f"examples/{path.name}"] for words in following)


def test_the_pages_show_the_files() -> None:
    shown: set[str] = set()
    for page in (ROOT / "docs" / "examples").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\(\.\./\.\./(examples/[\w.]+)\)", text):
            content = (ROOT / name).read_text(encoding="utf-8")
            assert f"\n{content}```\n" in text, f"copy {name} into {page.name}: the page shows another text"
            shown.add(name)
    assert {f"examples/{path.name}" for path in EXAMPLES} <= shown


def test_they_keep_the_promises_of_their_kind() -> None:
    method, space = (loaded(ROOT / "examples" / f"{name}.py") for name in ("method", "space"))
    testing.check_method(method.Surer())
    testing.check_space(space.Grids(channels=4, layers=4, nodes=1))
    signals = loaded(ROOT / "examples" / "signals.py")
    testing.check_space(signals.SignalCells(channels=4, layers=3, nodes=1), diffnas.TensorShape((1, 16), 3))
