"""Texts by name, before anything heavy is imported.

`TEXTS` says what the command line shows; `diffnas.data.tokens.read_corpus` reads one.  Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TextInfo:
    """The facts about a text that are known before it is read.

    `hub`, `config` and `revision` name it on the Hugging Face hub (`None`: it is not there), `column` its lines there;
    `words` is the size of its vocabulary (`None`: the files decide).
    """

    about: str
    words: int | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    column: str = "text"
    read: Callable[[Path | None], Mapping[str, list[str]]] | None = None  # for a plug-in's data set


TEXTS: dict[str, TextInfo] = {
    "embedded": TextInfo(
        "the Python language reference of 2023, 276 kB of English prose, in the package: no download", 1_345
    ),
    "ptb": TextInfo(
        "Penn Treebank as Mikolov prepared it, 10,000 words: train.txt, valid.txt and test.txt, or the hub",
        words=10_000,
        hub="ptb-text-only/ptb_text_only",
        revision="refs/convert/parquet",  # the main branch is a script, which the library reads no more
        column="sentence",
    ),
    "text": TextInfo("your own text, a token between spaces: PATH/train.txt, PATH/valid.txt and PATH/test.txt"),
    "wikitext-2": TextInfo(
        "WikiText-2, 33,278 words: train.txt (or wiki.train.tokens), valid and test likewise, or the hub",
        words=33_278,
        hub="Salesforce/wikitext",
        config="wikitext-2-v1",
    ),
}
