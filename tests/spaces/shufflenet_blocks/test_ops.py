"""Blocks: their wiring, checked against convolutions written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffnas.spaces.shufflenet_blocks.layout import Place
from diffnas.spaces.shufflenet_blocks.ops import OPS, Block

PLACES = {1: Place(12, 12, 1, 8), 2: Place(4, 12, 2, 8)}
ORDER = {"shuffle": "pdp", "xception": "dpdpdp"}  # pointwise with ReLU, depthwise without


def written_out(x: Tensor, branch: nn.Sequential, order: str, stride: int) -> Tensor:
    """A branch of convolutions and normalisations, by function calls."""
    convolutions = [layer for layer in branch if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in branch if isinstance(layer, nn.BatchNorm2d)]
    for kind, conv, norm in zip(order, convolutions, norms, strict=True):
        weight, depthwise = conv.weight, kind == "d"
        if depthwise:
            x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])
            stride = 1
        else:
            assert weight.shape[2:] == (1, 1)
            x = F.conv2d(x, weight)
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=1e-2)
        x = x if depthwise else x.relu()
    return x


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPS)
def test_the_wiring(name: str, stride: int) -> None:
    torch.manual_seed(0)
    place = PLACES[stride]
    block = OPS[name](place, 1e-2).double()
    assert isinstance(block, Block)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, place.inputs, 8, 8, dtype=torch.float64)
    order = ORDER["xception" if name.endswith("xception") else "shuffle"]
    if stride == 1:
        kept, seen = x[:, [0, 2, 4, 6, 8, 10]], x[:, [1, 3, 5, 7, 9, 11]]
        expected = torch.cat([kept, written_out(seen, block.main, order, 1)], dim=1)
    else:
        assert block.project is not None
        parts = [written_out(x, block.project, "dp", 2), written_out(x, block.main, order, 2)]
        expected = torch.cat(parts, dim=1)
    assert expected.shape == (3, 12, 8 // stride, 8 // stride)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "side"), [("shuffle_3x3", 3), ("shuffle_5x5", 5), ("shuffle_7x7", 7)])
def test_kernels(name: str, side: int) -> None:
    block = OPS[name](PLACES[2], 1e-5)
    assert {conv.kernel_size for conv in block.modules() if isinstance(conv, nn.Conv2d)} == {(1, 1), (side, side)}
    xception = OPS["shuffle_xception"](PLACES[2], 1e-5)
    assert [conv.kernel_size[0] for conv in xception.modules() if isinstance(conv, nn.Conv2d)] == [3, 1] * 4


def test_channels_of_the_branches() -> None:
    """In front of 4 channels at stride 2, 4 are projected and 8 are made, by way of 6."""
    block = OPS["shuffle_5x5"](PLACES[2], 1e-5)
    assert isinstance(block, Block) and block.project is not None
    assert [conv.out_channels for conv in block.main if isinstance(conv, nn.Conv2d)] == [6, 6, 8]
    assert [conv.out_channels for conv in block.project if isinstance(conv, nn.Conv2d)] == [4, 4]
    assert all(norm.affine and norm.eps == 1e-5 for norm in block.modules() if isinstance(norm, nn.BatchNorm2d))
