"""A wrapper: every hook is the one of the method within, unless it is overridden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mixture
from diffnas.core.seeds import generator
from diffnas.core.space import Size
from diffnas.engine import Search
from diffnas.engine.stage import Clock, Transition, Use
from diffnas.methods.budget.budget import Budget
from diffnas.methods.darts import DARTS
from diffnas.methods.pcdarts import PCDARTS
from diffnas.methods.pdarts import PDARTS
from diffnas.methods.smooth_darts import SmoothDARTS
from diffnas.methods.wrapper import Wrapper
from diffnas.registry import make
from diffnas.spaces.darts_cnn.space import DartsCNN


@dataclass(frozen=True)
class Halved(Wrapper):
    """Weight steps see half of the shares."""

    name: ClassVar[str] = "halved"

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        mixture = super().relax(search, use, batch)
        return mixture.map(lambda t: 0.5 * t) if use == "weights" else mixture


def batches() -> dict[str, Batch]:
    torch.manual_seed(0)
    return {name: Batch(torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,))) for name in ("train", "valid")}


def test_it_is_the_method_within(make_search: Callable[..., Search]) -> None:
    data = batches()
    for settings in ({}, {"unrolled": True}):
        ours, theirs = (make_search(method=m) for m in (Wrapper(DARTS(**settings)), DARTS(**settings)))
        for search in (ours, theirs):
            search.method.step(search, data)
        for mine, other in zip(
            [*ours.weights, *ours.arch.parameters()], [*theirs.weights, *theirs.arch.parameters()], strict=True
        ):
            assert torch.equal(mine, other)
        assert ours.derive() == theirs.derive()


def test_every_hook_is_passed_on() -> None:
    wrapper, size, space = (
        Wrapper(DARTS(unrolled=True, exact=True)),
        Size(4, 2),
        DartsCNN(channels=4, layers=2),
    )
    assert (
        wrapper.needs_double_backward
        and wrapper.max_rewind == 0
        and wrapper.supernet_buffers(Clock()) == {}
        and wrapper.check_space(space) == []
    )
    assert wrapper.stages(3, size) == DARTS().stages(3, size)
    assert Wrapper(DARTS(exact=True)).check_settings() == [("base_settings.exact", "needs method.unrolled=true")]
    ours, theirs = (m.arch(space, generator(0, "arch")).state_dict() for m in (wrapper, DARTS()))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    late = Wrapper(PDARTS())
    assert late.stages(25, size) == late.base.stages(25, size) and len(late.stages(25, size)) == 3
    assert late.supernet_buffers(Clock(stage=1, epochs=25)) == {"skip_dropout": pytest.approx(0.4 * 24 / 25)}


def test_what_it_overrides_reaches_the_steps_of_the_method_within(make_search: Callable[..., Search]) -> None:
    data, search, plain = batches(), make_search(method=Halved()), make_search()
    ours, theirs = search.method.step(search, data), plain.method.step(plain, data)
    assert torch.equal(ours["valid"].value, theirs["valid"].value)
    assert not torch.equal(ours["train"].value, theirs["train"].value)
    assert search.method.on_epoch_boundary(search, 0) == Transition() and search.penalty(search.relax("arch")) is None


def test_wrappers_hold_wrappers() -> None:
    outer = Wrapper(SmoothDARTS(PCDARTS(warmup=3)))
    assert outer.stages(9, Size(4, 2))[0].warmup == 3
    bad = Wrapper(SmoothDARTS(DARTS(exact=True)))
    assert ("base_settings.base_settings.exact", "needs method.unrolled=true") in bad.check_settings()


def test_names_become_objects() -> None:
    given = {"base": "smooth-darts", "base_settings": {"base": "pcdarts", "base_settings": {"warmup": 3}}}
    assert make("method", "budget", given) == Budget(SmoothDARTS(PCDARTS(warmup=3)))
    assert make("method", "budget", {}) == Budget()
    with pytest.raises(KeyError):
        make("method", "budget", {"base": "dartz"})
    with pytest.raises(TypeError):
        make("method", "budget", {"base_settings": {"unrolld": True}})
