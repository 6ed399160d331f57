"""The sections of a recipe as typed, frozen records: every key, its type, its default and what it means.

What is searched on decides which sections a recipe has: see `diffnas.recipe.modalities`.  The defaults are those of the
DARTS paper's experiments on CIFAR-10 and Penn Treebank where it has one (Liu et al., 2019, appendix A).  Nothing here imports
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from diffnas.core.settings import setting
from diffnas.data import DATA, Augmentation

__all__ = [
    "Arch",
    "Data",
    "Head",
    "ImageSearch",
    "ImageTrain",
    "Images",
    "Log",
    "SampleSearch",
    "SampleTrain",
    "Samples",
    "Search",
    "Tensors",
    "Text",
    "TextArch",
    "TextSearch",
    "TextTrain",
    "TextWeights",
    "Train",
    "Weights",
]

RATES = ("dropout", "dropouth", "dropoutx", "dropouti", "dropoute")
"""The dropouts of a language model, by the names of its authors."""


ACCUMULATE = "pieces that a batch is computed in, one after another: less memory, the same gradients but for statistics"


@dataclass(frozen=True)
class Head:
    """The keys above the sections."""

    name: str = setting(
        "unnamed",
        "the recipe's name, used for folders",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        must="up to 100 letters, digits, dots, dashes and underscores",
    )
    about: str = setting("", "what it does, in a sentence")
    source: str = setting("", "paper, table and published figure")
    seed: int = setting(0, "seed of every random stream", ge=0, le=2**32 - 1)
    device: str = setting(
        "auto",
        "where to compute; auto takes a GPU where there is one",
        pattern=r"^(auto|cpu|cuda(:(0|[1-9]\d?))?)$",
        must="auto, cpu, cuda or cuda:N",
    )
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", "precision of forward passes; in float16 losses are scaled, so that small gradients are not lost"
    )
    deterministic: bool = setting(
        False, "use only algorithms of torch that give equal bits on one device each time; slower on a GPU"
    )
    statistics: Literal["process", "all"] = setting(
        "process",
        "on several processes: what batch normalisation takes its statistics from, a process's samples or all",
    )


@dataclass(frozen=True)
class Data:
    """The data."""

    name: str = setting("cifar10", "data set: see `diffnas list data`")
    path: str | None = setting(
        None,
        "folder or file it is read from (null: embedded, or the library's hub)",
        pattern=r"^[^\x00]+$",
        must="a path or null",
    )


@dataclass(frozen=True)
class Samples(Data):
    """Samples that do not depend on one another, of which some train weights and the others the architecture."""

    split: float = setting(
        0.5,
        "share of the training samples that trains weights in a search (1: all, for single-level methods)",
        gt=0,
        le=1,
    )
    first: Literal["weights", "architecture"] = setting(
        "weights", "what the first samples of the training set train in a search (OpenMMLab: the architecture)"
    )
    train_limit: int | None = setting(None, "use only the first so many training samples", ge=1)
    test_limit: int | None = setting(None, "use only the first so many test samples, and validation samples", ge=1)


@dataclass(frozen=True)
class Images(Samples):
    """The images and their augmentation."""

    side: int | None = setting(None, "side that images are resized to (null: the data set's own)", ge=4, le=1024)
    stream: bool | None = setting(
        None, "decode images while they are needed, not all into memory at the start (null: imagenet yes, others no)"
    )
    workers: int | None = setting(
        None,
        "processes that decode streamed images, with the same batches for any number (null: one a CPU, up to 16)",
        ge=0,
        le=256,
    )
    broken_limit: int = setting(
        10, "so many streamed images that cannot be read are skipped, each with a warning; more are refused", ge=0
    )
    weights_list: str | None = setting(
        None,
        "file that lists the images that train weights in a search, from `diffnas data subset` (null: by split)",
        pattern=r"^[^\x00]+$",
        must="a path or null",
    )
    arch_list: str | None = setting(
        None,
        "file that lists the images that train the architecture in a search (null: by split)",
        pattern=r"^[^\x00]+$",
        must="a path or null",
    )
    augment: Augmentation | None = setting(
        None, "training crops: of the padded image, or of a random share of a streamed image (null: the data set's own)"
    )
    crop_area: tuple[float, float] = setting(
        (0.08, 1.0), "least and largest share of an image that a random-resized-crop takes"
    )
    resize: int | None = setting(
        None,
        "shorter side that streamed test images are resized to, before the centre is cut out"
        " (null: the side; with random-resized-crop 256 for a side of 224)",
        ge=4,
        le=2048,
    )
    crop: int | None = setting(None, "padding in pixels before a random crop (null: the data set's own)", ge=0)
    flip: bool | None = setting(None, "random horizontal flips (null: the data set's own)")
    mean: tuple[float, ...] | None = setting(None, "mean of each channel, in 0 to 1 (null: the data set's own)")
    std: tuple[float, ...] | None = setting(None, "deviation of each channel (null: the data set's own)")

    @property
    def streamed(self) -> bool:
        """Whether images are decoded while they are needed."""
        always = DATA[self.name].streamed
        return bool(self.stream) if always is None else always


@dataclass(frozen=True)
class Tensors(Samples):
    """The tensors of a registered data set."""

    name: str = setting("", "data set: one that a plug-in registers")


@dataclass(frozen=True)
class Text(Data):
    """The text."""

    name: str = setting("ptb", "data set: see `diffnas list data`")
    train_limit: int | None = setting(None, "use only the first so many tokens of the training part", ge=1)
    test_limit: int | None = setting(None, "use only the first so many tokens of the other two parts", ge=1)


@dataclass(frozen=True)
class Weights:
    """Training of the supernet's weights: SGD on a cosine."""

    lr: float = setting(0.025, "first learning rate", gt=0)
    lr_min: float = setting(0.001, "where the cosine ends", ge=0)
    momentum: float = setting(0.9, "SGD momentum", ge=0, lt=1)
    nesterov: bool = setting(False, "SGD with Nesterov's momentum (GDAS, ENAS)")
    decay: float = setting(3e-4, "weight decay", ge=0)
    clip: float | None = setting(5.0, "largest gradient norm (null: not clipped)", gt=0)
    warmup: int = setting(0, "first epochs whose learning rate grows linearly to the cosine's", ge=0)
    warmup_lr: float = setting(0.0, "with rate_per step: the learning rate that a warm-up begins with", ge=0)
    warmup_to: Literal["schedule", "first"] = setting(
        "schedule", "what a warm-up by epochs grows to: the cosine's learning rate then, or lr (PC-DARTS on ImageNet)"
    )
    rate_per: Literal["epoch", "step"] = setting(
        "epoch", "how often the learning rate moves; by steps, the cosine begins where the warm-up ends (DSNAS)"
    )
    cosine_epochs: int | None = setting(
        None, "epochs of the cosine (null: those of the search; DSNAS: 240, of which it searches 85)", ge=1
    )
    cosine_growth: int | None = setting(
        None, "after cosine_epochs a cosine begins anew, so many times as long (ENAS: 2; null: it goes up again)", ge=1
    )


@dataclass(frozen=True)
class TextWeights:
    """Training of a recurrent supernet's weights: plain SGD, its constant rate scaled by the length of each window."""

    lr: float = setting(20.0, "learning rate of a window of the usual length", gt=0)
    decay: float = setting(5e-7, "weight decay", ge=0)
    clip: float | None = setting(0.25, "largest gradient norm, also when looking ahead (null: any)", gt=0)


@dataclass(frozen=True)
class Arch:
    """Training of the architecture, with coupled weight decay."""

    lr: float = setting(3e-4, "learning rate", gt=0)
    decay: float = setting(1e-3, "weight decay (added to the gradient, as in the original)", ge=0)
    optimizer: Literal["adam", "tf-adam", "sgd"] = setting(
        "adam", "Adam; Adam with epsilon where TensorFlow has it (ENAS); or SGD without momentum"
    )
    betas: tuple[float, float] = setting((0.5, 0.999), "Adam's two averaging rates")
    epsilon: float = setting(1e-8, "Adam's epsilon (ENAS: 1e-3)", gt=0)
    clip: float | None = setting(None, "largest gradient norm (null: not clipped)", gt=0)


@dataclass(frozen=True)
class TextArch(Arch):
    """Training of the architecture as the paper searches recurrent cells."""

    lr: float = setting(3e-3, "learning rate", gt=0)
    betas: tuple[float, float] = setting((0.9, 0.999), "Adam's two averaging rates")


@dataclass(frozen=True)
class Search:
    """A search, whatever it reads."""

    epochs: int = setting(50, "epochs; one is a pass over the data that trains weights", ge=1, le=9999)
    arch: Arch = setting(Arch(), "the architecture optimizer")
    supernet: Literal["fast", "plain"] = setting(
        "fast", "which supernet computes: the same results by fast routes, or edge by edge (differentiable twice)"
    )
    compile: Literal["off", "on"] = setting(
        "off", "compile what torch.compile can of the supernet; eager, with a warning, where there is no compiler"
    )
    graph: Literal["auto", "on", "off"] = setting(
        "auto", "repeat steps as CUDA graphs where the method allows it; auto: on a GPU (never tried on one)"
    )
    draws: Literal["host", "device"] = setting(
        "host",
        "what draws architectures in steps: the host, the same numbers on every device, or the device, whose draws graphs"
        " can repeat (drnas, snas, smooth-darts)",
    )
    eigenvalue_every: int = setting(
        0, "epochs between records of the largest Hessian eigenvalue in the architecture (0: never)", ge=0
    )
    validate_every: int = setting(1, "epochs between evaluations on the architecture data (0: never)", ge=0)
    checkpoint_every: float = setting(10.0, "minutes between checkpoints within an epoch", gt=0)
    accumulate: int = setting(1, ACCUMULATE, ge=1, le=4096)
    recompute: bool = setting(
        False, "with supernet plain: cells are computed again on the way back, with the same numbers: less memory"
    )


@dataclass(frozen=True)
class SampleSearch(Search):
    """The search: alternate steps on two halves of the training samples."""

    batch: int = setting(64, "samples per step, of each half", ge=2, le=2**20)
    sampling: Literal["fresh", "cycle"] = setting(
        "fresh", "architecture batches: drawn anew each step (as published), or permutations one after another"
    )
    weights: Weights = setting(Weights(), "the weight optimizer")


@dataclass(frozen=True)
class ImageSearch(SampleSearch):
    """The search on images."""

    cutout: int = setting(0, "side of the square cut out of every training image (0: none)", ge=0)
    jitter: tuple[float, float, float, float] | None = setting(
        None, "random changes of brightness, contrast, saturation and hue, at most so much (null: none)"
    )
    smoothing: float = setting(0.0, "label smoothing", ge=0, lt=1)
    early_stop: bool = setting(
        False, "stop when skip connections take over the cell, with the genotype of the epoch before"
    )


@dataclass(frozen=True)
class TextSearch(Search):
    """The search: alternate steps on the training text and the validation text."""

    batch: int = setting(256, "columns that a text is read in, side by side", ge=2, le=2**16)
    bptt: int = setting(35, "rows of a step; with a chance of 1 in 20 half as many", ge=2, le=2**16)
    valid_batch: int = setting(10, "columns of the validation text when it is evaluated on", ge=2, le=2**16)
    weights: TextWeights = setting(TextWeights(), "the weight optimizer")
    arch: TextArch = setting(TextArch(), "the architecture optimizer")
    activation_penalty: float = setting(0.0, "factor of the mean square of the output (AR)", ge=0)
    temporal_penalty: float = setting(1e-3, "factor of the mean square of the change of hidden states (TAR)", ge=0)


@dataclass(frozen=True)
class Train:
    """Training a genotype's network from scratch, whatever it reads."""

    checkpoint_every: float = setting(10.0, "minutes between checkpoints within an epoch", gt=0)
    accumulate: int = setting(1, ACCUMULATE, ge=1, le=4096)
    graph: Literal["auto", "on", "off"] = setting(
        "auto", "repeat steps as CUDA graphs; auto: on a GPU (never tried on one)"
    )

    sizes: ClassVar[tuple[str, ...]] = ()
    """The keys that a space's `network` is given."""

    def network_settings(self) -> dict[str, Any]:
        """Returns what the space's `network` is given besides genotype and shape."""
        return {key: getattr(self, key) for key in self.sizes}


@dataclass(frozen=True)
class SampleTrain(Train):
    """Training a genotype's network from scratch: SGD whose learning rate falls."""

    epochs: int = setting(600, "epochs", ge=1, le=9999)
    batch: int = setting(96, "samples per step", ge=2, le=2**20)
    channels: int = setting(36, "initial channels (C)", ge=2, le=4096)
    layers: int = setting(20, "cells (L)", ge=1, le=1000)
    lr: float = setting(0.025, "first learning rate", gt=0)
    lr_min: float = setting(0.0, "where the cosine ends", ge=0)
    schedule: Literal["cosine", "linear", "exponential"] = setting(
        "cosine", "how the learning rate falls: linear is flatter in the last 5 epochs (P-DARTS, PC-DARTS, DrNAS)"
    )
    lr_factor: float = setting(
        0.97, "with schedule exponential: an epoch's learning rate, in parts of the one before (DARTS)", gt=0, lt=1
    )
    warmup: int = setting(0, "first epochs whose learning rate grows linearly", ge=0)
    warmup_to: Literal["schedule", "first"] = setting(
        "schedule", "what a warm-up grows to: the schedule's learning rate then (P-DARTS), or lr (PC-DARTS, DrNAS)"
    )
    momentum: float = setting(0.9, "SGD momentum", ge=0, lt=1)
    decay: float = setting(3e-4, "weight decay", ge=0)
    clip: float | None = setting(5.0, "largest gradient norm (null: not clipped)", gt=0)
    compile: Literal["off", "on"] = setting(
        "off", "compile the network by torch.compile, for whole batches; eager, with a warning, where it cannot be"
    )
    test_every: int = setting(
        1,
        "epochs between evaluations on the validation samples, or the test where there are none (0: only at the end)",
        ge=0,
    )

    sizes: ClassVar[tuple[str, ...]] = ("channels", "layers")


@dataclass(frozen=True)
class ImageTrain(SampleTrain):
    """Training a genotype's image network from scratch."""

    stem: Literal["cifar", "imagenet"] = setting("cifar", "first layers: one convolution, or three that halve")
    auxiliary: bool = setting(True, "train with an auxiliary head (needs 8x8 features; of ImageNet 7x7)")
    auxiliary_weight: float = setting(0.4, "weight of the auxiliary head's loss", ge=0)
    auxiliary_norm: bool | None = setting(
        None,
        "normalise after the head's second convolution (null: as published, on CIFAR only; P-DARTS: on ImageNet too)",
    )
    drop_path: float = setting(0.2, "drop-path probability at the end; it grows linearly from 0", ge=0, lt=1)
    cutout: int = setting(16, "side of the square cut out of every training image (0: none)", ge=0)
    jitter: tuple[float, float, float, float] | None = setting(
        None, "random changes of brightness, contrast, saturation and hue, at most so much (null: none)"
    )
    smoothing: float = setting(0.0, "label smoothing", ge=0, lt=1)
    pool_norm: Literal["none", "plain", "affine"] = setting(
        "none", "normalisation after pooling: none (DARTS), plain (DrNAS), affine (MMRazor)"
    )

    sizes: ClassVar[tuple[str, ...]] = ("channels", "layers", "stem", "auxiliary", "pool_norm")

    def network_settings(self) -> dict[str, Any]:
        """Returns the sizes, and whether paths are dropped."""
        norm = {} if self.auxiliary_norm is None else {"auxiliary_norm": self.auxiliary_norm}
        return super().network_settings() | {"drops": self.drop_path > 0, **norm}


@dataclass(frozen=True)
class TextTrain(Train):
    """Training a genotype's language model from scratch: SGD, and its average once validation no longer improves."""

    epochs: int = setting(1600, "epochs", ge=1, le=99999)
    batch: int = setting(64, "columns that the text is read in, side by side", ge=1, le=2**16)
    bptt: int = setting(35, "rows of a step on average; lengths are drawn around it", ge=1, le=2**16)
    units: int = setting(850, "width of embedding and hidden state", ge=1, le=16384)
    lr: float = setting(20.0, "learning rate of a window of the usual length", gt=0)
    decay: float = setting(8e-7, "weight decay", ge=0)
    clip: float | None = setting(0.25, "largest gradient norm (null: not clipped)", gt=0)
    dropout: float = setting(0.75, "share of the output that is dropped", ge=0, lt=1)
    dropouth: float = setting(0.25, "share dropped of what every node reads", ge=0, lt=1)
    dropoutx: float = setting(0.75, "share dropped of the cell's input", ge=0, lt=1)
    dropouti: float = setting(0.2, "share dropped of the embedded words", ge=0, lt=1)
    dropoute: float = setting(0.1, "share of words dropped from the embedding", ge=0, lt=1)
    activation_penalty: float = setting(0.0, "factor of the mean square of the output (AR)", ge=0)
    temporal_penalty: float = setting(1e-3, "factor of the mean square of the change of hidden states (TAR)", ge=0)
    patience: int | None = setting(
        5,
        "SGD gives way to its average when validation is worse than the best of more than so many epochs ago"
        " (null: never)",
        ge=1,
    )
    valid_batch: int = setting(10, "columns of the validation text", ge=1, le=2**16)
    test_batch: int = setting(1, "columns of the test text", ge=1, le=2**16)

    sizes: ClassVar[tuple[str, ...]] = ("units", *RATES)


@dataclass(frozen=True)
class Log:
    """The log."""

    every: float = setting(30.0, "seconds between progress lines where there is no terminal", gt=0)
