"""Results as they are found: a line each, on the disk before the next one begins."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Record:
    """results.jsonl in the folder `out`."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "results.jsonl"
        self.found: list[dict[str, Any]] = []

    def add(self, stage: str, result: Mapping[str, Any]) -> None:
        """Writes a line of `stage`, and says it."""
        row = {"stage": stage, **result, "time": round(time.time(), 2)}
        self.found.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(f"{stage:9} " + "  ".join(f"{key} {_short(value)}" for key, value in result.items()), flush=True)


def read_mark(out: Path) -> Path:
    """The file that says which stage is at hand, and when it is to end."""
    return out / ".stage"


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " | ".join(str(value).split("\n"))
    return text if len(text) < 400 else f"{text[:400]} ..."
