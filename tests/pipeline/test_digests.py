"""Images that were trained on are found again in a test, whatever they are called there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import diffnas
from diffnas.data.decode import Scale
from diffnas.errors import DataError, RunError
from diffnas.pipeline.digests import digests_of, keep_digests, read_digests
from diffnas.pipeline.sources.images import ImageSource, ImageTest
from diffnas.pipeline.test import described
from diffnas.runtime.run_folder import Part

CPU = torch.device("cpu")


class Mean(nn.Module):
    """Two logits by brightness."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 2]."""
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


def write(folder: Path, first: int, count: int, suffix: str = "png") -> Path:
    """Dark cats and bright dogs of 16 x 16, numbered; the same number is the same picture."""
    for number in range(first, first + count):
        noise = np.random.default_rng(number).integers(0, 100, (16, 16, 3))
        for name, light in (("cat", 0), ("dog", 150)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray((noise + light).astype(np.uint8)).save(folder / name / f"{number}.{suffix}")
    return folder


def recipe_of(path: Path, *overrides: str) -> diffnas.Recipe:
    limits = ["data.train_limit=null", "data.test_limit=null", "data.side=8"]
    return diffnas.read_recipe("darts-cifar10-tiny", ["data.name=folder", f"data.path={path}", *limits, *overrides])


def source(path: Path, *overrides: str) -> ImageSource:
    return ImageSource(recipe_of(path, *overrides))


def elsewhere(path: Path, trained: Path) -> ImageTest:
    """What tests in `path` a network that was trained in `trained`."""
    return ImageTest(recipe_of(path), source(trained).inputs, elsewhere=path != trained)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    """A training on 20 of 30 images in a folder with train and test."""
    write(tmp_path / "own" / "train", 0, 10)
    write(tmp_path / "own" / "test", 10, 5)
    found = Part(tmp_path / "run" / "train" / "one")
    found.path.mkdir(parents=True)
    source(tmp_path / "own").record_training(found)
    return found


def outcome(found: ImageTest, part: Part | None) -> tuple[int, Any]:
    result = found.evaluate(Mean(), CPU, part)
    assert result["accuracy"] == 100.0
    return result["n"], result["trained_on"]


def test_digests_tell_images_apart() -> None:
    pixels = torch.randint(0, 2, (500, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    digests = digests_of(pixels)
    assert digests.dtype == np.uint64 and len(np.unique(digests)) == len(torch.unique(pixels.flatten(1), dim=0))
    assert np.array_equal(digests_of(pixels[[3, 5]]), digests[[3, 5]])
    # fixed, or runs of another day would not know their images
    assert digests_of(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)).tolist() == [11387576302567392334]


def test_digests_are_kept_small_and_once(part: Part) -> None:
    found = read_digests(part)
    assert (
        found is not None
        and len(found) == 20
        and part.digests.stat().st_size == 20 * 8 + len("diffnas-digests 1 ") + 65
    )
    keep_digests(part, torch.zeros(2, 3, 8, 8, dtype=torch.uint8))  # a training that goes on with other images
    again = read_digests(part)
    assert again is not None and len(again) == 21 and set(found.tolist()) < set(again.tolist())
    assert again.dtype == np.uint64 and np.all(np.diff(again.astype(object)) > 0)


def test_its_own_test_images_are_all_tested(part: Part, tmp_path: Path) -> None:
    assert outcome(elsewhere(tmp_path / "own", tmp_path / "own"), part) == (10, {"images": 0, "first": []})


def test_an_image_is_found_again_elsewhere(part: Part, tmp_path: Path) -> None:
    write(tmp_path / "other", 8, 7, "bmp")
    found = elsewhere(tmp_path / "other", tmp_path / "own")
    assert len(found.data.test) == 14 and len(found.data.train) == 0  # every image of a folder without train
    n, trained_on = outcome(found, part)
    assert n == 10 and trained_on["images"] == 4
    expected = {str(tmp_path / "other" / name / f"{at}.bmp") for name in ("cat", "dog") for at in (8, 9)}
    assert set(trained_on["first"]) == expected
    lines = list(described(json.loads(json.dumps(found.evaluate(Mean(), CPU, part) | {"params": 1, "macs": 1}))))
    assert any(line.startswith("left out:      4 images that it was trained on: ") for line in lines)


def test_another_folder_with_a_test_is_tested_there(part: Part, tmp_path: Path) -> None:
    write(tmp_path / "other" / "train", 20, 5)
    write(tmp_path / "other" / "Test", 30, 3)
    assert outcome(elsewhere(tmp_path / "other", tmp_path / "own"), part)[0] == 6


def test_statistics_and_scale_are_those_of_the_training(part: Part, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "own" / "test", tmp_path / "dark" / "test")
    write(tmp_path / "dark" / "train", 50, 2)
    own, moved = source(tmp_path / "own"), elsewhere(tmp_path / "dark", tmp_path / "own")
    assert (moved.data.mean, moved.data.std, moved.data.scale) == (own.data.mean, own.data.std, own.data.scale)


def test_a_test_of_nothing_but_training_images_is_refused(part: Part, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was trained on all 20 images; there is none to test"):
        outcome(elsewhere(tmp_path / "own" / "train", tmp_path / "own"), part)


def test_images_added_later_do_not_bring_trained_ones_into_the_test(tmp_path: Path) -> None:
    part = Part(tmp_path / "part")
    part.path.mkdir()
    source(write(tmp_path / "own", 0, 20)).record_training(part)
    write(tmp_path / "own", 20, 11)  # another fifth is held out now
    found = elsewhere(tmp_path / "own", tmp_path / "own")
    assert len(found.data.test) == 12
    n, trained_on = outcome(found, part)
    assert 0 < trained_on["images"] == 12 - n


def test_a_run_without_digests_is_tested_as_ever(part: Part, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part.digests.unlink()
    with caplog.at_level("WARNING", "diffnas"):
        assert outcome(elsewhere(tmp_path / "own" / "train", tmp_path / "own"), part) == (20, None)
    assert [record.getMessage() for record in caplog.records] == [
        f"{part.digests}: is not there (an earlier version trained this): some test images may have been trained on"
    ]


@pytest.mark.parametrize("change", ["flip", "cut", "header", "empty"])
def test_damaged_digests_are_refused(part: Part, change: str) -> None:
    content = bytearray(part.digests.read_bytes())
    content[-1] ^= 1
    changed = {
        "flip": bytes(content),
        "cut": part.digests.read_bytes()[:-8],
        "header": b"diffnas-digests 2" + part.digests.read_bytes()[17:],
        "empty": b"",
    }
    part.digests.write_bytes(changed[change])
    with pytest.raises(RunError, match=r"digests\.bin: damaged, or of a newer version"):
        read_digests(part)


def test_digests_are_no_pipe_or_device(part: Part) -> None:
    part.digests.unlink()
    part.digests.symlink_to(os.devnull)  # a pipe would be waited for
    with pytest.raises(RunError, match=r"digests\.bin: cannot be read: a pipe or device"):
        read_digests(part)


def test_images_to_choose_by_are_looked_at_and_the_test_is_not(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 40), ("test", 60)):
        write(tmp_path / split, first, 4)
    found = source(tmp_path, "train.epochs=2", "train.test_every=0", "train.batch=4")
    training = found.training(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), CPU)
    assert training.after(0) == {} and set(training.after(1)) == {"valid_loss", "valid_accuracy"}
    assert torch.equal(training.watched.images.pixels, found.data.valid.pixels)


def test_what_was_found_is_said_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, first in (("Train", 0), ("val", 40), ("test", 60)):
        write(tmp_path / split, first, 4)
    (tmp_path / "notes").mkdir()
    (tmp_path / "Train" / "cat" / "a.txt").touch()
    with caplog.at_level("INFO", "diffnas"):
        found = source(tmp_path)
        found.say()
    assert [record.getMessage() for record in caplog.records] == [
        f"data: {tmp_path}: 2 classes; train 8 images in Train; valid 8 images in val (looked at while training; the test"
        " is not); test 8 images in test",
        "data: left aside: folder notes, 1 files that are no images",
    ]
    assert json.loads(json.dumps(found.about)) == {
        "name": "folder",
        "path": str(tmp_path),
        "classes": ["cat", "dog"],
        "train": {"from": "Train", "images": 8},
        "valid": {"from": "val", "images": 8},
        "test": {"from": "test", "images": 8},
        "left_aside": {"folder notes": 1, "files that are no images": 1},
        "scale": {"integers": None, "floats": None},
    }


def test_val_alone_is_the_test_and_a_fifth_is_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a" / "train", 0, 4)
    write(tmp_path / "a" / "val", 40, 4)
    write(tmp_path / "b", 0, 10)
    with caplog.at_level("INFO", "diffnas"):
        source(tmp_path / "a").say()
        source(tmp_path / "b").say()
        elsewhere(tmp_path / "b", tmp_path / "a").say()
    said = [record.getMessage().rpartition("; ")[2] for record in caplog.records]
    assert said == [
        "test 8 images in val (there is no other test)",
        "test 4 images held out of every class",
        "test 20 images, all of the folder",
    ]


def test_a_whole_training_on_images_of_16_bits(tmp_path: Path) -> None:
    for number in range(8):
        for name, light in (("cat", 0), ("dog", 150)):
            pixels = np.random.default_rng(number).integers(0, 100, (8, 8)) + light
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint16)).save(tmp_path / "set" / name / f"{number}.png")
    recipe = diffnas.read_recipe(
        "darts-digits-tiny",
        ["data.name=folder", f"data.path={tmp_path / 'set'}", "data.side=8", "train.epochs=1", "train.batch=4"]
        + ["data.train_limit=null", "data.test_limit=null", "train.layers=1", "train.channels=2"],
    )
    run = diffnas.train("darts-v2", recipe, tmp_path / "run")
    part = run.training()
    assert part.read_json("environment.json")["data"]["scale"] == {"integers": [0, 255], "floats": None}
    assert len(np.asarray(read_digests(part))) == 12
    network = diffnas.load_network(run)
    assert network.inputs.scale == Scale(integers=(0.0, 255.0))  # of the set, also where one image is read alone
    dark = network.read(tmp_path / "set" / "cat" / "0.png")
    assert dark.max() == np.asarray(Image.open(tmp_path / "set" / "cat" / "0.png")).max() < 128
    result = diffnas.test(run)
    assert result["n"] == 4 and result["trained_on"] == {"images": 0, "first": []}
    result = diffnas.test(run, overrides=[f"data.path={tmp_path / 'run' / '..' / 'set'}"])
    assert result["n"] == 4 and result["trained_on"]["images"] == 0  # the same place: the fifth that was held out
    shutil.copytree(tmp_path / "set", tmp_path / "moved")
    result = diffnas.test(run, overrides=[f"data.path={tmp_path / 'moved'}"])
    assert result["n"] == 4 and result["trained_on"]["images"] == 12


def test_a_test_on_streamed_images_says_that_nothing_was_left_out_by_digests() -> None:
    counts = {"accuracy": 1.0, "interval": [0.0, 2.0], "n": 3, "loss": 1.0, "top5": 1.0, "weights": "last epoch"}
    streamed = {**counts, "params": 1, "macs": 1, "trained_on": None, "broken": {"images": 0, "first": []}}
    said = "not checked:   whether some of these images were trained on"
    assert any(line.startswith(said) for line in described(streamed))
    assert not any(said in line for line in described({**streamed, "source": "darts"}))
    assert not any(said in line for line in described({**streamed, "trained_on": {"images": 0, "first": []}}))
