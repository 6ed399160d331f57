"""Messages for too little memory or disk: what to lower, and how to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from diffnas.errors import RecipeError, ResourceError
from diffnas.recipe.keys import one_of
from diffnas.recipe.recipe import Recipe, leaves
from diffnas.runtime.device import no_deterministic
from diffnas.runtime.room import free_memory, in_words, lack_of_room
from diffnas.runtime.run_folder import Part

Command = Literal["search", "train"]
SIZES = {
    "search": ("search.batch", "search.bptt", "space.channels", "space.units", "space.layers"),
    "train": ("train.batch", "train.bptt", "train.channels", "train.units", "train.layers"),
}
"""The keys that memory depends on most."""
USUAL = {"channels": 256, "units": 4096, "layers": 100}
"""Sizes up to which nobody asks whether the weights fit into memory: it takes as long as building them."""


@contextmanager
def explained(part: Part, recipe: Recipe, command: Command, go_on: str) -> Iterator[None]:
    """Raises `ResourceError` if disk or memory run out in a block: it names the keys to lower and the command to resume.

    Raises `RecipeError` where an operation cannot be deterministic as the recipe asks for.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError, SystemError) as error:
        operation = no_deterministic(error)
        if operation is not None:
            said = f"torch has no algorithm of {operation} that gives equal bits each time; set it to false, and start anew"
            raise RecipeError(f"deterministic: {said}") from error
        lack = lack_of_room(error, str(part.path))
        if lack is None:
            raise
        kept = any(part.checkpoints.glob("*.pt"))
        again = f"go on with: {go_on} (a checkpoint is kept)" if kept else "start again"
        remedy = f"{lack.remedy} and {again}"
        if lack.of == "memory" and kept:
            remedy += f", or start another run with a lower {_sizes(recipe, command)}"
        elif lack.of == "memory":
            remedy = f"lower {_sizes(recipe, command)}, or {lack.remedy}, and {again}"
        raise ResourceError(f"{lack.said}; {remedy}") from error


def require_memory(build: Callable[[], nn.Module], recipe: Recipe, command: Command, device: torch.device) -> None:
    """Raises `ResourceError` where the weights of what `build` makes, their gradients and momentum cannot fit on `device`."""
    if all(value <= USUAL[key.rpartition(".")[2]] for key, value in _values(recipe, command).items() if _is_size(key)):
        return
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    with torch.device("meta"):
        needed = 3 * sum(p.numel() * p.element_size() for p in build().parameters())
    if free is not None and needed > free:
        raise ResourceError(
            f"weights, gradients and momentum alone take {in_words(needed)} of memory, and {in_words(free)} are free; lower "
            + _sizes(recipe, command)
        )


def _is_size(key: str) -> bool:
    return key.rpartition(".")[2] in USUAL


def _values(recipe: Recipe, command: Command) -> dict[str, int]:
    values = dict(leaves(recipe.values()))
    return {key: values[key] for key in SIZES[command] if key in values}


def _sizes(recipe: Recipe, command: Command) -> str:
    """`search.batch (64), space.channels (16) or space.layers (8)`."""
    return one_of(f"{key} ({value})" for key, value in _values(recipe, command).items())
