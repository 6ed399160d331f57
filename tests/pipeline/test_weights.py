"""Statistics, classes and identity belong to the weights: what is stored, what is used later, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import diffnas
from diffnas.data.inputs import ImageInputs, TextInputs, inputs_from_plain, inputs_to_plain
from diffnas.errors import CheckpointError, RecipeError, RunError, WeightsError
from diffnas.pipeline.session import stored_inputs
from diffnas.pipeline.weights import digest, read_weights
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.runtime.checkpoint import load_checkpoint, save_checkpoint
from diffnas.runtime.run_folder import Part

SIDE = 8
SMALL = ["data.name=folder", f"data.side={SIDE}", "data.train_limit=null", "data.test_limit=null"]
SMALL += ["train.layers=1", "train.channels=2", "train.epochs=1", "train.batch=8", "search.batch=4", "search.epochs=1"]


def write_folder(path: Path, light: int, classes: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> Path:
    """A set of noise whose training images have values below `light`; the test images are the same in all of them."""
    for split, seeded, high, count in (("train", seed, light, 12), ("test", 99, 256, 10)):
        random = np.random.default_rng(seeded)
        for name in classes:
            folder = path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, high, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`light`, `dark` and `renamed`: the same test images beside other training images, and under other names."""
    root = tmp_path_factory.mktemp("folders")
    write_folder(root / "light", 256)
    write_folder(root / "dark", 10)
    write_folder(root / "renamed", 256, ("one", "two"))
    return root


def recipe(path: Path, *overrides: str) -> Recipe:
    return diffnas.read_recipe("darts-digits-tiny", [*SMALL, f"data.path={path}", *overrides])


@pytest.fixture(scope="module")
def finished(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search and a training on `light`, tested."""
    run = diffnas.search(recipe(folders / "light"), tmp_path_factory.mktemp("finished") / "run")
    diffnas.train(run, run.search.recipe, run)
    diffnas.test(run)
    return run.path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> diffnas.Run:
    """A copy that may be spoilt."""
    return diffnas.Run(shutil.copytree(finished, tmp_path / "run"))


def metadata(part: Part) -> dict[str, Any]:
    with safe_open(part.weights, "pt") as file:
        inside: dict[str, Any] = json.loads(file.metadata()["diffnas"])
    return inside


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def as_before(part: Part) -> None:
    """Makes a training what it was before statistics and digests were stored."""
    inside = metadata(part)
    kept = {key: inside[key] for key in ("genotype", "shape", "classes")}
    save_file(load_file(part.weights), part.weights, {"diffnas": json.dumps(kept)})
    (part.path / "environment.json").unlink()
    state = load_checkpoint(part.checkpoints)
    assert state is not None
    del state["inputs"]
    position = int(max(part.checkpoints.iterdir()).stem)
    shutil.rmtree(part.checkpoints)
    save_checkpoint(part.checkpoints, position, state)


# -- what is stored, and used


def test_weights_and_checkpoints_hold_what_makes_an_input(finished: Path) -> None:
    run = diffnas.Run(finished)
    inside = metadata(run.training())
    inputs = inputs_from_plain(inside)
    assert isinstance(inputs, ImageInputs) and inside["format"] == 2
    assert (inputs.classes, inputs.side, inputs.data) == (("cat", "dog"), SIDE, "folder")
    values = [np.asarray(Image.open(file)) for file in Path(recipe_path(run)).glob("train/*/*.png")]
    assert inputs.mean == pytest.approx((np.stack(values) / 255.0).mean(axis=(0, 1, 2)))
    for part in (run.search, run.training()):
        state = load_checkpoint(part.checkpoints)
        assert state is not None and stored_inputs(part, state) == inputs
    result = json.loads((run.training().path / "test.json").read_text())
    assert tuple(result["mean"]) == inputs.mean and tuple(result["std"]) == inputs.std


def recipe_path(run: diffnas.Run) -> str:
    return str(read_recipe(run.search.recipe).data.path)


def test_a_test_set_gives_one_result_whatever_lies_beside_it(run: diffnas.Run, folders: Path) -> None:
    before, moved = diffnas.test(run), f"data.path={folders / 'dark'}"
    assert diffnas.test(run, overrides=[moved]) == before
    as_before(run.training())  # such weights have the statistics of the folder at hand
    assert diffnas.test(run) == before and diffnas.test(run, overrides=[moved])["loss"] != before["loss"]


def test_a_resumed_run_keeps_its_statistics_on_other_data(run: diffnas.Run, folders: Path) -> None:
    before = metadata(run.training())["mean"]
    moved = read_recipe(run.training().recipe, [f"data.path={folders / 'dark'}", "train.epochs=2"])
    diffnas.train(None, moved, run, resume=True)
    assert metadata(run.training())["mean"] == before and len(run.training().metrics()) == 2
    moved = read_recipe(run.search.recipe, [f"data.path={folders / 'dark'}", "search.epochs=2"])
    diffnas.search(moved, run, resume=True)
    state = load_checkpoint(run.search.checkpoints)
    assert state is not None and state["inputs"]["mean"] == before and len(run.search.metrics()) == 2


def test_other_classes_are_refused_and_nothing_changes(run: diffnas.Run, folders: Path) -> None:
    moved, before = f"data.path={folders / 'renamed'}", contents(run.path)
    with pytest.raises(WeightsError, match=r"\(on cat, dog; the data have one, two\); set data.path to data of the"):
        diffnas.test(run, overrides=[moved])
    with pytest.raises(CheckpointError, match=r"other classes or words.*\(now one, two; then cat, dog\)"):
        diffnas.train(None, read_recipe(run.training().recipe, [moved, "train.epochs=2"]), run, resume=True)
    with pytest.raises(CheckpointError, match=r"other classes or words.*\(now one, two; then cat, dog\)"):
        diffnas.search(read_recipe(run.search.recipe, [moved, "search.epochs=2"]), run, resume=True)
    assert contents(run.path) == before


def test_a_run_of_an_earlier_version_says_that_it_has_none(run: diffnas.Run, caplog: pytest.LogCaptureFixture) -> None:
    part = run.training()
    before = metadata(part)
    as_before(part)
    caplog.clear()
    diffnas.test(run)
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert f"{part.weights}: holds no statistics of the data and no digest" in line
    caplog.clear()
    diffnas.train(None, read_recipe(part.recipe, ["train.epochs=2"]), run, resume=True)
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert f"{part.checkpoints}: holds no statistics of the data" in line
    assert metadata(part)["mean"] == before["mean"]  # it has them from now on


def test_a_text_is_tested_in_the_words_of_the_training(tmp_path: Path) -> None:
    for folder, line in (("one", "a b c a <unk>"), ("two", "z y x")):
        (tmp_path / folder).mkdir()
        for part in ("train", "valid", "test"):
            (tmp_path / folder / f"{part}.txt").write_text(f"{line}\n" * 40)
    (tmp_path / "two" / "test.txt").write_text("a b c a <unk>\n" * 40)
    sets = ["data.name=text", f"data.path={tmp_path / 'one'}", "train.epochs=1", "train.units=8", "train.batch=4"]
    run = diffnas.train("darts-rnn-v2", diffnas.read_recipe("darts-rnn-demo", sets), tmp_path / "run")
    inputs = inputs_from_plain(metadata(run.training()))
    assert inputs == TextInputs("text", ("a", "b", "c", "<unk>", "<eos>"), (80, 40, 40, 40, 40))
    before = diffnas.test(run)
    assert before["words"] == 5
    assert diffnas.test(run, overrides=[f"data.path={tmp_path / 'two'}"]) == before
    (tmp_path / "two" / "train.txt").unlink()
    assert diffnas.test(run, overrides=[f"data.path={tmp_path / 'two'}"]) == before


# -- whose weights they are


def test_every_flipped_bit_is_found(run: diffnas.Run) -> None:
    part = run.training()
    settings, content = read_recipe(part.recipe), part.weights.read_bytes()
    assert read_weights(part, settings).inputs.names == ("cat", "dog")
    for place in range(3, len(content), 61):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        part.weights.write_bytes(damaged)
        with pytest.raises(WeightsError) as refused:
            read_weights(part, settings)
        assert len(refused.value.lines) == 1 and str(part.weights) in refused.value.lines[0]


def test_the_digest_is_of_names_types_shapes_and_values() -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "c": torch.zeros(0, dtype=torch.bfloat16)}
    first = digest("{}", tensors)
    assert first == digest("{}", {name: tensors[name].clone() for name in reversed(tensors)})
    others = [{**tensors, "a": tensors["a"].view(3, 2)}, {**tensors, "b": tensors["b"].int()}]
    others += [{**tensors, "a": tensors["a"].t().contiguous()}, {"a": tensors["a"], "b": tensors["b"]}]
    assert len({first, digest("[]", tensors), *(digest("{}", other) for other in others)}) == 6


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("seed=1",), "seed was 1, and is 0 in recipe.yaml"),
        (("train.lr=0.01",), "train.lr was 0.01, and is 0.025 in recipe.yaml"),
        ((), "this training wrote others, as environment.json says"),
    ],
)
def test_weights_of_another_training_are_refused(
    overrides: tuple[str, ...], said: str, run: diffnas.Run, folders: Path, tmp_path: Path
) -> None:
    path = folders / ("light" if overrides else "dark")
    other = diffnas.train(run, recipe(path, *overrides), tmp_path / "other")
    shutil.copy(other.training().weights, run.training().weights)
    with pytest.raises(WeightsError, match="does not fit the genotype and recipe beside it") as refused:
        diffnas.test(run)
    assert len(refused.value.lines) == 1 and said in str(refused.value)


def test_the_genotype_beside_the_weights_must_be_the_one_that_was_trained(run: diffnas.Run) -> None:
    part = run.training()
    before = part.genotype.read_text()
    changed = before.replace("skip_connect", "max_pool_3x3").replace("avg_pool_3x3", "max_pool_3x3")
    part.genotype.write_text(changed if changed != before else before.replace("max_pool_3x3", "avg_pool_3x3"))
    assert diffnas.load_genotype(part.genotype) != diffnas.load_genotype(before)
    with pytest.raises(WeightsError, match="genotype.json is not the one that was trained"):
        diffnas.test(run)
    with pytest.raises(RunError, match="is not the genotype that was trained so far; put it back"):
        diffnas.train(None, None, run, resume=True)


def test_weights_that_diffnas_did_not_write_or_will_write(run: diffnas.Run) -> None:
    part = run.training()
    tensors, inside = load_file(part.weights), metadata(part)
    save_file(tensors, part.weights)
    with pytest.raises(WeightsError, match="damaged, or not weights that diffnas wrote"):
        diffnas.test(run)
    save_file(tensors, part.weights, {"diffnas": json.dumps(inside | {"format": 3})})
    with pytest.raises(WeightsError, match="has format 3, and this version reads 2; use a newer diffnas"):
        diffnas.test(run)
    part.weights.unlink()
    with pytest.raises(RunError, match="is missing; finish the training"):
        diffnas.test(run)


def test_a_recipe_that_was_cut_is_named(run: diffnas.Run) -> None:
    part = run.training()
    text = part.recipe.read_text()
    part.recipe.write_text(text[: text.index("\ntrain:") + 1])
    with pytest.raises(RecipeError, match="recipe.yaml: its section train is missing; put the file back"):
        diffnas.test(run)


@pytest.mark.parametrize("other", [{"data": "cifar10"}, {"words": ["a"], "counts": [1], "data": "ptb"}, {"std": [0.0]}])
def test_checkpoints_of_other_data_are_refused(other: dict[str, Any], run: diffnas.Run) -> None:
    folder = run.training().checkpoints
    state = load_checkpoint(folder)
    assert state is not None
    state["inputs"] |= other
    save_checkpoint(folder, int(max(folder.iterdir()).stem), state)
    more = read_recipe(run.training().recipe, ["train.epochs=2"])
    with pytest.raises(CheckpointError, match="does not fit the recipe beside it; was a file exchanged"):
        diffnas.train(None, more, run, resume=True)


# -- where a genotype comes from


def test_a_training_records_where_its_genotype_is_from(
    run: diffnas.Run, folders: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def origin(name: str, given: Any) -> str:
        done = diffnas.train(given, recipe(folders / "light"), tmp_path / name).training()
        return str(json.loads((done.path / "environment.json").read_text())["genotype"])

    assert origin("a", run) == f"search of {run.path}, epoch 1"
    assert origin("b", "darts-v2") == "published as darts-v2"
    assert origin("c", run.search.genotype) == f"file {run.search.genotype}"
    assert origin("d", diffnas.load_genotype("darts-v1")) == "given as a value"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    run.search.genotype.write_text(diffnas.load_genotype("darts-v2").to_json())
    assert origin("e", str(run.path)) == f"{run.search.genotype}, which is not what the search found"
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert line == f"{run.search.genotype}: is not what the search found; it is taken as it is"
    more = read_recipe(diffnas.Run(tmp_path / "a").training().recipe, ["train.epochs=2"])
    diffnas.train(None, more, tmp_path / "a", resume=True)
    environment = json.loads((diffnas.Run(tmp_path / "a").training().path / "environment.json").read_text())
    assert environment["genotype"] == f"search of {run.path}, epoch 1" and len(environment["attempts"]) == 2
    assert environment["weights"] == metadata(diffnas.Run(tmp_path / "a").training())["digest"]


# -- the values themselves


def test_inputs_are_plain_data_and_back() -> None:
    inputs = ImageInputs("folder", ("caf\udce9", "dog"), 4, (0.1,), (0.2,))
    assert inputs_from_plain(json.loads(json.dumps(inputs_to_plain(inputs)))) == inputs
    for wrong in ({"std": [0.0]}, {"std": [0.1, 0.2]}, {"mean": [float("nan")]}, {"side": 0}):
        with pytest.raises(ValueError, match="must"):
            inputs_from_plain(inputs_to_plain(inputs) | wrong)
    with pytest.raises(KeyError):
        inputs_from_plain({"words": ["a"]})
    with pytest.raises(ValueError, match="as many"):
        TextInputs("text", ("a", "b"), (1,))


def test_a_kill_between_record_and_weights_is_no_foreign_file(
    run: diffnas.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = metadata(run.training())["digest"]
    longer = read_recipe(run.training().recipe, ["train.epochs=2"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("diffnas.pipeline.weights.write_bytes", killed)
        diffnas.train(None, longer, run, resume=True)
    diffnas.train(None, None, run, resume=True)
    assert metadata(run.training())["digest"] != before and diffnas.test(run)["n"] == 20
    environment = run.training().path / "environment.json"
    noted = json.loads(environment.read_text())
    del noted["weights"]  # as a kill between weights and record once left it
    environment.write_text(json.dumps(noted))
    assert diffnas.test(run)["n"] == 20


def test_a_run_may_be_called_anything(run: diffnas.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="diffnas")  # pytest-xdist cannot send on what is no UTF-8
    place = tmp_path / os.fsdecode(b"r\xe9\x1b[31m\n x: 1")  # no UTF-8, and what no YAML may hold
    try:
        shutil.copytree(run.path, place)
    except OSError:  # as on macOS
        pytest.skip("this file system has no such names")
    diffnas.train(place, diffnas.read_recipe(place / "search" / "recipe.yaml"), place, name="again")
    before, after = (diffnas.test(place, name) for name in (*run.trainings(), "again"))
    assert before["accuracy"] == after["accuracy"] and before["loss"] == after["loss"]
