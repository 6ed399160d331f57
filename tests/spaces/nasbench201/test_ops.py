"""Every op alone: what it computes, and with which parameters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffnas.spaces.nasbench201.ops import OPS, Residual, Zero

X = torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kernel", [1, 3])
def test_convolutions(kernel: int) -> None:
    op = OPS[f"nor_conv_{kernel}x{kernel}"](4, False, True).double()
    z = F.conv2d(X.relu(), op.get_parameter("1.weight"), padding=kernel // 2)
    mean, var = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(op(X), (z - mean) / (var + 1e-5).sqrt())
    assert [name for name, _ in op.named_parameters()] == ["1.weight"]
    affine = OPS[f"nor_conv_{kernel}x{kernel}"](4, True, True)
    assert [name for name, _ in affine.named_parameters()] == ["1.weight", "2.weight", "2.bias"]
    assert not list(OPS[f"nor_conv_{kernel}x{kernel}"](4, False, False).buffers())


def test_padding_is_left_out_of_the_mean() -> None:
    found = OPS["avg_pool_3x3"](4, False, True)(X)
    torch.testing.assert_close(found[:, :, 0, 0], X[:, :, :2, :2].mean((2, 3)))
    torch.testing.assert_close(found[:, :, 5, 2], X[:, :, 4:6, 1:4].mean((2, 3)))


def test_the_rest() -> None:
    assert torch.equal(OPS["skip_connect"](4, False, True)(X), X)
    x = X.clone().requires_grad_()
    (grad,) = torch.autograd.grad(Zero()(x).sum(), x)
    assert not Zero()(x).any() and not grad.any()


def test_residual() -> None:
    """Halves the sides, has two affine normalisations and none on the shortcut."""
    block = Residual(4, 8).double()
    found = block(X[:, :, :, :4])
    assert found.shape == (3, 8, 3, 2)
    names = {name for name, _ in block.named_parameters()}
    assert names == {
        f"{part}.{name}" for part in ("first", "second") for name in ("1.weight", "2.weight", "2.bias")
    } | {"shortcut.1.weight"}
    shortcut = F.conv2d(F.avg_pool2d(X[:, :, :, :4], 2), block.get_parameter("shortcut.1.weight"))
    torch.testing.assert_close(found - block.second(block.first(X[:, :, :, :4])), shortcut)
