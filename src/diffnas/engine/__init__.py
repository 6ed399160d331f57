"""The engine: the state of a search, the one door for gradients, and the hooks of a method."""

from __future__ import annotations

from diffnas.engine.curvature import largest_eigenvalue
from diffnas.engine.derive import random_genotype, sampled_genotypes, strongest
from diffnas.engine.gradients import (
    Grads,
    apply_arch,
    apply_weights,
    arch_loss_step,
    arch_step,
    differentiate,
    joint_step,
    unrolled_arch_step,
    weight_step,
)
from diffnas.engine.method import Method
from diffnas.engine.op_weights import op_weights
from diffnas.engine.scoring import Scores, score, score_batches
from diffnas.engine.search import Alphas, Search
from diffnas.engine.snapshot import Snapshot, restore, snapshot
from diffnas.engine.stage import Clock, Phase, Stage, Transition, Use

__all__ = [
    "Alphas",
    "Clock",
    "Grads",
    "Method",
    "Phase",
    "Scores",
    "Search",
    "Snapshot",
    "Stage",
    "Transition",
    "Use",
    "apply_arch",
    "apply_weights",
    "arch_loss_step",
    "arch_step",
    "differentiate",
    "joint_step",
    "largest_eigenvalue",
    "op_weights",
    "random_genotype",
    "restore",
    "sampled_genotypes",
    "score",
    "score_batches",
    "snapshot",
    "strongest",
    "unrolled_arch_step",
    "weight_step",
]
