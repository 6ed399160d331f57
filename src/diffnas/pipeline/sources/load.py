"""Reads the data of a recipe, whatever they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffnas.core.space import AnyShape
from diffnas.data import DATA
from diffnas.data.images import read_names
from diffnas.data.inputs import ImageInputs, Inputs, TensorInputs, TextInputs
from diffnas.data.texts import TEXTS
from diffnas.pipeline.sources.base import Reading, Source, TestSet
from diffnas.pipeline.sources.images import ImageSource, ImageTest
from diffnas.pipeline.sources.tensors import TensorSource, TensorTest
from diffnas.pipeline.sources.texts import TextSource, TextTest
from diffnas.recipe.recipe import Recipe
from diffnas.registry import MODALITIES


class ImageReading:
    """How images are read."""

    inputs = ImageInputs

    def source(self, recipe: Recipe, stored: Any) -> Source:
        """Reads the images."""
        return ImageSource(recipe, stored)

    def test_set(self, recipe: Recipe, inputs: Any, elsewhere: bool) -> TestSet:
        """Reads the test images; all images of a folder of classes alone that is `elsewhere`."""
        return ImageTest(recipe, inputs, elsewhere)

    def shape(self, recipe: Recipe) -> AnyShape:
        """Returns the shape; classes that the files decide are counted."""
        if DATA[recipe.data.name].classes is not None:
            return recipe.shape
        return replace(recipe.shape, classes=len(read_names(recipe.data.name, recipe.data.path)))


class TextReading:
    """How text is read."""

    inputs = TextInputs

    def source(self, recipe: Recipe, stored: Any) -> Source:
        """Reads the text."""
        return TextSource(recipe, stored)

    def test_set(self, recipe: Recipe, inputs: Any, elsewhere: bool) -> TestSet:
        """Reads the test text."""
        return TextTest(recipe, inputs)

    def shape(self, recipe: Recipe) -> AnyShape:
        """Returns the shape; words that the files decide are counted."""
        return recipe.shape if TEXTS[recipe.data.name].words is not None else TextSource(recipe).shape


class TensorReading:
    """How tensors are read."""

    inputs = TensorInputs

    def source(self, recipe: Recipe, stored: Any) -> Source:
        """Reads the tensors."""
        return TensorSource(recipe)

    def test_set(self, recipe: Recipe, inputs: Any, elsewhere: bool) -> TestSet:
        """Reads the test tensors."""
        return TensorTest(recipe, inputs)

    def shape(self, recipe: Recipe) -> AnyShape:
        """Returns the shape that the data set has."""
        return recipe.shape


READINGS: dict[str, Reading] = {"images": ImageReading(), "text": TextReading(), "tensors": TensorReading()}


def readings() -> dict[str, Reading]:
    """Returns how each modality is read, by name."""
    return READINGS | {name: modality.reading for name, modality in MODALITIES.items()}


def input_kinds() -> dict[str, type]:
    """Returns the class of the inputs of each modality, by name."""
    return {name: reading.inputs for name, reading in readings().items()}


def load_source(recipe: Recipe, stored: Inputs | None = None) -> Source:
    """Reads the data that `recipe` names, with the statistics of `stored` in place of their own where there are some.

    Raises `DataError` where they are missing, damaged or do not fit.
    """
    return readings()[recipe.modality].source(recipe, stored)


def load_test_set(recipe: Recipe, inputs: Inputs, elsewhere: bool = False) -> TestSet:
    """Reads the test data that `recipe` names as `inputs` says, and no others; raises `DataError` as `load_source`.

    Where they are `elsewhere` than the training data, a folder of classes alone is a test as a whole.
    """
    return readings()[inputs.modality].test_set(recipe, inputs, elsewhere)


def read_shape(recipe: Recipe) -> AnyShape:
    """Returns the shape of networks for the data of `recipe`; open numbers of classes or words are counted in the files."""
    return readings()[recipe.modality].shape(recipe)
