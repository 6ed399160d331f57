"""What sends rows of metrics to other programs, and never costs the run that they are of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from diffnas.errors import UserError
from diffnas.runtime.console import log
from diffnas.runtime.run_folder import Part

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""The package that each sink needs; its extra has the name of the sink."""


class Sink(Protocol):
    """Sends what a command on one part of a run computes to a program."""

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Sends the numbers of `epoch` (from 1)."""

    def picture(self, path: Path) -> None:
        """Sends the picture of the cell."""

    def close(self) -> None:
        """Sends what is left, and ends."""


def require_sinks(names: Sequence[str]) -> None:
    """Raises `UserError` where a sink is unknown or its package is missing."""
    if isinstance(names, str):
        raise UserError(f"log: must be a list of names; got {names!r:.60}")
    problems = [f"--log {name}: is unknown; known: {', '.join(PACKAGES)}" for name in names if name not in PACKAGES]
    missing = [name for name in names if name in PACKAGES and find_spec(PACKAGES[name]) is None]
    problems += [f"--log {name}: {name} is not installed: pip install 'diffnas[{name}]'" for name in missing]
    if problems:
        raise UserError(*problems)


class Sinks:
    """The sinks of those `names` for `part`; one that fails is left out from then on, with a warning."""

    def __init__(self, names: Sequence[str], part: Part, settings: Mapping[str, Any]) -> None:
        self._open: dict[str, Sink] = {}
        for name in dict.fromkeys(names):
            self._try(name, lambda name=name: self._add(name, part, settings))  # type: ignore[misc]

    def _add(self, name: str, part: Part, settings: Mapping[str, Any]) -> None:
        sink: Sink = import_module(f"diffnas.sinks.{name}").open_sink(part, settings)
        self._open[name] = sink
        for row in part.metrics():
            sink.scalars(scalars_of(row), row["epoch"] + 1)

    def row(self, row: Mapping[str, Any]) -> None:
        """Sends a row of metrics."""
        values, epoch = scalars_of(row), row["epoch"] + 1
        self._each(lambda sink: sink.scalars(values, epoch))

    def picture(self, path: Path) -> None:
        """Sends the picture at `path`, if there is one."""
        if path.is_file():
            self._each(lambda sink: sink.picture(path))

    def close(self) -> None:
        """Ends all."""
        self._each(lambda sink: sink.close())
        self._open = {}

    def _each(self, act: Callable[[Sink], None]) -> None:
        for name, sink in list(self._open.items()):
            self._try(name, lambda sink=sink: act(sink))  # type: ignore[misc]

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those programs warn of their own dependencies
                act()
        except Exception as error:  # noqa: BLE001 (another program must never cost the run)
            self._open.pop(name, None)
            said = " ".join(str(error).split())[:300]
            log.warning("--log %s: left out from here on: %s: %s", name, type(error).__name__, said)


def scalars_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics; those of a table as `table/DATA/WHAT`."""
    values = {key: float(value) for key, value in row.items() if key != "epoch" and _is_number(value)}
    for data, known in (row.get("table") or {}).items():
        values |= {f"table/{data}/{key}": float(value) for key, value in known.items() if _is_number(value)}
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
