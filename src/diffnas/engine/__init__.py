"""The engine: the state of a search, the one door for gradients, and the hooks of a method.

The engine's functions are loaded on first use, so that a method's file, which recipes read for its hyper-parameters, needs
no torch: `from diffnas import engine`, then `engine.weight_step(...)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffnas.engine.bilevel import (
        Grads,
        arch_step,
        gradients,
        joint_step,
        penalty_step,
        unrolled_arch_step,
        weight_step,
    )
    from diffnas.engine.curvature import largest_eigenvalue
    from diffnas.engine.derive import random_genotype, sampled_genotypes, strongest
    from diffnas.engine.scoring import Scores, score
    from diffnas.engine.search import Alphas, Search

_HOMES = {
    "Alphas": "search",
    "Grads": "bilevel",
    "Scores": "scoring",
    "Search": "search",
    "arch_step": "bilevel",
    "gradients": "bilevel",
    "joint_step": "bilevel",
    "largest_eigenvalue": "curvature",
    "penalty_step": "bilevel",
    "random_genotype": "derive",
    "sampled_genotypes": "derive",
    "score": "scoring",
    "strongest": "derive",
    "unrolled_arch_step": "bilevel",
    "weight_step": "bilevel",
}

__all__ = [
    "Alphas",
    "Grads",
    "Scores",
    "Search",
    "arch_step",
    "gradients",
    "joint_step",
    "largest_eigenvalue",
    "penalty_step",
    "random_genotype",
    "sampled_genotypes",
    "score",
    "strongest",
    "unrolled_arch_step",
    "weight_step",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
