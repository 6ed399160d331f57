"""TensorBoard: event files in RUN/search/tensorboard or RUN/train/NAME/tensorboard; `tensorboard --logdir RUN` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from diffnas.runtime.run_folder import Part

FOLDER = "tensorboard"


class TensorBoard:
    """Writes event files into a folder, all anew: what an earlier attempt wrote there is in the metrics as well."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer, self._epoch = SummaryWriter(str(folder)), 0
        self._writer.add_text("recipe", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Writes the numbers of `epoch`."""
        self._epoch = epoch
        for key, value in values.items():
            self._writer.add_scalar(key, value, epoch)
        self._writer.flush()

    def picture(self, path: Path) -> None:
        """Writes the picture of the cell."""
        with Image.open(path) as image:
            self._writer.add_image("cell", np.asarray(image.convert("RGB")), self._epoch, dataformats="HWC")

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


def open_sink(part: Part, settings: Mapping[str, Any]) -> TensorBoard:
    """The sink for `part`."""
    return TensorBoard(part.folder(FOLDER), settings)
