"""The digits: their numbers, their split, their sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from diffnas.data.images import load_images, split_train
from diffnas.errors import DataError


def test_all_digits_are_there_once_and_scaled_to_bytes() -> None:
    data = load_images("digits")
    assert (len(data.train), len(data.test)) == (1297, 500)
    assert (data.classes, data.channels, data.side) == (10, 1, 8)
    assert data.train.names == tuple("0123456789")
    found = torch.cat([data.train.pixels, data.test.pixels])[:, 0]
    expected = torch.tensor(load_digits().images).mul(255 / 16).round().to(torch.uint8)
    assert found.dtype == torch.uint8
    assert int(found.max()) == 255
    assert sorted(image.numpy().tobytes() for image in found) == sorted(image.numpy().tobytes() for image in expected)


def test_images_keep_their_labels() -> None:
    data, source = load_images("digits"), load_digits()
    pixels = torch.tensor(source.images).mul(255 / 16).round().to(torch.uint8)
    label = {image.numpy().tobytes(): int(target) for image, target in zip(pixels, source.target, strict=True)}
    assert [label[image.numpy().tobytes()] for image in data.test.pixels[:, 0]] == data.test.labels.tolist()


def test_each_class_has_its_share_of_the_test_and_of_any_half() -> None:
    data = load_images("digits")
    counts = torch.bincount(data.test.labels)
    assert int(counts.min()) >= 46
    assert int(counts.max()) <= 54
    weights, architecture = split_train(data.train, 0.5, batch=64)
    for part in (weights, architecture):
        assert int(torch.bincount(data.train.labels[part]).min()) > 55


def test_the_weights_may_take_the_last_images() -> None:
    """As by OpenMMLab: the first images train the architecture, the last ones, in the share that is asked for, the weights."""
    data = load_images("digits")
    count = len(data.train)
    weights, architecture = split_train(data.train, 0.7, batch=64, weights_first=False)
    assert len(weights) == round(0.7 * count)
    assert torch.equal(torch.cat([architecture, weights]), torch.arange(count))


EXPECTED_LABELS = [6, 4, 7, 3, 9, 1, 8, 0, 5, 2, 0, 3, 9, 2, 7, 1, 5, 4, 8, 6]


def test_the_split_is_always_the_same() -> None:
    first, second = load_images("digits"), load_images("digits")
    assert torch.equal(first.train.pixels, second.train.pixels)
    # written down once: a change of the split would make results incomparable
    assert first.test.labels[:20].tolist() == EXPECTED_LABELS


def test_mean_and_std_are_those_of_the_training_images() -> None:
    data = load_images("digits")
    scaled = data.train.pixels.double() / 255
    assert data.mean == pytest.approx((float(scaled.mean()),), abs=1e-9)
    assert data.std == pytest.approx((float(scaled.std(unbiased=False)),), abs=1e-9)


@pytest.mark.parametrize("side", [16, 32])
def test_a_larger_side_is_interpolated(side: int) -> None:
    small, large = load_images("digits"), load_images("digits", side=side)
    assert large.side == side
    assert torch.equal(small.train.labels, large.train.labels)
    corner = (0, slice(None, None, side - 1), slice(None, None, side - 1))
    assert torch.equal(large.train.pixels[:, *corner], small.train.pixels[:, 0, ::7, ::7])
    middle = slice(side // 2 - 1, side // 2 + 1)
    centre = large.train.pixels[:, 0, middle, middle].double().mean((1, 2))
    around = small.train.pixels[:, 0, 3:5, 3:5].double().mean((1, 2))
    assert torch.allclose(centre, around, atol=0.75)  # each of the four is rounded to a byte


@pytest.mark.parametrize("side", [4, 12, 0, -8])
def test_another_side_is_refused(side: int) -> None:
    with pytest.raises(DataError) as caught:
        load_images("digits", side=side)
    assert caught.value.lines == (f"data.side {side}: digits can have a side of 8 or a multiple of it",)


def test_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path .*: digits are read from scikit-learn and take no path"):
        load_images("digits", tmp_path)
