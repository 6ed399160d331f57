"""Adam with epsilon where TensorFlow has it: the "epsilon hat" of Kingma and Ba (ICLR 2015, end of section 2).

    p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)

PyTorch adds epsilon to sqrt(v / (1 - b2^t)) instead, so the two are one where its epsilon is this one over sqrt(1 - b2^t).
At the first step that is 32 times as much, where b2 is 0.999.
"""

from __future__ import annotations

from typing import Any

import torch


class TFAdam(torch.optim.Adam):
    """Adam that adds `epsilon` to the root of the running mean of squares before the bias correction."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], epsilon: float, weight_decay: float) -> None:
        super().__init__(params, lr, betas, epsilon, weight_decay)
        self.epsilon = epsilon

    def step(self, closure: Any = None) -> Any:
        """Takes one step; all parameters have taken the same number of steps."""
        for group in self.param_groups:
            done = max(
                (int(self.state[p]["step"]) for p in group["params"] if p in self.state), default=0
            )  # on the host
            group["eps"] = self.epsilon / (1.0 - group["betas"][1] ** (done + 1)) ** 0.5
        return super().step(closure)
