"""Streamed batches: the same for any number of workers and from any step on, and those of memory where nothing differs."""

from __future__ import annotations

import logging
import runpy
from pathlib import Path

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.data.augment import Augment
from diffnas.data.feeds import Feed, Order
from diffnas.data.images import ImageData, load_images
from diffnas.data.stream import Streamed
from diffnas.data.streamed_set import Reading, stream_images, usual_resize
from diffnas.data.views import View
from diffnas.errors import DataError, ResourceError

PICTURES = runpy.run_path(str(Path(__file__).parents[1] / "pictures.py"))
save_set = PICTURES["save_set"]

RANDOM = View(16, 18, (0.2, 1.0), flip=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_set(tmp_path_factory.mktemp("set"))


def streamed(root: Path, view: View = RANDOM, workers: int = 0, limit: int = 10) -> ImageData:
    return stream_images("imagenet", root, Reading(view, workers, limit))


def feed(data: ImageData, order: Order = "shuffle", augment: Augment | None = None, batch: int = 5) -> Feed:
    plain = augment or Augment(0, False, 0, data.mean, data.std)
    return Feed(
        data.train, None, batch, plain, seed=3, name="train", order=order, steps=4 if order == "cycle" else None
    )


def batches(feed: Feed, epoch: int = 0, start: int = 0) -> list[Batch]:
    opened = feed.epoch(epoch)
    return [opened[step] for step in range(start, len(opened))]


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) for a, b in pairs)


@pytest.mark.parametrize("order", ["shuffle", "cycle"])
def test_batches_do_not_depend_on_the_workers_or_on_where_one_begins(root: Path, order: Order) -> None:
    whole = batches(feed(streamed(root), order), epoch=1)
    assert [len(batch.targets) for batch in whole] == ([5, 5, 5, 5, 4] if order == "shuffle" else [5] * 4)
    for workers in (0, 1, 2):
        for start in (0, 2):
            assert same(batches(feed(streamed(root, workers=workers), order), 1, start), whole[start:])
    assert not torch.equal(batches(feed(streamed(root), order), epoch=2)[0].inputs, whole[0].inputs)
    again = feed(streamed(root), order).epoch(1)
    assert same([again[3], again[0], again[1]], [whole[3], whole[0], whole[1]])  # in any order


def test_reading_draws_nothing_from_the_generator_of_the_network(root: Path) -> None:
    for workers in (0, 1):
        torch.manual_seed(7)
        batches(feed(streamed(root, workers=workers)))
        drawn = torch.rand(3)
        torch.manual_seed(7)
        assert torch.equal(drawn, torch.rand(3))


def test_padded_crops_are_those_of_images_in_memory(root: Path) -> None:
    moved = Augment(2, True, 4, (0.5,) * 3, (0.25,) * 3, (0.4, 0.4, 0.4, 0.2))
    memory = load_images("folder", root, side=16)
    data = stream_images("folder", root, Reading(View(16)))
    assert memory.train.names == data.train.names
    assert same(batches(feed(data, augment=moved)), batches(feed(memory, augment=moved)))
    assert (data.mean, data.std) == (memory.mean, memory.std)  # of a small set all images are measured


def test_a_test_is_in_order_and_not_random(root: Path) -> None:
    first, second = (batches(feed(streamed(root), "sequential"), epoch) for epoch in (0, 1))
    assert same(first, second) and torch.equal(torch.cat([b.targets for b in first]), streamed(root).train.labels)


def broken_set(tmp_path: Path) -> Path:
    root = save_set(tmp_path / "set", classes=2, train=6, val=3)
    (root / "train" / "n00000000" / "train_1.JPEG").write_bytes(b"")
    (root / "train" / "n00000001" / "train_2.JPEG").write_text("no image")
    return root


def test_broken_images_are_left_out_named_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = streamed(broken_set(tmp_path))
    with caplog.at_level(logging.WARNING, "diffnas.data"):
        one = batches(feed(data))
        assert same(batches(feed(data)), one) and same(batches(feed(streamed(tmp_path / "set", workers=2))), one)
    assert sum(len(batch.targets) for batch in one) == 10 == sum(len(batch.inputs) for batch in one)
    assert isinstance(data.train, Streamed) and len(data.train.intake.broken) == 2
    named = [record.getMessage() for record in caplog.records if "train_1.JPEG" in record.getMessage()]
    assert len(named) == 2 and "is not a readable image" in named[0]  # once for each of the two data sets


def test_labels_stay_with_their_images_where_some_are_left_out(tmp_path: Path) -> None:
    root = broken_set(tmp_path)
    data, augment = streamed(root, View(8)), Augment(1, True, 2, (0.5,) * 3, (0.25,) * 3, (0.4, 0.4, 0.4, 0.2))
    kept = [at for at, place in enumerate(data.train.places) if Path(str(place)).stat().st_size > 9]
    whole = feed(data, "sequential", batch=12).epoch(0)[0]
    assert torch.equal(whole.targets, data.train.labels[kept]) and len(kept) == 10
    assert all(len(batch.targets) == len(batch.inputs) for batch in batches(feed(data, augment=augment)))


def test_more_broken_images_than_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 images cannot be read, more than data.broken_limit, 1") as caught:
        batches(feed(streamed(broken_set(tmp_path), limit=1)))
    assert any("train_2.JPEG" in line for line in caught.value.lines)


def test_a_batch_of_broken_images_is_refused_in_a_training_and_empty_in_a_test(tmp_path: Path) -> None:
    root = save_set(tmp_path / "set", classes=2, train=2, val=1)
    for path in (root / "train" / "n00000000").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a batch is left with \d images, for these cannot be read"):
        batches(feed(streamed(root), batch=2))
        batches(feed(streamed(root), batch=2), epoch=1)
        batches(feed(streamed(root), batch=2), epoch=2)
    assert sum(len(batch.targets) for batch in feed(streamed(root), "sequential", batch=1).epoch(0)) == 2


def test_a_worker_that_dies_is_said_in_a_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffnas.data import stream

    def died(_: object) -> object:
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    data = streamed(root)
    opened = feed(data).epoch(0)
    monkeypatch.setattr(stream, "next", died, raising=False)
    with pytest.raises(ResourceError, match=r"lower data\.workers"):
        opened[0]


def test_the_time_that_steps_wait_is_measured(root: Path) -> None:
    data = streamed(root)
    batches(feed(data))
    assert isinstance(data.train, Streamed) and data.train.intake.seconds > 0


def test_usual_sizes() -> None:
    assert [usual_resize(side) for side in (224, 32, 64)] == [256, 37, 74]
