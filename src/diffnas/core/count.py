"""Parameters and multiply-adds of a network.

Counting rule: parameters are all that require gradients, the auxiliary head apart; multiply-adds are those of
convolutions and linear layers, for a batch of one in evaluation mode (where the auxiliary head does not run).  Pooling,
normalisation, activations and additions count 0.  Published figures often follow other rules; print the rule beside them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diffnas.core.space import Shape, Words
from diffnas.errors import UserError

RULE = (
    "multiply-adds of convolutions and linear layers, batch 1, evaluation mode; parameters without the auxiliary head"
)

Unit = Literal["macs", "params"]
"""What a cost is counted in."""


@dataclass(frozen=True)
class Counts:
    """`params` and `macs` of the network proper, and `auxiliary`, the parameters of its auxiliary head."""

    params: int
    macs: int
    auxiliary: int


def count(network: nn.Module, shape: Shape | Words | Sequence[int]) -> Counts:
    """The size of `network` for one input of `shape`, [C, H, W] or [1, C, H, W] as numbers; the network is left untouched.

    Of a language model it is the size for one word.  Raises `UserError` where the network cannot read such an input.
    """
    head = getattr(network, "auxiliary", None)
    auxiliary = _parameters(head) if isinstance(head, nn.Module) else 0
    twin = copy.deepcopy(network).to(device="meta", dtype=torch.float32).eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            twin(_sample(shape))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        what = f"{shape.vocabulary} words" if isinstance(shape, Words) else f"an image {shape}"
        raise UserError(
            f"count: the network cannot read {what}; give [C, H, W] for images, or Words(V) for a language model"
        ) from error
    return Counts(_parameters(network) - auxiliary, counter.get_total_flops() // 2, auxiliary)


def _sample(shape: Shape | Words | Sequence[int]) -> Any:
    """One input on the meta device: what counts is its form."""
    if isinstance(shape, Words):
        return torch.zeros(1, 1, dtype=torch.int64, device="meta"), None
    sizes = (shape.channels, shape.side, shape.side) if isinstance(shape, Shape) else tuple(shape)[-3:]
    return torch.empty(1, *sizes, device="meta")


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
