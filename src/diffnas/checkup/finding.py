"""The result of one check of `diffnas doctor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """The result of a check: `state` is "ok", "bad" (something required does not work) or "note" (information)."""

    name: str
    state: Literal["ok", "note", "bad"]
    said: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
