"""What a search and a training share: sums over an epoch, checkpoints within it, and an orderly stop."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from diffnas.core.batch import Loss
from diffnas.errors import CheckpointError, Diverged, Interrupted
from diffnas.pipeline.source import Task
from diffnas.run import Part
from diffnas.runtime.checkpoint import load_checkpoint, save_checkpoint
from diffnas.runtime.room import lack_of_room
from diffnas.runtime.stop import Stop


class Meter:
    """Sums of losses and right answers by name, kept on the device and read only when someone looks."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, loss: Loss) -> None:
        """Adds the mean `loss` of a batch under `name`."""
        pair = torch.stack([loss.value.detach().float() * loss.count, loss.correct.float()]).double()
        self.sums[name] = self.sums[name] + pair if name in self.sums else pair
        self.counts[name] = self.counts.get(name, 0) + loss.count

    def means(self) -> dict[str, float]:
        """`{NAME_loss, ...}`: the task's metrics by name."""
        found: dict[str, float] = {}
        for name, pair in self.sums.items():
            loss, correct = pair.tolist()
            metrics = self.task.metrics(loss / self.counts[name], correct / self.counts[name])
            found |= {f"{name}_{metric}": value for metric, value in metrics.items()}
        return found

    def text(self) -> str:
        """The means for a progress bar, short enough for 80 columns."""
        means = self.means()
        return "  ".join(self.task.said(name, means, short=True) for name in sorted(self.sums))

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from the sums in `state`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


class Stateful(Protocol):
    """What a session saves."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""


class Session:
    """The checkpoints of one command on one part of a run."""

    def __init__(
        self, part: Part, stop: Stop, device: torch.device, resume_with: str, task: Task, names: Sequence[str]
    ) -> None:
        self.part, self.stop, self.device, self.resume_with = part, stop, device, resume_with
        self.names = hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()
        self.task, self.meter = task, Meter(task)

    def save(self, position: int, state: Stateful) -> None:
        """Writes a checkpoint of `state`, the sums and torch's own generators."""
        content = {"state": state.state_dict(), "meter": self.meter.state_dict(), "rng": torch.get_rng_state()}
        content["names"] = self.names
        if self.device.type == "cuda":
            content["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        save_checkpoint(self.part.checkpoints, position, content)
        self.stop.saved()

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, None where there is none; pass it to `restore` once things are built."""
        return load_checkpoint(self.part.checkpoints, "cpu")

    def restore(self, checkpoint: Mapping[str, Any], state: Stateful) -> None:
        """Puts everything back where `checkpoint` was taken; raises `CheckpointError` where it is of another run."""
        if checkpoint.get("names", self.names) != self.names:
            raise CheckpointError(
                f"{self.part.checkpoints}: the data have other classes or words, or in another order, than when it was"
                " written; set data.path back"
            )
        try:
            state.load_state_dict(checkpoint["state"])
            self.meter.load_state_dict(checkpoint["meter"])
            self.meter.sums = {name: pair.to(self.device) for name, pair in self.meter.sums.items()}
            torch.set_rng_state(checkpoint["rng"])
            if self.device.type == "cuda" and "cuda_rng" in checkpoint:
                torch.cuda.set_rng_state(checkpoint["cuda_rng"], self.device)
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            if lack_of_room(error) is not None:
                raise
            raise self.misfit() from error

    def misfit(self) -> CheckpointError:
        """What to raise where a checkpoint is whole but not of this run."""
        return CheckpointError(f"{self.part.checkpoints}: does not fit the recipe beside it; was a file exchanged?")

    def means(self, epoch: int) -> dict[str, float]:
        """The means of `epoch`, and the sums begin anew; raises `Diverged` where one is not finite, before anything of the
        epoch is written."""
        means, self.meter = self.meter.means(), Meter(self.meter.task)
        if not all(math.isfinite(value) for name, value in means.items() if name.endswith("_loss")):
            raise Diverged(
                f"the loss of epoch {epoch + 1} is not finite: the training has diverged; lower the learning rate"
                f" ({self.part.path} keeps what came before)"
            )
        return means

    def check(self, position: int, state: Stateful) -> None:
        """Between two steps: writes a checkpoint where one is due, and stops where a signal asked to."""
        if self.stop.due():
            self.save(position, state)
            self.leave()

    def leave(self) -> None:
        """Raises `Interrupted` where a signal asked to stop; the checkpoint is written."""
        if self.stop.requested is not None:
            raise Interrupted(
                f"stopped by {self.stop.requested}; a checkpoint is written; go on with: {self.resume_with}"
            )


def require_counts(**counts: object) -> None:
    """Raises `ValueError` where one of a checkpoint's counts is not a whole number of at least 0."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} is {value!r}")
