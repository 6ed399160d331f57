"""Random crop, flip and cutout of a whole batch at once, on the device that holds it.

The randomness is drawn beforehand on the CPU and passed in, so a batch depends on its draws alone: the same on every
device, and the same when a run is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffnas.core.constants import constant
from diffnas.data.colours import Colours, draw_colours, recoloured
from diffnas.errors import DataError


@dataclass(frozen=True)
class Draws:
    """The random numbers of M images, each tensor [M]: crop offsets, whether to flip, the centre of the cutout.

    `colours` are the changes of colour, where there are any.
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    cut_y: Tensor
    cut_x: Tensor
    colours: Colours | None = None

    def __len__(self) -> int:
        return len(self.top)

    def __getitem__(self, part: slice | Tensor) -> Draws:
        """The draws of a range of images, without a copy, or of those at some places [K] int64."""
        colours = None if self.colours is None else self.colours[part]
        return Draws(
            self.top[part], self.left[part], self.flip[part], self.cut_y[part], self.cut_x[part], colours=colours
        )

    def to(self, device: torch.device | str) -> Draws:
        """Returns the same draws on `device`."""
        top, left, flip, cut_y, cut_x = (
            each.to(device) for each in (self.top, self.left, self.flip, self.cut_y, self.cut_x)
        )
        return Draws(top, left, flip, cut_y, cut_x, None if self.colours is None else self.colours.to(device))


@dataclass(frozen=True)
class Augment:
    """Zero-pad by `crop` and crop back, flip with probability 1/2, normalise, cut out a square of side `cutout`.

    The order is that of DARTS: the padding is black before the normalisation, the cutout is zero after it.  `jitter` bounds
    changes of brightness, contrast, saturation and hue, which come before the normalisation.
    """

    crop: int
    flip: bool
    cutout: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    jitter: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        pixels = {"crop": self.crop, "cutout": self.cutout}
        lines = [f"{key} {value}: must be 0 or more pixels" for key, value in pixels.items() if value < 0]
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0:
            lines.append(f"data.mean {self.mean}, data.std {self.std}: need one value a channel, each std above 0")
        if lines:
            raise DataError(*lines)

    @property
    def random(self) -> bool:
        """Whether anything is drawn at random."""
        return bool(self.crop or self.flip or self.cutout or self.jitter)

    def draw(self, count: int, side: int, generator: torch.Generator) -> Draws:
        """Random numbers for `count` images of `side` x `side`, on the CPU.

        Everything is drawn, used or not: switching the flip off must not move the crops.
        """

        def uniform(high: int) -> Tensor:
            return torch.randint(0, high, (count,), generator=generator)

        shifts = 2 * self.crop + 1
        draws = Draws(uniform(shifts), uniform(shifts), uniform(2).bool(), uniform(side), uniform(side))
        if self.jitter is None:
            return draws
        return replace(draws, colours=draw_colours(count, self.jitter, generator))

    def apply(self, pixels: Tensor, draws: Draws | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 [N, C, H, W] -> `dtype` [N, C, H, W] in channels_last memory; without draws only normalised.

        Raises `DataError` for images that are not uint8, not of the channels of `mean`, or not as many as the draws.
        """
        self._check(pixels, draws)
        moved = draws is not None and (self.crop > 0 or self.flip)
        x_NHWC = self._moved(pixels, draws) if draws is not None and moved else pixels.permute(0, 2, 3, 1)
        exact = torch.promote_types(dtype, torch.float32)  # half precision only rounds the finished value
        mean, std = (constant(tuple(values), exact, pixels.device) for values in (self.mean, self.std))
        x_NHWC = x_NHWC.to(exact, memory_format=torch.contiguous_format).div_(255)
        if draws is not None and draws.colours is not None:
            x_NHWC = recoloured(x_NHWC, draws.colours)
        x_NHWC = x_NHWC.sub_(mean).div_(std)
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
