"""Parameters and multiply-adds of a network.

Counting rule: parameters are all that require gradients, the auxiliary head apart; multiply-adds are those of
convolutions and linear layers, for a batch of one in evaluation mode (where the auxiliary head does not run).  Pooling,
normalisation, activations and additions count 0.  Published figures often follow other rules; print the rule beside them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffnas.core.space import AnyShape, Shape, TextShape
from diffnas.errors import UserError

RULE = (
    "multiply-adds of convolutions and linear layers, batch 1, evaluation mode; parameters without the auxiliary head"
)

MMRAZOR_RULE = (
    "FLOPs are these multiply-adds, and 1 for every number that a normalisation (2 if affine), ReLU or pool reads;"
    " parameters with the auxiliary head"
)

Unit = Literal["macs", "params"]
"""What a cost is counted in."""

T = TypeVar("T")
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Counts:
    """`params` and `macs` of the network proper, and `auxiliary`, the parameters of its auxiliary head."""

    params: int
    macs: int
    auxiliary: int


def in_millions(macs: int) -> str:
    """Returns `574.3M`, or all digits of a number below 100,000."""
    return f"{macs / 1e6:.1f}M" if macs >= 100_000 else f"{macs:,}"


def count(network: nn.Module, shape: AnyShape | Sequence[int]) -> Counts:
    """Counts parameters and multiply-adds of `network` for one input of `shape`, [C, H, W] or [1, C, H, W].

    Of a language model it is the size for one word.  Raises `UserError` where the network cannot read such an input.
    """
    head = getattr(network, "auxiliary", None)
    auxiliary = _parameters(head) if isinstance(head, nn.Module) else 0
    try:
        twin = _twin(network, shape)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            twin(_sample(shape))
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
        what = f"{shape.vocabulary} words" if isinstance(shape, TextShape) else f"an input {shape}"
        raise UserError(
            f"count: the network cannot read {what}; give [C, H, W] for images, TextShape(V) for a language model, or"
            " TensorShape for tensors"
        ) from error
    return Counts(_parameters(network) - auxiliary, counter.get_total_flops() // 2, auxiliary)


class Resources(NamedTuple):
    """The cost of an op by the rule of SNAS's code, for one image: `params` of convolutions; `macs` of convolutions, and 1 for
    every number in a pool's window; `memory`, the numbers that convolutions, pools and identities read (weights included)
    and write."""

    params: int
    macs: int
    memory: int


def resources(op: nn.Module, shape: Sequence[int]) -> Resources:
    """Returns the costs of `op` for one input of `shape` [C, H, W]; pixels that a stride skips count as read."""
    rows = _layer_by_layer(op, shape, _snas)
    return Resources(*map(sum, zip(*rows, strict=True))) if rows else Resources(0, 0, 0)


def mmrazor_flops(network: nn.Module, shape: Shape | Sequence[int]) -> int:
    """Returns the FLOPs that OpenMMLab's tools print for `network` for one input of `shape`: see `MMRAZOR_RULE`."""
    return sum(_layer_by_layer(network, shape, _mmrazor))


def _layer_by_layer(module: nn.Module, shape: Any, rule: Callable[[nn.Module, Tensor, Tensor], T]) -> list[T]:
    """Applies `rule` to the input and output of every call of every layer, in evaluation mode."""
    twin, rows = copy.deepcopy(module).to("meta").eval(), []
    for layer in twin.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, inputs, output: rows.append(rule(layer, inputs[0], output)))
    with torch.no_grad():
        twin(_sample(shape))
    return rows


def _snas(layer: nn.Module, x: Tensor, y: Tensor) -> Resources:
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        weights, places = layer.weight.numel(), math.prod(y.shape[2:])
        read = places * math.prod(layer.stride) * layer.in_channels
        return Resources(weights, weights * places, read + y.numel() + weights)
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return Resources(0, int(layer.kernel_size) ** 2 * y.numel(), x.numel() + y.numel())  # type: ignore[arg-type]
    return Resources(0, 0, x.numel() + y.numel() if isinstance(layer, nn.Identity) else 0)


def _mmrazor(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    if isinstance(layer, nn.Conv2d):
        return (layer.weight.numel() + (0 if layer.bias is None else layer.out_channels)) * y.shape[2] * y.shape[3]
    if isinstance(layer, nn.Linear):
        return x.numel() * layer.out_features
    if isinstance(layer, nn.BatchNorm2d):
        return x.numel() * (2 if layer.affine else 1)
    return x.numel() if isinstance(layer, (nn.ReLU, *POOLS)) else 0


def _twin(network: nn.Module, shape: AnyShape | Sequence[int]) -> nn.Module:
    """Returns a copy of `network` where the sample is: on the meta device, or on the CPU, where its weights may be anything."""
    copied = copy.deepcopy(network).to(torch.float32).eval()
    on_meta = any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    if not hasattr(shape, "sample"):
        return copied.to("meta")
    return copied.to_empty(device="cpu") if on_meta else copied.to("cpu")


def _sample(shape: AnyShape | Sequence[int]) -> Any:
    """Returns one input on the meta device, as only its shape matters; what the shape of a plug-in gives, on the CPU."""
    if hasattr(shape, "sample"):
        return shape.sample()
    if isinstance(shape, TextShape):
        return torch.zeros(1, 1, dtype=torch.int64, device="meta"), None
    sizes = shape.sizes if hasattr(shape, "sizes") else tuple(shape)[-3:]
    return torch.empty(1, *sizes, device="meta")


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
