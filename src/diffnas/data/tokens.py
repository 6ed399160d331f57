"""Texts as numbers of words: token files, the Hugging Face hub, and the text in the package.

A word is what stands between spaces; each line ends with the token `<eos>`, empty ones too, as in all published results on
Penn Treebank and WikiText-2.  The vocabulary is that of the training part alone, in order of first appearance.
"""

from __future__ import annotations

import gzip
import math
import re
import reprlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from diffnas.data import cifar, few
from diffnas.data.layout import roles
from diffnas.data.texts import TEXTS
from diffnas.errors import DataError

EOS, UNKNOWN = "<eos>", "<unk>"
PARTS = ("train", "valid", "test")
# the names that each part's file may have, with train, valid and test in any spelling that `layout.roles` knows
USUAL = ("{}.txt", "ptb.{}.txt", "wiki.{}.tokens", "{}.tokens")
_USUAL = re.compile(r"(?:ptb\.|wiki\.)?(?P<part>[^.]+)\.(?:txt|tokens)", re.IGNORECASE)
_RAW = re.compile(r"(?P<part>.+)\.raw", re.IGNORECASE)
EMBEDDED = Path(__file__).parent / "embedded" / "python-reference.txt.gz"
RARE = 3  # words of the embedded text that its training part has less often are unknown
# lower case and ASCII only: what is a letter elsewhere depends on the version of Python
_WORD = re.compile(r"[a-z0-9_]+(?:'[a-z]+)?|[^\sa-z0-9_]", re.ASCII)


@dataclass(frozen=True)
class Corpus:
    """A text in three parts, each int64 [M]: the place of every word in `vocabulary`, in the order of the text."""

    vocabulary: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each part is from."""

    def unigram_loss(self, part: Literal["valid", "test"] = "test") -> float:
        """-mean log p over all tokens of `part` but the first, p the shares of the words in train: what no context gives."""
        counts = torch.bincount(self.train, minlength=len(self.vocabulary)).double()
        tokens: Tensor = getattr(self, part)[1:]
        return math.log(len(self.train)) - float(counts[tokens].log().mean())


class Part(NamedTuple):
    """One part of a text before it has numbers: where it is from, for messages, and what gives its lines in order."""

    where: str
    lines: Callable[[], Iterable[str]]


def read_corpus(name: str, path: Path | None = None) -> Corpus:
    """The text `name` of `TEXTS`, on the CPU.

    `path` is a folder with a file of tokens for each part; without one, `ptb` and `wikitext-2` are fetched from the hub, or
    from its cache.  Raises `DataError` in one line for a part that is missing, empty or not UTF-8, and for a word of valid
    or test that train lacks, unless train has `<unk>` to stand for it.
    """
    if name not in TEXTS:
        raise DataError(f"data.name {name}: is no text; the texts are {', '.join(TEXTS)}")
    if name == "embedded":
        if path is not None:
            raise DataError(f"data.path {path}: the embedded text is in the package and takes no path")
        return _encode(_embedded())
    if path is not None:
        return _encode(_files(path))
    if TEXTS[name].hub is None:
        raise DataError("data.path: is needed for text: the folder with your train.txt, valid.txt and test.txt")
    return _encode(_hub(name))


def _encode(parts: Mapping[str, Part]) -> Corpus:
    numbers: dict[str, int] = {}
    tokens = array("q")
    for line in parts["train"].lines():
        tokens.extend([numbers.setdefault(word, len(numbers)) for word in (*line.split(), EOS)])
    if not numbers.keys() - {EOS}:
        raise DataError(f"{parts['train'].where}: is empty; it needs the words to train on")
    tensors = {"train": torch.frombuffer(tokens, dtype=torch.int64)}
    for key in PARTS[1:]:
        tokens = _looked_up(parts[key], numbers, parts["train"].where)
        if all(token == numbers[EOS] for token in tokens):
            raise DataError(f"{parts[key].where}: is empty; it needs the words of {key}")
        tensors[key] = torch.frombuffer(tokens, dtype=torch.int64)
    return Corpus(tuple(numbers), **tensors, origins={key: part.where for key, part in parts.items()})


def _looked_up(part: Part, numbers: Mapping[str, int], train: str) -> array[int]:
    unknown = numbers.get(UNKNOWN)
    tokens = array("q")
    for row, line in enumerate(part.lines(), 1):
        for word in (*line.split(), EOS):
            number = numbers.get(word, unknown)
            if number is None:
                raise DataError(
                    f"{part.where} line {row}: the word {reprlib.repr(word)} is not in {train}; write {UNKNOWN} for rare"
                    " words in all parts"
                )
            tokens.append(number)
    return tokens


def _files(folder: Path) -> dict[str, Part]:
    if not folder.is_dir():
        reason = "is a file; name the folder that it is in" if folder.is_file() else "there is no such folder"
        raise DataError(f"data.path {folder}: {reason}")
    parts = {}
    for key in PARTS:
        found = _serving(folder, _USUAL, key)
        if len(found) > 1:
            raise DataError(
                f"data.path {folder}: {few([file.name for file in found])} all serve as {key}; keep one of them"
            )
        if not found:
            raise DataError(f"data.path {folder}: {_lacking(folder, key)}")
        parts[key] = Part(str(found[0]), partial(_lines, found[0]))
    return parts


def _serving(folder: Path, usual: re.Pattern[str], key: str) -> list[Path]:
    """The files in `folder` with a usual name that says that they are the part `key`."""
    try:
        names = sorted(file.name for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise DataError(f"data.path {folder}: cannot be read ({error.strerror})") from None
    matches = [match for name in names if (match := usual.fullmatch(name))]
    return [folder / match[0] for match in matches if roles(match["part"].rpartition(".")[2]) == {key}]


def _lacking(folder: Path, key: str) -> str:
    names = [usual.format(key) for usual in USUAL]
    raw = _serving(folder, _RAW, key)
    if raw:
        word_level = f"{raw[0].name.removesuffix('.raw')}.tokens"
        return f"{raw[0].name} has no {UNKNOWN} for rare words; put the word-level file {word_level} in its place"
    return f"lacks {names[0]} (or {', '.join(names[1:])})"


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error})") from None


def _hub(name: str) -> dict[str, Part]:
    info, datasets = TEXTS[name], cifar._import_datasets()
    parts = {}
    try:
        with cifar._quiet(datasets):
            found = datasets.load_dataset(info.hub, info.config, revision=info.revision)
        for key, split in zip(PARTS, ("train", "validation", "test"), strict=True):
            lines = found[split].data.table.column(info.column).to_pylist()
            parts[key] = Part(f"{info.hub} {split}", partial(iter, [line or "" for line in lines]))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(
            f"data.path: {name} is not at hand and cannot be fetched ({error}); put its train.txt, valid.txt and test.txt "
            "in a folder and set data.path to it"
        ) from None
    return parts


def _embedded() -> dict[str, Part]:
    """The text in the package: of every 20 paragraphs 16 train, two are valid, two test; rare words are unknown."""
    paragraphs = gzip.decompress(EMBEDDED.read_bytes()).decode("ascii").splitlines()
    parts: dict[str, list[list[str]]] = {key: [] for key in PARTS}
    for row, paragraph in enumerate(paragraphs):
        part = {16: "valid", 17: "valid", 18: "test", 19: "test"}.get(row % 20, "train")
        parts[part].append(_WORD.findall(paragraph.lower()))
    counts = Counter(word for words in parts["train"] for word in words)

    def lines(key: str) -> list[str]:
        return [" ".join(word if counts[word] >= RARE else UNKNOWN for word in words) for words in parts[key]]

    return {key: Part(f"embedded {key}", partial(lines, key)) for key in PARTS}
