"""Which recipes serve a goal, told from what they hold."""

from __future__ import annotations

from functools import cache

from diffnas.recipe.modalities import modality_of
from diffnas.recipe.recipe import packaged_values, recipe_summary

GOALS = {
    "cifar10": "Each downloads CIFAR-10, or reads it with: -s data.path=FOLDER; docs/which-recipe.md says the cost.",
    "imagenet": "They read ImageNet where it is, folders, parquet or arrow files: -s data.path=FOLDER (docs/data.md).",
    "text": "Your own text: -s data.name=text -s data.path=FOLDER, with train.txt, valid.txt and test.txt.",
    "folder": "Your own images, a folder per class: add -s data.name=folder -s data.path=FOLDER -s data.side=32.",
    "nasbench201": "They search with CIFAR-10's images; diffnas lookup RUN tells the accuracy of the cell, untrained.",
}
"""What to know of the recipes for each goal."""
ORDER = ("Digits", "CIFAR-10:", "CIFAR-100:", "ImageNet", "NAS-Bench-201", "Text")


@cache
def _facts(name: str) -> tuple[str, str, tuple[str, ...]]:
    """(data, space, sections) of a packaged recipe."""
    values = packaged_values(name)
    data, space = (values.get(key) or {} for key in ("data", "space"))
    return str(data.get("name", "cifar10")), str(space.get("name", "")), recipe_summary(name)[2]


def is_for(name: str, goal: str) -> bool:
    """Whether the packaged recipe `name` serves `goal`."""
    data, space, sections = _facts(name)
    if goal in ("nasbench201", "text", "imagenet"):
        return _kind(name) == goal
    if goal == "folder":
        return _kind(name) not in ("nasbench201", "text") and "search" in sections
    return _kind(name) == "images" and data == goal


def _kind(name: str) -> str:
    """`nasbench201`, `text`, `imagenet`, or `images` for all others."""
    data, space, _ = _facts(name)
    if space == "nasbench201":
        return "nasbench201"
    if modality_of(data) == "text":
        return "text"
    return "imagenet" if data.startswith("imagenet") or "imagenet" in name.split("-") else "images"


def place_of(name: str) -> tuple[int, str]:
    """Where a recipe stands in the list: what most begin with comes first."""
    group = group_of(name)
    return next((k for k, first in enumerate(ORDER) if group.startswith(first)), len(ORDER)), group


def group_of(name: str) -> str:
    """The heading that a recipe is listed under."""
    data, _, sections = _facts(name)
    kind = _kind(name)
    if kind == "images":
        what = {"digits": "Digits, to try things"}.get(data, data.upper().replace("CIFAR", "CIFAR-"))
    else:
        what = {"nasbench201": "NAS-Bench-201", "text": "Text", "imagenet": "ImageNet"}[kind]
    return f"{what}: training of a given cell" if "search" not in sections else f"{what}: search"
