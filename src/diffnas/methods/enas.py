"""ENAS: Efficient Neural Architecture Search via Parameter Sharing (Pham, Guan, Zoph, Le and Dean, ICML 2018).

A controller writes children; every batch trains the shared weights through a new one.  After each pass over the training
half the controller is trained by REINFORCE: the reward R of a child is its accuracy on a validation batch of its own (of
text: 80 / perplexity) plus a little entropy, the baseline b a running mean, and what is descended is the mean of
-(R - b) log p(child).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffnas import engine
from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Method, Phase, Stage, Use

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from diffnas.core.batch import Batch, Loss
    from diffnas.core.mixture import Mixture
    from diffnas.engine.search import Search
    from diffnas.methods.enas_controller import Controller


@dataclass(frozen=True)
class ENAS(Method):
    """Train shared weights on children that an LSTM controller writes, and the controller by REINFORCE on their accuracy."""

    name: ClassVar[str] = "enas"

    units: int = setting(64, "units of the controller's LSTM (NAS-Bench-201: 32)", ge=1, le=4096)
    layers: int = setting(2, "layers of the controller's LSTM", ge=1, le=64)
    temperature: float = setting(1.0, "divides the controller's logits (NAS-Bench-201: 5)", gt=0)
    tanh_constant: float = setting(1.1, "bound of the controller's logits (NAS-Bench-201: 2.5)", gt=0)
    op_tanh_reduce: float = setting(2.5, "divides that bound for ops (NAS-Bench-201: 1)", gt=0)
    favoured: tuple[str, ...] = setting(
        ("sep_conv_3x3", "sep_conv_5x5"), "ops that the controller begins with a liking for, where the space has them"
    )
    lead: Literal["first", "every"] = setting(
        "first",
        "kinds of cell in whose choices favoured ops keep a fixed lead: the first (published: the normal cell), or every",
        before="every",
    )
    controller_steps: int = setting(
        30, "steps of the controller after each pass of the weights (NAS-Bench-201: 50)", ge=1
    )
    aggregate: int = setting(10, "children of each of these steps (NAS-Bench-201: 20)", ge=1)
    entropy_weight: float = setting(1e-4, "weight of the entropy of a child's choices in its reward", ge=0)
    baseline_decay: float = setting(0.99, "how much of the baseline stays when a reward comes in", ge=0, lt=1)
    batches: Literal["own", "shared"] = setting(
        "own",
        "validation batches: one for every child (published), or one for the children of a step, and for all candidates",
        before="shared",
    )
    candidates: int = setting(
        100, "children that compete by a validation batch in the end (0: the greedy child is derived)", ge=0
    )
    evaluate: Literal["argmax", "sample"] = setting(
        "sample", "child that evaluations take before there is a winner: the greedy one or a sample"
    )

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Weights and controller in turns, epoch by epoch; then the selection, a step for every candidate."""
        each = self.aggregate if self.batches == "own" else 1
        search = Stage(epochs, size, phases=(Phase(("train",)), Phase(("valid",), self.controller_steps, each)))
        selection = Stage(1, size, fresh=False, restart=True, phases=(Phase(("score",), self.candidates),))
        return (search, selection) if self.candidates else (search,)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """The controller, with its baseline and the winner of the selection."""
        from diffnas.methods.enas_controller import Controller

        bounds = (self.temperature, self.tanh_constant, self.op_tanh_reduce)
        leads = list(space.cells)[: 1 if self.lead == "first" else None]
        return Controller(space.cells, generator, self.units, self.layers, *bounds, self.favoured, leads)

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """A new child; for use "eval" the winner, if there is one."""
        import torch

        controller = _controller(search)
        if use == "arch":
            return controller(search.shared)
        with torch.no_grad():
            if use == "weights":
                return controller(search.shared)
            return controller.winner.best() or controller(search.fork("eval") if self.evaluate == "sample" else None)

    def strength(self, search: Search) -> dict[str, Tensor]:
        """How often each op is chosen in the winner, before there is one in the greedy child."""
        return {kind: mix.op for kind, mix in _controller(search).found().items()}

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """The REINFORCE loss of the controller's step."""
        from diffnas.methods.enas_controller import Reinforce

        return mixture.loss if isinstance(mixture, Reinforce) else None

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """The weights of a new child on `train`, the controller on `valid`; in the last stage, the score of one child."""
        losses = {}
        if "train" in batches:
            losses["train"] = engine.weight_step(search, search.relax("weights", batches["train"]), batches["train"])
        if "valid" in batches:
            names = [name for name in batches if name.partition(".")[0] == "valid"]
            losses["valid"] = self._controller_step(search, [batches[name] for name in names])
        if "score" in batches:
            self._select(search)
        return losses

    def _controller_step(self, search: Search, batches: list[Batch]) -> Loss:
        """One step of REINFORCE on `aggregate` children, each on the next of `batches`; their mean loss and accuracy."""
        import torch

        from diffnas.core.batch import Loss
        from diffnas.methods.enas_controller import Child, Reinforce

        baseline, terms, scores = _controller(search).baseline, [], []
        for k in range(self.aggregate):
            batch = batches[k % len(batches)]
            child = search.relax("arch", batch)
            assert isinstance(child, Child)
            scores.append(engine.score(search, child, [batch]))
            reward = scores[-1].reward + self.entropy_weight * child.entropy.detach()
            baseline.copy_(self.baseline_decay * baseline + (1.0 - self.baseline_decay) * reward)
            terms.append(-(reward - baseline) * child.log_prob)  # the baseline knows the reward already, as published
        engine.penalty_step(search, Reinforce(torch.stack(terms).mean()))
        loss, accuracy = (torch.stack(of).mean() for of in zip(*((s.loss, s.accuracy) for s in scores), strict=True))
        count = sum(len(batch.targets) for batch in batches)
        return Loss(loss, accuracy * count, count)

    def _select(self, search: Search) -> None:
        """One child more competes, on the next batch of the architecture half, or on the first as all others do."""
        from diffnas.methods.score_feed import score_batches

        batches, controller = score_batches(search), _controller(search)
        batch = batches[search.clock.step % len(batches) if self.batches == "own" else 0]
        (child,) = controller.write(1, search.shared)
        controller.winner.insert(child, engine.score(search, child, [batch]).reward)

    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """Children of the controller."""
        from diffnas.methods.selection import genotype_of

        children = _controller(search).write(count, generator)
        return [genotype_of(child, search.space.name, search.space.cells) for child in children]

    def derive(self, search: Search) -> Genotype:
        """The winner of the selection, before it the greedy child."""
        from diffnas.methods.selection import genotype_of

        return genotype_of(_controller(search).found(), search.space.name, search.space.cells)


def _controller(search: Search) -> Controller:
    from diffnas.methods.enas_controller import Controller

    assert isinstance(search.arch, Controller)
    return search.arch
