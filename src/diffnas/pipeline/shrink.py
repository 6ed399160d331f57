"""`data shrink`: a folder of images stored once at a smaller side, which later epochs decode in a fraction of the time."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from diffnas.data import Place, Row, Split
from diffnas.data.decode import named_errors
from diffnas.data.images import list_splits
from diffnas.data.pixels import deep_values, orientation, rgb_image
from diffnas.data.views import content_of, name_of
from diffnas.errors import DataError, UserError
from diffnas.runtime.console import log, progress
from diffnas.runtime.files import is_file, write_bytes
from diffnas.runtime.sharing import cpus

FOLDERS = {"train": "train", "valid": "val", "test": "test"}
CHUNK = 256


def shrink_images(path: str | Path, out: str | Path, side: int = 256, quality: int = 90) -> dict[str, Any]:
    """Stores the images of `path` in `out`/train/CLASS and `out`/val/CLASS, their shorter side resized to `side`.

    Images that are not larger are copied as they are, others become JPEGs of `quality`.  What is in `out` already is kept,
    so that a command that was stopped goes on.  Images that cannot be read are left out, with a warning each.  Returns
    {path, out, side, written, copied, kept, broken, bytes_before, bytes_after}.
    """
    source, target = Path(path), Path(out)
    if is_file(target) or target.resolve() == source.resolve():
        raise UserError(f"{out}: name another folder for the smaller images")
    if not 1 <= side <= 4096 or not 1 <= quality <= 100:
        raise UserError(f"--side {side}, --quality {quality}: must be 1 to 4096, and 1 to 100")
    listed = list_splits("imagenet", source)
    splits = {"train": listed.train, "valid": listed.valid, "test": listed.test}
    if listed.valid is None:  # the usual names
        splits = {"train": listed.train, "valid": listed.test}
    facts: dict[str, Any] = {"path": str(path), "out": str(out), "side": side, "quality": quality}
    counts = dict.fromkeys(("written", "copied", "kept", "broken", "bytes_before", "bytes_after"), 0)
    for role, split in splits.items():
        if split is not None:
            _shrink_split(split, target / FOLDERS[role], side, quality, counts)
    return facts | counts


def described(facts: dict[str, Any]) -> list[str]:
    """Lines that say what was written."""
    before, after = (f"{facts[key] / 2**20:,.1f} MiB" for key in ("bytes_before", "bytes_after"))
    return [
        f"folder:  {facts['out']} (shorter side {facts['side']})",
        f"images:  {facts['written']:,} written, {facts['copied']:,} copied, {facts['kept']:,} there already",
        f"size:    {after} of {before}",
    ]


def _shrink_split(split: Split, folder: Path, side: int, quality: int, counts: dict[str, int]) -> None:
    tasks = iter(zip(split.places, split.labels.tolist(), strict=True))
    total, done = len(split.places), 0

    def shrink(task: tuple[Place, int]) -> tuple[str, int, int] | DataError:
        place, label = task
        try:
            return _shrunk(place, folder / _safe(split.names[label]), side, quality)
        except DataError as error:
            return error

    with progress(f"shrinking {folder.name}", total, every=10) as say, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        with ThreadPoolExecutor(min(8, cpus())) as pool:
            while chunk := list(islice(tasks, CHUNK)):
                for result in pool.map(shrink, chunk):
                    _count(result, counts)
                done += len(chunk)
                say(done, lambda: f"{counts['written']:,} written")


def _count(result: tuple[str, int, int] | DataError, counts: dict[str, int]) -> None:
    if isinstance(result, DataError):
        counts["broken"] += 1
        log.warning("left out: %s", result)
        return
    what, before, after = result
    counts[what] += 1
    counts["bytes_before"] += before
    counts["bytes_after"] += after


def _safe(name: str) -> str:
    """Returns the name of a class as a folder's; those of the hub hold commas and slashes."""
    return re.sub(r"[\\/:*?\"<>|\x00-\x1f]", "_", name).strip(". ") or "_"


def _names(place: Place) -> Iterator[str]:
    """The names that an image may have in the new folder: its own, and as a JPEG."""
    stem = f"{Path(place.file).stem}-{place.row}" if isinstance(place, Row) else Path(place).stem
    yield f"{stem}.jpg" if isinstance(place, Row) else Path(place).name
    yield f"{stem}.jpg"


def _shrunk(place: Place, folder: Path, side: int, quality: int) -> tuple[str, int, int]:
    """Stores one image: what was done with it, and its bytes before and after."""
    for name in _names(place):
        if (folder / name).is_file():
            before = 0 if isinstance(place, Row) else os.path.getsize(place)
            return "kept", before, (folder / name).stat().st_size
    content = content_of(place)
    folder.mkdir(parents=True, exist_ok=True)
    own, jpeg = _names(place)
    smaller = _smaller(content, name_of(place), side, quality)
    if smaller is not None and len(smaller) < len(content):
        write_bytes(folder / (own if own.lower().endswith((".jpg", ".jpeg")) else jpeg), smaller)
        return "written", len(content), len(smaller)
    write_bytes(folder / own, content)
    return "copied", len(content), len(content)


def _smaller(content: bytes, name: str, side: int, quality: int) -> bytes | None:
    """The image as a JPEG with its shorter side at `side`; None for one that is not larger, or has more than 8 bits."""
    with named_errors(name), Image.open(io.BytesIO(content)) as image:
        short = min(image.size)
        if deep_values(image, io.BytesIO(content)) is not None:
            return None
        image.draft("RGB", (2 * side * image.size[0] // short, 2 * side * image.size[1] // short))
        image.load()  # also of one that is copied: a broken one is found now
        if short <= side:
            return None
        size = (max(1, image.size[0] * side // min(image.size)), max(1, image.size[1] * side // min(image.size)))
        turn = orientation(image)
        smaller = rgb_image(image).resize(size, Image.Resampling.LANCZOS)
        out = io.BytesIO()
        (smaller if turn is None else smaller.transpose(turn)).save(out, "JPEG", quality=quality)
        return out.getvalue()
