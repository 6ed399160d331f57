"""An op of one's own in the space of DARTS: a 3x3 convolution whose output is scaled channel by channel.

diffnas search darts-digits --plugin examples/op.py --run runs/scaled \
    -s "space.ops=[none, skip_connect, max_pool_3x3, sep_conv_3x3, scaled_conv_3x3]"
diffnas train runs/scaled --plugin examples/op.py
diffnas test runs/scaled --plugin examples/op.py
"""

from __future__ import annotations

from torch import Tensor, nn

import diffnas


class ScaledConv(nn.Module):
    """ReLU, a 3x3 convolution, and a factor for each channel of each image: [N, C, H, W] -> [N, C, H/stride, W/stride].

    The factors come from the means of the channels, as in squeeze-and-excitation (Hu et al., 2018).
    """

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.layers = nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels, affine=affine))
        self.factors = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The scaled convolution of `x`."""
        made: Tensor = self.layers(x)
        factors: Tensor = self.factors(made.mean((2, 3))).sigmoid()
        return made * factors[:, :, None, None]


diffnas.register(diffnas.Op("scaled_conv_3x3", ScaledConv, "a depthwise convolution with a factor for each channel"))
