"""Augmentation against a slow loop over single images."""

from __future__ import annotations

import pytest
import torch

from diffnas.data.augment import Augment, Draws
from diffnas.errors import DataError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def some_images(count: int = 12, channels: int = 3, side: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def draws_of(count: int, side: int, augment: Augment, seed: int = 0) -> Draws:
    return augment.draw(count, side, torch.Generator().manual_seed(seed))


def fixed(top: int = 0, left: int = 0, flip: bool = False, y: int = 0, x: int = 0) -> Draws:
    return Draws(*(torch.tensor([value]) for value in (top, left, flip, y, x)))


def slow(image: torch.Tensor, augment: Augment, draws: Draws, at: int) -> torch.Tensor:
    """What DARTS does to one image: RandomCrop(side, padding), flip, ToTensor, Normalize, Cutout."""
    channels, side, _ = image.shape
    padded = torch.zeros(channels, side + 2 * augment.crop, side + 2 * augment.crop, dtype=torch.uint8)
    padded[:, augment.crop : augment.crop + side, augment.crop : augment.crop + side] = image
    top, left = int(draws.top[at]), int(draws.left[at])
    out = padded[:, top : top + side, left : left + side]
    if augment.flip and bool(draws.flip[at]):
        out = out.flip(2)
    out = out.float().div(255)
    out = out.sub(torch.tensor(augment.mean)[:, None, None]).div(torch.tensor(augment.std)[:, None, None])
    if augment.cutout:
        y, x, half = int(draws.cut_y[at]), int(draws.cut_x[at]), augment.cutout // 2
        out[:, max(y - half, 0) : min(y + half, side), max(x - half, 0) : min(x + half, side)] = 0
    return out


@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("cutout", [0, 4, 5, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_equals_the_loop_over_its_images(crop: int, flip: bool, cutout: int, channels: int) -> None:
    augment = Augment(crop, flip, cutout, MEAN[:channels], STD[:channels])
    pixels = some_images(channels=channels)
    draws = draws_of(12, 10, augment)
    expected = torch.stack([slow(image, augment, draws, at) for at, image in enumerate(pixels)])
    found = augment.apply(pixels, draws)
    assert torch.equal(found, expected)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 2), (4, 4), (0, 4), (3, 1)])
def test_crop_offset_is_counted_from_the_padded_corner(top: int, left: int) -> None:
    augment = Augment(2, False, 0, (0.0,), (1.0,))
    pixels = torch.full((1, 1, 6, 6), 255, dtype=torch.uint8)
    found = augment.apply(pixels, fixed(top, left))[0, 0]
    white = torch.zeros(6, 6)
    white[max(2 - top, 0) : 8 - top, max(2 - left, 0) : 8 - left] = 1
    assert torch.equal(found, white)


def test_padding_is_black_before_the_normalisation_and_cutout_zero_after_it() -> None:
    pixels = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    shifted = Augment(1, False, 0, (0.5,), (0.25,)).apply(pixels, fixed(0, 0))
    assert shifted[0, 0, 0].tolist() == [-2.0] * 4  # (0 - 0.5) / 0.25
    assert shifted[0, 0, 1, 1:].tolist() == [2.0] * 3
    cut = Augment(1, False, 2, (0.5,), (0.25,)).apply(pixels, fixed(1, 1, y=2, x=2))
    assert cut[0, 0].eq(0).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


@pytest.mark.parametrize(
    ("y", "x", "rows", "columns"),
    [(0, 0, (0, 2), (0, 2)), (7, 7, (5, 8), (5, 8)), (0, 7, (0, 2), (5, 8)), (4, 4, (2, 6), (2, 6))],
)
def test_cutout_is_clipped_at_the_border(y: int, x: int, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    augment = Augment(0, False, 4, (0.0,), (1.0,))
    pixels = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    found = augment.apply(pixels, fixed(y=y, x=x))[0, 0]
    expected = torch.ones(8, 8)
    expected[slice(*rows), slice(*columns)] = 0
    assert torch.equal(found, expected)


def test_without_draws_it_only_normalises() -> None:
    pixels = some_images()
    found = Augment(4, True, 8, MEAN, STD).apply(pixels)
    expected = (pixels.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_pixels_are_left_as_they_are() -> None:
    pixels = some_images()
    before = pixels.clone()
    for augment in (Augment(0, False, 4, MEAN, STD), Augment(2, True, 0, MEAN, STD)):
        augment.apply(pixels, draws_of(12, 10, augment))
    assert torch.equal(pixels, before)


def test_half_precision_rounds_the_finished_value() -> None:
    augment = Augment(2, True, 4, MEAN, STD)
    pixels, draws = some_images(), draws_of(12, 10, augment)
    assert torch.equal(augment.apply(pixels, draws, torch.bfloat16), augment.apply(pixels, draws).bfloat16())
    assert augment.apply(pixels, draws, torch.float64).dtype == torch.float64


def test_draws_are_uniform_over_their_whole_range() -> None:
    augment = Augment(2, True, 4, MEAN, STD)
    draws = draws_of(5000, 10, augment)
    for values, high in ((draws.top, 5), (draws.left, 5), (draws.cut_y, 10), (draws.cut_x, 10), (draws.flip.long(), 2)):
        counts = torch.bincount(values, minlength=high)
        assert len(counts) == high
        assert (counts.float() / 5000 - 1 / high).abs().max() < 0.03
    assert draws.flip.dtype == torch.bool


def test_every_image_has_draws_of_its_own() -> None:
    augment = Augment(4, True, 0, MEAN, STD)
    pixels = some_images(1).expand(64, -1, -1, -1)
    assert len({image.numpy().tobytes() for image in augment.apply(pixels, draws_of(64, 10, augment))}) > 20


def test_draws_depend_on_the_generator_and_not_on_what_is_switched_on() -> None:
    some, other = Augment(2, True, 4, MEAN, STD), Augment(2, False, 0, MEAN, STD)
    assert torch.equal(draws_of(9, 10, some).top, draws_of(9, 10, other).top)
    assert torch.equal(draws_of(9, 10, some).cut_x, draws_of(9, 10, other).cut_x)
    assert not torch.equal(draws_of(9, 10, some).left, draws_of(9, 10, some, seed=1).left)


def test_a_slice_of_draws_belongs_to_the_slice_of_images() -> None:
    augment = Augment(2, True, 4, MEAN, STD)
    pixels, draws = some_images(), draws_of(12, 10, augment)
    whole = augment.apply(pixels, draws)
    assert torch.equal(augment.apply(pixels[3:7], draws[3:7]), whole[3:7])
    assert len(draws[3:7]) == 4


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((-1, True, 0, MEAN, STD), "crop -1: must be 0 or more pixels"),
        ((0, True, -2, MEAN, STD), "cutout -2: must be 0 or more pixels"),
        ((0, True, 0, MEAN, STD[:2]), "need one value a channel"),
        ((0, True, 0, (0.5,), (0.0,)), "each std above 0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(values: tuple, text: str) -> None:
    with pytest.raises(DataError) as caught:
        Augment(*values)
    assert len(caught.value.lines) == 1
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("pixels", "count", "text"),
    [
        (torch.zeros(2, 3, 4, 4), 2, "need uint8 [N, 3, H, W]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), 2, "need uint8 [N, 3, H, W]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 3, "2 images came with random draws for 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(pixels: torch.Tensor, count: int, text: str) -> None:
    augment = Augment(1, True, 0, MEAN, STD)
    with pytest.raises(DataError) as caught:
        augment.apply(pixels, draws_of(count, 4, augment))
    assert text in str(caught.value)
