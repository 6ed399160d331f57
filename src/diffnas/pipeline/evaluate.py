"""Evaluation of a network on images or text that it was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from diffnas.core.batch import loss_of
from diffnas.data.feeds import Feed
from diffnas.data.windows import TextFeed
from diffnas.engine.search import Feed as AnyFeed
from diffnas.errors import DataError
from diffnas.runtime.distributed import world
from diffnas.tasks.base import Task
from diffnas.tasks.language import LanguageTask, Perplexity, perplexity

MOST_CLASSES = 1000  # up to so many a test records which class is taken for which


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy `loss`, the shares of right answers (`accuracy`, and among the best five `top5`), over `n` images.

    `confusion[t][p]` counts the images of class t that were taken for class p, where that was asked for.
    """

    loss: float
    accuracy: float
    top5: float
    n: int
    confusion: tuple[tuple[int, ...], ...] | None = None

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `accuracy` as a share of `n` draws (Wilson, 1927)."""
        return share_interval(self.accuracy, self.n)

    def per_class(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """The images of each class, the right answers among them, and `confusion`; nothing where it was not asked for."""
        if self.confusion is None:
            return {}
        return {
            "classes": list(classes),
            "class_images": [sum(row) for row in self.confusion],
            "class_right": [row[k] for k, row in enumerate(self.confusion)],
            "confusion": [list(row) for row in self.confusion],
        }


@torch.no_grad()
def evaluate(network: nn.Module, task: Task, feed: Feed, precision: torch.dtype, confusion: bool = False) -> Evaluation:
    """The network's evaluation over one pass of `feed` by `task`, in evaluation mode."""
    training = network.training
    network.eval()
    batches = feed.epoch(0)
    sums, counts, n = [], None, 0
    for step in _own_steps(feed.steps):
        batch = batches[step]
        n += len(batch.targets)
        if not len(batch.targets):  # none could be read
            continue
        outputs: list[torch.Tensor] = []

        def net(x: torch.Tensor, kept: list[torch.Tensor] = outputs) -> torch.Tensor:
            kept.append(network(x))
            return kept[0]

        with torch.autocast(batch.inputs.device.type, precision, enabled=precision != torch.float32):
            loss = loss_of(task, net, batch)
        best = outputs[0].topk(min(5, outputs[0].shape[1]), dim=1).indices
        top5 = (best == batch.targets[:, None]).any(dim=1).sum()
        batch_sums = torch.stack([loss.value.double() * loss.count, loss.correct.double(), top5.double()])
        sums.append(batch_sums)
        if confusion:
            batch_counts = _confusion(batch.targets, best[:, 0], outputs[0].shape[1])
            counts = batch_counts if counts is None else counts + batch_counts
    network.train(training)
    every: list[dict[str, Any]] = world().all({"sums": sums, "n": n, "counts": counts})
    sums, n = [row for part in every for row in part["sums"]], sum(part["n"] for part in every)
    if not sums:
        raise DataError("none of the test images can be read")
    value, right, among = (sum(sums[1:], sums[0]) / n).tolist()  # in the order of the batches, whoever computed them
    matrices = [part["counts"] for part in every if part["counts"] is not None]
    matrix = tuple(map(tuple, sum(matrices[1:], matrices[0]).tolist())) if matrices else None
    return Evaluation(value, right, among, n, matrix)


def share_interval(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a `share` of `n` draws (Wilson, 1927)."""
    z, p = 1.959964, share
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@torch.no_grad()
def score(network: nn.Module, task: Task, feed: AnyFeed, precision: torch.dtype) -> tuple[float, float, int]:
    """Mean loss, share of right answers and their number over one pass of `feed`, in evaluation mode."""
    training = network.training
    network.eval()
    batches, sums, n = feed.epoch(0), [], 0
    for step in _own_steps(len(batches)):
        batch = batches[step]
        with torch.autocast(batch.inputs.device.type, precision, enabled=precision != torch.float32):
            loss = loss_of(task, network, batch)
        sums.append(torch.stack([loss.value.double() * loss.count, loss.correct.double()]))
        n += loss.count
    network.train(training)
    every: list[dict[str, Any]] = world().all({"sums": sums, "n": n})
    sums, n = [row for part in every for row in part["sums"]], sum(part["n"] for part in every)
    value, right = (torch.stack(sums).sum(0) / n).tolist()
    return value, right, n


def _own_steps(steps: int) -> range:
    """The batches that this process evaluates: each is evaluated once, by one process."""
    rank, size = world().rank, world().size
    return range(steps * rank // size, steps * (rank + 1) // size)


def _confusion(targets: torch.Tensor, answers: torch.Tensor, classes: int) -> torch.Tensor:
    """[classes, classes]: how many images of each class (row) were taken for each class (column)."""
    return torch.bincount(targets * classes + answers, minlength=classes * classes).reshape(classes, classes)


@torch.no_grad()
def perplexity_of(network: nn.Module, feed: TextFeed, precision: torch.dtype) -> Perplexity:
    """The perplexity of the network over one pass of `feed`, in evaluation mode, the hidden state going on from the first
    window to the last; of several processes the first computes it, since each window follows the one before."""
    return perplexity(*world().of_first(lambda: _windows(network, feed, precision)))


def _windows(network: nn.Module, feed: TextFeed, precision: torch.dtype) -> tuple[list[float], list[int]]:
    """The mean loss of each window, and its tokens."""
    training = network.training
    network.eval()
    task, carry = LanguageTask(0.0, 0.0), None
    losses, counts = [], []
    for batch in feed.epoch(0):
        with torch.autocast(batch.inputs.device.type, precision, enabled=precision != torch.float32):
            loss = task.loss(network, replace(batch, carry=carry))
        carry = loss.carry
        losses.append(loss.value)
        counts.append(loss.count)
    network.train(training)
    return torch.stack(losses).double().tolist(), counts
