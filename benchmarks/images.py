"""Images per second of decoding, random resized crops and flips: diffnas beside torchvision's DataLoader, in one process tree.

    python -m benchmarks.images FOLDER [--images 5000] [--workers 2] [--batch 64] [--out FILE]

FOLDER holds folders of images by class (for `imagenet-sample`, its `train`); they are repeated to the number asked for.  Needs
torch, torchvision and diffnas in one environment.  The rounds take turns, so that what else the machine does meets all.  Both
give normalised float batches on the CPU; torchvision normalises in the workers, diffnas where the network is.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diffnas.data import views
from diffnas.data.augment import Augment
from diffnas.data.feeds import Feed
from diffnas.data.folder import read_test
from diffnas.data.stream import Intake, Streamed
from diffnas.data.views import View

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 224


def ours(folder: Path, count: int, workers: int, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of diffnas."""
    split = read_test("folder", folder).test
    at = [k % len(split.places) for k in range(count)]
    view = View(SIDE, 256, (0.08, 1.0), flip=True)
    images = Streamed([split.places[k] for k in at], split.labels[at], split.names, view, workers, Intake(0))
    feed = Feed(images, None, batch, Augment(0, False, 0, MEAN, STD), seed=0, name="train")
    return ((each.inputs, each.targets) for each in feed.epoch(0))


def torchvisions(folder: Path, count: int, workers: int, batch: int) -> Iterable[Any]:
    """Batches of torchvision's ImageFolder with its usual transforms."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms  # type: ignore[import-not-found,import-untyped,unused-ignore]

    steps = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    repeated = Subset(images, [k % len(images) for k in range(count)])
    loader: Iterable[Any] = DataLoader(repeated, batch, shuffle=True, num_workers=workers)
    return loader


def measure(batches: Callable[[], Iterable[Any]]) -> tuple[float, float]:
    """Images per second, with the start of the workers, and the milliseconds of CPU that all processes spend on an image."""
    started, spent, seen = time.perf_counter(), _cpu(), 0
    for inputs, targets in batches():
        assert inputs.dtype == torch.float32 and inputs.shape[1:] == (3, SIDE, SIDE)
        seen += len(targets)
    passed = time.perf_counter() - started
    gc.collect()  # ends the workers, whose time counts from then on
    return seen / passed, 1000 * (_cpu() - spent) / seen


def _cpu() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    """Measures in turns and prints, or writes, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    common = (asked.folder, asked.images, asked.workers, asked.batch)
    fast = views._jpeg  # type: ignore[attr-defined]
    names = ["torchvision", "diffnas, Pillow", *(["diffnas, simplejpeg"] if fast is not None else [])]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(asked.rounds):
        for name in names:
            views._jpeg = fast if "simplejpeg" in name else None  # type: ignore[attr-defined]
            read = torchvisions if name == "torchvision" else ours
            found[name].append(measure(partial(read, *common)))
            print(name, found[name][-1], flush=True)
    rates = {name: statistics.median(rate for rate, _ in pairs) for name, pairs in found.items()}
    costs = {name: statistics.median(cost for _, cost in pairs) for name, pairs in found.items()}
    result = {
        "images_per_second": {name: [round(rate, 1) for rate, _ in pairs] for name, pairs in found.items()},
        "times_torchvision": {name: round(rates[name] / rates["torchvision"], 2) for name in names},
        "cpu_ms_per_image": {name: round(costs[name], 2) for name in names},
        "times_torchvision_by_cpu": {name: round(costs["torchvision"] / costs[name], 2) for name in names},
        "images": asked.images,
        "workers": asked.workers,
        "batch": asked.batch,
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
