"""Errors: their tree, how much of them is said, and the exit codes in the docs."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffnas import errors
from diffnas.cli import listing
from diffnas.cli.main import main
from diffnas.errors import LONGEST, MOST, DiffnasError, GenotypeError, RecipeError, UserError
from diffnas.recipe import keys
from diffnas.recipe.recipe import read_recipe

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
TREE = {name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, DiffnasError)}


def test_twenty_mistakes_are_said() -> None:
    few, many = (UserError(*(f"mistake {k}" for k in range(count))) for count in (MOST, 1000))
    assert few.shown == few.lines and str(few).count("\n") == MOST - 1
    assert len(many.lines) == 1000 and many.shown == (*many.lines[:MOST], "and 980 more")
    assert str(many).endswith("mistake 19\nand 980 more")
    again = GenotypeError(*many.lines)  # as when a file's name is put before each
    assert again.shown == many.shown


def test_a_long_line_keeps_its_place_and_its_remedy() -> None:
    (line,) = UserError(f"file.yaml: {'x' * 100_000}; did you mean y?").lines
    assert line.startswith("file.yaml: xxx") and line.endswith("xxx; did you mean y?") and len(line) < LONGEST + 10
    assert UserError("a\n  b\u2028c").lines == ("a b c",)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The words for which a similar name was looked for."""
    words: list[str] = []
    close = keys.difflib.get_close_matches

    def look(word: str, *rest: object, **more: object) -> list[str]:
        words.append(word)
        return close(word, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(keys.difflib, "get_close_matches", look)
    yield words


def mistakes(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "r.yaml"
    path.write_text(f"extends: darts-digits-tiny\n{text}")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    return caught.value.lines


@pytest.mark.parametrize("section", ["", "search:", "method: {name: budget, base: darts, base_settings: {", "space:"])
def test_names_are_looked_for_only_for_the_mistakes_that_are_said(
    section: str, counted: list[str], tmp_path: Path
) -> None:
    if section.endswith("{"):
        text = section + ", ".join(f"zz{k}: 1" for k in range(800)) + "}}"
    else:
        text = f"{section}\n" + "".join(f"{'  ' if section else ''}zz{k}: 1\n" for k in range(800))
        text += "  name: darts-cnn\n" if section == "space:" else ""
    lines = mistakes(tmp_path, text)
    assert len(lines) == 800 and "zz799 is unknown" in lines[-1]
    assert len(counted) <= 2 * MOST


@pytest.mark.parametrize(
    "text",
    [
        f"space: {{name: darts-cnn, ops: {list(range(800))}}}",
        f"data: {{mean: [{'x, ' * 800}]}}",
        f"search: {{arch: {{betas: [{'x, ' * 800}]}}}}",
    ],
)
def test_a_list_of_wrong_items_is_one_mistake_shown_once(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    monkeypatch.setattr("diffnas.recipe.validate.quote_value", lambda value: shown.append(value) or "it")
    (line,) = mistakes(tmp_path, text)
    assert line.endswith("; got it") and len(shown) == 1


# -- exit codes


def table() -> list[tuple[int, list[str]]]:
    """(code, names of exceptions) for every row of the page's table."""
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [(int(code), re.findall(r"`(\w+)`", names)) for code, names in rows]


def raised(name: str) -> BaseException:
    if name in TREE:
        return TREE[name]("said")
    if name == "ImportError":
        return ImportError("broken", name="torch")
    kind = getattr(builtins, name)
    return kind(13, "strange", "a/place") if issubclass(kind, OSError) else kind("said")


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, names in table() for name in names])
def test_the_table_of_exit_codes(
    code: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*what: str) -> list[str]:
        raise raised(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listing, "listing", fail)
    assert main(["list", "data"]) == code
    found = capsys.readouterr()
    assert found.out == "" and found.err.startswith("diffnas: ") and found.err.count("\n") == 1
    assert Path("diffnas-error.log").exists() == (name == "ZeroDivisionError")


def test_the_table_is_whole() -> None:
    rows = dict(table())
    assert list(rows) == [0, 1, 2, 130] == [0, *sorted({each.exit_code for each in TREE.values()})]
    page = PAGE.read_text(encoding="utf-8")
    for name, each in TREE.items():
        assert name == "DiffnasError" or f"`{name}`" in page, name
        assert name == "DiffnasError" or name in rows[each.exit_code] or issubclass(each, UserError), name
    tree = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(["DiffnasError", *tree]) == sorted(TREE)


def test_the_details_of_a_failure_are_safe_to_show_and_always_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*what: str) -> list[str]:
        raise ZeroDivisionError("\x1b]0;x\x07\udc80\u202e")

    monkeypatch.setattr(listing, "listing", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for folder in ("", "temporary"):
        (tmp_path / folder).mkdir(exist_ok=True)
        where = tmp_path / folder / "diffnas-error.log"
        monkeypatch.setattr("os.getcwd", lambda folder=folder: str(tmp_path / ("gone/file" if folder else "")))
        (tmp_path / "gone").write_text("")
        assert main(["list", "data"]) == 1
        said = capsys.readouterr().err
        assert said.endswith(f"the details are in {where}\n") and r"\x1b]0;x\x07\udc80\u202e" in said
        assert r"\x1b]0;x\x07\udc80\u202e" in where.read_text() and "\x1b" not in where.read_text()
