"""What each of the processes of `test_several.py` runs: commands on its part of the work; alone it runs them whole.

Usage: commands.py FOLDER.  A set of images is in FOLDER/set; what came of it is written to FOLDER/SIZE/RANK.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import diffnas
from diffnas.core.batch import Batch, Loss
from diffnas.draw import write
from diffnas.pipeline.search_state import SearchState
from diffnas.runtime.launched import place_of
from diffnas.tasks.classification import Classification

IMAGES = """
name: streamed
device: cpu
data: {{name: imagenet, path: {path}, side: 8, workers: 0}}
train: {{epochs: 1, batch: 8, channels: 2, layers: 2, auxiliary: false, cutout: 0}}
"""
WORDS = ["data.train_limit=700", "data.test_limit=300", "search.epochs=2", "space.units=8", "search.batch=8"]
WORDS += ["statistics=all", "search.supernet=plain", "device=cpu"]


def in_float64() -> None:
    """Makes searches compute in float64, which no recipe asks for."""
    begun = SearchState._begin_steps

    def begin(self: SearchState) -> None:
        self.search.supernet.double()
        self.search.arch.double()
        begun(self)

    SearchState._begin_steps = begin  # type: ignore[method-assign]


def seen_by(command: Callable[[], Any]) -> tuple[Any, list[float]]:
    """What a command returns, and the sum of the pixels of every image that counts in it, which tells it from all others."""
    plain, seen = Classification.loss, list[float]()

    def loss(self: Classification, net: Any, batch: Batch) -> Loss:
        own = batch.inputs if batch.part is None else batch.inputs[: batch.part.count]
        seen.extend(own.double().sum((1, 2, 3)).tolist())
        return plain(self, net, batch)

    Classification.loss = loss  # type: ignore[method-assign]
    try:
        return command(), seen
    finally:
        Classification.loss = plain  # type: ignore[method-assign]


def main(folder: Path) -> None:
    """Trains, tests and searches, and writes what was found."""
    torch.set_num_threads(1)
    write.draw_png = lambda genotype: b""  # it takes longer than the rest
    place = place_of()
    own = folder / str(place.size)
    recipe = own / "streamed.yaml"
    cell, read = diffnas.load_genotype("darts-v2"), diffnas.read_recipe(recipe)
    _, trained_on = seen_by(lambda: diffnas.train(cell, read, own / "run", progress=False))
    tested, tested_on = seen_by(lambda: diffnas.test(folder / "1" / "run" if place.size > 1 else own / "run"))
    facts = {key: tested[key] for key in ("n", "loss", "accuracy", "broken", "class_images")}
    in_float64()
    search = diffnas.search(diffnas.read_recipe("darts-rnn-demo", WORDS), own / "words", progress=False)
    row = search.search.metrics()[-1] if place.rank == 0 else {}
    found = {"trained_on": trained_on, "tested_on": tested_on, "tested": facts}
    found |= {"strength": row.get("strength"), "loss": row.get("valid_loss")}
    (own / f"{place.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
