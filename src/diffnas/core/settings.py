"""Hyper-parameters as dataclass fields that carry their meaning and limits, so that recipes can check and list them.

Nothing here imports torch: a recipe is read, refused or listed before torch is loaded.
"""

from __future__ import annotations

import dataclasses
from typing import Any


def setting(default: Any, about: str, before: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """A dataclass field with `default`; `about` says what it changes and where the default comes from.

    `limits` are bounds in pydantic's words: `ge`, `gt`, `le`, `lt`, `min_length`.  `before` is what was done before there was
    such a setting, where that is not the default: run folders of then go on with it.
    """
    metadata = {"about": about, "limits": limits}
    if before is not dataclasses.MISSING:
        metadata["before"] = before
    return dataclasses.field(default=default, metadata=metadata)
