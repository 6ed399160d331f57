"""Feeds: what an epoch visits, and that every batch is a function of (seed, name, epoch, step) alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.data.augment import Augment
from diffnas.data.feeds import EpochFeed, Feed
from diffnas.data.images import Images
from diffnas.errors import DataError

COUNT = 23
PLAIN = Augment(0, False, 0, (0.0,), (1.0,))
BUSY = Augment(1, True, 2, (0.5,), (0.5,))


def numbered(count: int = COUNT) -> Images:
    """Images whose every pixel, and whose label, is their own number."""
    numbers = torch.arange(count)
    pixels = numbers.to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    return Images(pixels, numbers, tuple(str(number) for number in range(count)))


def feed(augment: Augment = PLAIN, batch: int = 5, indices: torch.Tensor | None = None, **options: Any) -> Feed:
    return Feed(numbered(), indices, batch, augment, **{"seed": 3, "name": "weights", **options})


def visited(epoch: EpochFeed) -> list[list[int]]:
    return [batch.targets.tolist() for batch in epoch]


def same(left: Batch, right: Batch) -> bool:
    return torch.equal(left.inputs, right.inputs) and torch.equal(left.targets, right.targets)


def test_shuffle_visits_every_sample_once_in_a_new_order_each_epoch() -> None:
    source = feed()
    first, second = visited(source.epoch(0)), visited(source.epoch(1))
    assert [len(batch) for batch in first] == [5, 5, 5, 5, 3]
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(COUNT))
    assert first != second
    assert len(source) == len(source.epoch(0)) == source.steps == 5


def test_an_image_keeps_its_label() -> None:
    for order in ("shuffle", "fresh", "cycle", "sequential"):
        for batch in feed(order=order, steps=4).epoch(2):
            assert torch.equal((batch.inputs[:, 0, 0, 0] * 255).round().long(), batch.targets)


@pytest.mark.parametrize("order", ["shuffle", "fresh", "cycle", "sequential"])
def test_a_batch_depends_on_its_epoch_and_step_alone(order: str) -> None:
    walked = list(feed(BUSY, order=order, steps=4).epoch(3))
    assert all(same(left, right) for left, right in zip(walked, feed(BUSY, order=order, steps=4).epoch(3), strict=True))
    other = feed(BUSY, order=order, steps=4)
    other.epoch(7)[0]  # what was asked before does not matter
    assert same(other.epoch(3)[2], walked[2])


@pytest.mark.parametrize("order", ["shuffle", "fresh", "cycle"])
def test_seed_name_and_epoch_each_change_the_batches(order: str) -> None:
    base = feed(order=order, steps=4)
    for other in (feed(order=order, steps=4, seed=4), feed(order=order, steps=4, name="architecture")):
        assert visited(other.epoch(0)) != visited(base.epoch(0))
    assert visited(base.epoch(0)) != visited(base.epoch(1))


def test_random_numbers_elsewhere_change_nothing() -> None:
    torch.manual_seed(0)
    expected = visited(feed(BUSY).epoch(0))
    torch.rand(10)
    assert visited(feed(BUSY).epoch(0)) == expected


def test_the_augmentation_does_not_change_the_order() -> None:
    assert visited(feed(BUSY).epoch(0)) == visited(feed(PLAIN).epoch(0))


def test_the_same_image_is_augmented_anew_in_each_epoch() -> None:
    source = feed(Augment(3, False, 0, (0.0,), (1.0,)), batch=COUNT)
    first, second = source.epoch(0)[0], source.epoch(1)[0]
    assert not torch.equal(first.inputs[first.targets.argsort()], second.inputs[second.targets.argsort()])


def test_fresh_draws_distinct_samples_in_each_step() -> None:
    source = feed(order="fresh", batch=8, steps=40)
    batches = visited(source.epoch(0))
    assert len(batches) == source.steps == 40
    assert all(len(batch) == len(set(batch)) == 8 for batch in batches)
    seen = torch.bincount(torch.tensor(sum(batches, [])), minlength=COUNT)
    assert seen.min() > 0
    assert set(batches[0]) & set(batches[1])  # samples come back before all were seen
    assert feed(order="fresh").steps == 5


def test_cycle_has_no_seam_at_epochs_and_visits_all_in_each_round() -> None:
    source = feed(order="cycle", batch=4, steps=3)
    walked = [batch for epoch in range(23) for batch in visited(source.epoch(epoch))]
    assert all(len(batch) == 4 for batch in walked)
    samples = sum(walked, [])
    rounds = [samples[start : start + COUNT] for start in range(0, len(samples), COUNT)]
    assert len(rounds) == 12
    assert all(sorted(turn) == list(range(COUNT)) for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) == 12


def test_cycle_can_go_round_several_times_in_an_epoch() -> None:
    samples = sum(visited(feed(order="cycle", batch=10, steps=7).epoch(1)), [])
    whole = sum((visited(feed(order="cycle", batch=10, steps=14).epoch(0))), [])
    assert samples == whole[70:]


def test_sequential_is_in_order_and_not_augmented() -> None:
    source = feed(BUSY, order="sequential")
    assert visited(source.epoch(5)) == [list(range(start, min(start + 5, COUNT))) for start in range(0, COUNT, 5)]
    assert torch.equal(source.epoch(0)[0].inputs, BUSY.apply(numbered().pixels[:5]))


def test_indices_choose_the_samples() -> None:
    chosen = torch.tensor([20, 3, 7, 11, 2, 5])
    assert sorted(sum(visited(feed(indices=chosen).epoch(0)), [])) == sorted(chosen.tolist())
    assert sum(visited(feed(indices=chosen, order="sequential").epoch(0)), []) == chosen.tolist()
    for order in ("fresh", "cycle"):
        assert set(sum(visited(feed(indices=chosen, order=order, steps=30).epoch(0)), [])) == set(chosen.tolist())


def test_steps_shorten_an_epoch() -> None:
    assert visited(feed(steps=2).epoch(1)) == visited(feed().epoch(1))[:2]


def test_batches_are_images_for_the_network() -> None:
    batch = feed(BUSY).epoch(0)[1]
    assert batch.inputs.shape == (5, 1, 4, 4)
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.dtype == torch.int64
    assert batch.scale == 1.0


@pytest.mark.parametrize("step", [5, -1])
def test_a_step_beyond_the_epoch_is_an_index_error(step: int) -> None:
    with pytest.raises(IndexError, match="of an epoch of 5 steps"):
        feed().epoch(0)[step]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": 0}, "weights: a batch of 0 cannot be drawn from 23 samples"),
        ({"batch": 24, "order": "fresh"}, "a batch of 24 cannot be drawn from 23 samples"),
        ({"batch": 24, "order": "cycle", "steps": 2}, "a batch of 24 cannot be drawn from 23 samples"),
        ({"order": "cycle"}, "order cycle needs the steps of an epoch"),
        ({"order": "random"}, "order 'random' is none of shuffle, fresh, cycle, sequential"),
        ({"steps": 6}, "6 batches of 5 do not fit 23 samples"),
        ({"steps": 0}, "0 batches of 5 do not fit 23 samples"),
        ({"indices": torch.tensor([], dtype=torch.int64)}, "needs one or more indices"),
        ({"indices": torch.tensor([0.5])}, "needs one or more indices, int64 [M]"),
        ({"indices": torch.tensor([23])}, "an index is outside of the 23 samples"),
        ({"indices": torch.tensor([-1])}, "an index is outside of the 23 samples"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError) as caught:
        feed(**options)
    assert len(caught.value.lines) == 1
    assert text in str(caught.value)
