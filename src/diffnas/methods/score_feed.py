"""The batches that measure a supernet: the architecture's half of the images, or its text, as they are, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffnas.engine.search import Search


def score_batches(search: Search) -> Any:
    """The batches of feed "score", by step; raises `ValueError` that says so where the search was built without it."""
    if "score" not in search.feeds:
        raise ValueError(
            f"method {search.method.name} measures the supernet on batches of their own: build the Search with"
            ' feeds={"score": ...}'
        )
    return search.feeds["score"].epoch(0)
