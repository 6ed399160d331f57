"""Compilation is an extra: the same numbers with it, and a search that goes on without it."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from diffnas.core.mixture import Mix
from diffnas.core.space import Shape
from diffnas.errors import RecipeError
from diffnas.runtime import device
from diffnas.runtime.device import compiled
from diffnas.spaces.darts_cnn.space import DartsCNN


def test_without_a_compiler_the_module_stays_eager_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "no_compiler", lambda at: "no compiler (none found)")
    net = torch.nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING, logger="diffnas"):
        assert compiled(net) is net
    assert net._compiled_call_impl is None
    assert caplog.messages == ["search.compile: no compiler (none found); the search goes on without"]


def test_a_missing_compiler_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    assert device.no_compiler(torch.device("cpu")) == "no compiler (No working C++ compiler found)"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own insides
def test_a_compiled_supernet_gives_the_same_loss_and_gradients() -> None:
    if device.no_compiler(torch.device("cpu")):
        pytest.skip("no C++ compiler")
    space = DartsCNN(4, 3, nodes=2)
    torch.manual_seed(0)
    nets = [space.supernet(Shape(3, side=8), form="fast") for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    compiled(nets[1])
    x = torch.randn(4, 3, 8, 8)
    mixture = {k: torch.rand(len(c.edges), len(c.ops)).softmax(-1).requires_grad_() for k, c in space.cells.items()}
    found = []
    for net in nets:
        value = net(x, {kind: Mix(op) for kind, op in mixture.items()}).square().sum()
        found.append([value.detach(), *torch.autograd.grad(value, [*mixture.values(), *net.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


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


def test_a_gpu_compiles_with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "import_module", lambda name: None)
    assert device.no_compiler(torch.device("cuda")) is None

    def missing(name: str) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(device, "import_module", missing)
    assert device.no_compiler(torch.device("cuda")) == "no compiler (ModuleNotFoundError)"


def test_the_most_memory_used(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = device.peak_memory(torch.device("cpu"))
    assert on_cpu["of"] == "process" and on_cpu["bytes"] > 2**20
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda at: 7)
    assert device.peak_memory(torch.device("cuda")) == {"bytes": 7, "of": "tensors on the GPU"}
    monkeypatch.setitem(sys.modules, "resource", None)
    assert device.peak_memory(torch.device("cpu")) == {}
