"""Lists of a part of the training images."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from diffnas.data import Row, Split
from diffnas.data.files import Files, Joined, Picked
from diffnas.data.lists import HEADER, draw_lists, image_names, read_lists
from diffnas.data.stream import Streamed
from diffnas.data.streamed_set import Reading, stream_images
from diffnas.data.views import View
from diffnas.errors import DataError

PICTURES = runpy.run_path(str(Path(__file__).parents[1] / "pictures.py"))
save_set = PICTURES["save_set"]


def synthetic(classes: int, each: int, root: str = "/data/train") -> Split:
    """`each` or one image more in every class."""
    counts = [each + k % 2 for k in range(classes)]
    places = [f"{root}/n{k:08d}/{k}_{at}.JPEG" for k, count in enumerate(counts) for at in range(count)]
    labels = torch.arange(classes).repeat_interleave(torch.tensor(counts))
    return Split(labels, tuple(f"n{k:08d}" for k in range(classes)), places=places)


def test_lists_are_balanced_disjoint_and_the_same_everywhere() -> None:
    shares = {"weights": 0.1, "arch": 0.025}
    lists = draw_lists(synthetic(1000, 40), shares, seed=0)
    for key, share in shares.items():
        counts = dict.fromkeys(synthetic(1000, 40).names, 0)
        for name in lists[key]:
            counts[name.split("/")[0]] += 1
        assert set(counts.values()) == {round(40 * share)}
    assert not set(lists["weights"]) & set(lists["arch"]) and len(set(lists["weights"])) == 4000
    assert lists == draw_lists(synthetic(1000, 40, "/elsewhere/ILSVRC/train"), shares, seed=0)
    mixed = synthetic(1000, 40)
    order = torch.randperm(len(mixed.labels), generator=torch.Generator().manual_seed(1)).tolist()
    moved = Split(mixed.labels[order], mixed.names, places=[mixed.places[at] for at in order])
    assert lists == draw_lists(moved, shares, seed=0) != draw_lists(mixed, shares, seed=1)
    assert lists["weights"][:2] == ["n00000000/0_12.JPEG", "n00000000/0_18.JPEG"]  # on every machine


def test_every_list_has_an_image_of_every_class() -> None:
    for each, shares in ((2, {"weights": 0.1, "arch": 0.025}), (3, {"weights": 0.9, "arch": 0.1})):
        lists = draw_lists(synthetic(4, each), shares, seed=0)
        for names in lists.values():
            assert {name.split("/")[0] for name in names} == {f"n{k:08d}" for k in range(4)}
        assert not set(lists["weights"]) & set(lists["arch"])
    with pytest.raises(DataError, match="too few are in n00000000"):
        draw_lists(synthetic(3, 1), {"weights": 0.5, "arch": 0.5}, seed=0)
    for wrong in ({"weights": 0.0, "arch": 0.1}, {"weights": 0.8, "arch": 0.3}, {"weights": 1.0, "arch": 0.1}):
        with pytest.raises(DataError, match="must be above 0 and below 1|is more than all images"):
            draw_lists(synthetic(3, 9), wrong, seed=0)


def test_names_do_not_depend_on_the_folder() -> None:
    assert image_names(["/a/b/cat/1.png", "/a/b/dog/sub/2.png"]) == ["cat/1.png", "dog/sub/2.png"]
    assert image_names([Row("/a/train-0.parquet", 3)]) == ["train-0.parquet:3"] and image_names([]) == []


def train_of(root: Path) -> Streamed:
    train = stream_images("imagenet", root, Reading(View(8))).train
    assert isinstance(train, Streamed)
    return train


def test_a_recipe_finds_the_images_of_its_lists(tmp_path: Path) -> None:
    train = train_of(save_set(tmp_path / "set"))
    files = {key: str(tmp_path / f"{key}.txt") for key in ("weights", "arch")}
    names = {"weights": [], "arch": []}  # type: dict[str, list[str]]
    for k in range(3):
        names["weights"] += [f"n{k:08d}/train_{at}.JPEG" for at in (1, 4)]
        names["arch"] += [f"n{k:08d}/train_0.JPEG"]
    for key, file in files.items():
        Path(file).write_text("\n".join([f"{HEADER}: by hand", *names[key], ""]))
    found = read_lists(train, files)
    for key, at in found.items():
        assert sorted(image_names([train.places[place] for place in at.tolist()])) == names[key]
        assert at.tolist() == sorted(at.tolist())  # in the mixed order of the set


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("n00000000/train_0.JPEG", "is no list of images; write one with: diffnas data subset"),
        (HEADER, "is no list of images"),
        (f"{HEADER}\nn00000000/gone.JPEG", "1 images are not in the training set: n00000000/gone.JPEG"),
        (f"{HEADER}\nn00000000/train_0.JPEG", "has no image of n00000001, n00000002"),
        (f"{HEADER}\nn00000000/train_0.JPEG\nn00000000/train_0.JPEG", "names an image twice"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    train, file = train_of(save_set(tmp_path / "set")), tmp_path / "list.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError) as caught:
        read_lists(train, {"data.weights_list": str(file)})
    assert any("data.weights_list" in line and said in line for line in caught.value.lines)


def test_lists_must_not_share_images(tmp_path: Path) -> None:
    train = train_of(save_set(tmp_path / "set"))
    file = tmp_path / "list.txt"
    file.write_text("\n".join([HEADER, *(f"n{k:08d}/train_0.JPEG" for k in range(3))]))
    with pytest.raises(DataError, match="weights and arch: have images in common: n00000000/train_0.JPEG"):
        read_lists(train, {"weights": str(file), "arch": str(file)})


def test_long_lists_of_files() -> None:
    joined = Joined([Files(["a.png", "\udce9.png"], "/x/"), Files(), ["/y/c.png"]])
    assert list(joined) == ["/x/a.png", "/x/\udce9.png", "/y/c.png"] and joined[-1] == "/y/c.png"
    picked = Picked(joined, torch.tensor([2, 0]).numpy())
    assert (
        list(picked) == ["/y/c.png", "/x/a.png"]
        and list(picked[1:]) == ["/x/a.png"]
        and list(joined[:2]) == list(joined)[:2]
    )
    with pytest.raises(IndexError):
        joined[3]
