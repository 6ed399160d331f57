"""Folders of images by class, written by the tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnas.core.seeds import generator
from diffnas.data.folder import spread
from diffnas.data.images import load_images, split_train
from diffnas.errors import DataError

SHARED = Path(os.environ.get("DIFFNAS_SHARED", Path(__file__).parents[2] / "../shared")) / "data"


def write(path: Path, colour: tuple[int, int, int] | int = (10, 20, 30), size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)
    return path


def write_set(root: Path, splits: Sequence[str] = ("train", "test"), each: int = 4) -> Path:
    """Red cats and green dogs, each image a little different."""
    for split in splits:
        for at in range(each):
            write(root / split / "dog" / f"{at}.png", (0, 200 + at, 0))
            write(root / split / "cat" / f"{at}.png", (200 + at, 0, 0))
    return root


def refusal(path: Path | None, **options: int) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load_images("folder", path, **options)
    return caught.value.lines


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_train_and_test_folders(tmp_path: Path, test: str) -> None:
    data = load_images("folder", write_set(tmp_path, ("train", test)), side=8)
    assert data.train.names == ("cat", "dog")
    assert (len(data.train), len(data.test), data.side, data.channels) == (8, 8, 8, 3)
    for images in (data.train, data.test):
        values = images.pixels[:, :, 4, 4]
        assert torch.equal((values[:, 1] > values[:, 0]).long(), images.labels)
        assert sorted(values.amax(1).tolist()) == sorted([200, 201, 202, 203] * 2)


def test_classes_alone_have_a_fifth_held_out(tmp_path: Path) -> None:
    write_set(tmp_path, [""], each=20)
    first, second = load_images("folder", tmp_path), load_images("folder", tmp_path)
    assert torch.bincount(first.train.labels).tolist() == [16, 16]
    assert torch.bincount(first.test.labels).tolist() == [4, 4]
    assert first.train.pixels.shape == (32, 3, 32, 32)
    kept = [tuple(pixel) for part in (first.train, first.test) for pixel in part.pixels[:, :, 0, 0].tolist()]
    assert len(set(kept)) == 40  # each image is in one of the two
    assert torch.equal(first.test.pixels, second.test.pixels)


def test_with_both_val_and_test_one_is_for_choosing(tmp_path: Path) -> None:
    data = load_images("folder", write_set(tmp_path, ("Train", "Val", "Test")), side=8, test_limit=6)
    assert data.valid is not None and data.valid.names == data.train.names
    assert (len(data.train), len(data.valid), len(data.test)) == (8, 6, 6)
    assert data.folders == {"train": "Train", "valid": "Val", "test": "Test"}


def test_a_test_alone_needs_no_training_images(tmp_path: Path) -> None:
    known = {"mean": [0.5] * 3, "std": [0.2] * 3, "test_only": True, "whole": True}
    data = load_images("folder", write_set(tmp_path / "a", [""]), **known)
    assert (len(data.train), len(data.test), data.classes, data.side) == (0, 8, 2, 32)
    assert len(data.files) == 8 and {file.parent.name for file in data.files[:2]} == {"cat", "dog"}
    assert len(load_images("folder", write_set(tmp_path / "b"), **known).test) == 8
    held_out = load_images("folder", tmp_path / "a", mean=[0.5] * 3, std=[0.2] * 3, test_only=True)
    assert (len(held_out.train), len(held_out.test)) == (0, 2)
    (line,) = refusal(tmp_path / "a", test_only=True, whole=True)
    assert line.startswith("data.mean, data.std: are not known for folder")


def test_files_are_those_of_the_test_images(tmp_path: Path) -> None:
    data = load_images("folder", write_set(tmp_path), side=8)
    for file, pixels in zip(data.files, data.test.pixels, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)).transpose(2, 0, 1), pixels)


def test_a_held_out_image_does_not_depend_on_other_classes(tmp_path: Path) -> None:
    write_set(tmp_path, [""], each=10)
    before = load_images("folder", tmp_path).test
    for at in range(10):
        write(tmp_path / "ant" / f"{at}.png", (0, 0, 200 + at))
    after = load_images("folder", tmp_path).test

    def cats(images: object, label: int) -> list[int]:
        return sorted(images.pixels[images.labels == label][:, 0, 0, 0].tolist())  # type: ignore[attr-defined]

    assert cats(before, 0) == cats(after, 1)


def test_a_half_and_a_limit_hold_all_classes(tmp_path: Path) -> None:
    for name in "abcdef":
        for at in range(4):
            for split in ("train", "test"):
                write(tmp_path / split / name / f"{at}.png")
    data = load_images("folder", tmp_path, side=8)
    for part in split_train(data.train, 0.5):
        assert int(torch.bincount(data.train.labels[part], minlength=6).min()) >= 1
    assert load_images("folder", tmp_path, side=8, train_limit=12, test_limit=12).classes == 6


def test_spread_is_a_permutation_with_even_classes() -> None:
    labels = torch.tensor([0] * 100 + [1] * 50 + [2] * 10)
    order = spread(labels, generator(0, "some"))
    assert sorted(order.tolist()) == list(range(160))
    for start in range(0, 160, 16):
        counts = torch.bincount(labels[order[start : start + 16]], minlength=3)
        assert (counts - torch.tensor([10, 5, 1])).abs().max() <= 2
    assert not torch.equal(order, spread(labels, generator(1, "some")))
    assert torch.equal(order, spread(labels, generator(0, "some")))


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = (0, 0, 255)  # only the middle third is blue
    for split in ("train", "test"):
        for name, pixels in (("wide", wide), ("tall", wide.transpose(1, 0, 2))):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / "one.png")
    data = load_images("folder", tmp_path, side=8)
    assert data.train.pixels.shape == (2, 3, 8, 8)
    assert bool((data.train.pixels == torch.tensor([0, 0, 255])[:, None, None]).all())
    data = load_images("folder", tmp_path, side=4)
    cut = np.asarray(Image.fromarray(wide).resize((12, 4), Image.Resampling.BILINEAR))[:, 4:8]
    found = data.train.pixels[data.train.labels == 1][0]
    assert torch.equal(found, torch.tensor(cut).permute(2, 0, 1))
    gradient = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 64, 3))
    for split in ("train", "test"):
        for name in ("wide", "tall"):
            Image.fromarray(gradient).save(tmp_path / split / name / "one.png")
    found = load_images("folder", tmp_path, side=16).train.pixels[0, 0, :, 7]
    expected = np.asarray(Image.fromarray(gradient).resize((16, 16), Image.Resampling.BILINEAR))[:, 7, 0]
    assert found.tolist() == expected.tolist()


def test_a_large_jpeg_is_close_to_the_plain_way(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(256), np.arange(256))[:, :, None].repeat(3, 2) // 2
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / split / name / "one.jpg", quality=95)
    found = load_images("folder", tmp_path, side=16).train.pixels[0].float()
    plain = np.asarray(Image.fromarray(smooth.astype(np.uint8)).resize((16, 16), Image.Resampling.BILINEAR))
    assert float((found - torch.tensor(plain).permute(2, 0, 1)).abs().max()) <= 4


def test_other_and_hidden_files_and_deeper_folders(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train" / ".hidden").mkdir()
    write(tmp_path / "train" / "cat" / ".thumb.png")
    write(tmp_path / "train" / "cat" / ".cache" / "a.png")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "readme.md").write_text("neither")
    write(tmp_path / "train" / "cat" / "images" / "deep.JPEG")
    data = load_images("folder", tmp_path)
    assert data.train.names == ("cat", "dog")
    assert torch.bincount(data.train.labels).tolist() == [5, 4]


def test_a_missing_path(tmp_path: Path) -> None:
    assert refusal(None) == ("data.path: the data set folder needs the path of a folder of images by class",)
    assert refusal(tmp_path / "none") == (f"data.path {tmp_path / 'none'}: there is no such folder",)
    (line,) = refusal(tmp_path)
    assert line.startswith(f"data.path {tmp_path}: holds no class folders; wanted: PATH/train/CLASS/* with")
    assert refusal(write_set(tmp_path), side=0) == ("data.side 0: must be 1 or more pixels",)


def test_train_without_test_says_what_to_do(tmp_path: Path) -> None:
    (line,) = refusal(write_set(tmp_path, ["train"]))
    assert "has train but no test with class folders" in line
    assert f"to hold out a fifth of it, give {tmp_path / 'train'}" in line


def test_every_kind_of_mistake_in_the_classes_has_its_line(tmp_path: Path) -> None:
    write_set(tmp_path, ("train", "val"))
    write(tmp_path / "train" / "cow" / "0.png")
    write(tmp_path / "val" / "hen" / "0.png")
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "val" / "empty").mkdir()
    (tmp_path / "val" / "empty" / "0.heic").touch()
    read = "read are bmp, gif, jfif, jpe, jpeg, jpg, pbm, pgm, png, ppm, tif, tiff, webp"
    assert refusal(tmp_path) == (
        f"{tmp_path / 'train'}: class empty is without images ({read})",
        f"{tmp_path / 'val'}: class empty is without images ({read})",
        f"data.path {tmp_path}: class cow is in train, not in val; class hen is in val, not in train",
    )


def test_a_class_of_one_image_cannot_be_held_out(tmp_path: Path) -> None:
    write_set(tmp_path, [""])
    write(tmp_path / "cow" / "0.png")
    assert refusal(tmp_path) == (f"{tmp_path}: no test can be held out of classes of 1 image: cow",)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    for at in range(4):
        write(tmp_path / "cat" / f"{at}.png")
    assert refusal(tmp_path) == (f"data.path {tmp_path}: holds one class, cat; two or more are needed",)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken", b"\xff\xd8\xff\xe0 broken"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    bad = write_set(tmp_path) / "train" / "cat" / "bad.png"
    bad.write_bytes(content)
    (line,) = refusal(tmp_path)
    assert line.startswith(f"{bad}: is not a readable image (")


def test_a_cut_image_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("png", "jpg"):
        bad = write_set(tmp_path / suffix) / "test" / "dog" / f"cut.{suffix}"
        Image.fromarray(noise).save(bad)
        bad.write_bytes(bad.read_bytes()[:1500])
        (line,) = refusal(tmp_path / suffix)
        assert line.startswith(f"{bad}: is not a readable image (")


def test_many_bad_images_are_counted(tmp_path: Path) -> None:
    write_set(tmp_path)
    for at in range(150):
        (tmp_path / "train" / "cat" / f"bad{at}.png").write_bytes(b"bad")
    lines = refusal(tmp_path)
    assert len(lines) == 11
    assert lines[-1] == "and 140 more images that cannot be read"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_real_images() -> None:
    data = load_images("folder", SHARED / "tiny-imagenet-sample")
    assert (len(data.train), len(data.test), data.classes, data.side) == (1200, 400, 20, 32)
    assert all(0.35 < value < 0.55 for value in data.mean)
    for part in split_train(data.train, 0.5, batch=64):
        assert int(torch.bincount(data.train.labels[part]).min()) >= 28
    few = load_images("folder", SHARED / "imagenet-sample", side=48, train_limit=40, test_limit=20)
    assert few.train.pixels.shape == (40, 3, 48, 48)
    assert few.train.names[0] == "bird"
