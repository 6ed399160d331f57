"""Changes of colour beside torchvision's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffnas.data.augment import Augment
from diffnas.data.colours import Colours, draw_colours, recoloured

GOLDENS = Path(__file__).parents[1] / "goldens" / "torchvision.npz"
NEUTRAL = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)


@pytest.fixture
def goldens() -> dict[str, torch.Tensor]:
    with np.load(GOLDENS) as stored:
        return {key: torch.from_numpy(value) for key, value in stored.items() if key.startswith("colour")}


def images() -> torch.Tensor:
    """[4, 16, 16, 3]: those of the goldens."""
    y, x = np.mgrid[0:16, 0:16]
    planes = [(x * x + 3 * y) % 256, (5 * x + y * y // 2) % 256, (x * y // 7 + x) % 256]
    one = np.stack(planes, axis=2).astype(np.uint8)
    four = [one, one[::-1], 255 - one, np.repeat(one[..., :1], 3, axis=2)]
    return torch.from_numpy(np.stack(four)).double() / 255


@pytest.mark.parametrize("change", range(4))
def test_each_change_is_that_of_torchvision(change: int, goldens: dict[str, torch.Tensor]) -> None:
    factors = NEUTRAL.repeat(4, 1)
    factors[:, change] = goldens["colours_factors"][:, change]
    changed = recoloured(images(), Colours(factors, torch.arange(4).repeat(4, 1)))
    torch.testing.assert_close(changed.permute(0, 3, 1, 2), goldens[f"colour_{change}"], rtol=0, atol=1e-6)


def test_all_of_them_in_an_order_of_each_image(goldens: dict[str, torch.Tensor]) -> None:
    changed = recoloured(images(), Colours(goldens["colours_factors"], goldens["colours_order"]))
    torch.testing.assert_close(changed.permute(0, 3, 1, 2), goldens["colours"], rtol=0, atol=1e-6)


def test_factors_keep_their_bounds_and_every_order_occurs() -> None:
    colours = draw_colours(5000, (0.4, 0.3, 0.2, 0.1), torch.Generator().manual_seed(0))
    low, high = colours.factors.amin(dim=0), colours.factors.amax(dim=0)
    assert low.tolist() == pytest.approx([0.6, 0.7, 0.8, -0.1], abs=1e-3)
    assert high.tolist() == pytest.approx([1.4, 1.3, 1.2, 0.1], abs=1e-3)
    assert len({tuple(row) for row in colours.order.tolist()}) == 24


def test_a_training_has_them_before_the_normalisation_and_a_test_has_not() -> None:
    pixels = (255 * images()).round().to(torch.uint8).permute(0, 3, 1, 2)
    plain = Augment(0, False, 0, (0.5,) * 3, (0.25,) * 3)
    jittered = Augment(0, False, 0, (0.5,) * 3, (0.25,) * 3, (0.4, 0.4, 0.4, 0.2))
    assert jittered.random and not plain.random
    draws = jittered.draw(4, 16, torch.Generator().manual_seed(1))
    assert draws.colours is not None and plain.draw(4, 16, torch.Generator().manual_seed(1)).colours is None
    changed = jittered.apply(pixels, draws)
    expected = (recoloured(pixels.permute(0, 2, 3, 1) / 255, draws.colours) - 0.5) / 0.25
    torch.testing.assert_close(changed, expected.permute(0, 3, 1, 2))
    assert torch.equal(jittered.apply(pixels), plain.apply(pixels))
    part = jittered.apply(pixels[1:3], draws[1:3])
    assert torch.equal(part, changed[1:3])
    assert torch.equal(jittered.apply(pixels[[0, 3]], draws[torch.tensor([0, 3])]), changed[[0, 3]])


def test_grey_images_change_their_brightness_and_contrast_only() -> None:
    grey = images()[:, :, :, :1].float()
    factors = torch.tensor([1.0, 1.0, 0.5, 0.2]).repeat(4, 1)
    assert torch.equal(recoloured(grey, Colours(factors, torch.arange(4).repeat(4, 1))), grey)
