"""`diffnas new`: what it writes works at once, and nothing is overwritten."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffnas
from diffnas import plugins, registry
from diffnas.cli.main import main
from diffnas.data import DATA
from diffnas.errors import UserError

KINDS = ("method", "space", "data")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own; whatever a test registers is gone after it."""
    names = ("SPACES", "METHODS", "OWNERS")
    before = [(getattr(registry, name), dict(getattr(registry, name))) for name in names] + [(DATA, dict(DATA))]
    monkeypatch.setattr(plugins, "_files", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)
    for name in [name for name in sys.modules if name.endswith(("my_start", "my_space_start"))]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_says_to_do_next_can_be_done(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", kind, "my-start", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["my_start.py", "test_my_start.py"][: 1 if kind == "data" else 2]
    tiny = ["-s", "data.train_limit=96", "-s", "data.test_limit=32"]
    for line in told["commands"]:
        program, *words = shlex.split(line)
        if program == "pytest":
            assert pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", "--rootdir=.", *words]) == 0
            for table in (registry.METHODS, registry.SPACES):  # commands begin in processes of their own
                table.pop("my-start", None)
            registry.OWNERS.clear()
        else:
            assert main([*words, *(tiny if words[0] == "search" else [])]) == 0, capsys.readouterr().err
    assert (Path("runs") / "my-start" / "report.html").is_file()


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("test_mine.py").write_text("mine")
    assert main(["new", "method", "mine"]) == 2
    assert capsys.readouterr().err == (
        "diffnas: test_mine.py exists already; take another name, or another folder by --out\n"
    )
    assert Path("test_mine.py").read_text() == "mine" and not Path("mine.py").exists()
    Path("my other").mkdir()
    assert main(["new", "method", "mine", "--out", "my other"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("written: my other/mine.py\nwritten: my other/test_mine.py\nnext:\n")
    assert "  pytest 'my other/test_mine.py'\n" in out and "--plugin 'my other/mine.py'" in out


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("method", "darts", "method 'darts' exists already in diffnas"),
        ("space", "darts-cnn", "space 'darts-cnn' exists already"),
        ("data", "cifar10", "data 'cifar10' exists already"),
        ("method", "Sharp", "'Sharp': a name is small letters and digits"),
        ("method", "../x", "a name is small letters"),
        ("method", "class", "class.py would hide the Python module class"),
        ("space", "random", "random.py would hide the Python module random"),
        ("data", "torch", "torch.py would hide"),
    ],
)
def test_names_that_cannot_be_taken(kind: str, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        diffnas.new(kind, name)  # type: ignore[arg-type]
    assert not list(Path().iterdir())


def test_the_folder_must_be_there() -> None:
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        diffnas.new("method", "mine", "nowhere")


def test_it_needs_no_torch() -> None:
    code = "import sys; from diffnas.cli.main import main; main(['new', 'method', 'mine']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
