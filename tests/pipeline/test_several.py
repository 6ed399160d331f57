"""Commands on several processes: a script that runs one after another in each of them, and `devices` in Python."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import diffnas
from diffnas.errors import PluginError, RunError, UserError
from diffnas.pipeline import several
from diffnas.registry import OWNERS, Owner

TESTS = Path(__file__).parents[1]
save_set = runpy.run_path(str(TESTS / "pictures.py"))["save_set"]
launched = runpy.run_path(str(TESTS / "contract" / "test_processes.py"))["launched"]
IMAGES = runpy.run_path(str(Path(__file__).with_name("commands.py")))["IMAGES"]
TINY = [
    "search.batch=8",
    "data.train_limit=40",
    "data.test_limit=60",
    "search.epochs=1",
    "train.epochs=1",
    "train.batch=8",
]
TINY += ["space.channels=2", "space.layers=2", "space.nodes=1", "train.layers=2", "train.channels=2", "device=cpu"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What one process found, and what each of two, of a set in which two images are broken."""
    folder = tmp_path_factory.mktemp("commands")
    root = save_set(folder / "set", classes=3, train=9, val=5)
    (root / "train" / "n00000001" / "train_3.JPEG").write_bytes(b"")
    (root / "val" / "n00000002" / "val_1.JPEG").write_text("no image")
    rows = {}
    for size in (1, 2):
        (folder / str(size)).mkdir()
        (folder / str(size) / "streamed.yaml").write_text(IMAGES.format(path=root))
        ended = launched(size, str(folder), script=Path(__file__).with_name("commands.py"))
        assert all(each.returncode == 0 for each in ended), "\n".join(each.stderr[-3000:] for each in ended)
        rows[size] = [json.loads((folder / str(size) / f"{rank}.json").read_text()) for rank in range(size)]
    return rows


@pytest.mark.parametrize("what", ["trained_on", "tested_on"])
def test_streamed_images_count_once_each(found: dict[int, list[dict[str, Any]]], what: str) -> None:
    (whole,), parts = found[1], found[2]
    assert sorted(image for part in parts for image in part[what]) == sorted(whole[what])


def test_a_test_of_two_equals_that_of_one(found: dict[int, list[dict[str, Any]]]) -> None:
    (whole,), first = found[1], found[2][0]
    assert first["tested"] == whole["tested"] and first["tested"]["n"] == 14


def test_a_search_for_text_equals_that_of_one_after_two_epochs(found: dict[int, list[dict[str, Any]]]) -> None:
    (whole,), first = found[1], found[2][0]
    assert first["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert flat(first["strength"]) == pytest.approx(flat(whole["strength"]), abs=1e-6)


def flat(values: Any) -> list[float]:
    """All numbers in nested lists and mappings."""
    if isinstance(values, dict | list):
        return [n for each in (values.values() if isinstance(values, dict) else values) for n in flat(each)]
    return [float(values)]


@pytest.mark.slow
def test_devices_in_python(tmp_path: Path) -> None:
    recipe, run = diffnas.read_recipe("darts-digits-tiny", TINY), tmp_path / "run"
    done = diffnas.search(recipe, run, progress=False, devices=2, note="by two")
    assert done.search.read_json("environment.json")["processes"] == 2
    more = diffnas.read_recipe("darts-digits-tiny", [*TINY, "search.epochs=2"])
    assert len(diffnas.search(more, run, resume=True, progress=False, devices=2).search.metrics()) == 2
    diffnas.train(done, recipe, run, progress=False, devices=2)
    diffnas.train(diffnas.load_genotype(run), recipe, run, name="two", progress=False, devices=2)
    assert diffnas.test(run, "two", devices=2) == diffnas.test(run, "two")


def test_an_error_of_the_processes_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="none") as caught:
        diffnas.test(tmp_path / "none", devices=2)
    assert len(caught.value.lines) == 1


def test_what_is_refused_before_processes_start(tmp_path: Path) -> None:
    recipe = diffnas.read_recipe("darts-digits-tiny", TINY)
    for devices in (0, True, 1025, "2"):
        with pytest.raises(UserError, match="devices: must be a whole number"):
            diffnas.search(recipe, tmp_path, devices=devices)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cannot call a function"):
        diffnas.search(recipe, tmp_path, devices=2, progress=print)
    with pytest.raises(RunError, match="nothing to train"):
        diffnas.train(None, recipe, tmp_path, devices=2)
    with pytest.raises(RunError, match="name the run folder"):
        diffnas.search(recipe, resume=True, devices=2)


@pytest.fixture
def owners() -> Iterator[None]:
    """Restores what is registered."""
    before = dict(OWNERS)
    yield
    OWNERS.clear()
    OWNERS.update(before)


@pytest.mark.usefixtures("owners")
def test_plugins_travel_unless_they_are_of_the_program_itself() -> None:
    OWNERS["method", "of-a-file"] = Owner("diffnas_plugin_mine", "/x/mine.py", None)
    OWNERS["method", "of-a-module"] = Owner("mine.methods", "/x/mine/methods.py", None)
    words = several._plugins()
    assert "/x/mine.py" in words and "mine.methods" in words
    OWNERS["method", "of-a-cell"] = Owner("__main__", None, None)
    with pytest.raises(PluginError, match="of-a-cell: registered in the program itself"):
        several._plugins()
