"""What supernets and networks share: where each block stands, the stem before the blocks and the head after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from diffnas.core.space import Shape
from diffnas.spaces.shufflenet_blocks.space import ShuffleNetBlocks


@dataclass(frozen=True)
class Place:
    """Where a block stands: [N, inputs, side, side] -> [N, outputs, side / stride, side / stride]."""

    inputs: int
    outputs: int
    stride: int
    side: int


def places(space: ShuffleNetBlocks, side: int) -> list[Place]:
    """The place of every block, for images of `side`."""
    inputs, side, found = space.channels, side // stem_stride(space), []
    for width, depth in zip(space.widths, space.depths, strict=True):
        for block in range(depth):
            found.append(Place(inputs, width, 1 if block else 2, side))
            inputs, side = width, side if block else side // 2
    return found


def stem_stride(space: ShuffleNetBlocks) -> int:
    """The stride of the first convolution."""
    return 2 if space.stem == "imagenet" else 1


def stem(space: ShuffleNetBlocks, shape: Shape, eps: float) -> nn.Sequential:
    """A 3x3 convolution: [N, C_in, H, W] -> [N, channels, H / stride, W / stride]."""
    return nn.Sequential(
        nn.Conv2d(shape.channels, space.channels, 3, stem_stride(space), padding=1, bias=False),
        nn.BatchNorm2d(space.channels, eps=eps),
        nn.ReLU(),
    )


def head(space: ShuffleNetBlocks, shape: Shape, eps: float) -> nn.Sequential:
    """A 1x1 convolution, the mean over pixels, the classifier, which has no bias: [N, C, H, W] -> [N, classes]."""
    return nn.Sequential(
        nn.Conv2d(space.widths[-1], space.last, 1, bias=False),
        nn.BatchNorm2d(space.last, eps=eps),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(space.dropout),
        nn.Linear(space.last, shape.classes, bias=False),
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
