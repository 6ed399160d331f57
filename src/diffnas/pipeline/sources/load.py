"""Reads the data of a recipe, whatever they are."""

from __future__ import annotations

from dataclasses import replace

from diffnas.core.space import Shape, TextShape
from diffnas.data import DATA
from diffnas.data.images import read_names
from diffnas.data.inputs import ImageInputs, Inputs, TextInputs
from diffnas.data.texts import TEXTS
from diffnas.pipeline.sources.base import Source, TestSet
from diffnas.pipeline.sources.images import ImageSource, ImageTest
from diffnas.pipeline.sources.texts import TextSource, TextTest
from diffnas.recipe.recipe import Recipe
from diffnas.recipe.schema import Text


def load_source(recipe: Recipe, stored: Inputs | None = None) -> Source:
    """Reads the data that `recipe` names, with the statistics of `stored` in place of their own where there are some.

    Raises `DataError` where they are missing, damaged or do not fit.
    """
    if isinstance(recipe.data, Text):
        assert stored is None or isinstance(stored, TextInputs)
        return TextSource(recipe, stored)
    assert stored is None or isinstance(stored, ImageInputs)
    return ImageSource(recipe, stored)


def load_test_set(recipe: Recipe, inputs: Inputs, elsewhere: bool = False) -> TestSet:
    """Reads the test data that `recipe` names as `inputs` says, and no others; raises `DataError` as `load_source`.

    Where they are `elsewhere` than the training data, a folder of classes alone is a test as a whole.
    """
    if isinstance(inputs, TextInputs):
        return TextTest(recipe, inputs)
    return ImageTest(recipe, inputs, elsewhere)


def read_shape(recipe: Recipe) -> Shape | TextShape:
    """Returns the shape of networks for the data of `recipe`; open numbers of classes or words are counted in the files."""
    shape = recipe.shape
    if isinstance(shape, TextShape):
        return shape if TEXTS[recipe.data.name].words is not None else load_source(recipe).shape
    if DATA[recipe.data.name].classes is not None:
        return shape
    return replace(shape, classes=len(read_names(recipe.data.name, recipe.data.path)))
