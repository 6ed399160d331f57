"""Strided 1x1 convolutions of few channels are computed another way: the same values, without the library's mistake."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffnas.kernels.strided import ThinnedConv2d, thin_strided
from diffnas.runtime.device import place
from diffnas.spaces.darts_cnn.ops import FactorizedReduce

CPU = torch.device("cpu")


class Halved(nn.Conv2d):
    """A user's own class of convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("stride", "bias"), [(2, False), ((1, 3), True), ((2, 1), False)])
@pytest.mark.parametrize("kind", [nn.Conv2d, Halved])
def test_values_and_gradients_are_the_same(
    kind: type[nn.Conv2d], stride: Any, bias: bool, layout: Any, close: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    plain = kind(3, 4, 1, stride, bias=bias).double()
    thinned = copy.deepcopy(plain)
    thin_strided(thinned)
    assert isinstance(thinned, ThinnedConv2d) and isinstance(thinned, kind) and thinned.stride == plain.stride
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    found = []
    for layer in (thinned, plain):
        value = layer(x)
        slopes = torch.autograd.grad(value.sin().sum(), [x, *layer.parameters()], create_graph=True)
        norm = torch.stack([slope.square().sum() for slope in slopes]).sum()
        found.append([value, *slopes, *torch.autograd.grad(norm, [x, layer.weight])])
    for mine, theirs in zip(*found, strict=True):
        close(mine, theirs.detach(), 1e-12)


def test_what_is_in_danger_is_thinned_and_nothing_else() -> None:
    layers = {
        "few": nn.Conv2d(15, 4, 1, stride=2),
        "many": nn.Conv2d(16, 4, 1, stride=2),
        "no stride": nn.Conv2d(3, 4, 1),
        "wide": nn.Conv2d(3, 4, 3, stride=2),
        "long": nn.Conv2d(3, 4, (1, 3), stride=2),
        "groups": nn.Conv2d(4, 4, 1, stride=2, groups=2),
        "padded": nn.Conv2d(3, 4, 1, stride=2, padding=1),
        "valid": nn.Conv2d(3, 4, 1, stride=(1, 2), padding="valid"),
    }
    module = nn.ModuleDict(layers)
    before = module.state_dict()
    place(place(module, CPU), CPU)
    assert {name for name, layer in module.items() if isinstance(layer, ThinnedConv2d)} == {"few", "valid"}
    assert list(module.state_dict()) == list(before)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_our_own_are_thinned_where_nobody_places_them() -> None:
    op = FactorizedReduce(8, 8)
    assert isinstance(op.even, ThinnedConv2d) and isinstance(op.odd, ThinnedConv2d)
    assert type(pickle.loads(pickle.dumps(op)).even) is ThinnedConv2d


STEP = """
import torch
from torch import nn
from diffnas import build_network, build_supernet
from diffnas.core.mixture import Mix
from diffnas.runtime.device import place
from diffnas.spaces.darts_cnn.space import DartsCNN

SPACE = DartsCNN(channels=4, layers=3, nodes=2)
MIXTURE = {kind: Mix(torch.full((len(cell.edges), len(cell.ops)), 0.1)) for kind, cell in SPACE.cells.items()}
SUPERNETS = [build_supernet(SPACE, side=SIDE, form=form) for form in ("plain", "fast")]
NETWORKS = [build_network("darts-v2", channels=4, layers=3, side=SIDE)]
OWN = [nn.Conv2d(3, outputs, 1, stride=2) for outputs in (4, 512)] + [nn.Conv2d(12, 8, 1, stride=2)]

def step(module, x, *given):
    module(x, *given).square().sum().backward()

for module, *given in [(net, MIXTURE) for net in SUPERNETS] + [(net,) for net in NETWORKS]:
    torch.manual_seed(0)
    x = torch.randn(4, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    step(module, x, *given)  # as a user of the library would, and as a run does
    step(place(module, torch.device("cpu")), x, *given)
for module in OWN:
    x = torch.randn(4, module.in_channels, SIDE, SIDE, dtype=torch.float64)
    exact = nn.Conv2d(module.in_channels, module.out_channels, 1, stride=2).double()
    exact.load_state_dict(module.state_dict())
    step(exact, x)
    step(place(module, torch.device("cpu")), x.float().to(memory_format=torch.channels_last))
    off = (module.weight.grad - exact.weight.grad).abs().max() / exact.weight.grad.abs().max()
    assert off < 1e-4, off
"""


def limits(isa: str) -> dict[str, str]:
    """The environment in which the library uses no more than `isa`, and the heap is checked; skips where it cannot."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.is_file() else set()
    needed = {"AVX2": {"avx2", "fma"}, "AVX512_CORE": {"avx512f", "avx512bw", "avx512vl", "avx512dq"}}[isa]
    if not needed <= flags:
        pytest.skip(f"this machine's CPU has no {isa}, or does not say so")
    checked = [str(path) for path in Path("/lib").glob("*-linux-gnu/libc_malloc_debug.so.0")]  # where glibc keeps them
    return {"ONEDNN_MAX_CPU_ISA": isa, "MALLOC_CHECK_": "3", "LD_PRELOAD": " ".join(checked)}


@pytest.mark.parametrize(("isa", "side"), [("AVX2", 16), ("AVX512_CORE", 64)])
def test_a_step_under_the_limit_of_a_lesser_cpu(isa: str, side: int) -> None:
    """In the process of its own that it would end: supernets, a network, and convolutions of a user's own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **limits(isa)}
    code = f"SIDE = {side}\n{STEP}"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
