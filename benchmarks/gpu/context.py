"""What a stage is given, and how its parts fail one by one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.record import Record

Result = dict[str, Any]
Results = Iterable[Result]


@dataclass(frozen=True)
class Context:
    """Where a stage runs and until when; `record` holds what earlier stages of this process found."""

    device: torch.device
    tiny: bool
    data: Path | None
    record: Record
    end: float

    def left(self) -> float:
        """Its seconds that are left."""
        return self.end - time.monotonic()

    @property
    def cuda(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device.type == "cuda"


def attempted(what: Result, find: Callable[[], Result]) -> Result:
    """`what` with what `find` found, or with the reason why it did not; memory is given back."""
    try:
        return what | find()
    except Exception as error:  # noqa: BLE001 (a case that fails is a result; the others are measured)
        return what | {"error": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def absent(what: Result, reason: str) -> Result:
    """What is not there yet."""
    return what | {"absent": reason}


def each(cases: Iterable[tuple[Result, Callable[[], Result] | str]]) -> Iterator[Result]:
    """The cases' results: of each what it is, and what finds it, or why nothing does."""
    for what, find in cases:
        yield absent(what, find) if isinstance(find, str) else attempted(what, find)
