"""Images, the split of the training images, and what `load_images` checks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffnas.cli.listing import listing
from diffnas.data import DATA, Split
from diffnas.data import images as module
from diffnas.data.images import SOURCES, ImageData, Images, load_images, split_train
from diffnas.data.texts import TEXTS
from diffnas.errors import DataError
from diffnas.pipeline.sources.images import load_data
from diffnas.recipe.recipe import read_recipe


def some(labels: list[int], names: tuple[str, ...] = ("cat", "dog"), side: int = 4) -> Images:
    pixels = torch.randint(0, 256, (len(labels), 3, side, side), dtype=torch.uint8)
    return Images(pixels, torch.tensor(labels, dtype=torch.int64), names)


Given = Callable[..., None]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Makes `folder` a data set of the images given."""

    def use(train: Images, test: Images) -> None:
        def listed(images: Images) -> Split:
            return Split(images.labels, images.names, lambda count: images.pixels[:count])

        monkeypatch.setitem(module.SOURCES, "folder", lambda name, path, side: (listed(train), listed(test)))

    return use


def refusal(*arguments: object, **options: object) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load_images(*arguments, **options)  # type: ignore[arg-type]
    return caught.value.lines


def test_the_list_of_data_sets_does_not_import_torch() -> None:
    code = "import sys, diffnas.data; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_data_set_has_a_source_and_says_what_it_is() -> None:
    names = ["cifar10", "cifar100", "digits", "folder", "imagenet", "imagenet16-120", "svhn"]
    assert list(DATA) == list(SOURCES) == names
    for info in DATA.values():
        assert "\n" not in info.about
        assert info.mean is None or len(info.mean) == info.channels
        assert (info.mean is None) == (info.std is None)
    assert not DATA["digits"].flip
    assert [info.crop for info in DATA.values()] == [4, 4, 1, 0, 0, 2, 4]


def test_the_list_shows_every_data_set() -> None:
    assert [line.split()[0] for line in listing("data")] == sorted([*DATA, *TEXTS])


def test_a_recipe_on_data_that_is_not_fetched_says_which_path_it_needs() -> None:
    recipe = read_recipe("darts-cifar10", ["data.name=imagenet16-120", "train.auxiliary=false"])
    with pytest.raises(DataError) as caught:
        load_data(recipe)
    assert caught.value.lines == (
        "data.path: imagenet16-120 is not fetched; set it to the folder that holds train_data_batch_1 to "
        "train_data_batch_10 and val_data of ImageNet16",
    )


def test_images_know_their_number_and_subsets() -> None:
    images = some([0, 1, 1, 0])
    chosen = images.subset(torch.tensor([2, 0]))
    assert len(images) == 4
    assert chosen.labels.tolist() == [1, 0]
    assert torch.equal(chosen.pixels, images.pixels[[2, 0]])
    assert chosen.names == images.names
    assert images.to("cpu").labels.tolist() == images.labels.tolist()


@pytest.mark.parametrize(
    ("pixels", "labels", "text"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "need uint8 [M, C, H, W]"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "need uint8 [M, C, H, W]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "need int64 [2], one an image"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "labels of torch.float32 [2]"),
    ],
)
def test_images_of_another_type_or_shape_are_refused(pixels: torch.Tensor, labels: torch.Tensor, text: str) -> None:
    with pytest.raises(DataError) as caught:
        Images(pixels, labels, ("cat",))
    assert text in str(caught.value)


def test_a_data_set_is_loaded_whole(given: Given) -> None:
    train, test = some([0, 1, 1, 0]), some([1, 0])
    given(train, test)
    data = load_images("folder")
    assert isinstance(data, ImageData)
    assert torch.equal(data.train.pixels, train.pixels)
    assert torch.equal(data.test.labels, test.labels)
    assert (data.name, data.classes, data.channels, data.side) == ("folder", 2, 3, 4)


def test_limits_keep_the_first_images(given: Given) -> None:
    train = some([0, 1, 1, 0])
    given(train, some([1, 0, 0]))
    data = load_images("folder", train_limit=3, test_limit=2)
    assert torch.equal(data.train.pixels, train.pixels[:3])
    assert data.test.labels.tolist() == [1, 0]


def test_limits_that_cannot_be_met_are_all_named(given: Given) -> None:
    given(some([0, 1, 1, 0]), some([1, 0]))
    assert refusal("folder", train_limit=0, test_limit=20000) == (
        "data.train_limit 0: must be 1 or more",
        "data.test_limit 20000: the test split has 2 images",
    )
    assert refusal("folder", test_limit=1) == (
        "the test split lacks class cat among its first 1 images (data.test_limit)",
    )


def test_a_class_that_a_split_lacks_is_named(given: Given) -> None:
    names = tuple("abcdefgh")
    given(some(list(range(8)), names), some([0, 1], names))
    assert refusal("folder") == ("the test split lacks classes c, d, e, f, g and 1 more",)
    given(some([0, 0], names[:2]), some([1, 1], names[:2]))
    assert refusal("folder") == ("the train split lacks class b", "the test split lacks class a")


def test_other_mistakes_of_a_source_are_one_line(given: Given) -> None:
    given(some([0, 1]), some([0, 1], ("cat", "cow")))
    (line,) = refusal("folder")
    assert line == "data set folder: train and test have other classes (only in train: dog; only in test: cow)"
    given(some([0, 1]), some([0, 1], ("dog", "cat")))
    assert refusal("folder") == ("data set folder: train and test have their classes in another order",)
    given(some([0, 1]), some([0, 1], side=5))
    (line,) = refusal("folder")
    assert (
        line
        == "data set folder: the images are [3, 4, 4] in train and [3, 5, 5] in test; they must be square and the same"
    )
    given(some([0, 1, 2]), some([0, 1]))
    assert refusal("folder") == ("the train split has labels outside of 0 to 1",)
    given(some([0, 1]), some([0, -1]))
    assert refusal("folder") == ("the test split has labels outside of 0 to 1",)
    given(some([0, 1]), some([]))
    assert refusal("folder") == ("the test split has no images",)


def test_an_unknown_name_gets_a_hint() -> None:
    assert refusal("cifr10") == ("data set cifr10 is unknown; did you mean cifar10?",)
    assert refusal("mnist") == (
        "data set mnist is unknown; known: cifar10, cifar100, digits, folder, imagenet, imagenet16-120, svhn",
    )


def test_mean_and_std_are_measured_on_the_images_kept(given: Given) -> None:
    train = some([0, 1] * 50)
    given(train, some([0, 1]))
    for limit in (None, 10):
        data = load_images("folder", train_limit=limit)
        scaled = train.pixels[:limit].double() / 255
        assert data.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=1e-9)
        assert data.std == pytest.approx(scaled.std((0, 2, 3), unbiased=False).tolist(), abs=1e-9)


def test_mean_and_std_can_be_given(given: Given) -> None:
    given(some([0, 1]), some([0, 1]))
    data = load_images("folder", mean=[0.1, 0.2, 0.3], std=(0.5, 0.5, 1))
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 1))
    assert refusal("folder", mean=[0.5]) == ("data.mean [0.5]: need 3 numbers, one a channel",)
    assert refusal("folder", mean=[0.5] * 3, std=[1, 1, float("nan")])[0].startswith("data.std [1, 1, nan]: need 3")
    assert refusal("folder", std=[1, 1, 0])[0].startswith("data.std [1, 1, 0]: must be above 0")


def test_a_blank_channel_is_not_divided_by_zero(given: Given) -> None:
    blank = Images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ("cat", "dog"))
    given(blank, blank)
    assert load_images("folder").std == (1.0, 1.0, 1.0)


def test_images_that_are_all_alike_are_warned_of(given: Given) -> None:
    generator = torch.Generator().manual_seed(0)
    some_pixels = torch.randint(0, 256, (8, 3, 6, 6), generator=generator, dtype=torch.uint8)
    labels = torch.tensor([0, 1] * 4)

    def images(pixels: torch.Tensor) -> Images:
        return Images(pixels, labels, ("cat", "dog"))

    given(images(some_pixels), images(some_pixels.flip(0)))
    assert load_images("folder").warnings == ()
    same = some_pixels[:1].expand(8, 3, 6, 6)
    red_only = some_pixels * torch.tensor([1, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    given(images(same), images(red_only))
    assert load_images("folder").warnings == (
        "folder: all train images are the same, or nearly so; are they what they should be?",
        "folder: all test images have one and the same value of green and blue",
    )
    grey = some_pixels[:, :1].expand(8, 3, 6, 6).contiguous()  # a colour file may well be grey
    given(images(grey), images(grey))
    assert load_images("folder").warnings == ()


def test_a_path_may_start_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def source(name: str, path: Path | None, side: int | None) -> tuple[Split, Split]:
        seen.append((name, path, side))
        raise DataError("enough")

    monkeypatch.setitem(module.SOURCES, "folder", source)
    refusal("folder", "~/images", side=64)
    assert seen == [("folder", Path.home() / "images", 64)]


def test_half_of_train_is_the_first_half() -> None:
    weights, architecture = split_train(some([0, 1] * 10), 0.5, batch=10)
    assert weights.tolist() == list(range(10))
    assert architecture.tolist() == list(range(10, 20))
    weights, architecture = split_train(some([0, 1] * 10), 0.8)
    assert (len(weights), len(architecture)) == (16, 4)
    assert weights.dtype == torch.int64


@pytest.mark.parametrize(
    ("labels", "fraction", "batch", "lines"),
    [
        (
            [0, 1] * 4,
            0.0,
            None,
            ["data.split 0.0: must be between 0 and 1, the share of train that trains the weights"],
        ),
        (
            [0, 1] * 4,
            1.0,
            None,
            ["data.split 1.0: must be between 0 and 1, the share of train that trains the weights"],
        ),
        ([0, 1] * 4, 0.01, None, ["data.split 0.01: leaves none of the 8 training images for the weights"]),
        ([0, 1] * 4, 0.99, None, ["data.split 0.99: leaves none of the 8 training images for the architecture"]),
        (
            [0, 1] * 4,
            0.5,
            5,
            [
                "search.batch 5: data.split 0.5 leaves 4 images for the weights",
                "search.batch 5: data.split 0.5 leaves 4 images for the architecture",
            ],
        ),
        ([0, 1] * 4, 0.75, 3, ["search.batch 3: data.split 0.75 leaves 2 images for the architecture"]),
        ([0, 1, 0, 0], 0.5, 2, ["data.split 0.5: the 2 images for the architecture lack class dog"]),
    ],
)
def test_a_split_that_cannot_be_searched_on_is_refused(
    labels: list[int], fraction: float, batch: int | None, lines: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        split_train(some(labels), fraction, batch)
    assert list(caught.value.lines) == lines
