"""What tests share: the references of original implementations, real data where it is at hand, and tiny searches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffnas.core.space import Form, Shape
from diffnas.engine.method import Method
from diffnas.engine.search import Alphas, Search
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.tasks.classification import Classification

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("DIFFNAS_SHARED", HERE.parents[1] / "shared"))
# Each process compiles kernels anew where none are kept; the tests of the kernels, and of runs with them, ask for them.
os.environ.setdefault("DIFFNAS_KERNELS", "torch")
torch.set_num_threads(int(os.environ.get("DIFFNAS_TEST_THREADS", "1")))


class Oracle(NamedTuple):
    """One recorded call of an original implementation."""

    state: dict[str, Tensor]
    given: dict[str, Tensor]
    found: dict[str, Tensor]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The outputs whose name begins with `prefix`, without it."""
        return {name[len(prefix) :]: t for name, t in self.found.items() if name.startswith(prefix)}


def find(name: str) -> Path:
    """The file of an oracle: a golden of the repository, or one of the shared ones; skips where neither is there."""
    for path in (HERE / "goldens" / name, SHARED / "oracles" / name):
        if path.is_file():
            return path
    pytest.skip(f"{name} is not at hand")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Lets no test depend on those that ran before it, in this process or in another."""
    torch.manual_seed(0)


@pytest.fixture
def oracle() -> Callable[[str], Oracle]:
    """Loads a recorded call by name."""

    def load(name: str) -> Oracle:
        tensors = load_file(find(f"{name}.safetensors"))
        parts: list[dict[str, Tensor]] = []
        for prefix in ("state/", "in/", "out/"):
            parts.append({key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)})
        return Oracle(*parts)

    return load


@pytest.fixture
def in_float64() -> Callable[[Oracle], Oracle]:
    """Widens a recorded call, so that two forms can be told apart at its weights."""

    def widen(call: Oracle) -> Oracle:
        parts = ({n: t.double() if t.is_floating_point() else t for n, t in part.items()} for part in call)
        return Oracle(*parts)

    return widen


@pytest.fixture
def record() -> Callable[[str], Any]:
    """Loads a recorded JSON file by name."""
    return lambda name: json.loads(find(f"{name}.json").read_text())


@pytest.fixture
def cifar10() -> Path:
    """The folder of real CIFAR-10; skips where it is not at hand."""
    folder = SHARED / "data" / "cifar10"
    if not folder.is_dir():
        pytest.skip("real CIFAR-10 is not at hand")
    return folder


@pytest.fixture
def close() -> Callable[..., None]:
    """Asserts that max|a - b| <= tolerance * max|b| (by default 1e-4 in float32 and 1e-9 in float64)."""

    def check(found: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
        assert found.shape == expected.shape
        limit = tolerance or (1e-9 if expected.dtype == torch.float64 else 1e-4)
        found, expected = found.detach(), expected.detach().to(found.dtype)
        size = float(expected.abs().max())
        off = float((found - expected).abs().max())
        assert torch.allclose(found, expected, rtol=0.0, atol=limit * max(size, 1e-30)), f"{off} of {size}"

    return check


@pytest.fixture
def make_search() -> Callable[..., Search]:
    """Builds a small search on random weights, the optimizers as DARTS has them."""

    def build(
        space: DartsCNN | None = None,
        method: Method | None = None,
        side: int = 8,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        momentum: float = 0.9,
        scale: float = 1e-3,
        form: Form = "plain",
    ) -> Search:
        space = space or DartsCNN(channels=4, layers=2, nodes=2)
        torch.manual_seed(seed)
        supernet = space.supernet(Shape(10, 3, side), form=form).to(dtype)
        arch = Alphas(space.cells, torch.Generator().manual_seed(seed), scale).to(dtype)
        return Search(
            method=method or DARTS(),
            space=space,
            supernet=supernet,
            arch=arch,
            weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.025, momentum, weight_decay=3e-4),
            arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-4, (0.5, 0.999), weight_decay=1e-3),
            task=Classification(),
            seed=seed,
            clip=5.0,
        )

    return build
