"""SGD and Adam whose steps a CUDA graph can replay: the rate and the step counters are numbers of the device.

A graph repeats what was computed once, on the same memory: a rate that is a Python number would stay what it was.  State
has torch's names and shapes, so that checkpoints of either kind serve both; sums are rounded in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sgd(
    params: Any, lr: float, momentum: float, weight_decay: float, steady: bool, nesterov: bool = False
) -> torch.optim.SGD:
    """Returns SGD over `params`, one that a graph can replay where it is to be `steady`."""
    if steady:
        return SteadySGD(params, lr, momentum, weight_decay, nesterov)
    return torch.optim.SGD(params, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, foreach=True)


class SteadySGD(torch.optim.SGD):
    """SGD with momentum and coupled weight decay, as torch's, with its rate on the device."""

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float, nesterov: bool = False) -> None:
        super().__init__(params, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, foreach=True)
        hold_rates(self)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Takes one step."""
        for group in self.param_groups:
            params, grads = _with_grads(group)
            if not params:
                continue
            if group["weight_decay"]:
                grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
            if group["momentum"]:
                kept = [self._kept(p) for p in params]
                torch._foreach_mul_(kept, group["momentum"])
                torch._foreach_add_(kept, grads)
                ahead = torch._foreach_add(grads, kept, alpha=group["momentum"]) if group["nesterov"] else kept
                grads = list(ahead)
            torch._foreach_sub_(params, torch._foreach_mul(grads, _rate(group)))

    def _kept(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        kept: Tensor = state["momentum_buffer"]
        return kept


class SteadyAdam(torch.optim.Adam):
    """Adam with coupled weight decay, as torch's, with its rate and its counters on the device."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
        hold_rates(self)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Takes one step."""
        for group in self.param_groups:
            params, grads = _with_grads(group)
            if not params:
                continue
            b1, b2 = group["betas"]
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
            states = [self._kept(p) for p in params]
            steps, means, squares = ([s[name] for s in states] for name in ("step", "exp_avg", "exp_avg_sq"))
            torch._foreach_add_(steps, 1)
            torch._foreach_lerp_(means, grads, 1 - b1)
            torch._foreach_mul_(squares, b2)
            torch._foreach_addcmul_(squares, grads, grads, 1 - b2)
            for p, step, mean, square in zip(params, steps, means, squares, strict=True):
                done = step.double()  # a float32 power would lose digits
                root = square.sqrt().div_((1 - b2**done).sqrt()).add_(group["eps"])
                p.sub_((mean / (1 - b1**done)).mul_(_rate(group)).div_(root))

    def _kept(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state


def hold_rates(optimizer: torch.optim.Optimizer) -> None:
    """Puts a copy of each group's rate on the device, under "rate"; "lr" stays what is recorded."""
    for group in optimizer.param_groups:
        like = group["params"][0] if group["params"] else torch.empty(())  # an architecture may have none
        group["rate"], group["scale"] = torch.full((), group["lr"], dtype=like.dtype, device=like.device), 1.0


def _with_grads(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    params = [p for p in group["params"] if p.grad is not None]
    return params, [p.grad for p in params]


def _rate(group: dict[str, Any]) -> Tensor:
    rate: Tensor = group["rate"]
    return rate if group["scale"] == 1.0 else rate * group["scale"]
