"""The first layers of networks and supernets: one convolution (CIFAR), or three that halve the resolution (ImageNet)."""

from __future__ import annotations

from typing import Literal

from torch import nn

Stem = Literal["cifar", "imagenet"]


def cifar_stem(inputs: int, width: int) -> nn.Sequential:
    """[N, inputs, H, W] -> [N, width, H, W]."""
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))


def imagenet_stem(inputs: int, channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """224 x 224 -> 56 x 56, and 56 x 56 -> 28 x 28."""
    first = nn.Sequential(
        nn.Conv2d(inputs, channels // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    second = nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    return first, second
