"""Weights & Biases: a run of the project WANDB_PROJECT (diffnas); offline with WANDB_MODE=offline, in the run folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from diffnas.runtime.run_folder import Part
from diffnas.sinks.names import remembered, title


class WeightsAndBiases:
    """Sends to a run that every attempt goes on with."""

    def __init__(self, part: Part, settings: Mapping[str, Any]) -> None:
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "diffnas"),
            name=title(part),
            id=remembered(part, "wandb", lambda: secrets.token_hex(4)),
            resume="allow",
            dir=str(part.path.absolute()),
            config=dict(settings),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._known = self._run.step  # 0 in a run of its own, and offline

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Sends the numbers of `epoch`, unless the program has them."""
        if epoch >= self._known:
            self._run.log(dict(values), step=epoch)

    def picture(self, path: Path) -> None:
        """Sends the picture of the cell."""
        self._run.summary["cell"] = wandb.Image(str(path))

    def close(self) -> None:
        """Waits until all is sent, or on the disk."""
        self._run.finish()


def open_sink(part: Part, settings: Mapping[str, Any]) -> WeightsAndBiases:
    """The sink for `part`."""
    return WeightsAndBiases(part, settings)
