"""The sections of a recipe as typed, frozen records: every key, its type, its default and what it means.

What is searched on decides which sections a recipe has: `SECTIONS["images"]` or `SECTIONS["text"]`.  The defaults are those
of the DARTS paper's experiments on CIFAR-10 and Penn Treebank where it has one (Liu et al., 2019, appendix A).  Nothing here
imports torch.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

RATES = ("dropout", "dropouth", "dropoutx", "dropouti", "dropoute")
"""The dropouts of a language model, by the names of its authors."""


LARGEST_COUNT = 10**15
LARGEST_NUMBER = 1e36  # a multiple of it still fits into float32, whose largest is 3.4e38


def largest(value: Any) -> float | None:
    """The limit in size that `value` is above, or a number in a list of it; None where it is above none."""
    if isinstance(value, list | tuple):
        return next(filter(None, map(largest, value)), None)
    if not isinstance(value, int | float):
        return None
    limit = LARGEST_NUMBER if isinstance(value, float) else LARGEST_COUNT
    return limit if abs(value) > limit else None


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, types are strict, and numbers are finite.

    A field's `title` says what its value must be where type and limits do not say it all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _as_yaml_means_it(cls, value: Any, info: ValidationInfo) -> Any:
        """A list for a tuple, and 3.0 for a whole number: YAML knows no tuples, and 1e3 is a float to it."""
        limit = largest(value)
        if limit is not None:
            raise ValueError(f"above {limit:g}")
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = {annotation, *get_args(annotation)} - {NoneType}
        if isinstance(value, list) and any(get_origin(kind) is tuple for kind in kinds):
            return tuple(value)
        whole = isinstance(value, float) and int in kinds and float not in kinds and value.is_integer()
        return int(value) if whole else value


class Head(Section):
    """What stands above the sections."""

    name: str = Field(
        "unnamed",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        title="up to 100 letters, digits, dots, dashes and underscores",
        description="the recipe's name, used for folders",
    )
    about: str = Field("", description="what it does, in a sentence")
    source: str = Field("", description="paper, table and published figure")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of every random stream")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:(0|[1-9]\d?))?)$",
        title="auto, cpu, cuda or cuda:N",
        description="where to compute; auto takes a GPU where there is one",
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="precision of forward passes")


class Data(Section):
    """What is read, images or text."""

    name: str = Field("cifar10", description="data set: see `diffnas list data`")
    path: str | None = Field(
        None,
        pattern=r"^[^\x00]+$",
        title="a path or null",
        description="folder or file it is read from (null: embedded, or the library's hub)",
    )


class Images(Data):
    """Which images, and how they are augmented."""

    side: int | None = Field(
        None, ge=4, le=1024, description="side that images are resized to (null: the data set's own)"
    )
    split: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the training images that trains weights in a search (1: all, for single-level methods)",
    )
    first: Literal["weights", "architecture"] = Field(
        "weights",
        description="what the first images of the training set train in a search (OpenMMLab: the architecture)",
    )
    crop: int | None = Field(
        None, ge=0, description="padding in pixels before a random crop (null: the data set's own)"
    )
    flip: bool | None = Field(None, description="random horizontal flips (null: the data set's own)")
    mean: tuple[float, ...] | None = Field(
        None, description="mean of each channel, in 0 to 1 (null: the data set's own)"
    )
    std: tuple[float, ...] | None = Field(None, description="deviation of each channel (null: the data set's own)")
    train_limit: int | None = Field(None, ge=1, description="use only the first so many training images")
    test_limit: int | None = Field(
        None, ge=1, description="use only the first so many test images, and validation images"
    )


class Text(Data):
    """Which text."""

    name: str = Field("ptb", description="data set: see `diffnas list data`")
    train_limit: int | None = Field(None, ge=1, description="use only the first so many tokens of the training part")
    test_limit: int | None = Field(None, ge=1, description="use only the first so many tokens of the other two parts")


class Weights(Section):
    """How the supernet's weights are trained: SGD on a cosine."""

    lr: float = Field(0.025, gt=0, description="first learning rate")
    lr_min: float = Field(0.001, ge=0, description="where the cosine ends")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    nesterov: bool = Field(False, description="SGD with Nesterov's momentum (GDAS, ENAS)")
    decay: float = Field(3e-4, ge=0, description="weight decay")
    clip: float | None = Field(5.0, gt=0, description="largest gradient norm (null: not clipped)")
    warmup: int = Field(0, ge=0, description="first epochs whose learning rate grows linearly to the cosine's")
    warmup_lr: float = Field(0.0, ge=0, description="with rate_per step: the learning rate that a warm-up begins with")
    rate_per: Literal["epoch", "step"] = Field(
        "epoch",
        description="how often the learning rate moves; by steps, the cosine begins where the warm-up ends (DSNAS)",
    )
    cosine_epochs: int | None = Field(
        None, ge=1, description="epochs of the cosine (null: those of the search; DSNAS: 240, of which it searches 85)"
    )
    cosine_growth: int | None = Field(
        None,
        ge=1,
        description="after cosine_epochs a cosine begins anew, so many times as long (ENAS: 2; null: it goes up again)",
    )

    @property
    def ahead_clip(self) -> float | None:
        """The norm that gradients are clipped to when a method looks ahead: none, as published for images."""
        return None


class TextWeights(Section):
    """How a recurrent supernet's weights are trained: plain SGD, its constant rate scaled by the length of each window."""

    momentum: ClassVar[float] = 0.0
    nesterov: ClassVar[bool] = False
    warmup: ClassVar[int] = 0
    warmup_lr: ClassVar[float] = 0.0
    rate_per: ClassVar[Literal["epoch", "step"]] = "epoch"
    cosine_epochs: ClassVar[int | None] = None
    cosine_growth: ClassVar[int | None] = None

    lr: float = Field(20.0, gt=0, description="learning rate of a window of the usual length")
    decay: float = Field(5e-7, ge=0, description="weight decay")
    clip: float | None = Field(0.25, gt=0, description="largest gradient norm, also when looking ahead (null: any)")

    @property
    def lr_min(self) -> float:
        """Where the rate ends."""
        return self.lr

    @property
    def ahead_clip(self) -> float | None:
        """The norm that gradients are clipped to when a method looks ahead, as published for recurrent cells."""
        return self.clip


class Arch(Section):
    """How the architecture is trained, with coupled weight decay."""

    lr: float = Field(3e-4, gt=0, description="learning rate")
    decay: float = Field(1e-3, ge=0, description="weight decay (added to the gradient, as in the original)")
    optimizer: Literal["adam", "tf-adam", "sgd"] = Field(
        "adam", description="Adam; Adam with epsilon where TensorFlow has it (ENAS); or SGD without momentum"
    )
    betas: tuple[float, float] = Field((0.5, 0.999), description="Adam's two averaging rates")
    epsilon: float = Field(1e-8, gt=0, description="Adam's epsilon (ENAS: 1e-3)")
    clip: float | None = Field(None, gt=0, description="largest gradient norm (null: not clipped)")


class TextArch(Arch):
    """The same, as the paper searches recurrent cells."""

    lr: float = Field(3e-3, gt=0, description="learning rate")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's two averaging rates")


class Search(Section):
    """A search, whatever it reads."""

    epochs: int = Field(50, ge=1, le=9999, description="epochs; one is a pass over the data that trains weights")
    arch: Arch = Field(Arch(), description="the architecture optimizer")
    supernet: Literal["fast", "plain"] = Field(
        "fast",
        description="which supernet computes: the same results by fast routes, or edge by edge (differentiable twice)",
    )
    compile: Literal["off", "on"] = Field(
        "off",
        description="compile what torch.compile can of the supernet; eager, with a warning, where there is no compiler",
    )
    eigenvalue_every: int = Field(
        0, ge=0, description="epochs between records of the largest Hessian eigenvalue in the architecture (0: never)"
    )
    validate_every: int = Field(1, ge=0, description="epochs between evaluations on the architecture data (0: never)")
    checkpoint_every: float = Field(10.0, gt=0, description="minutes between checkpoints within an epoch")


class ImageSearch(Search):
    """The search: alternate steps on two halves of the training images."""

    batch: int = Field(64, ge=2, le=2**20, description="images per step, of each half")
    sampling: Literal["fresh", "cycle"] = Field(
        "fresh",
        description="architecture batches: drawn anew each step (as published), or permutations one after another",
    )
    weights: Weights = Field(Weights(), description="the weight optimizer")
    cutout: int = Field(0, ge=0, description="side of the square cut out of every training image (0: none)")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    early_stop: bool = Field(
        False, description="stop when skip connections take over the cell, with the genotype of the epoch before"
    )


class TextSearch(Search):
    """The search: alternate steps on the training text and the validation text."""

    early_stop: ClassVar[bool] = False  # there are no skip connections

    batch: int = Field(256, ge=2, le=2**16, description="columns that a text is read in, side by side")
    bptt: int = Field(35, ge=2, le=2**16, description="rows of a step; with a chance of 1 in 20 half as many")
    valid_batch: int = Field(10, ge=2, le=2**16, description="columns of the validation text when it is evaluated on")
    weights: TextWeights = Field(TextWeights(), description="the weight optimizer")
    arch: TextArch = Field(TextArch(), description="the architecture optimizer")
    activation_penalty: float = Field(0.0, ge=0, description="factor of the mean square of the output (AR)")
    temporal_penalty: float = Field(
        1e-3, ge=0, description="factor of the mean square of the change of hidden states (TAR)"
    )


class Train(Section):
    """Training a genotype's network from scratch, whatever it reads."""

    checkpoint_every: float = Field(10.0, gt=0, description="minutes between checkpoints within an epoch")


class ImageTrain(Train):
    """Training a genotype's network from scratch: SGD on a cosine."""

    epochs: int = Field(600, ge=1, le=9999, description="epochs")
    batch: int = Field(96, ge=2, le=2**20, description="images per step")
    channels: int = Field(36, ge=2, le=4096, description="initial channels (C)")
    layers: int = Field(20, ge=1, le=1000, description="cells (L)")
    stem: Literal["cifar", "imagenet"] = Field(
        "cifar", description="first layers: one convolution, or three that halve"
    )
    lr: float = Field(0.025, gt=0, description="first learning rate")
    lr_min: float = Field(0.0, ge=0, description="where the cosine ends")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    decay: float = Field(3e-4, ge=0, description="weight decay")
    clip: float | None = Field(5.0, gt=0, description="largest gradient norm (null: not clipped)")
    auxiliary: bool = Field(True, description="train with an auxiliary head (needs 8x8 features)")
    auxiliary_weight: float = Field(0.4, ge=0, description="weight of the auxiliary head's loss")
    drop_path: float = Field(0.2, ge=0, lt=1, description="drop-path probability at the end; it grows linearly from 0")
    cutout: int = Field(16, ge=0, description="side of the square cut out of every training image (0: none)")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    pool_norm: Literal["none", "plain", "affine"] = Field(
        "none", description="normalisation after pooling: none (DARTS), plain (DrNAS), affine (MMRazor)"
    )
    test_every: int = Field(
        1,
        ge=0,
        description="epochs between evaluations on the validation images, or the test where there are none (0: only at the"
        " end)",
    )


class TextTrain(Train):
    """Training a genotype's language model from scratch: SGD, and its average once validation no longer improves."""

    epochs: int = Field(1600, ge=1, le=99999, description="epochs")
    batch: int = Field(64, ge=1, le=2**16, description="columns that the text is read in, side by side")
    bptt: int = Field(35, ge=1, le=2**16, description="rows of a step on average; lengths are drawn around it")
    units: int = Field(850, ge=1, le=16384, description="width of embedding and hidden state")
    lr: float = Field(20.0, gt=0, description="learning rate of a window of the usual length")
    decay: float = Field(8e-7, ge=0, description="weight decay")
    clip: float | None = Field(0.25, gt=0, description="largest gradient norm (null: not clipped)")
    dropout: float = Field(0.75, ge=0, lt=1, description="share of the output that is dropped")
    dropouth: float = Field(0.25, ge=0, lt=1, description="share dropped of what every node reads")
    dropoutx: float = Field(0.75, ge=0, lt=1, description="share dropped of the cell's input")
    dropouti: float = Field(0.2, ge=0, lt=1, description="share dropped of the embedded words")
    dropoute: float = Field(0.1, ge=0, lt=1, description="share of words dropped from the embedding")
    activation_penalty: float = Field(0.0, ge=0, description="factor of the mean square of the output (AR)")
    temporal_penalty: float = Field(
        1e-3, ge=0, description="factor of the mean square of the change of hidden states (TAR)"
    )
    patience: int | None = Field(
        5,
        ge=1,
        description="SGD gives way to its average when validation is worse than the best of more than so many epochs ago"
        " (null: never)",
    )
    valid_batch: int = Field(10, ge=1, le=2**16, description="columns of the validation text")
    test_batch: int = Field(1, ge=1, le=2**16, description="columns of the test text")


class Log(Section):
    """What is said on the way."""

    every: float = Field(30.0, gt=0, description="seconds between progress lines where there is no terminal")


SECTIONS: dict[str, dict[str, type[Section]]] = {
    "images": {"data": Images, "search": ImageSearch, "train": ImageTrain, "log": Log},
    "text": {"data": Text, "search": TextSearch, "train": TextTrain, "log": Log},
}
"""The sections that do not depend on the space or the method, by what the data are."""
