"""Optimizer state under the plain names of the parameters, so that a checkpoint fits any supernet with those names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.engine.steady import SteadyAdam

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
    on_host = isinstance(optimizer, torch.optim.Adam) and not isinstance(optimizer, SteadyAdam)  # its step counters
    optimizer.state.clear()
    for name, slots in state["slots"].items():
        if name in parameters:
            parameter = parameters[name]
            optimizer.state[parameter] = {slot: _place(slot, v, parameter, on_host) for slot, v in slots.items()}
    for group, lr in zip(optimizer.param_groups, state["lr"], strict=True):
        _set_rate(group, lr)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        _set_rate(group, lr)


def learning_rate(optimizer: torch.optim.Optimizer) -> float | Tensor:
    """The rate of the first group; of a steady optimizer, the number on the device."""
    group = optimizer.param_groups[0]
    found: float | Tensor = group.get("rate", group["lr"])
    return found


@contextlib.contextmanager
def scaled_rate(optimizer: torch.optim.Optimizer, scale: float) -> Iterator[None]:
    """Runs a block in which all rates are multiplied by `scale`."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["scale" if "rate" in group else "lr"] *= scale
    yield
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        if "rate" in group:
            group["scale"] = 1.0


def _set_rate(group: dict[str, Any], lr: float) -> None:
    group["lr"] = lr
    if "rate" in group:
        group["rate"].fill_(lr)


def _place(slot: str, value: Any, parameter: Tensor, on_host: bool) -> Any:
    if value is None:  # no momentum yet
        return None
    if not isinstance(value, Tensor):
        raise TypeError(f"{value!r:.60} is no tensor")
    if value.shape != (torch.Size() if slot in COUNTERS else parameter.shape):
        raise ValueError(f"{slot} {list(value.shape)} of a parameter {list(parameter.shape)}")
    return value.clone() if on_host and value.shape != parameter.shape else value.to(parameter.device)
