"""The task of a recipe."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from diffnas.recipe.modalities import modalities
from diffnas.recipe.recipe import Recipe
from diffnas.registry import make
from diffnas.tasks.base import Task


def task_of(recipe: Recipe, section: Any) -> Task:
    """Returns the task of `recipe`, that of its data where it names none, with what `section` (search or train) says of it."""
    usual = modalities()[recipe.modality].task(recipe.data)
    task: Task = recipe.task if recipe.task is not None else make("task", usual, {})
    said = {field: getattr(section, key) for field, key in task.of_section.items() if hasattr(section, key)}
    return replace(task, **said) if said else task


def without_smoothing(task: Task) -> Task:
    """Returns the task as it is evaluated: labels are smoothed in training alone."""
    smoothed = any(field.name == "smoothing" for field in fields(task))
    return replace(task, smoothing=0.0) if smoothed else task  # type: ignore[call-arg]
