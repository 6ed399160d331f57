"""Random changes of brightness, contrast, saturation and hue, of a whole batch on the device that holds it.

What each change does, and that every image has them in an order of its own, is as in torchvision's ColorJitter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffnas.core.constants import constant

CONTRAST, SATURATION, HUE = 1, 2, 3  # brightness is 0
GREY = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Colours:
    """The changes of M images: factors [M, 4] (brightness, contrast, saturation; the shift of hue) and their order [M, 4].

    The order stays on the CPU, so that nothing waits for the device to know which images change their hue.
    """

    factors: Tensor
    order: Tensor

    def __getitem__(self, part: slice | Tensor) -> Colours:
        """The changes of some of the images."""
        return Colours(self.factors[part], self.order[part if isinstance(part, slice) else part.cpu()])

    def to(self, device: torch.device | str) -> Colours:
        """Returns the same changes with the factors on `device`."""
        return Colours(self.factors.to(device), self.order)


def draw_colours(count: int, most: tuple[float, float, float, float], generator: torch.Generator) -> Colours:
    """Changes of `count` images by at most so much: factors of 1 - `most` to 1 + `most`, and a hue of -`most` to `most`."""
    spread = torch.tensor(most)
    factors = (2 * torch.rand(count, 4, generator=generator) - 1) * spread + torch.tensor([1.0, 1.0, 1.0, 0.0])
    return Colours(factors, torch.rand(count, 4, generator=generator).argsort(dim=1))


def recoloured(x_NHWC: Tensor, colours: Colours) -> Tensor:
    """Images [N, H, W, C] in 0 to 1 with their changes, one after another; grey images have no saturation and no hue."""
    factors = colours.factors.to(x_NHWC.dtype)
    for turn in range(4):
        change = colours.order[:, turn]
        hued = (change == HUE).nonzero()[:, 0].to(x_NHWC.device, non_blocking=True)
        place = change.to(x_NHWC.device, non_blocking=True)
        blended = _blended(x_NHWC, place, factors)
        if x_NHWC.shape[3] == 3 and len(hued):
            shifted = _with_hue(x_NHWC.index_select(0, hued), factors[hued, HUE])
            blended.index_copy_(0, hued, shifted)
        x_NHWC = blended
    return x_NHWC


def _blended(x_NHWC: Tensor, change_N: Tensor, factors: Tensor) -> Tensor:
    """Each image mixed with black, its mean grey or its greys, whichever its change says; others as they are."""
    change = change_N[:, None, None, None]
    factor = factors.gather(1, change_N[:, None])[:, :, None, None]
    factor = torch.where(change == HUE, 1.0, factor)
    grey = x_NHWC
    if x_NHWC.shape[3] == 3:
        grey = (x_NHWC * constant(GREY, x_NHWC.dtype, x_NHWC.device)).sum(dim=3, keepdim=True)
    mean = grey.mean(dim=(1, 2, 3), keepdim=True)
    other = torch.where(change == SATURATION, grey, torch.where(change == CONTRAST, mean, 0.0))
    return (factor * x_NHWC + (1 - factor) * other).clamp_(0, 1)


def _with_hue(x_NHWC: Tensor, shift_N: Tensor) -> Tensor:
    """RGB images with their hue, which is a circle of length 1, shifted."""
    red, green, blue = x_NHWC.unbind(dim=3)
    value, least = x_NHWC.amax(dim=3), x_NHWC.amin(dim=3)
    spread = value - least
    divisor = torch.where(spread == 0, 1.0, spread)
    # in sixths of the circle; of equal largest channels the first decides
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * shift_N[:, None, None]
    channels = []
    for start in (5, 3, 1):  # red, green, blue
        k = torch.remainder(sixths + start, 6)
        channels.append(value - spread * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=3)
