"""The demo's folder: begun anew where an earlier demo left it, whatever stopped that; nobody else's is touched."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from diffnas.runtime.run_folder import Run, claim


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_demo_begins_anew(demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / "demo"
    demo.prepare(folder)
    claim(Run(folder).search, "search")  # a search may begin in it
    assert capsys.readouterr().out == ""
    demo.prepare(folder)  # stopped at once, then within the search
    (folder / "search" / "recipe.yaml").write_text("name: x")
    demo.prepare(folder)
    assert capsys.readouterr().out.count("holds a demo that was stopped: it begins anew") == 2
    assert not any((folder / "search").iterdir())
    (folder / "train").mkdir()
    (folder / "demo.json").write_text("{}")
    demo.prepare(folder)
    assert "holds an earlier demo: it begins anew" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["demo.txt", "search"]
    shutil.rmtree(folder)
    folder.mkdir()
    demo.prepare(folder)


def test_what_is_not_the_demos_stays(demo: ModuleType, tmp_path: Path) -> None:
    demo.prepare(tmp_path / "demo")
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "search").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    for name in ("demo", "run", "file"):
        with pytest.raises(SystemExit, match="holds something else; name another folder"):
            demo.prepare(tmp_path / name)
    assert (tmp_path / "demo" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"
