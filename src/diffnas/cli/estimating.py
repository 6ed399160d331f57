"""What `diffnas estimate`, and `--dry-run` of other commands, print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffnas.recipe.recipe import Recipe


def estimated(recipe: Recipe, genotype: Any = None, part: str | None = None, as_json: bool = False) -> list[str]:
    """Lines that say what `recipe` (its `part` alone, where that is given) will take."""
    from diffnas.api import estimate
    from diffnas.pipeline.estimate import described
    from diffnas.runtime.rows import plain_json

    found = estimate(recipe, genotype, part)
    return plain_json(found, indent=1).splitlines() if as_json else list(described(found))
