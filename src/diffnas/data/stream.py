"""Images that are decoded while they are needed, by workers that prepare the next batches meanwhile.

A batch is a pure function of the seed, the epoch and the step, however many workers there are: each is told the places of the
images of one batch and which random numbers are theirs, and returns pixels as bytes; normalisation is the device's.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import signal
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffnas.core.parts import part_of_step
from diffnas.core.seeds import generator
from diffnas.data import Place, few
from diffnas.data.views import View, draw_numbers, name_of, read_view
from diffnas.errors import DataError, ResourceError

log = logging.getLogger("diffnas.data")
AHEAD = 2  # batches that each worker prepares ahead
FIRST = 10  # broken images that a refusal names


class Work(NamedTuple):
    """A batch to decode, or a part of one: the places of its images, the seed, name, epoch and step of its random numbers, if
    it has any, and which of those of the whole batch are its own."""

    places: list[Place]
    stream: tuple[int, str, int, int] | None
    whole: int
    start: int


class Decoded(NamedTuple):
    """A decoded batch: pixels uint8 [K, side, side, 3] of the images that could be read, their places `kept` [K] in the
    batch, and (name, reason) of the others."""

    pixels: Tensor
    kept: Tensor
    broken: list[tuple[str, str]]


class Decoder(Dataset[Decoded]):
    """What a worker does."""

    def __init__(self, view: View) -> None:
        self.view = view

    def __getitem__(self, work: Any) -> Decoded:
        """Decodes one batch."""
        side, count = self.view.side, len(work.places)
        numbers = None if work.stream is None else draw_numbers(work.whole, generator(*work.stream))[work.start :]
        pixels = torch.empty(count, side, side, 3, dtype=torch.uint8)
        kept: list[int] = []
        broken: list[tuple[str, str]] = []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, which the pixels do not depend on
            for at, place in enumerate(work.places):
                try:
                    view = read_view(place, self.view, None if numbers is None else numbers[at])
                except DataError as error:
                    broken.append((name_of(place), "; ".join(error.lines)))
                    continue
                pixels[len(kept)].numpy()[:] = view
                kept.append(at)
        return Decoded(pixels[: len(kept)], torch.tensor(kept, dtype=torch.int64), broken)


@dataclass
class Intake:
    """What the reading of a data set came to so far: seconds that steps waited for images, and images that are broken."""

    limit: int
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)

    def note(self, found: Sequence[tuple[str, str]]) -> None:
        """Warns of broken images not met before; raises `DataError` where they are more than the limit."""
        for name, reason in found:
            if name not in self.broken:
                self.broken[name] = reason
                log.warning("data: skipped: %s", reason)
        if len(self.broken) > self.limit:
            lines = list(self.broken.values())
            said = f"{len(lines)} images cannot be read, more than data.broken_limit, {self.limit}"
            remedy = f"{said}; mend or remove them, or raise the limit"
            raise DataError(remedy, *lines[:FIRST], *([f"and {len(lines) - FIRST} more"] if len(lines) > FIRST else []))


@dataclass(frozen=True)
class Streamed:
    """Encoded images at their places: labels int64 [M], `names` of the classes, and the `view` that a network has of them.

    `workers` decode; `intake` is shared by the parts of a data set.  Batches are put on `device`.
    """

    places: Sequence[Place]
    labels: Tensor
    names: tuple[str, ...]
    view: View
    workers: int
    intake: Intake
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return 3, self.view.side, self.view.side

    def to(self, device: torch.device | str) -> Streamed:
        """Returns the same images with their labels, and batches from now on, on `device`."""
        return replace(self, labels=self.labels.to(device), device=torch.device(device))

    def fetcher(
        self, index: Tensor, batch: int, stream: tuple[int, str, int] | None, share: tuple[int, int] = (0, 1)
    ) -> Fetcher:
        """What fetches the batches of images at `index` [M], or a process's `share` of them, by step.

        For a training `stream` (seed, name, epoch) names their random numbers; without it they are seen as in a test.
        """
        return Fetcher(self, index, batch, stream, share)


_OPEN: weakref.WeakSet[Fetcher] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """Lets all workers end before the interpreter does, which would send them a signal that they pass over, and wait."""
    for fetcher in list(_OPEN):
        fetcher.close()


class Fetcher:
    """Fetches the batches of one epoch in order, from any step on; called out of order, the workers begin anew."""

    def __init__(
        self,
        images: Streamed,
        index: Tensor,
        batch: int,
        stream: tuple[int, str, int] | None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.images, self.index, self.batch, self.stream, self.share = images, index.cpu(), batch, stream, share
        self.steps = -(-len(index) // batch)
        self.next = 0
        self.decoded: Iterator[Decoded] | None = None
        self.works = self._works(range(0))
        _OPEN.add(self)

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """uint8 [K, 3, side, side] of the images of a step that can be read, and their places [K] where some cannot."""
        if self.decoded is None or step != self.next:
            self.close()
            self.decoded = self._started(step)
        intake, started = self.images.intake, time.perf_counter()
        decoded = _next(self.decoded)
        intake.seconds += time.perf_counter() - started
        intake.note(decoded.broken)
        self.next = step + 1
        if self.next == self.steps:
            self.decoded = None  # ends the workers
        if self.stream is not None and len(decoded.kept) < 2 <= len(decoded.kept) + len(decoded.broken):
            broken = few([name for name, _ in decoded.broken], 3)
            raise DataError(f"a batch is left with {len(decoded.kept)} images, for these cannot be read: {broken}")
        device = self.images.device
        pixels = decoded.pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
        return pixels, decoded.kept.to(device) if decoded.broken else None

    def close(self) -> None:
        """Ends the workers: they finish what they have, and get no more; torch takes seconds to end busy ones."""
        if self.decoded is not None:
            self.works.ended = True
            with contextlib.suppress(RuntimeError):
                for _ in self.decoded:
                    pass
            self.decoded = None

    def __del__(self) -> None:
        self.close()

    def _works(self, steps: range) -> _Works:
        return _Works(self.images, self.index, self.batch, self.stream, self.share, steps)

    def _started(self, step: int) -> Iterator[Decoded]:
        """The batches from `step` on."""
        workers = min(self.images.workers, self.steps - step)
        self.works = self._works(range(step, self.steps))
        options: dict[str, Any] = {"prefetch_factor": AHEAD, "worker_init_fn": _begin_worker} if workers else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than CPUs, if asked for
            # threads of torch and of ours hold no lock that a worker needs
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            loader = DataLoader(
                Decoder(self.images.view),
                batch_size=None,
                sampler=self.works,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=self.images.device.type == "cuda",
                generator=torch.Generator(),  # or else it would draw from torch's own, which is the network's
                **options,
            )
            return iter(loader)


class _Works:
    """The batches to decode, each made when a worker is free for it, until they are `ended`.

    It must not refer to its fetcher: of a circle of references, torch cannot end the workers in order.
    """

    def __init__(
        self,
        images: Streamed,
        index: Tensor,
        batch: int,
        stream: tuple[int, str, int] | None,
        share: tuple[int, int],
        steps: range,
    ) -> None:
        random = stream is not None and images.view.area is not None
        self.places, self.index, self.batch, self.stream = images.places, index, batch, stream if random else None
        self.share, self.steps, self.ended = share, steps, False

    def __iter__(self) -> Iterator[Work]:
        for step in self.steps:
            if self.ended:
                return
            part, place = part_of_step(step, self.batch, len(self.index), *self.share)
            stream = None if self.stream is None else (*self.stream, step)
            yield Work([self.places[at] for at in self.index[place].tolist()], stream, part.whole, part.place[0])

    def __len__(self) -> int:
        return len(self.steps)


def _next(decoded: Iterator[Decoded]) -> Decoded:
    try:
        return next(decoded)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ResourceError(
            "a process that decodes images has ended: memory, or shared memory (/dev/shm), is short; lower data.workers"
            " (0: no such processes) or the batch"
        ) from error


def _begin_worker(worker: int) -> None:
    """Leaves signals to the command, which stops in order and ends its workers then; without it they end by themselves."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _as_it_is(decoded: Any) -> Any:
    return decoded
