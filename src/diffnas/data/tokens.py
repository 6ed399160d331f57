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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
KNOWN = f"not among the words that the network was trained on, which lack {UNKNOWN}; write another"
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
        """`unigram_loss` of `part` by how often words occur in train."""
        tokens: Tensor = getattr(self, part)
        return unigram_loss(torch.bincount(self.train, minlength=len(self.vocabulary)).tolist(), tokens)


def unigram_loss(counts: Sequence[int], tokens: Tensor) -> float:
    """-mean log p over all `tokens` but the first, p the shares that `counts` gives the words: what no context gives."""
    frequencies = torch.tensor(counts, dtype=torch.float64)
    return math.log(sum(counts)) - float(frequencies[tokens[1:]].log().mean())


class Part(NamedTuple):
    """A part of a text before it is numbered: its source, for messages, and a function that yields its lines in order."""

    where: str
    lines: Callable[[], Iterable[str]]


def read_corpus(name: str, path: Path | None = None) -> Corpus:
    """The text `name` of `TEXTS`, on the CPU.

    `path` is a folder with a file of tokens for each part; without one, `ptb` and `wikitext-2` are fetched from the hub, or
    from its cache.  Raises `DataError` in one line for a part that is missing, empty or not UTF-8, and for a word of valid
    or test that train lacks, unless train has `<unk>` to stand for it.
    """
    return _encode(_parts(name, path, PARTS))


def read_test(name: str, path: Path | None, words: Sequence[str]) -> Tensor:
    """The test part of the text `name` as places in `words`, int64 [M], on the CPU; no other part counts.

    Raises `DataError` as `read_corpus`.
    """
    return _numbered(_parts(name, path, ("test",))["test"], numbers_of(words), KNOWN)


def split_words(line: str, name: str) -> list[str]:
    """The words of a line of raw text, as the text `name` has them: between spaces, or as the embedded text was cut."""
    return _WORD.findall(line.lower()) if name == "embedded" else line.split()


def encode_lines(lines: Iterable[Sequence[str]], numbers: Mapping[str, int], where: str) -> Tensor:
    """The places of the words in lines, each line ended by `<eos>`, int64 [M]; `where` is their file, for messages.

    Raises `DataError` in one line for a word that has no number, unless `<unk>` has one.
    """
    return torch.frombuffer(_looked_up(lines, where, numbers, KNOWN), dtype=torch.int64)


def numbers_of(words: Sequence[str]) -> dict[str, int]:
    """The place of every word."""
    return {word: number for number, word in enumerate(words)}


def _parts(name: str, path: Path | None, keys: Sequence[str]) -> dict[str, Part]:
    """The parts `keys` of the text `name`, not yet read."""
    if name not in TEXTS:
        raise DataError(f"data.name {name}: is no text; the texts are {', '.join(TEXTS)}")
    read = TEXTS[name].read
    if read is not None:
        return {key: Part(f"data set {name} {key}", partial(iter, lines)) for key, lines in read(path).items()}
    if name == "embedded":
        if path is not None:
            raise DataError(f"data.path {path}: the embedded text is in the package and takes no path")
        return _embedded()
    if path is not None:
        return _files(path, keys)
    if TEXTS[name].hub is None:
        raise DataError("data.path: is needed for text: the folder with your train.txt, valid.txt and test.txt")
    return _hub(name)


def _encode(parts: Mapping[str, Part]) -> Corpus:
    numbers: dict[str, int] = {}
    tokens = array("q")
    for line in parts["train"].lines():
        tokens.extend([numbers.setdefault(word, len(numbers)) for word in (*line.split(), EOS)])
    if not numbers.keys() - {EOS}:
        raise DataError(f"{parts['train'].where}: is empty; it needs the words to train on")
    tensors = {"train": torch.frombuffer(tokens, dtype=torch.int64)}
    unknown = f"not in {parts['train'].where}; write {UNKNOWN} for rare words in all parts"
    for key in PARTS[1:]:
        tensors[key] = _numbered(parts[key], numbers, unknown)
    return Corpus(tuple(numbers), **tensors, origins={key: part.where for key, part in parts.items()})


def _numbered(part: Part, numbers: Mapping[str, int], unknown: str) -> Tensor:
    """The places of the words of one part; raises `DataError` where it has none."""
    tokens = _looked_up((line.split() for line in part.lines()), part.where, numbers, unknown)
    if all(token == numbers.get(EOS) for token in tokens):
        raise DataError(f"{part.where}: is empty; it needs words")
    return torch.frombuffer(tokens, dtype=torch.int64)


def _looked_up(lines: Iterable[Sequence[str]], where: str, numbers: Mapping[str, int], unknown: str) -> array[int]:
    """The numbers of the words in lines; `unknown` is what is wrong with a word that has none."""
    substitute = numbers.get(UNKNOWN)
    tokens = array("q")
    for row, line in enumerate(lines, 1):
        for word in (*line, EOS):
            number = numbers.get(word, substitute)
            if number is None:
                raise DataError(f"{where} line {row}: the word {reprlib.repr(word)} is {unknown}")
            tokens.append(number)
    return tokens


def _files(folder: Path, keys: Sequence[str]) -> dict[str, Part]:
    if not folder.is_dir():
        reason = "is a file; name the folder that it is in" if folder.is_file() else "there is no such folder"
        raise DataError(f"data.path {folder}: {reason}")
    parts = {}
    for key in keys:
        serving = _serving(folder, _USUAL, key)
        if len(serving) > 1:
            raise DataError(
                f"data.path {folder}: {few([file.name for file in serving])} all serve as {key}; keep one of them"
            )
        if not serving:
            raise DataError(f"data.path {folder}: {_lacking(folder, key)}")
        parts[key] = Part(str(serving[0]), partial(_lines, serving[0]))
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
    info, datasets = TEXTS[name], cifar.import_datasets()
    parts = {}
    try:
        with cifar.quietly(datasets):
            splits = datasets.load_dataset(info.hub, info.config, revision=info.revision)
        for key, split in zip(PARTS, ("train", "validation", "test"), strict=True):
            lines = splits[split].data.table.column(info.column).to_pylist()
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
