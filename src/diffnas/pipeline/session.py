"""Sessions, shared by search and training: sums over an epoch, checkpoints within it, and an orderly stop."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from diffnas.core.batch import Loss
from diffnas.data.inputs import Inputs, inputs_from_plain, inputs_to_plain, listed
from diffnas.errors import CheckpointError, Diverged, Interrupted
from diffnas.pipeline.environment import makers, record_attempt
from diffnas.pipeline.following import Following
from diffnas.pipeline.sources.base import Source
from diffnas.pipeline.sources.load import input_kinds, load_source
from diffnas.recipe.plugins_used import record_of as recorded_plugins
from diffnas.recipe.recipe import Recipe, flat_values
from diffnas.runtime.checkpoint import save_checkpoint
from diffnas.runtime.console import log, progress
from diffnas.runtime.distributed import world
from diffnas.runtime.launched import whole_command
from diffnas.runtime.lock import Held
from diffnas.runtime.room import lack_of_room
from diffnas.runtime.run_folder import Part
from diffnas.runtime.stop import Stop
from diffnas.sinks.sink import Sinks
from diffnas.tasks.base import Task


def resumed_source(recipe: Recipe, part: Part, checkpoint: Mapping[str, Any] | None) -> Source:
    """The data of `recipe`, read with the statistics that `part` began with, which are in its `checkpoint`.

    Raises `CheckpointError` where the data have other classes or words than then, `DataError` as `load_source`.
    """
    if checkpoint is None:
        return load_source(recipe)
    stored = stored_inputs(part, checkpoint)
    if stored is None:
        log.warning(
            "%s: holds no statistics of the data (written by an earlier version); they are those of data.path as it is"
            " now",
            part.checkpoints,
        )
    elif stored.data != recipe.data.name:
        raise checkpoint_mismatch(part)
    source = load_source(recipe, stored)
    names = _digest(source.names)
    if checkpoint.get("names", names) != names:
        then = "" if stored is None else f" (now {listed(source.names)}; then {listed(stored.names)})"
        raise CheckpointError(
            f"{part.checkpoints}: the data have other classes or words, or in another order, than when it was"
            f" written{then}; set data.path back"
        )
    return source


def stored_inputs(part: Part, checkpoint: Mapping[str, Any]) -> Inputs | None:
    """The inputs in a checkpoint of `part`, None where there are none; raises `CheckpointError` for damaged ones."""
    if "inputs" not in checkpoint:
        return None
    try:
        inputs: Inputs = inputs_from_plain(checkpoint["inputs"], input_kinds())
        return inputs
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint_mismatch(part) from error


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()


def checkpoint_mismatch(part: Part) -> CheckpointError:
    """Returns the error for a checkpoint that is whole but belongs to another run."""
    return CheckpointError(f"{part.checkpoints}: does not fit the recipe beside it; was a file exchanged?")


class Meter:
    """Sums of losses and right answers by name, kept on the device and read only on demand.

    `steps` are the seconds of all steps, `data` those of them that were spent on waiting for streamed data.
    """

    def __init__(self, task: Task, streamed: bool = False) -> None:
        self.task, self.streamed = task, streamed
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.data = self.steps = 0.0

    def add_time(self, begun: float, read: float) -> None:
        """Adds a step that ends now, and whose data were read at the moment `read`."""
        self.data += read - begun
        self.steps += time.monotonic() - begun

    def add(self, name: str, loss: Loss) -> None:
        """Adds the mean `loss` of a batch under `name`."""
        pair = torch.stack([loss.value.detach().float() * loss.count, loss.correct.float()]).double()
        self.sums[name] = self.sums[name] + pair if name in self.sums else pair
        self.counts[name] = self.counts.get(name, 0) + loss.count

    def means(self) -> dict[str, float]:
        """`{NAME_loss, ...}`: the task's metrics by name."""
        means: dict[str, float] = {}
        for name, pair in self.sums.items():
            loss, correct = pair.tolist()
            metrics = self.task.check_metrics(loss / self.counts[name], correct / self.counts[name])
            means |= {f"{name}_{metric}": value for metric, value in metrics.items()}
        return means | ({"data_seconds": round(self.data, 3)} if self.streamed else {})

    def text(self) -> str:
        """The means for a progress bar, short enough for 80 columns."""
        means = self.means()
        waited = [f"data {100 * self.data / self.steps:.0f}% of the time"] if self.streamed and self.steps else []
        return "  ".join([*(self.task.format_metrics(name, means) for name in sorted(self.sums)), *waited])

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        times = {"data": self.data, "steps": self.steps} if self.streamed else {}
        return {"sums": self.sums, "counts": self.counts, **times}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the sums in `state`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
        self.data, self.steps = (float(state.get(key, 0.0)) for key in ("data", "steps"))


class Stateful(Protocol):
    """The interface of an object whose state a session saves."""

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to resume."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state`."""

    def quantities(self) -> Mapping[str, Sequence[Tensor]]:
        """Returns the quantities that must stay finite, by name."""


class Session:
    """The checkpoints of one command on one part of a run, whose folder is `held`."""

    def __init__(
        self,
        part: Part,
        held: Held,
        stop: Stop,
        device: torch.device,
        recipe: Recipe,
        resume_with: str,
        task: Task,
        source: Source,
        sinks: Sequence[str] = (),
    ) -> None:
        """The inputs of `source` are kept in every checkpoint, and what it is about with the attempt."""
        self.part, self.held, self.stop, self.device = part, held, stop, device
        self.recipe = recipe
        self.resume_with = whole_command(
            world().of_first(lambda: resume_with)
        )  # the others work in folders of their own
        world().go_on_with(self.resume_with)
        self.source = source
        self.task, self.meter = task, Meter(task, getattr(recipe.data, "streamed", False))
        self.following = Following(part, held)
        self._wanted, self.sinks = sinks, Sinks((), part, {})

    @contextmanager
    def steps(self, epoch: int, epochs: int, done: int, total: int) -> Iterator[Callable[[int], None]]:
        """Shows the steps of `epoch` (from 1) from the one after `done` on; yields what is told how many are done."""
        title = f"{self.part.command} {epoch}/{epochs}"
        with world().hurried(), progress(title, total, self.recipe.log.every) as draw:
            self.following.begin(epoch, epochs, done, total)

            def say(step: int) -> None:
                left = self.following.at(step, self.meter.means)
                draw(step, self.meter.text, left)

            yield say

    def record(self, row: Mapping[str, Any]) -> None:
        """Adds a row to the metrics, and sends it to the sinks."""
        self.part.add_metrics(row)
        self.sinks.row(row)

    def close(self) -> None:
        """Ends what follows the command, however it has ended."""
        self.following.close()
        self.sinks.close()

    def save(self, position: int, state: Stateful) -> None:
        """Writes a checkpoint of `state`, the sums, torch's own generators, and by which recipe and where it was made."""
        self.held.require()
        if not world().first:
            state.state_dict()  # to which each process gives its part
            self.stop.saved()
            return
        content = {"state": state.state_dict(), "meter": self.meter.state_dict(), "rng": torch.get_rng_state()}
        inputs = self.source.inputs
        content |= {"names": _digest(inputs.names), "inputs": inputs_to_plain(inputs)}
        content |= {"recipe": flat_values(self.recipe), "makers": makers(self.device)}
        if self.device.type == "cuda":
            content["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        with world().hurried(False):
            save_checkpoint(self.part.checkpoints, position, content)
        self.stop.saved()

    def begin(self, at: str, epoch: int, facts: Mapping[str, Any]) -> None:
        """Records that an attempt begins `at` some place, with `facts`; rows of `epoch` and later are dropped."""
        plugins = recorded_plugins(self.recipe)
        kept: dict[str, Any] = {"data": self.source.about, "recipe": self.part.recipe_digest()}
        kept |= {"plugins": plugins} if plugins else {}
        record_attempt(self.part, self.device, self.recipe.seed, at, facts, **kept)
        self._say_lost(epoch)
        self.part.drop_metrics(epoch)
        self.sinks = Sinks(self._wanted, self.part, {key: json.loads(v) for key, v in flat_values(self.recipe).items()})

    def _say_lost(self, epoch: int) -> None:
        """A line where rows tell of epochs after the first `epoch` ones, so that their checkpoint is not the newest here."""
        last = max((row["epoch"] + 1 for row in self.part.metrics()), default=0)
        if last > epoch:
            text = "%s: no checkpoint of epoch %d is left, or a kill came before it was written; computing anew from epoch %d"
            log.warning(text, self.part.checkpoints, last, epoch + 1)

    def restore(self, checkpoint: Mapping[str, Any], state: Stateful) -> None:
        """Restores everything from `checkpoint`; raises `CheckpointError` where it is of another run."""
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
            raise checkpoint_mismatch(self.part) from error

    def means(self, epoch: int, state: Stateful) -> dict[str, float]:
        """Returns the means of `epoch` and resets the sums; raises `Diverged` where one of them, or a quantity of `state`, is
        not finite, before anything of the epoch is written."""
        self.held.require()
        means, self.meter = self.meter.means(), Meter(self.meter.task, self.meter.streamed)
        self.require_finite(epoch, means)
        self._require_sound(f"epoch {epoch + 1}", state)
        return means

    def require_finite(self, epoch: int, row: Mapping[str, Any]) -> None:
        """Raises `Diverged` where a loss, or the eigenvalue, in `row` is not finite."""
        for name, value in row.items():
            if (name.endswith("_loss") or name == "eigenvalue") and not math.isfinite(value):
                raise self._diverged(f"the {name.replace('_', ' ')} of epoch {epoch + 1} is not finite")

    def check(self, position: int, done: str, state: Stateful) -> None:
        """Writes a checkpoint if one is due after a step is `done`, and stops if a signal requested it."""
        due = self.stop.due() and (world().first or self.stop.requested is not None)
        if any(world().numbers(int(due))):
            self._require_sound(done, state)
            self.save(position, state)
            self.leave()

    def _require_sound(self, done: str, state: Stateful) -> None:
        """Raises `Diverged` where a quantity of `state` is not finite after what is `done`; one look at the device."""
        named = [(name, tensor.isfinite().all()) for name, tensors in state.quantities().items() for tensor in tensors]
        sound = torch.stack([flag for _, flag in named]).tolist()
        for (name, _), fine in zip(named, sound, strict=True):
            if not fine:
                raise self._diverged(f"after {done} {name} are not finite")

    def _diverged(self, said: str) -> Diverged:
        searches = self.resume_with.startswith("diffnas search")
        keys = "search.weights.lr or search.arch.lr" if searches else "train.lr"
        return Diverged(
            f"{said}: the {'search' if searches else 'training'} has diverged; lower the learning rate ({keys}), and go on"
            f" from before with: {self.resume_with} --set KEY=VALUE"
        )

    def leave(self) -> None:
        """Raises `Interrupted` where a signal asked to stop; the checkpoint is written."""
        asked = world().numbers(int(self.stop.requested is not None))
        if any(asked):
            self.stop.requested = self.stop.requested or f"a signal to process {asked.index(1)}"
            raise Interrupted(
                f"stopped by {self.stop.requested}; a checkpoint is written; go on with: {self.resume_with}"
            )


def require_counts(**counts: object) -> None:
    """Raises `ValueError` where one of a checkpoint's counts is not a whole number of at least 0."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} is {value!r}")
