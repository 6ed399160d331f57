"""Trained networks as things to use: a module in evaluation mode that knows its classes or words and how inputs are made."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.core.batch import LanguageModelOutput
from diffnas.core.genotype import Genotype
from diffnas.data.augment import Augment
from diffnas.data.inputs import ImageInputs, Inputs, TextInputs
from diffnas.data.pixels import IMAGE_ERRORS
from diffnas.data.tokens import encode_lines, numbers_of, split_words
from diffnas.data.views import View, centre_view, content_of
from diffnas.errors import DataError
from diffnas.pipeline.weights import read_weights, trained_recipe
from diffnas.runtime.device import pick_device, place
from diffnas.runtime.run_folder import Run, open_run

BATCH = 128  # images at a time: enough to fill a device, few enough for any memory
WINDOW = 256  # tokens at a time
WORKERS = 8  # threads that decode images, which Pillow does outside of the interpreter's lock
IN_PNG = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}  # modes of Pillow that PNG holds, transparency included

Picture = str | Path | Image.Image | np.ndarray
"""An image: its file, as Pillow has it, or uint8 [H, W] or [H, W, 3]."""


class TrainedClassifier(nn.Module):
    """The network of a training on images, `network`, with its `genotype` and its `inputs` (classes, side, mean and std).

    network = diffnas.load_network("runs/mine")
    network.classes                               # ("cat", "dog")
    network.probabilities(["a.png", "b.png"])     # [2, classes]
    logits = network(network.preprocess("a.png")) # [1, classes]; a module like any other
    """

    def __init__(self, network: nn.Module, genotype: Genotype, inputs: ImageInputs) -> None:
        super().__init__()
        self.network, self.genotype, self.inputs = network, genotype, inputs
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.inputs.classes

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, side, side], as `preprocess` gives them -> logits [N, classes]."""
        logits: Tensor = self.network(images)
        return logits

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Turns one image or several into [N, C, side, side] float32 on the device of the weights, as in the training.

        The shorter side is resized, to `inputs.resize` or else to `side`, and the centre kept.
        Raises `DataError` naming an image that cannot be read.
        """
        several = _several(images)
        with ThreadPoolExecutor(WORKERS) as pool:
            pixels = list(pool.map(self.read, several))
        return self.normalise(pixels)

    def read(self, image: Picture) -> np.ndarray:
        """The pixels of one image, uint8 [C, side, side]; raises `DataError` where it cannot be read."""
        try:
            file = _as_file(image)  # an image that is no file becomes one in memory
        except IMAGE_ERRORS as error:
            raise DataError(f"{_named(image)}: {_unreadable(image, error)}") from None
        # the one reading that folders have in a training
        content = file.getvalue() if isinstance(file, io.BytesIO) else content_of(str(file))
        view = View(self.inputs.side, self.inputs.resize, scale=self.inputs.scale)
        rgb = centre_view(content, _named(image), view).transpose(2, 0, 1)
        if len(self.inputs.mean) == 3:
            return rgb
        return np.asarray(Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))).convert("L"))[None]

    def normalise(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """Pixels of N images, as `read` gives them -> [N, C, side, side] float32 on the device of the weights."""
        inputs, device = self.inputs, next(self.parameters()).device
        shape = (0, len(inputs.mean), inputs.side, inputs.side)
        stacked = np.stack(pixels) if pixels else np.empty(shape, np.uint8)
        return Augment(0, False, 0, inputs.mean, inputs.std).apply(torch.from_numpy(stacked).to(device))

    @torch.no_grad()
    def probabilities(self, images: Picture | Sequence[Picture]) -> Tensor:
        """[N, classes]: the class probabilities of one image or several, on the CPU, computed in batches."""
        several = _several(images)
        parts = [several[first : first + BATCH] for first in range(0, len(several), BATCH)]
        batches = [self(self.preprocess(part)).softmax(dim=1).cpu() for part in parts]
        return torch.cat(batches) if batches else torch.empty(0, len(self.classes))


class TrainedLanguageModel(nn.Module):
    """The language model of a training on text, `network`, with its `genotype` and its `inputs` (words and their counts).

    model = diffnas.load_network("runs/words")
    model.next_words("the value of the", top=3)   # [("<unk>", 0.2), ...]
    model.perplexity("the value of the object .")
    outputs = model((model.encode("the value")[:, None], None))  # tokens [T, 1] and a carry; a module like any other
    """

    def __init__(self, network: nn.Module, genotype: Genotype, inputs: TextInputs) -> None:
        super().__init__()
        self.network, self.genotype, self.inputs = network, genotype, inputs
        self.numbers = numbers_of(inputs.words)
        self.eval()

    @property
    def words(self) -> tuple[str, ...]:
        """The words, in the order of their numbers."""
        return self.inputs.words

    def forward(self, inputs: tuple[Tensor, Tensor | None]) -> LanguageModelOutput:
        """Tokens [T, N] and a carry [1, N, units] or None -> log probabilities of the next words [T, N, words], and a carry."""
        outputs: LanguageModelOutput = self.network(inputs)
        return outputs

    def encode(self, text: str, where: str = "text") -> Tensor:
        """The numbers of the words of `text`, each line ended by `<eos>`: [T] int64 on the device of the weights.

        A word that is not known is `<unk>`; raises `DataError` that begins with `where` for one where there is no `<unk>`.
        """
        lines = io.StringIO(text, newline=None) if text else [""]
        tokens = encode_lines((split_words(line, self.inputs.data) for line in lines), self.numbers, where)
        return tokens.to(next(self.parameters()).device)

    def perplexity(self, text: str) -> float:
        """The perplexity of `text`, its first word apart; raises `DataError` where it has no words."""
        return self.judge(text, 0)[0]

    def next_words(self, text: str, top: int = 5) -> list[tuple[str, float]]:
        """The `top` words that are likeliest after the last word of `text`, with their probabilities."""
        tokens = self.encode(text)
        return self._likeliest(self._read(tokens if len(tokens) > 1 else tokens.repeat(2))[1], top)

    def judge(self, text: str, top: int, where: str = "text") -> tuple[float, int, list[tuple[str, float]]]:
        """Perplexity, the number of words it is over, and `next_words`, all from one reading of `text`."""
        tokens = self.encode(text, where)
        if len(tokens) < 2:
            raise DataError(f"{where}: holds no words")
        losses, following = self._read(tokens)
        mean = float(losses.mean())
        return math.exp(mean) if mean < 700 else math.inf, len(losses), self._likeliest(following, top)

    @torch.no_grad()
    def _read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of every token [T] but the first, [T - 1] float64, and log p of what stands in place of the last, [words]."""
        carry, losses = None, []
        for start in range(0, len(tokens) - 1, WINDOW):
            rows = tokens[start : start + WINDOW + 1, None]
            outputs = self((rows[:-1], carry))
            carry = outputs.carry
            losses.append(F.nll_loss(outputs.log_probs.flatten(0, 1), rows[1:].flatten(), reduction="none").double())
        return torch.cat(losses), outputs.log_probs[-1, 0]

    def _likeliest(self, log_probs: Tensor, top: int) -> list[tuple[str, float]]:
        values, places = log_probs.exp().topk(min(top, len(self.words)))
        return [(self.words[place], value) for value, place in zip(values.tolist(), places.tolist(), strict=True)]


class TrainedModel(nn.Module):
    """The network of a training on something else than images and text, `network`, with its `genotype` and its `inputs`.

    model = diffnas.load_network("runs/signals")
    outputs = model(inputs)   # a module like any other
    """

    def __init__(self, network: nn.Module, genotype: Genotype, inputs: Inputs) -> None:
        super().__init__()
        self.network, self.genotype, self.inputs = network, genotype, inputs
        self.eval()

    def forward(self, inputs: Any) -> Any:
        """Returns the network's outputs."""
        return self.network(inputs)


def load_network(
    run: Run | str | Path, name: str | None = None, overrides: Sequence[str] = ("device=cpu",)
) -> TrainedClassifier | TrainedLanguageModel | TrainedModel:
    """The network of the training `name` of `run` (its only one by default), in evaluation mode with its weights.

    `overrides` may choose the device.  Raises `UserError` where the training has not finished or its files are damaged.
    """
    part = (run if isinstance(run, Run) else open_run(run)).training(name)
    recipe = trained_recipe(part, overrides, "a trained network is used as it is; only device may change")
    weights = read_weights(part, recipe)
    network = place(weights.network(recipe), pick_device(recipe.device))
    if isinstance(weights.inputs, TextInputs):
        return TrainedLanguageModel(network, weights.genotype, weights.inputs)
    kind = TrainedClassifier if isinstance(weights.inputs, ImageInputs) else TrainedModel
    return kind(network, weights.genotype, weights.inputs)  # type: ignore[arg-type]


def _several(images: Picture | Sequence[Picture]) -> list[Picture]:
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]


def _as_file(image: Picture) -> Any:
    """Returns a regular file, or an image as a file in memory, for Pillow; raises `OSError` or `TypeError` for others."""
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file():  # a pipe would be waited for
            kind = "a folder" if path.is_dir() else "no regular file"
            raise FileNotFoundError(f"is {kind}" if path.exists() else "there is no such file")
        return image
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    if not isinstance(picture, Image.Image):
        raise TypeError(f"{type(image).__name__} is no image")
    content = io.BytesIO()
    picture.save(content, "PNG" if picture.mode in IN_PNG else "TIFF", exif=picture.getexif())
    content.seek(0)
    return content


def _named(image: Any) -> str:
    return str(image) if isinstance(image, str | Path) else type(image).__name__


def _unreadable(image: Any, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.strerror is None:
        return str(error)
    return f"is not a readable image ({type(error).__name__})"
