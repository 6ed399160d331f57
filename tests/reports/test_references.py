"""What is cited: everything that the package has, in BibTeX that can be read."""

from __future__ import annotations

import re

import pytest

from diffnas.recipe.modalities import data_sets
from diffnas.registry import METHODS, OWNERS, SPACES
from diffnas.reports.references import ENTRIES, bibtex

OURS = {"budget", "folder", "text"}  # of no paper


def test_everything_that_was_published_is_cited() -> None:
    of_plugins = {name for _, name in OWNERS}
    for name in {*METHODS, *SPACES, *data_sets()} - OURS - of_plugins:
        assert bibtex([name]).count("@") == 1, name
    assert bibtex(["darts", "darts-cnn", "darts-rnn", "budget", "unheard-of"]).count("@") == 1


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_are_sound(name: str) -> None:
    authors, _, _, year, arxiv = ENTRIES[name]
    entry = bibtex([name])
    assert entry.count("{") == entry.count("}") and re.match(r"@\w+\{[\w-]+,\n", entry)
    assert all("," in author for author in authors.split(" and ")) or authors.startswith("{")
    if arxiv:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", arxiv) and year - 2 <= 2000 + int(arxiv[:2]) <= year
