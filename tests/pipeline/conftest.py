"""What tests of the pipeline share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test put a method of its own in a recipe without registering it (`tests/test_plugins.py` tests that)."""
    monkeypatch.setattr("diffnas.pipeline.search.require_named", lambda recipe: None)
