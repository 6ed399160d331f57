"""Parts that supernets and networks share: the places of the blocks, the stem before them and the head after them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from diffnas.core.parts import Dropout
from diffnas.core.space import Shape
from diffnas.spaces.shufflenet_blocks.layout import Layout, stem_stride


def stem(layout: Layout, shape: Shape, eps: float) -> nn.Sequential:
    """A 3x3 convolution: [N, C_in, H, W] -> [N, channels, H / stride, W / stride]."""
    return nn.Sequential(
        nn.Conv2d(shape.channels, layout.channels, 3, stem_stride(layout), padding=1, bias=False),
        nn.BatchNorm2d(layout.channels, eps=eps),
        nn.ReLU(),
    )


def head(layout: Layout, shape: Shape, eps: float) -> nn.Sequential:
    """A 1x1 convolution, the mean over pixels, the classifier, which has no bias: [N, C, H, W] -> [N, classes]."""
    return nn.Sequential(
        nn.Conv2d(layout.widths[-1], layout.last, 1, bias=False),
        nn.BatchNorm2d(layout.last, eps=eps),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Dropout(layout.dropout),
        nn.Linear(layout.last, shape.classes, bias=False),
    )


def initialise(first: nn.Module, rest: Sequence[nn.Module]) -> None:
    """Gives fresh weights as Guo et al.'s code does: normal, of deviation 0.01 in the stem and the classifier, else 1 / C_in.

    C_in counts the channels that one filter sees (1 in depthwise convolutions); normalisations are shifted by 1e-4.
    """
    for part in (first, *rest):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.01 if part is first else 1.0 / layer.weight.shape[1])
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.01)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.constant_(layer.bias, 1e-4)
