"""The network a recipe trains: a genotype in its own space (set as the recipe has it), at the size of the train section."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import nn

from diffnas.core.genotype import Genotype
from diffnas.core.space import AnyShape
from diffnas.errors import RecipeError
from diffnas.recipe.recipe import Recipe
from diffnas.registry import space_of


def build(genotype: Genotype, recipe: Recipe, shape: AnyShape, seed: int | None = None) -> nn.Module:
    """The network of `genotype` for inputs of `shape`; `seed` fixes its fresh weights.

    Raises `RecipeError` where the train section asks for what cannot be built, `GenotypeError` for an illegal genotype.
    """
    require_reads(genotype, recipe)
    train = recipe.train
    assert train is not None
    chosen = recipe.space
    space = chosen if chosen is not None and chosen.name == genotype.space else space_of(genotype)
    settings = asdict(train)
    refused = space.check_network(shape, settings)
    if refused:
        raise RecipeError(*(f"recipe {recipe.name}: train.{key}: {reason}" for key, reason in refused))
    if seed is not None:
        torch.manual_seed(seed)
    return space.network(genotype, shape, **train.network_settings())


def require_reads(genotype: Genotype, recipe: Recipe) -> None:
    """Raises `RecipeError` where the recipe's data are not what the genotype's networks read."""
    space = space_of(genotype)
    if space.modality != recipe.modality:
        raise RecipeError(
            f"recipe {recipe.name}: data.name: {recipe.data.name} is {recipe.modality}, and a genotype of {space.name} reads"
            f" {space.modality}; train it by another recipe (diffnas list recipes)"
        )
