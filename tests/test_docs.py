"""The blocks of README and docs: commands can be typed, recipes resolve, Python compiles, and plug-ins load."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

import diffnas
from diffnas import plugins, registry
from diffnas.cli.main import app, main
from diffnas.data import DATA
from diffnas.data.registered import TENSORS
from diffnas.data.texts import TEXTS
from diffnas.recipe.recipe import recipe_names
from diffnas.spaces.darts_cnn.ops import OPS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block, and where it is."""

    where: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            line = text[: found.start()].count("\n") + 1
            yield Block(f"{page.relative_to(ROOT)}:{line}", found[1], found[2])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `diffnas ...` of a shell block, as words after `diffnas`."""
    for block in blocks():
        if block.language not in ("", "sh"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True) if line.strip() else []
            if "diffnas" in words and words[0] in ("diffnas", "echo"):
                words = words[words.index("diffnas") + 1 :]
                end = next((at for at, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))
                yield block.where, words[:end]


COMMANDS = list(commands())
PYTHON = [block for block in blocks() if block.language == "python"]
PLUGINS = [block for block in PYTHON if "diffnas.register" in block.text and "..." not in block.text]


def options(command: Any) -> set[str]:
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}


def overrides(words: list[str]) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word in ("-s", "--set")]


def test_there_are_blocks() -> None:
    assert len(COMMANDS) > 40 and len(PYTHON) > 15 and len(PLUGINS) >= 10


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{w}-{' '.join(c)[:50]}" for w, c in COMMANDS])
def test_a_command_can_be_typed(where: str, words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    taken = 0
    while hasattr(command, "commands"):
        while words[taken].startswith("-"):
            assert words[taken] in options(command), f"{where}: no option {words[taken]}"
            taken += 1
            if taken == len(words):
                return
        assert words[taken] in command.commands, f"{where}: no command {words[taken]}"
        command, taken = command.commands[words[taken]], taken + 1
    typed = {word.partition("=")[0] for word in words[taken:] if re.match(r"-[-a-z]", word)}
    assert typed <= options(command), f"{where}: no option {', '.join(sorted(typed - options(command)))}"


RECIPES = [
    (where, words)
    for where, words in COMMANDS
    if words[0] in ("search", "estimate") and words[1:] and words[1] in recipe_names() and "--plugin" not in words
]


@pytest.mark.parametrize(("where", "words"), RECIPES, ids=[f"{w}-{' '.join(c)[:50]}" for w, c in RECIPES])
def test_a_search_has_a_recipe_that_resolves(where: str, words: list[str]) -> None:
    assert diffnas.read_recipe(words[1], overrides(words)).name


def test_lists_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for where, words in COMMANDS:
        if words[0] == "list" and "--plugin" not in words:
            assert main(words) == 0 and capsys.readouterr().out.strip(), where


@pytest.mark.parametrize("block", PYTHON, ids=[block.where for block in PYTHON])
def test_python_compiles_and_names_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("diffnas"):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names), f"{block.where}: {ast.unparse(node)}"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("diffnas", "diffnas.engine"):
            home: Any = diffnas if ast.unparse(node.value) == "diffnas" else diffnas.engine
            assert hasattr(home, node.attr), f"{block.where}: {ast.unparse(node)}"


@pytest.mark.parametrize("block", PLUGINS, ids=[block.where for block in PLUGINS])
def test_a_plugin_loads(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [registry.SPACES, registry.METHODS, registry.TASKS, registry.MODALITIES, registry.OWNERS]
    before = [(table, dict(table)) for table in (*tables, DATA, TENSORS, TEXTS, OPS)]
    ops = list(registry.SEARCHED_OPS)
    monkeypatch.setattr(plugins, "_files", {})
    (tmp_path / "block.py").write_text(block.text, encoding="utf-8")
    try:
        plugins.load_plugins([str(tmp_path / "block.py")])
        assert len(registry.OWNERS) > len(dict(before[4][1])), f"{block.where}: nothing was registered"
    finally:
        for table, entries in before:
            table.clear()
            table.update(entries)
        registry.SEARCHED_OPS[:] = ops
