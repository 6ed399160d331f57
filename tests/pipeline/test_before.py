"""Run folders of older versions: what a method did before it had a setting for it is what a resumed run goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import diffnas
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.registry import METHODS, choice_class
from diffnas.runtime.checkpoint import read_checkpoint, save_checkpoint

BEFORE: dict[str, dict[str, Any]] = {
    "dsnas": {"decide": "step", "stop_when_decided": True, "cost_of": "network"},
    "snas": {"anneal_from": 0, "resource_sum": "network"},
    "enas": {"lead": "every", "batches": "shared"},
    "rsws": {"batches": 0, "draw": "derivable"},
    "darts-pt": {"falling": True, "among": "left"},
    "smooth-darts": {"begins_anew": True},
    "robust-darts": {"stop_at_largest": True},
}


def settings(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in recipe.values()["method"].items() if key != "name"}


def written(folder: Path, values: dict[str, Any], of_run: bool = True) -> Path:
    """A recipe of these values, in a run folder or elsewhere."""
    folder.mkdir(parents=True)
    if of_run:
        (folder / "environment.json").write_text("{}")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


def test_the_list_is_whole() -> None:
    found = {}
    for name in METHODS:
        fields = choice_class("method", name).__dataclass_fields__.values()
        had = {field.name: field.metadata["before"] for field in fields if "before" in field.metadata}
        assert all(had[field.name] != field.default for field in fields if field.name in had)
        found |= {name: had} if had else {}
    assert found == BEFORE


@pytest.mark.parametrize("name", BEFORE)
def test_a_run_goes_on_as_it_was_begun(name: str, tmp_path: Path) -> None:
    base = {"dsnas": "dsnas-imagenet", "snas": "snas-cifar10-mild"}.get(name, "darts-cifar10")
    unit = ["method.resource_unit=macs"] if name == "snas" else []
    now = read_recipe(base, [f"method.name={name}", *unit])
    values = now.values()
    assert settings(read_recipe(written(tmp_path / "now", values))) == settings(now)  # it has all of them
    values["method"] = {key: value for key, value in values["method"].items() if key not in BEFORE[name]}
    older = settings(read_recipe(written(tmp_path / "older", values)))
    assert {key: older[key] for key in BEFORE[name]} == BEFORE[name]
    assert settings(read_recipe(written(tmp_path / "elsewhere", values, of_run=False))) == settings(now)


def test_the_method_within_a_wrapper_as_well(tmp_path: Path) -> None:
    now = read_recipe("darts-cifar10", ["method={name: budget, base: darts-pt, base_settings: {tuning: 90}}"])
    values, within = now.values(), now.values()["method"]["base_settings"]
    assert (within["tuning"], within["falling"], within["base_settings"]["exact"]) == (90, False, False)
    assert settings(read_recipe(written(tmp_path / "now", values))) == settings(now)
    values["method"]["base_settings"] = {"tuning": 90}  # once they were written down as they were given
    found = settings(read_recipe(written(tmp_path / "older", values)))["base_settings"]
    assert (found["tuning"], found["falling"], found["among"]) == (90, True, "left")


def test_a_resumed_run_says_what_came_later(tmp_path: Path) -> None:
    quick = ["search.epochs=1", "data.train_limit=64", "data.test_limit=64", "space.nodes=1", "space.layers=1"]
    recipe = read_recipe("darts-digits-tiny", [*quick, "method={name: rsws, candidates: 2, finalists: 1, rounds: 1}"])
    run = diffnas.search(recipe, tmp_path / "run")
    text = run.search.recipe.read_text()
    lines = [line for line in text.splitlines()[1:] if not line.startswith("  draw:")]  # nor was there a digest
    run.search.recipe.write_text("\n".join(lines))
    *others, newest = sorted(run.search.checkpoints.iterdir())
    for path in others:
        path.unlink()
    state = read_checkpoint(newest)
    del state["recipe"]  # nor were the keys in the checkpoint
    save_checkpoint(run.search.checkpoints, int(newest.stem), state)
    more = read_recipe(run.search.recipe, ["search.epochs=2"])
    resumed = diffnas.search(more, run.path, resume=True)
    assert "  draw: derivable  # as before there was this key" in resumed.search.recipe.read_text()
    assert "  candidates: 2  # --set method" in resumed.search.recipe.read_text()
