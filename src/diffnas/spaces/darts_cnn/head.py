"""The auxiliary head of networks, and of supernets that train with one."""

from __future__ import annotations

from torch import Tensor, nn


class AuxiliaryHead(nn.Module):
    """A classifier on the features two thirds up, used while training: [N, C, 8, 8] (ImageNet: 7 x 7) -> [N, classes].

    `second_norm` is the normalisation after the second convolution: the CIFAR head has it; the ImageNet head of DARTS,
    PC-DARTS and DrNAS lacks it (a typo kept so that released weights load), that of P-DARTS has it.
    """

    def __init__(self, channels: int, classes: int, stride: int, second_norm: bool) -> None:
        super().__init__()
        second: list[nn.Module] = [nn.BatchNorm2d(768)] if second_norm else []
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=stride, padding=0, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *second,
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, 8, 8] or [N, C, 7, 7] -> [N, classes]."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
