"""Searches and trainings on images that are decoded while they are needed, and the commands that prepare such images."""

from __future__ import annotations

import json
import os
import runpy
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import diffnas
from diffnas.cli.main import main
from diffnas.core.batch import Batch, Loss
from diffnas.errors import DataError, Interrupted, RecipeError, UserError
from diffnas.pipeline.sources.load import load_source
from diffnas.tasks.classification import Classification

save_set = runpy.run_path(str(Path(__file__).parents[2] / "pictures.py"))["save_set"]

RECIPE = """
name: streamed
device: cpu
data: {{name: imagenet, path: {path}, side: 16, workers: 0}}
space: {{name: darts-cnn, channels: 2, layers: 2, nodes: 1, ops: [none, skip_connect, avg_pool_3x3, sep_conv_3x3]}}
method: {{name: darts}}
search: {{epochs: 2, batch: 4, checkpoint_every: 100}}
train: {{epochs: 2, batch: 4, channels: 2, layers: 2, auxiliary: false, cutout: 0, jitter: [0.4, 0.4, 0.4, 0.2]}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for a small set, in which one training image and one validation image are broken."""
    folder = tmp_path_factory.mktemp("streamed")
    root = save_set(folder / "set", classes=3, train=10, val=3)
    (root / "train" / "n00000001" / "train_3.JPEG").write_bytes(b"")
    (root / "val" / "n00000002" / "val_1.JPEG").write_text("no image")
    diffnas.data_subset(root, folder / "lists", 0.5, 0.25)
    path = folder / "streamed.yaml"
    path.write_text(RECIPE.format(path=root))
    return path


def with_lists(recipe: Path, *overrides: str) -> list[str]:
    lists = [f"data.{key}_list={recipe.parent}/lists/{key}.txt" for key in ("weights", "arch")]
    return [*lists, *overrides]


def rows(part: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "data_seconds")} for row in part.metrics()]


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a signal stop the command once so many losses have been computed."""
    plain, seen = Classification.loss, []

    def loss(self: Classification, net: Any, batch: Batch) -> Loss:
        seen.append(1)
        if len(seen) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, net, batch)

    monkeypatch.setattr(Classification, "loss", loss)


def test_a_stop_within_an_epoch_changes_no_bit_whatever_the_workers(recipe: Path, tmp_path: Path) -> None:
    read = diffnas.read_recipe
    whole = diffnas.search(read(recipe, with_lists(recipe)), tmp_path / "whole")
    diffnas.train(whole, read(recipe), whole)
    part = tmp_path / "part"
    for workers, command in ((2, "search"), (1, "train")):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            stop_after(5 if command == "search" else 3, patch)
            overrides = [f"data.workers={workers}"]
            if command == "search":
                diffnas.search(read(recipe, with_lists(recipe, *overrides)), part)
            else:
                diffnas.train(part, read(recipe, overrides), part)
        if command == "search":
            diffnas.search(read(part / "search" / "recipe.yaml", ["data.workers=0"]), part, resume=True)
        else:
            stored = diffnas.Run(part).training().recipe
            diffnas.train(None, read(stored, ["data.workers=2"]), part, resume=True)
    runs = [diffnas.Run(tmp_path / name) for name in ("whole", "part")]
    assert rows(runs[0].search) == rows(runs[1].search) and len(rows(runs[0].search)) == 2
    assert rows(runs[0].training()) == rows(runs[1].training())
    one, other = (load_file(run.training().weights) for run in runs)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(row["data_seconds"] <= row["seconds"] for run in runs for row in run.training().metrics())


def test_a_search_uses_the_images_of_its_lists(recipe: Path) -> None:
    source = load_source(diffnas.read_recipe(recipe, with_lists(recipe)))
    feeds = source.search_feeds(torch.device("cpu"))
    listed = {}
    for name, key in (("train", "weights"), ("valid", "arch"), ("score", "arch")):
        names = (recipe.parent / "lists" / f"{key}.txt").read_text().splitlines()[1:]
        places = [feeds[name].images.places[at] for at in feeds[name].indices.tolist()]  # type: ignore[attr-defined]
        assert sorted("/".join(Path(place).parts[-2:]) for place in places) == sorted(names)
        listed[name] = set(places)
    assert not listed["train"] & listed["valid"]
    with pytest.raises(DataError, match=r"search.batch 20: data.weights_list has 15 images"):
        load_source(diffnas.read_recipe(recipe, with_lists(recipe, "search.batch=20"))).search_feeds(
            torch.device("cpu")
        )


def test_a_test_counts_what_it_could_read_and_a_prediction_sees_the_same(recipe: Path, tmp_path: Path) -> None:
    run = diffnas.train("darts-v2", diffnas.read_recipe(recipe, ["train.epochs=1", "data.workers=1"]), tmp_path / "run")
    result = diffnas.test(run)
    assert result["n"] == 8 and result["broken"]["images"] == 1 and "val_1.JPEG" in result["broken"]["first"][0]
    assert result["trained_on"] is None and not run.training().digests.exists()
    network = diffnas.load_network(run)
    assert network.inputs.resize == 19 and network.inputs.side == 16  # type: ignore[union-attr]
    files = sorted((recipe.parent / "set" / "val").glob("*/*.JPEG"))
    readable = [file for file in files if file.stat().st_size > 10]
    found = network.probabilities(readable).argmax(dim=1).tolist()  # type: ignore[operator]
    right = sum(network.classes[k] == file.parent.name for k, file in zip(found, readable, strict=True))  # type: ignore[index]
    assert 100 * right / 8 == pytest.approx(result["accuracy"])


def test_a_folder_streamed_trains_as_one_in_memory(recipe: Path, tmp_path: Path) -> None:
    root = save_set(tmp_path / "set", classes=2, train=6, val=2)
    common = ["data.name=folder", f"data.path={root}", "train.epochs=1", "data.crop=2", "train.cutout=4"]
    runs = []
    for stream in ("true", "false"):
        chosen = diffnas.read_recipe(recipe, [*common, f"data.stream={stream}"])
        runs.append(diffnas.train("darts-v2", chosen, tmp_path / stream))
    one, other = (load_file(run.training().weights) for run in runs)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert rows(runs[0].training()) == rows(runs[1].training())


def test_the_time_for_data_is_shown(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "diffnas"):
        overrides = ["train.epochs=1", "log.every=0.0001"]
        diffnas.train("darts-v2", diffnas.read_recipe(recipe, overrides), tmp_path / "run")
    text = caplog.text
    assert "% of the time" in text and "data: of that time" in text
    assert "data: images are decoded by no workers with " in text
    assert text.count("train_3.JPEG: is not a readable image") == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.stream=false"], "data.stream=false: must be true or null for imagenet"),
        (["data.name=cifar10", "data.stream=true"], "must be false or null for cifar10"),
        (["data.resize=8"], "data.resize=8: must be at least the side, 16"),
        (["data.crop_area=[0.5, 0.1]"], "must be two shares"),
        (["data.weights_list=a"], "and data.arch_list need each other"),
        (["data.weights_list=a", "data.arch_list=b", "data.train_limit=9"], "must be null: the lists say"),
        (["data.name=folder", "data.augment=random-resized-crop"], "needs data.stream=true"),
        (["search.jitter=[0.1, 0.1, 0.1, 0.6]"], "must be 0 to 1 each, the hue 0 to 0.5"),
        (["data.workers=-1"], "must be a whole number from 0 to 256"),
    ],
)
def test_contradictions_are_refused(recipe: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        diffnas.read_recipe(recipe, overrides)
    assert any(said in line for line in caught.value.lines), caught.value.lines


def test_subset_at_the_command_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(recipe.parent / "set")
    assert (
        main(["data", "subset", path, "--out", str(tmp_path / "a"), "--weights", "0.5", "--arch", "0.25", "--json"])
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["weights"]["images"], facts["arch"]["images"]) == (30, 15, 6)
    for key in ("weights", "arch"):
        assert (tmp_path / "a" / f"{key}.txt").read_bytes() == (recipe.parent / "lists" / f"{key}.txt").read_bytes()
    assert main(["data", "subset", path, "--out", str(tmp_path / "b")]) == 0
    assert f"--set data.arch_list={tmp_path}/b/arch.txt" in capsys.readouterr().out
    assert main(["data", "subset", path, "--weights", "2"]) == 2 and "must be above 0" in capsys.readouterr().err
    assert main(["data", "subset", str(tmp_path / "gone")]) == 2 and "no such folder" in capsys.readouterr().err


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def test_shrink_at_the_command_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = recipe.parent / "set", tmp_path / "small"
    assert main(["data", "shrink", str(root), str(out), "--side", "16", "--json", "-q"]) == 2
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert facts["written"] + facts["copied"] == 37 and facts["broken"] == 2 and facts["written"] > 5
    assert "train_3.JPEG: is not a readable image" in said.err and "2 images could not be read" in said.err
    sizes = [size_of(file) for file in out.glob("*/*/*.JPEG")]
    assert len(sizes) == 37 and max(min(size) for size in sizes) == 16
    large = size_of(root / "train" / "n00000000" / "train_2.JPEG")
    small = size_of(out / "train" / "n00000000" / "train_2.JPEG")
    assert small[0] / small[1] == pytest.approx(large[0] / large[1], rel=0.1)
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/*/*")}
    again = diffnas.data_shrink(root, out, 16)
    assert again["kept"] == 37 and before == {file: file.stat().st_mtime_ns for file in out.glob("*/*/*")}
    with pytest.raises(UserError, match="name another folder"):
        diffnas.data_shrink(root, root)
    listed = load_source(diffnas.read_recipe(recipe, [f"data.path={out}"]))
    assert listed.about["train"]["images"] == 29 and np.all(
        np.array(listed.names) == ["n00000000", "n00000001", "n00000002"]
    )
