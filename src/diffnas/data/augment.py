"""Random crop, flip and cutout of a whole batch at once, on the device that holds it.

The randomness is drawn beforehand on the CPU and passed in, so a batch depends on its draws alone: the same on every
device, and the same when a run is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffnas.core.constants import constant
from diffnas.errors import DataError


@dataclass(frozen=True)
class Draws:
    """The random numbers of M images, each tensor [M]: crop offsets, whether to flip, the centre of the cutout."""

    top: Tensor
    left: Tensor
    flip: Tensor
    cut_y: Tensor
    cut_x: Tensor

    def __len__(self) -> int:
        return len(self.top)

    def __getitem__(self, part: slice) -> Draws:
        """The draws of a range of images, without a copy."""
        return Draws(self.top[part], self.left[part], self.flip[part], self.cut_y[part], self.cut_x[part])

    def to(self, device: torch.device | str) -> Draws:
        """Returns the same draws on `device`."""
        parts = (self.top, self.left, self.flip, self.cut_y, self.cut_x)
        return Draws(*(part.to(device) for part in parts))


@dataclass(frozen=True)
class Augment:
    """Zero-pad by `crop` and crop back, flip with probability 1/2, normalise, cut out a square of side `cutout`.

    The order is that of DARTS: the padding is black before the normalisation, the cutout is zero after it.
    """

    crop: int
    flip: bool
    cutout: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        pixels = {"crop": self.crop, "cutout": self.cutout}
        lines = [f"{key} {value}: must be 0 or more pixels" for key, value in pixels.items() if value < 0]
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0:
            lines.append(f"data.mean {self.mean}, data.std {self.std}: need one value a channel, each std above 0")
        if lines:
            raise DataError(*lines)

    def draw(self, count: int, side: int, generator: torch.Generator) -> Draws:
        """Random numbers for `count` images of `side` x `side`, on the CPU.

        Everything is drawn, used or not: switching the flip off must not move the crops.
        """

        def uniform(high: int) -> Tensor:
            return torch.randint(0, high, (count,), generator=generator)

        shifts = 2 * self.crop + 1
        return Draws(uniform(shifts), uniform(shifts), uniform(2).bool(), uniform(side), uniform(side))

    def apply(self, pixels: Tensor, draws: Draws | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 [N, C, H, W] -> `dtype` [N, C, H, W] in channels_last memory; without draws only normalised.

        Raises `DataError` for images that are not uint8, not of the channels of `mean`, or not as many as the draws.
        """
        self._check(pixels, draws)
        moved = draws is not None and (self.crop > 0 or self.flip)
        x_NHWC = self._moved(pixels, draws) if draws is not None and moved else pixels.permute(0, 2, 3, 1)
        exact = torch.promote_types(dtype, torch.float32)  # half precision only rounds the finished value
        mean, std = (constant(tuple(values), exact, pixels.device) for values in (self.mean, self.std))
        x_NHWC = x_NHWC.to(exact, memory_format=torch.contiguous_format).div_(255).sub_(mean).div_(std)
        if draws is not None and self.cutout:
            x_NHWC.masked_fill_(self._cut(draws, pixels.shape[2], pixels.shape[3]), 0.0)
        return x_NHWC.to(dtype).permute(0, 3, 1, 2)

    def _moved(self, pixels: Tensor, draws: Draws) -> Tensor:
        """uint8 [N, C, H, W] -> [N, H, W, C], cropped out of the padded image and flipped."""
        count, _, height, width = pixels.shape
        rows = torch.arange(height, device=pixels.device) + draws.top[:, None]
        columns = torch.arange(width, device=pixels.device).expand(count, width)
        if self.flip:
            columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
        columns = columns + draws.left[:, None]
        padded = torch.nn.functional.pad(pixels, (self.crop,) * 4) if self.crop else pixels
        image = torch.arange(count, device=pixels.device)[:, None, None]
        return padded[image, :, rows[:, :, None], columns[:, None, :]]

    def _cut(self, draws: Draws, height: int, width: int) -> Tensor:
        """Boolean [N, H, W, 1], true inside the square; its rows are clip(y - l // 2) up to clip(y + l // 2)."""
        half = self.cutout // 2  # as in DARTS: an odd side cuts one pixel less
        y = torch.arange(height, device=draws.cut_y.device) - draws.cut_y[:, None]
        x = torch.arange(width, device=draws.cut_x.device) - draws.cut_x[:, None]
        inside_y, inside_x = (y >= -half) & (y < half), (x >= -half) & (x < half)
        return (inside_y[:, :, None] & inside_x[:, None, :])[..., None]

    def _check(self, pixels: Tensor, draws: Draws | None) -> None:
        if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1] != len(self.mean):
            shape = list(pixels.shape)
            raise DataError(f"images of {pixels.dtype} {shape}: need uint8 [N, {len(self.mean)}, H, W]")
        if draws is not None and len(draws) != len(pixels):
            raise DataError(f"{len(pixels)} images came with random draws for {len(draws)}")
