"""The stages of a search: how each is built, and what it inherits from the one before."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.core.seeds import generator, stream_seed
from diffnas.core.space import AnyShape, Space
from diffnas.engine import Search
from diffnas.engine.recompute import recompute_cells
from diffnas.engine.search import Feed, Task
from diffnas.engine.stage import Clock, Stage
from diffnas.engine.steady import SteadyAdam, SteadySGD
from diffnas.engine.tf_adam import TFAdam
from diffnas.errors import RecipeError
from diffnas.pipeline.graphs import search_replays
from diffnas.pipeline.processes import prepared
from diffnas.pipeline.resources import require_memory
from diffnas.pipeline.supernet_weights import SupernetWeights
from diffnas.recipe.recipe import Recipe
from diffnas.recipe.schema import Arch
from diffnas.runtime.compiling import compiled
from diffnas.runtime.device import PRECISIONS, place
from diffnas.spaces.widen import channel_copies, widened


def begins(stage: Stage) -> bool:
    """Whether the schedule of the learning rate begins anew with `stage`."""
    return stage.fresh or stage.restart


def span(stages: Sequence[Stage], stage: int) -> int:
    """The epochs of all stages whose learning rate runs over one schedule with that of number `stage`."""
    first = next(k for k in range(stage, -1, -1) if begins(stages[k]) or k == 0)
    joined = itertools.takewhile(lambda later: not begins(later), stages[first + 1 :])
    return stages[first].epochs + sum(later.epochs for later in joined)


def build(
    recipe: Recipe,
    space: Space,
    stage: Stage,
    clock: Clock,
    weights: SupernetWeights,
    decay: float,
    device: torch.device,
    feeds: Mapping[str, Feed],
    shape: AnyShape,
    task: Task,
    batch_dim: int = 0,
) -> Search:
    """The search of `stage` with fresh weights and architecture; `decay` multiplies the recipe's weight decay."""
    method, settings, seed = recipe.method, recipe.search, recipe.seed
    assert method is not None and settings is not None

    def supernet_of_stage() -> nn.Module:
        return space.supernet(shape, stage.size, settings.supernet)

    require_memory(supernet_of_stage, recipe, "search", device)
    torch.manual_seed(stream_seed(seed, "weights", clock.stage))
    supernet = prepared(place(supernet_of_stage(), device), recipe)
    if settings.compile == "on":
        supernet = compiled(supernet)
    if settings.recompute and not recompute_cells(supernet):
        raise RecipeError(
            f"search.recompute: space {space.name} has no cells that can be computed again; set it to false"
        )
    arch = method.arch(space, generator(seed, "arch", clock.stage)).to(device)
    steady = search_replays(recipe, device)
    return Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=weights.optimizer(supernet.parameters(), weights.decay * decay, steady),
        arch_optimizer=arch_optimizer(arch, settings.arch, steady),
        task=task,
        seed=seed,
        clip=weights.clip,
        arch_clip=settings.arch.clip,
        ahead_clip=weights.ahead_clip,
        precision=PRECISIONS[recipe.precision],
        clock=clock,
        feeds=feeds,
        shape=shape,
        pieces=settings.accumulate,
        batch_dim=batch_dim,
        device_draws=settings.draws == "device",
    )


def arch_optimizer(arch: nn.Module, settings: Arch, steady: bool = False) -> torch.optim.Optimizer:
    """Builds the optimizer of the parameters of `arch` by `settings`; a `steady` one can be replayed."""
    group = [{"params": list(arch.parameters())}]  # which may be none
    if steady and settings.optimizer == "sgd":
        return SteadySGD(group, settings.lr, 0.0, settings.decay)
    if steady and settings.optimizer == "adam":
        return SteadyAdam(group, settings.lr, settings.betas, settings.epsilon, settings.decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(group, settings.lr, weight_decay=settings.decay)
    if settings.optimizer == "tf-adam":
        return TFAdam(group, settings.lr, settings.betas, settings.epsilon, settings.decay)
    return torch.optim.Adam(group, settings.lr, settings.betas, settings.epsilon, settings.decay)


def inherited(before: Search, after: Search, restart: bool) -> dict[str, Any]:
    """Returns the state of `before` as `after` continues from it: without pruned ops, and widened where it is wider.

    With `restart` the weights' optimizer begins empty.
    """
    state, own = before.state_dict(), after.supernet.state_dict()
    copies = channel_copies(state["weights"], after.supernet, after.fork("widen"))
    carried = {name: tensor for name, tensor in state["weights"].items() if name in own}
    state["weights"] = {**own, **{name: widened(t, copies.get(name, ())) for name, t in carried.items()}}
    slots = {} if restart else state["weights_optimizer"]["slots"]
    state["weights_optimizer"]["slots"] = {
        name: {slot: widened(v, copies.get(name, ())) if _shaped(v) else v for slot, v in values.items()}
        for name, values in slots.items()
    }
    return state


def strongest_ops(space: Space, strength: Mapping[str, Tensor], keep: int) -> Space:
    """Narrows `space` to the `keep` strongest ops of every edge, by `strength` [E, O] per kind."""
    return space.narrow({kind: top(strength_EO, keep) for kind, strength_EO in strength.items()})


def narrowed(space: Space, allowed: Mapping[str, list[list[bool]]]) -> Space:
    """Returns `space` with only the saved entries, or itself if nothing was pruned."""
    if all(space.cells[kind].allowed == tuple(map(tuple, rows)) for kind, rows in allowed.items()):
        return space
    return space.narrow({kind: torch.tensor(rows) for kind, rows in allowed.items()})


def top(strength_EO: Tensor, keep: int) -> Tensor:
    """[E, O] bool: the `keep` strongest ops of every edge."""
    columns = strength_EO.topk(min(keep, strength_EO.shape[1]), dim=1).indices
    return torch.zeros_like(strength_EO, dtype=torch.bool).scatter_(1, columns, True)


def _shaped(value: Any) -> bool:
    """Whether an optimizer's slot has the shape of its parameter; step counters have none."""
    return isinstance(value, Tensor) and value.dim() > 0
