"""Texts: files of tokens, the hub, and the text in the package."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffnas.data import cifar, tokens
from diffnas.data.texts import TEXTS
from diffnas.data.tokens import Corpus, read_corpus
from diffnas.errors import DataError

SHARED = Path(os.environ.get("DIFFNAS_SHARED", Path(__file__).parents[2] / "../shared")) / "data"
PARTS = ("train", "valid", "test")


def write(
    folder: Path, train: str = "a b\nb c\n", valid: str = "c a\n", test: str = "b\n", name: str = "{}.txt"
) -> Path:
    folder.mkdir(exist_ok=True)
    for part, content in zip(PARTS, (train, valid, test), strict=True):
        (folder / name.format(part)).write_text(content, encoding="utf-8")
    return folder


def words(corpus: Corpus, part: str) -> list[str]:
    return [corpus.vocabulary[number] for number in getattr(corpus, part).tolist()]


def refusal(name: str, path: Path | None) -> str:
    with pytest.raises(DataError) as caught:
        read_corpus(name, path)
    assert len(caught.value.lines) == 1
    return str(caught.value)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_words_get_numbers_in_order_of_appearance_and_lines_an_end(tmp_path: Path) -> None:
    corpus = read_corpus("text", write(tmp_path))
    assert corpus.vocabulary == ("a", "b", "<eos>", "c")
    assert corpus.train.tolist() == [0, 1, 2, 1, 3, 2]
    assert (corpus.valid.tolist(), corpus.test.tolist()) == ([3, 0, 2], [1, 2])
    assert corpus.train.dtype == corpus.valid.dtype == torch.int64


def test_empty_lines_end_too_and_a_last_line_needs_no_end(tmp_path: Path) -> None:
    corpus = read_corpus("text", write(tmp_path, train="\ufeff a  b\t\n\n c"))
    assert words(corpus, "train") == ["a", "b", "<eos>", "<eos>", "c", "<eos>"]


@pytest.mark.parametrize("name", ["{}.txt", "ptb.{}.txt", "wiki.{}.tokens", "{}.tokens"])
def test_the_usual_names(tmp_path: Path, name: str) -> None:
    assert words(read_corpus("ptb", write(tmp_path, name=name)), "test") == ["b", "<eos>"]


@pytest.mark.parametrize(
    "valid", ["val.txt", "Valid.TXT", "validation.txt", "dev.txt", "ptb.val.txt", "wiki.dev.tokens"]
)
def test_other_names_of_the_validation_part(tmp_path: Path, valid: str) -> None:
    (write(tmp_path) / "valid.txt").rename(tmp_path / valid)
    corpus = read_corpus("text", tmp_path)
    assert words(corpus, "valid") == ["c", "a", "<eos>"] and corpus.origins["valid"] == str(tmp_path / valid)


def test_two_files_of_one_part_are_refused_by_name(tmp_path: Path) -> None:
    (write(tmp_path) / "dev.txt").write_text("a\n")
    assert refusal("text", tmp_path) == (
        f"data.path {tmp_path}: dev.txt, valid.txt all serve as valid; keep one of them"
    )


def test_raw_text_is_refused_by_naming_the_word_level_file(tmp_path: Path) -> None:
    line = refusal("wikitext-2", write(tmp_path, name="wiki.{}.raw"))
    assert line == (
        f"data.path {tmp_path}: wiki.train.raw has no <unk> for rare words; put the word-level file wiki.train.tokens in"
        " its place"
    )
    assert "lacks train.txt (or ptb.train.txt," in refusal("wikitext-2", write(tmp_path / "none", name="{}.md"))


def test_unknown_words_become_unk_where_train_has_it(tmp_path: Path) -> None:
    corpus = read_corpus("text", write(tmp_path, train="a <unk>\n", valid="z a\n", test="<unk> y\n"))
    assert corpus.vocabulary == ("a", "<unk>", "<eos>")
    assert words(corpus, "valid") == ["<unk>", "a", "<eos>"] and words(corpus, "test") == ["<unk>", "<unk>", "<eos>"]


def test_an_unknown_word_names_file_line_and_word(tmp_path: Path) -> None:
    text = refusal("text", write(tmp_path, valid="a\nb zebra\n"))
    assert text.startswith(f"{tmp_path / 'valid.txt'} line 2: the word 'zebra' is not in {tmp_path / 'train.txt'}; ")
    assert "<unk>" in text
    long = refusal("text", write(tmp_path, test="x" * 1000))
    assert long.startswith(f"{tmp_path / 'test.txt'} line 1: the word 'xxx")
    assert len(long) < 150 + 2 * len(str(tmp_path))


def test_a_missing_folder_or_file(tmp_path: Path) -> None:
    assert refusal("ptb", tmp_path / "x") == f"data.path {tmp_path / 'x'}: there is no such folder"
    (write(tmp_path) / "valid.txt").unlink()
    lacks = "lacks valid.txt (or ptb.valid.txt, wiki.valid.tokens, valid.tokens)"
    assert refusal("ptb", tmp_path) == f"data.path {tmp_path}: {lacks}"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_part(tmp_path: Path, part: str, content: str) -> None:
    text = refusal("text", write(tmp_path, **{part: content}))
    assert text.startswith(f"{tmp_path / part}.txt: is empty")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (write(tmp_path) / "train.txt").write_bytes(b"a \xff\xfe b")
    assert refusal("text", tmp_path).startswith(f"{tmp_path / 'train.txt'}: cannot be read as UTF-8 text (")


def test_names_and_paths_that_do_not_go_together(tmp_path: Path) -> None:
    assert refusal("books", None) == "data.name books: is no text; the texts are embedded, ptb, text, wikitext-2"
    assert "takes no path" in refusal("embedded", tmp_path)
    assert refusal("text", None).startswith("data.path: is needed for text")


def test_unigram_loss(tmp_path: Path) -> None:
    corpus = read_corpus("text", write(tmp_path, train="a a b\n", valid="b a\n", test="a b\n"))
    # shares of a, b, <eos>: 1/2, 1/4, 1/4; the first token of a text is never predicted
    assert corpus.unigram_loss() == pytest.approx(2 * math.log(4) / 2)
    assert corpus.unigram_loss("valid") == pytest.approx((math.log(2) + math.log(4)) / 2)


# ---- the hub ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ptb", "wikitext-2"])
def test_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    asked: list[Any] = []
    lines = {"train": [" a b \n", "", "b"], "validation": ["b"], "test": ["a", None]}

    def load_dataset(*names: str, **options: str) -> dict[str, Any]:
        asked.append((names, options))
        tables = {split: pyarrow.table({TEXTS[name].column: rows}) for split, rows in lines.items()}
        return {split: SimpleNamespace(data=SimpleNamespace(table=table)) for split, table in tables.items()}

    monkeypatch.setattr(cifar.import_datasets(), "load_dataset", load_dataset)
    corpus = read_corpus(name)
    assert words(corpus, "train") == ["a", "b", "<eos>", "<eos>", "b", "<eos>"]
    assert words(corpus, "test") == ["a", "<eos>", "<eos>"]
    assert asked == [((TEXTS[name].hub, TEXTS[name].config), {"revision": TEXTS[name].revision})]


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*names: str, **options: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(cifar.import_datasets(), "load_dataset", unreachable)
    text = refusal("wikitext-2", None)
    assert text.startswith("data.path: wikitext-2 is not at hand and cannot be fetched (no route)")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in refusal("ptb", None)


# ---- the text in the package -----------------------------------------------------------------------------------------


def test_the_embedded_text_is_the_same_everywhere() -> None:
    corpus = read_corpus("embedded")
    assert len(corpus.vocabulary) == 1345
    assert [len(getattr(corpus, part)) for part in PARTS] == [48548, 6639, 6820]
    whole = " ".join(word for part in PARTS for word in words(corpus, part))
    found = hashlib.sha256(whole.encode()).hexdigest()
    assert found == "1be12b58f8cc9c397c38cc989d75b49025c6546c3ac80e1e5273c3535994bb2d"


def test_the_embedded_text_is_words_and_signs_of_which_rare_ones_are_unknown() -> None:
    corpus = read_corpus("embedded")
    counts = Counter(words(corpus, "train"))
    assert min(counts.values()) >= 3 and counts["<unk>"] / len(corpus.train) < 0.05
    assert not any(any(sign.isspace() or sign.isupper() for sign in word) for word in corpus.vocabulary)
    assert " ".join(words(corpus, "train")[:24]) == (
        "<unk> statements are a convenient way to insert debugging <unk> into a program : <eos> "
        'these <unk> <unk> that " __debug__ " and "'
    )


def test_no_paragraph_of_the_embedded_text_is_in_two_parts() -> None:
    corpus = read_corpus("embedded")
    lines = {part: set(" ".join(words(corpus, part)).split("<eos>")) for part in PARTS}
    lines = {
        part: {line for line in found if len(line.split()) > 12 and "<unk>" not in line}
        for part, found in lines.items()
    }
    assert not lines["train"] & (lines["valid"] | lines["test"]) and not lines["valid"] & lines["test"]


def test_the_embedded_text_comes_with_its_licence() -> None:
    licence = tokens.EMBEDDED.with_name("LICENSE.txt").read_text()
    unpacked = tokens.gzip.decompress(tokens.EMBEDDED.read_bytes())
    assert hashlib.sha256(unpacked).hexdigest() in licence and unpacked.isascii()
    for needed in ("PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2", "Python Software Foundation;\nAll Rights Reserved"):
        assert needed in licence
    assert "Summary of changes" in licence


# ---- real texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "types", "counts", "unigram"),
    [
        ("ptb", 10_000, [929_589, 73_760, 82_430], 639.2967),
        ("wikitext-2", 33_278, [2_088_628, 217_646, 245_569], 911.7154),
    ],
)
def test_real_texts(name: str, types: int, counts: list[int], unigram: float) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"real {name} is not at hand")
    corpus = read_corpus(name, SHARED / name)
    assert len(corpus.vocabulary) == types
    assert [len(getattr(corpus, part)) for part in PARTS] == counts
    assert math.exp(corpus.unigram_loss()) == pytest.approx(unigram, abs=1e-3)
