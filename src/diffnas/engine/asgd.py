"""SGD that gives way to its own average once validation no longer improves.

S. Merity et al., Regularizing and optimizing LSTM language models (ICLR 2018), algorithm 1, as DARTS trains its recurrent
cells.  A training asks the `Trigger` after every epoch; when it fires, `averaged_sgd` takes over, and from then on every
evaluation runs within `averages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Trigger:
    """Fires once: when a validation loss is above the least of all that are more than `patience` epochs old."""

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self.losses: list[float] = []
        self.fired = False

    def fires(self, loss: float) -> bool:
        """Whether SGD gives way after an epoch whose validation loss is `loss`; never asked twice for an epoch.

        `losses` are those of earlier epochs: the current loss is compared before it joins them.
        """
        if self.fired:
            return False
        old = self.losses[: max(0, len(self.losses) - self.patience)]
        self.fired = bool(old) and loss > min(old)
        self.losses.append(loss)
        return self.fired

    def state_dict(self) -> dict[str, Any]:
        """Returns the losses seen so far."""
        return {"losses": list(self.losses), "fired": self.fired}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state`."""
        self.losses, self.fired = [float(loss) for loss in state["losses"]], bool(state["fired"])


def averaged_sgd(parameters: Iterable[nn.Parameter], lr: float, decay: float) -> torch.optim.ASGD:
    """SGD without momentum that also keeps the mean of the weights it passes, from its second step on.

    PyTorch's optimizer takes its rate from the group's after each step, for the next one: a rate that is scaled by the
    length of a window acts on the window after it.  The published trainings have it so.
    """
    return torch.optim.ASGD(parameters, lr=lr, lambd=0.0, t0=0, weight_decay=decay)


@contextmanager
def averages(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Swaps in the averages that `optimizer` keeps for the duration of a block, then restores the parameters bit for bit."""
    held: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for parameter, state in optimizer.state.items():
                if "ax" in state:
                    held.append((parameter, parameter.clone()))
                    parameter.copy_(state["ax"])
        yield
    finally:
        with torch.no_grad():
            for parameter, value in held:
                parameter.copy_(value)
