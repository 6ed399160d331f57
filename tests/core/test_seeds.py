"""Named streams of random numbers."""

from __future__ import annotations

import torch

from diffnas.core.seeds import generator, stream_seed


def draws(*key: object) -> list[float]:
    return torch.rand(3, generator=generator(*key)).tolist()  # type: ignore[arg-type]


def test_streams_are_determined_and_apart() -> None:
    assert draws(0, "a", 1) == draws(0, "a", 1)
    keys = [(0, "a"), (0, "a", 0), (0, "a", 1), (0, "a", 1, 0), (1, "a"), (0, "b"), (0, "a", 11)]
    assert len({tuple(draws(*key)) for key in keys}) == len(keys)


def test_seeds_are_the_same_everywhere() -> None:
    assert stream_seed(0, "train", 3) == 9010243902811717215
    assert all(0 <= stream_seed(seed, "x") < 2**63 for seed in range(50))
