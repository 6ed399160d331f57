"""The steps of a search as `replay` takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from diffnas.core.batch import Batch, Loss
from diffnas.engine.method import Capture, Method
from diffnas.engine.replay import decays_of, state_of
from diffnas.engine.search import Search

ORDER: tuple[Capture, ...] = ("throughout", "epoch", "never")


def captured(method: Method) -> Capture:
    """Whether the steps of `method` may be captured, as its own class says, and that of the method it is put around."""
    found: Capture = vars(type(method)).get("capture", "never")
    base = getattr(method, "base", None)
    return found if base is None else max(found, captured(base), key=ORDER.index)


def draws(method: Method) -> bool:
    """Whether the steps of `method`, or of the one it is put around, draw random numbers by `search.draw`."""
    base = getattr(method, "base", None)
    return method.draws or (base is not None and draws(base))


class SearchSteps:
    """The steps of the method of `search`; what is learned must be in `search` and nowhere else."""

    key = "search.graph"

    def __init__(self, search: Search) -> None:
        self.search, self.device = search, search.device
        self.looks_ahead = search.method.uses_lookahead

    def take(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes the method's step."""
        return self.search.method.step(self.search, batches)

    def changed(self) -> Iterator[Tensor]:
        """Yields the state of supernet, architecture and optimizers."""
        search = self.search
        return state_of((search.supernet, search.arch), (search.weights_optimizer, search.arch_optimizer))

    def trained(self) -> Sequence[Sequence[Tensor]]:
        """Returns the weights, and the architecture."""
        return self.search.weights, list(self.search.arch.parameters())

    def kind(self, batches: Mapping[str, Batch]) -> Any:
        """Returns the factors of the rate and the weight decays, which are numbers of Python."""
        scales = tuple(batch.scale for batch in batches.values())
        return scales, decays_of((self.search.weights_optimizer, self.search.arch_optimizer))

    def period(self) -> int | None:
        """Returns the epoch, where the method's numbers depend on it."""
        return self.search.clock.epoch if captured(self.search.method) == "epoch" else None
