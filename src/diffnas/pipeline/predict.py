"""`predict`: the outputs of a trained network for unlabelled files."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffnas.data.layout import find_images
from diffnas.errors import DataError, UserError
from diffnas.pipeline.trained import BATCH, WORKERS, TrainedClassifier, TrainedLanguageModel, load_network
from diffnas.runtime.files import is_folder, read_bytes
from diffnas.runtime.run_folder import Run


def predict(
    run: Run | str | Path,
    paths: Sequence[str | Path],
    name: str | None = None,
    top: int = 5,
    overrides: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yields the prediction of the training `name` of `run` for each file, in order; a folder stands for the images below it.

    Images: {file, class, probability, top: [{class, probability}, ...]}.  Text: {file, perplexity, tokens, word,
    probability, top: [{word, probability}, ...]}, the words that are likeliest next; `-` is standard input.  A file that
    cannot be read is {file, error}.  Raises `UserError` as `load_network`.
    """
    if top < 1:
        raise UserError(f"--top {top}: must be at least 1")
    network = load_network(run, name, overrides)
    if isinstance(network, TrainedLanguageModel):
        return (_text(network, path, top) for path in paths)
    if not isinstance(network, TrainedClassifier):
        kind = network.inputs.modality
        raise UserError(
            f"predict reads files of images and text, and this network reads {kind}; use diffnas.load_network"
        )
    return _images(network, [file for path in paths for file in _files(path)], top)


def described(prediction: dict[str, Any]) -> str:
    """Yields a line with the prediction for one file, and none for a file that could not be read."""
    key = "word" if "word" in prediction else "class"
    likeliest = ", ".join(f"{entry[key]} {100 * entry['probability']:.1f} %" for entry in prediction["top"])
    if key == "class":
        return f"{prediction['file']}: {likeliest}"
    value = prediction["perplexity"]
    perplexity = "too large for a number" if value is None else f"{value:.2f}"
    return f"{prediction['file']}: perplexity {perplexity} ({prediction['tokens']:,} tokens), next: {likeliest}"


def _files(path: str | Path) -> list[Path | dict[str, Any]]:
    """The images at `path`, or what is wrong with it."""
    if not str(path):
        return [{"file": "", "error": "'': names no file"}]
    if not is_folder(path):
        return [Path(path)]
    return [*find_images(Path(path))] or [{"file": str(path), "error": f"{path}: holds no images"}]


def _images(network: TrainedClassifier, files: list[Path | dict[str, Any]], top: int) -> Iterator[dict[str, Any]]:
    with ThreadPoolExecutor(WORKERS) as pool:
        for first in range(0, len(files), BATCH):
            part = files[first : first + BATCH]
            read = list(pool.map(lambda file: _read(network, file), part))
            answers = iter(_answers(network, [pixels for pixels in read if isinstance(pixels, np.ndarray)], top))
            for file, pixels in zip(part, read, strict=True):
                yield {"file": str(file), **next(answers)} if isinstance(pixels, np.ndarray) else pixels


def _read(network: TrainedClassifier, file: Path | dict[str, Any]) -> np.ndarray | dict[str, Any]:
    """The pixels of a file, or what is wrong with it."""
    if isinstance(file, dict):
        return file
    try:
        return network.read(file)
    except DataError as error:
        return {"file": str(file), "error": str(error)}


@torch.no_grad()
def _answers(network: TrainedClassifier, pixels: list[np.ndarray], top: int) -> list[dict[str, Any]]:
    values, places = network(network.normalise(pixels)).softmax(dim=1).topk(min(top, len(network.classes)))
    rows = zip(values.tolist(), places.tolist(), strict=True)
    return [_ranked("class", zip([network.classes[place] for place in at], row, strict=True)) for row, at in rows]


def _text(network: TrainedLanguageModel, path: str | Path, top: int) -> dict[str, Any]:
    try:
        value, count, likeliest = network.judge(_text_of(path), top, str(path))
    except DataError as error:
        return {"file": str(path), "error": str(error)}
    perplexity = value if math.isfinite(value) else None  # JSON has no infinity
    return {"file": str(path), "perplexity": perplexity, "tokens": count, **_ranked("word", likeliest)}


def _text_of(path: str | Path) -> str:
    """The text in a file, or in standard input; raises `DataError` where it cannot be read."""
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else read_bytes(Path(path))
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{path}: cannot be read as text: {reason}") from None


def _ranked(key: str, likeliest: Any) -> dict[str, Any]:
    """The likeliest classes or words, with the first of them in front."""
    top = [{key: name, "probability": probability} for name, probability in likeliest]
    return {**top[0], "top": top}
