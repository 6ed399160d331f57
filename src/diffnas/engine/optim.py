"""Optimizer state under the plain names of the parameters, so that a checkpoint fits any supernet with those names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

COUNTERS = {"step", "eta", "mu"}
"""The slots that hold one number for a parameter; others have its shape."""


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Any]:
    """`{"slots": {name: {slot: value}}, "lr": per group}` for the parameters of `module` that `optimizer` moves."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    slots = {names[parameter]: dict(state) for parameter, state in optimizer.state.items()}
    return {"slots": slots, "lr": [group["lr"] for group in optimizer.param_groups]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module, state: Mapping[str, Any]) -> None:
    """Puts `state`, made by `optimizer_state`, into `optimizer`; names that `module` lacks are left out.

    Raises `TypeError` or `ValueError` for what no optimizer keeps.
    """
    parameters = dict(module.named_parameters())
    on_host = isinstance(optimizer, torch.optim.Adam)  # keeps its step counters there
    optimizer.state.clear()
    for name, slots in state["slots"].items():
        if name in parameters:
            parameter = parameters[name]
            optimizer.state[parameter] = {slot: _place(slot, v, parameter, on_host) for slot, v in slots.items()}
    for group, lr in zip(optimizer.param_groups, state["lr"], strict=True):
        group["lr"] = lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _place(slot: str, value: Any, parameter: Tensor, on_host: bool) -> Any:
    if value is None:  # no momentum yet
        return None
    if not isinstance(value, Tensor):
        raise TypeError(f"{value!r:.60} is no tensor")
    if value.shape != (torch.Size() if slot in COUNTERS else parameter.shape):
        raise ValueError(f"{slot} {list(value.shape)} of a parameter {list(parameter.shape)}")
    return value.clone() if on_host and value.shape != parameter.shape else value.to(parameter.device)
