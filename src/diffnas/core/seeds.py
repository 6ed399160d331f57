"""Named random streams: every draw comes from a generator that a name, a seed and a place in time determine."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, name: str, *keys: int) -> int:
    """The 63-bit seed of stream `name` at `keys` (epoch, step, rank, ...), the same on every machine and Python."""
    text = "/".join([str(seed), name, *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, name: str, *keys: int) -> torch.Generator:
    """A fresh CPU generator of stream `name` at `keys`; asking for one never moves another."""
    return torch.Generator().manual_seed(stream_seed(seed, name, *keys))
