"""The lines of epochs: no wider than a terminal of 80 columns, and every column named."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from diffnas.pipeline.epoch_lines import EpochLines

IMAGES: dict[str, Any] = {"epoch": 0, "lr": 0.1, "train_loss": 2.3026, "train_accuracy": 10.0, "seconds": 86399.0}
VALID = {"valid_loss": 150.25, "valid_accuracy": 100.0}
SCORE = {"score_loss": 1e9, "score_accuracy": 9.5}
SKIPS = {"skips_normal": 14, "skips_reduce": 2}
NAMES = ("cifar10", "cifar100", "imagenet16-120")
TABLE: dict[str, Any] = {"table": {name: {"test": 100.0 / (k + 1)} for k, name in enumerate(NAMES)}}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.INFO, "diffnas")
    logging.getLogger("diffnas").addHandler(caplog.handler)

    class Said(list[str]):
        def __iter__(self) -> Any:
            return iter(dict.fromkeys(record.getMessage() for record in caplog.records))

    yield Said()  # type: ignore[misc]
    logging.getLogger("diffnas").removeHandler(caplog.handler)


def test_a_search_fits(said: list[str]) -> None:
    lines = EpochLines("search")
    lines.say(IMAGES | SKIPS, 1, 600)  # a warm-up
    lines.say(IMAGES | VALID | SCORE | SKIPS | TABLE, 599, 600)
    lines.say(IMAGES | VALID | SKIPS | {"seconds": 61.0}, 600, 600)
    shown = list(said)
    assert all(len(line) <= 80 for line in shown), [line for line in shown if len(line) > 80]
    head = next(line for line in shown if "valid loss acc" in line)
    row = next(line for line in shown if line.lstrip().startswith("599/600"))
    for name, value in (("train loss acc", "2.303 10.00%"), ("score loss acc", "1e+09 9.50%"), ("time", "23h59m")):
        assert abs(head.index(name) + len(name) - row.index(value) - len(value)) <= 1
    assert "table: cifar10 100.00%, cifar100 50.00%, imagenet16-120 33.33%" in shown[-2]
    assert shown[-1].split() == ["600/600", "2.303", "10.00%", "150.2", "100.00%", "14", "1m01s"]
    assert sum(line.startswith("score: ") for line in shown) == 1 and any("harmless" in line for line in shown)


def test_a_language_model(said: list[str]) -> None:
    row = {"epoch": 0, "train_loss": 6.9, "train_perplexity": 1e6, "seconds": 9.0}
    lines = EpochLines("train")
    lines.say(row | {"valid_loss": 6.0, "valid_perplexity": 403.43}, 1, 300)
    shown = list(said)
    assert "train perplexity  valid perplexity    time    left" in shown[-2]
    assert shown[-1].split() == ["1/300", "1e+06", "403.4", "9s", "44m51s"] and all(len(s) <= 80 for s in shown)


def test_another_task_names_its_own(said: list[str]) -> None:
    EpochLines("train").say({"train_loss": 1.0, "train_mean_error": 0.25, "seconds": 1.0}, 1, 1)
    assert "train loss mean_error" in list(said)[-2] and "1.000 0.250" in list(said)[-1]
