"""How data become a network's inputs, and the meaning of its outputs: a part of every trained model.

It is fixed when a training or a search begins, and kept in weights and checkpoints, so that nothing that `data.path` holds
later can change what a network reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Protocol

from diffnas.core.space import AnyShape, Shape, TensorShape, TextShape
from diffnas.data.decode import Scale


@dataclass(frozen=True)
class ImageInputs:
    """Pixels scaled to [0, 1] of `side` x `side`, less `mean` and over `std` per channel; `classes` in the order of the logits.

    `data` is the name of the data set; `integers` and `floats` are the values that are black and white in files of more than
    8 bits, where there were such.  `resize` is what the shorter side becomes before the centre is cut out, if that is not
    `side`.  Raises `ValueError` where `mean` and `std` do not fit each other.
    """

    modality: ClassVar[str] = "images"

    data: str
    classes: tuple[str, ...]
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    integers: tuple[float, float] | None = None
    floats: tuple[float, float] | None = None
    resize: int | None = None

    def __post_init__(self) -> None:
        _require_kinds(self.classes, str)
        numbers = (*self.mean, *self.std)
        _require_kinds((*numbers, self.side), int, float)
        if not self.mean or len(self.mean) != len(self.std) or not all(map(math.isfinite, numbers)):
            raise ValueError("mean and std must hold one finite number a channel")
        if min(self.std) <= 0 or self.side < 1:
            raise ValueError("std and side must be above 0")
        if self.resize is not None and not (isinstance(self.resize, int) and self.side <= self.resize < 2**16):
            raise ValueError("resize must be a whole number of at least the side")
        for low, high in filter(None, (self.integers, self.floats)):
            if not -math.inf < low < high < math.inf:
                raise ValueError("white must be above black")

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    @property
    def scale(self) -> Scale:
        """The scale by which files of more than 8 bits are read."""
        return Scale(self.integers, self.floats)

    @property
    def shape(self) -> Shape:
        """The shape of the network's inputs and outputs."""
        return Shape(len(self.classes), len(self.mean), self.side)


@dataclass(frozen=True)
class TextInputs:
    """The `words` in the order of their numbers, and how often each occurs in the training text (`counts`).

    `data` is the name of the text.  Raises `ValueError` where words and counts are not as many.
    """

    modality: ClassVar[str] = "text"

    data: str
    words: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        _require_kinds(self.words, str)
        _require_kinds(self.counts, int)
        if not self.words or len(self.words) != len(self.counts):
            raise ValueError("words and counts must be as many")

    @property
    def names(self) -> tuple[str, ...]:
        """The words."""
        return self.words

    @property
    def shape(self) -> TextShape:
        """The shape of the network's inputs and outputs."""
        return TextShape(len(self.words))


@dataclass(frozen=True)
class TensorInputs:
    """Tensors [N, *sizes] as a registered data set has them, for `outputs` numbers each, of which `classes` are the names."""

    modality: ClassVar[str] = "tensors"

    data: str
    sizes: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_kinds((*self.sizes, self.outputs), int)
        _require_kinds(self.classes, str)
        if not self.sizes or min((*self.sizes, self.outputs)) < 1:
            raise ValueError("sizes and outputs must be at least 1")

    @property
    def names(self) -> tuple[str, ...]:
        """The classes; none where the outputs are something else."""
        return self.classes

    @property
    def shape(self) -> TensorShape:
        """The shape of the network's inputs and outputs."""
        return TensorShape(self.sizes, self.outputs)


class Inputs(Protocol):
    """How data become a network's inputs: a frozen dataclass of texts, numbers and tuples of them."""

    modality: ClassVar[str]

    @property
    def data(self) -> str:
        """The name of the data set."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the outputs, in order: classes or words."""

    @property
    def shape(self) -> AnyShape:
        """The shape of the network's inputs and outputs."""


def _require_kinds(values: Sequence[Any], *kinds: type) -> None:
    """Raises `ValueError` where one of `values`, which may come from a file, is of no such kind."""
    strange = set(map(type, values)) - set(kinds)
    if strange:
        raise ValueError(f"{strange.pop().__name__} stands where {kinds[0].__name__} is wanted")


def inputs_to_plain(inputs: Any) -> dict[str, Any]:
    """The fields of `inputs` as lists, texts and numbers, and its modality, for JSON and checkpoints."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(inputs).items()}
    return {"modality": inputs.modality, **plain}


KINDS: dict[str, Any] = {kind.modality: kind for kind in (ImageInputs, TextInputs, TensorInputs)}


def inputs_from_plain(values: Mapping[str, Any], kinds: Mapping[str, Any] = KINDS) -> Any:
    """The inputs among `values`, which may hold other keys; `kinds` are their classes by modality.

    Raises `KeyError`, `TypeError` or `ValueError` for damaged ones.
    """
    before = "text" if "words" in values else "images"  # the modality was not written at first
    kind = kinds[values.get("modality", before)]
    plain = {one.name: values[one.name] for one in fields(kind) if one.default is MISSING or one.name in values}
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()})


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of `names`, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
