"""Compilation is an extra: the same numbers with it, and what goes on without it."""

from __future__ import annotations

import logging

import pytest
import torch

from diffnas.core.mixture import Mix
from diffnas.core.space import Shape
from diffnas.runtime import compiling
from diffnas.runtime.compiling import compiled
from diffnas.spaces.darts_cnn.space import DartsCNN


def test_without_a_compiler_the_module_stays_eager_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling, "no_compiler", lambda at: "no compiler (none found)")
    net = torch.nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING, logger="diffnas"):
        assert compiled(net) is net
    assert net._compiled_call_impl is None
    assert caplog.messages == ["search.compile: no compiler (none found); the search goes on without"]


def test_a_missing_compiler_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    assert compiling.no_compiler(torch.device("cpu")) == "no compiler (No working C++ compiler found)"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own insides
def test_a_compiled_supernet_gives_the_same_loss_and_gradients() -> None:
    if compiling.no_compiler(torch.device("cpu")):
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


def test_a_gpu_compiles_with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "import_module", lambda name: None)
    assert compiling.no_compiler(torch.device("cuda")) is None

    def missing(name: str) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(compiling, "import_module", missing)
    assert compiling.no_compiler(torch.device("cuda")) == "no compiler (ModuleNotFoundError)"
