"""No step waits for a device that is not the host, walked on the device `meta`, which knows shapes and holds no numbers.

What a GPU would have to be waited for is counted: reads of its numbers, copies to it that wait for their end, and tensors
made from numbers of the host.  A tensor of the host among those of the device is an error, as it is on a GPU.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.core.space import Shape, TextShape
from diffnas.data.augment import Augment
from diffnas.data.feeds import Feed
from diffnas.data.images import Images
from diffnas.engine import Search
from diffnas.engine.stage import Clock
from diffnas.registry import METHODS, choice_class
from diffnas.tasks.classification import Classification
from diffnas.tasks.language import LanguageTask

META = torch.device("meta")
SPACES: dict[str, dict[str, Any]] = {
    "darts-cnn": {"channels": 4, "layers": 1, "nodes": 1, "ops": ("none", "skip_connect", "avg_pool_3x3")},
    "darts-rnn": {"units": 6, "steps": 2},
    "nasbench201": {"channels": 4, "layers": 1, "ops": ("none", "nor_conv_1x1", "avg_pool_3x3")},
    "shufflenet-blocks": {"channels": 4, "widths": (8,), "depths": (2,), "last": 8, "stem": "cifar"},
}
NEEDS: dict[str, dict[str, Any]] = {
    "pdarts": {"skip_dropout": True},
    "pcdarts": {"partial": 2},
    "lambda-darts": {"layers": 4},
    "oles": {"ops": ("none", "skip_connect", "sep_conv_3x3")},
    "fairdarts": {"ops": ("skip_connect", "avg_pool_3x3")},
    "darts-minus": {"ops": ("none", "avg_pool_3x3", "auxiliary_skip"), "excluded": ("none", "auxiliary_skip")},
}
READS = {
    "drnas": 2,  # gammas are drawn by the host from the concentrations, which change between the two mixtures of a step
    "gdas": 1,  # the host runs the ops that were sampled
    "dsnas": 1,  # the same
    "oles": 1,  # the host leaves out the weights that have stopped
}
"""How often a step reads the device, where it must: once, but for `drnas`, whose draws the device can make as well."""


class Elsewhere(TorchDispatchMode):
    """Counts what a step waits for; whoever reads the device is told 1 or True."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device for tensor in tensors}
        if name == "_local_scalar_dense" and META in devices:
            self.found["reads"] += 1
            return 1
        if name == "lift_fresh" and META in devices:
            self.found["made from numbers"] += 1
        if name == "_to_copy" and (target := kwargs.get("device") or args[0].device) != args[0].device:
            if args[0].device == META:
                self.found["reads"] += 1
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype, device=target)
            self.found["waits"] += not kwargs.get("non_blocking", False)
            return function(*args, **kwargs)
        assert len(devices) < 2 or all(t.device == META or not t.dim() for t in tensors), f"{name} mixes devices"
        return function(*args, **kwargs)


@pytest.fixture(autouse=True)
def what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast does not know the device, nor does it know the shape of every function."""
    autocast = torch.autocast
    known = lambda kind, *rest, **named: contextlib.nullcontext() if kind == "meta" else autocast(kind, *rest, **named)  # noqa: E731
    monkeypatch.setattr(torch, "autocast", known)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind="cpu": False)
    monkeypatch.setattr(torch, "_dirichlet_grad", lambda sample, *_: sample)


def walked(
    name: str, space: Any, form: Any = "plain", phase: int = 0, draws: str = "host", **settings: Any
) -> dict[str, int]:
    """What a step waits for, the second one: the first puts constants on the device."""
    step = step_of(choice_class("method", name)(**settings), space, form, phase, draws)
    with Elsewhere():
        step()
    with Elsewhere() as second:
        step()
    return {name: count for name, count in second.found.items() if count}


def space_for(name: str, method: str = "", **settings: Any) -> Any:
    return choice_class("space", name)(**SPACES[name] | NEEDS.get(method, {}) | settings)


def step_of(method: Any, space: Any, form: Any, phase: int, draws: str) -> Callable[[], Any]:
    stage = method.stages(12, space.size)[0]
    images = space.modality == "images"
    supernet = space.supernet(Shape(4) if images else TextShape(9), stage.size, form).to(META)
    arch = method.arch(space, generator(0, "arch")).to(META)
    search = Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.05, 0.9, weight_decay=3e-4, foreach=True),
        arch_optimizer=torch.optim.Adam([{"params": list(arch.parameters())}], 3e-2, (0.5, 0.999), weight_decay=1e-3),
        task=Classification() if images else LanguageTask(),
        ahead_clip=None if images else 0.25,
        clock=Clock(epochs=12, epoch=stage.warmup + 1, stage_epoch=stage.warmup + 1),
        device_draws=draws == "device",
    )
    sizes = ((8, 3, 8, 8), (8,)) if images else ((2, 4), (2, 4))
    inputs = torch.empty(sizes[0], dtype=torch.float32 if images else torch.int64, device=META)
    batch = Batch(inputs, torch.empty(sizes[1], dtype=torch.int64, device=META))
    batches = dict.fromkeys(stage.phases[phase].feeds, batch)
    return lambda: method.step(search, batches)


@pytest.mark.parametrize("method", METHODS)
def test_steps_of_every_method(method: str) -> None:
    expected = {"reads": READS[method]} if method in READS else {}
    assert walked(method, space_for("darts-cnn", method)) == expected


def test_a_step_of_a_controller() -> None:
    """Every choice decides what the controller is asked next: the host reads it once, for all children of a step."""
    assert walked("enas", space_for("darts-cnn"), phase=1, aggregate=3) == {"reads": 1}


@pytest.mark.parametrize("method", ["drnas", "snas", "smooth-darts"])
def test_steps_that_draw_on_the_device(method: str) -> None:
    assert walked(method, space_for("darts-cnn"), draws="device") == {}


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("space", SPACES)
def test_every_supernet(space: str, form: str) -> None:
    ops = {"ops": ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3")}
    assert walked("darts", space_for(space, **ops if space == "darts-cnn" else {}), form) == {}


@pytest.mark.parametrize("space", ["darts-cnn", "darts-rnn"])
def test_the_second_order(space: str) -> None:
    assert walked("darts", space_for(space), "fast", unrolled=True) == {}


def test_perturbed_shares() -> None:
    assert walked("smooth-darts", space_for("darts-cnn"), perturbation="adv", steps=1) == {}


def test_batches() -> None:
    images = Images(
        torch.zeros(8, 3, 8, 8, dtype=torch.uint8, device=META), torch.zeros(8, dtype=torch.int64, device=META), ("a",)
    )
    feed = Feed(images, None, 4, Augment(2, True, 4, (0.5,) * 3, (0.25,) * 3), seed=0, name="train").epoch(0)
    feed[0]
    with Elsewhere() as second:
        feed[1]
    assert not second.found
