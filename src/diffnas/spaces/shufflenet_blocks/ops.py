"""The ops of the space: blocks of ShuffleNetV2 (Ma et al., 2018), wired as in SPOS (Guo et al., 2020).

Convolutions carry no bias; normalisations are affine, in supernets too (see `supernet`).  Sub-modules are numbered in the
order they run, which is also the order in the authors' code, so their weights map onto ours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffnas.spaces.shufflenet_blocks.layout import Place


class Block(nn.Module):
    """[N, C_in, H, W] -> [N, C_out, H/stride, W/stride]; the middle of `main` has C_out / 2 channels.

    At stride 1, where C_in = C_out, the even channels pass by and the odd ones go through `main`.  At stride 2 all channels
    go through both `project` (C_in -> C_in) and `main` (C_in -> C_out - C_in).
    """

    def __init__(self, place: Place, kernel: int, xception: bool, eps: float) -> None:
        super().__init__()
        stride, middle = place.stride, place.outputs // 2
        seen = place.inputs if stride == 2 else place.inputs // 2
        made = place.outputs - seen
        layers = [
            *_depthwise(seen, kernel, stride, eps),
            *_pointwise(seen, middle, eps),
            *_depthwise(middle, kernel, 1, eps),
            *_pointwise(middle, middle, eps),
            *_depthwise(middle, kernel, 1, eps),
            *_pointwise(middle, made, eps),
        ]
        if not xception:
            layers = [
                *_pointwise(seen, middle, eps),
                *_depthwise(middle, kernel, stride, eps),
                *_pointwise(middle, made, eps),
            ]
        self.main = nn.Sequential(*layers)
        self.project: nn.Sequential | None = None
        if stride == 2:
            self.project = nn.Sequential(*_depthwise(seen, kernel, 2, eps), *_pointwise(seen, seen, eps))

    def forward(self, x: Tensor) -> Tensor:
        """Concatenates the bypassed or projected half with the output of `main`."""
        if self.project is not None:
            return torch.cat([self.project(x), self.main(x)], dim=1)
        return torch.cat([x[:, 0::2], self.main(x[:, 1::2])], dim=1)


def _depthwise(channels: int, kernel: int, stride: int, eps: float) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels, eps=eps)]


def _pointwise(inputs: int, outputs: int, eps: float) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=eps), nn.ReLU()]


Build = Callable[[Place, float], nn.Module]

OPS: dict[str, Build] = {
    "shuffle_3x3": lambda place, eps: Block(place, 3, False, eps),
    "shuffle_5x5": lambda place, eps: Block(place, 5, False, eps),
    "shuffle_7x7": lambda place, eps: Block(place, 7, False, eps),
    "shuffle_xception": lambda place, eps: Block(place, 3, True, eps),
}
"""`OPS[name](place, eps)`; `eps` is that of the normalisations."""
