"""DARTS: Differentiable Architecture Search (Liu, Simonyan and Yang, ICLR 2019).

A softmax over the ops of every edge makes the choice of a cell continuous; its logits alpha are trained on one half of the
data, the weights on the other, in turns.  The first order takes the weights as they are; the second order looks one weight
step ahead (equation 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.settings import setting
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Search


@dataclass(frozen=True)
class DARTS(Method):
    """Alternate architecture and weight steps; keep the two strongest edges of each node, `none` left out."""

    name: ClassVar[str] = "darts"
    capture: ClassVar[Capture] = "throughout"

    unrolled: bool = setting(False, "second order: look one weight step ahead (about three times the work of a step)")
    exact: bool = setting(
        False, "with unrolled: differentiate twice instead of a central difference (slow; for small nets)"
    )

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        return [("exact", "needs method.unrolled=true")] if self.exact and not self.unrolled else []

    @property
    @override
    def needs_double_backward(self) -> bool:
        return self.unrolled and self.exact

    @property
    @override
    def uses_lookahead(self) -> bool:
        return self.unrolled

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes a first- or second-order step of the architecture, then a step of the weights."""
        if not self.unrolled or "valid" not in batches:
            return super().step(search, batches)
        train, valid = batches["train"], batches["valid"]
        ahead = engine.unrolled_arch_step(
            search, search.relax("arch", valid), train, valid, self.exact, search.ahead_clip
        )
        return {"valid": ahead, "train": engine.weight_step(search, search.relax("weights", train), train)}
