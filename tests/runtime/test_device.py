"""Devices: which is picked, how modules are placed on it, how much memory was used."""

from __future__ import annotations

import sys

import pytest
import torch

from diffnas.errors import RecipeError
from diffnas.runtime import device


@pytest.mark.parametrize(("gpus", "picked"), [(0, "cpu"), (2, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(gpus: int, picked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert device.pick_device("auto").type == picked and device.pick_device("cpu").type == "cpu"
    with pytest.raises(RecipeError, match=rf"device: cuda:2 is not on this machine \({gpus} CUDA devices\); use cpu"):
        device.pick_device("cuda:2")
    assert gpus == 0 or device.pick_device("cuda:1").index == 1


def test_modules_are_placed_with_their_channels_last() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 1, 2))
    placed = device.place(net, torch.device("cpu"))
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert placed(torch.zeros(1, 3, 9, 9)).shape == (1, 4, 4, 4)


def test_the_most_memory_used(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = device.peak_memory(torch.device("cpu"))
    assert on_cpu["of"] == "process" and on_cpu["bytes"] > 2**20
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda at: 7)
    assert device.peak_memory(torch.device("cuda")) == {"bytes": 7, "of": "tensors on the GPU"}
    monkeypatch.setitem(sys.modules, "resource", None)
    assert device.peak_memory(torch.device("cpu")) == {}
