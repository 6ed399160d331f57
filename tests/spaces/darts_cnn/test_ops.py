"""The ops: shapes, composition, parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffnas.spaces.darts_cnn.layout import SEARCHED_OPS
from diffnas.spaces.darts_cnn.ops import OPS, FactorizedReduce, ReLUConvBN, SkipDropout, Zero

C = 6
PARAMETERS = {  # convolution weights at C channels and stride 1
    "none": 0,
    "max_pool_3x3": 0,
    "avg_pool_3x3": 0,
    "skip_connect": 0,
    "auxiliary_skip": 0,
    "noise": 0,
    "sep_conv_3x3": 2 * (9 * C + C * C),
    "sep_conv_5x5": 2 * (25 * C + C * C),
    "sep_conv_7x7": 2 * (49 * C + C * C),
    "dil_conv_3x3": 9 * C + C * C,
    "dil_conv_5x5": 25 * C + C * C,
    "conv_7x1_1x7": 14 * C * C,
}


def test_the_table_holds_what_the_space_names() -> None:
    assert set(OPS) == set(SEARCHED_OPS) == set(PARAMETERS)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_shape_and_size(name: str, stride: int, affine: bool) -> None:
    op = OPS[name](C, stride, affine, "plain" if not affine else "none")
    x = torch.randn(2, C, 8, 12)
    assert op(x).shape == (2, C, 8 // stride, 12 // stride)
    weights = sum(p.numel() for p in op.parameters() if p.dim() > 1)
    assert weights == PARAMETERS[name] + (C * C if "skip" in name and stride == 2 else 0)
    assert all(m.bias is None for m in op.modules() if isinstance(m, nn.Conv2d))
    assert any(p.dim() == 1 for p in op.parameters()) == (affine and bool(weights))


@pytest.mark.parametrize(("norm", "layers", "parameters"), [("none", 0, 0), ("plain", 1, 0), ("affine", 1, 2)])
def test_norm_after_pooling(norm: str, layers: int, parameters: int) -> None:
    for name in ("max_pool_3x3", "avg_pool_3x3"):
        op = OPS[name](C, 1, True, norm)
        assert sum(isinstance(m, nn.BatchNorm2d) for m in op.modules()) == layers
        assert len(list(op.parameters())) == parameters


def test_average_pooling_leaves_padding_out() -> None:
    assert torch.equal(OPS["avg_pool_3x3"](1, 1, True, "none")(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_noise_is_drawn_anew_in_place_of_the_input() -> None:
    op, x = OPS["noise"](C, 2, False, "plain"), torch.zeros(64, C, 16, 16)
    first, second = op(x), op(x)
    assert first.shape == (64, C, 8, 8) and not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.02 and abs(float(first.std()) - 1.0) < 0.02


def test_skips_drop_numbers_in_training_at_their_rate() -> None:
    skip, x = SkipDropout(), torch.ones(8, C, 16, 16)
    assert torch.equal(skip(x), x)  # no rate was set
    skip.rate = torch.tensor(0.25)
    found = skip(x)
    assert found.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert abs(float((found == 0).float().mean()) - 0.25) < 0.02
    assert torch.equal(skip.eval()(x), x)


def test_separable_convolution_by_hand(close: Callable[..., None]) -> None:
    op = OPS["sep_conv_5x5"](C, 2, True, "none").double().eval()
    x = torch.randn(2, C, 8, 8, dtype=torch.float64)
    y = x
    for first, stride in ((0, 2), (4, 1)):
        y = F.conv2d(F.relu(y), op[first + 1].weight, stride=stride, padding=2, groups=C)
        y = F.conv2d(y, op[first + 2].weight) / (1 + 1e-5) ** 0.5
    close(op(x), y)


def test_dilated_convolution_by_hand(close: Callable[..., None]) -> None:
    op = OPS["dil_conv_5x5"](C, 1, True, "none").double().eval()
    x = torch.randn(2, C, 9, 9, dtype=torch.float64)
    y = F.conv2d(F.relu(x), op[1].weight, padding=4, dilation=2, groups=C)
    close(op(x), F.conv2d(y, op[2].weight) / (1 + 1e-5) ** 0.5)


def test_halving_sees_even_and_odd_pixels() -> None:
    op = FactorizedReduce(1, 2).double().eval()
    for layer in (op.even, op.odd):
        nn.init.ones_(layer.weight)
    x = torch.arange(16.0, dtype=torch.float64).view(1, 1, 4, 4)
    found = op(x) * (1 + 1e-5) ** 0.5
    assert found[0, 0].flatten().tolist() == pytest.approx([0, 2, 8, 10])
    assert found[0, 1].flatten().tolist() == pytest.approx([5, 7, 13, 15])


@pytest.mark.parametrize("shape", [(1, 4, 7, 8), (1, 4, 8, 7)])
def test_halving_refuses_odd_sides(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="needs even sides"):
        FactorizedReduce(4, 4)(torch.randn(shape))
    with pytest.raises(ValueError, match="even number of channels"):
        FactorizedReduce(4, 5)


def test_zero_lets_a_zero_gradient_through() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    Zero(2)(x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.zeros_like(x))


def test_relu_conv_bn_keeps_its_input() -> None:
    x = -torch.ones(1, 2, 4, 4)
    ReLUConvBN(2, 2, 3, 2)(x)
    assert torch.equal(x, -torch.ones(1, 2, 4, 4))
