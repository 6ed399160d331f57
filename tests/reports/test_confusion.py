"""The colours of a confusion matrix."""

from __future__ import annotations

from diffnas.reports.confusion import Confusion


def test_a_rare_mistake_is_seen() -> None:
    table = Confusion(("a", "b"), ((999, 1), (0, 100))).as_table
    assert table == [("a", [(999, 9), (1, 1)]), ("b", [(0, 0), (100, 9)])]
