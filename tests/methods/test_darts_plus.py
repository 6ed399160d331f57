"""DARTS+: when it stops, and that the rest is the method within."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffnas.engine import Search
from diffnas.engine.stage import Transition
from diffnas.methods.darts import DARTS
from diffnas.methods.darts_plus import DARTSPlus


def test_two_skips_of_the_normal_cell_end_the_search(make_search: Callable[..., Search]) -> None:
    search = make_search(method=DARTSPlus())
    skip = search.space.cells["normal"].ops.index("skip_connect")
    with torch.no_grad():
        for alpha in search.arch.alpha.values():
            alpha.zero_()[:, skip + 1] = 1.0
        search.arch.alpha["reduce"][:, skip] = 2.0  # as published cells have it
        search.arch.alpha["normal"][0, skip] = 2.0
    assert search.method.on_epoch_boundary(search, 5) == Transition()
    with torch.no_grad():
        search.arch.alpha["normal"][2, skip] = 2.0
    stop = search.method.on_epoch_boundary(search, 5)
    assert stop.stop and stop.genotype_epoch is None
    assert stop.reason == "2 ops of the normal cell are skip connections"
    assert search.method.on_epoch_boundary(search, 0) == Transition()  # nothing is learned yet
    lenient = DARTSPlus(skips=3)
    assert lenient.on_epoch_boundary(search, 5) == Transition()


def test_the_rest_is_the_method_within(make_search: Callable[..., Search]) -> None:
    method = DARTSPlus(DARTS(unrolled=True, exact=True))
    assert method.needs_double_backward and method.base.name == "darts"
    ours, theirs = make_search(method=method), make_search()
    assert ours.derive() == theirs.derive()
    for kind, mix in ours.relax("arch").items():
        assert torch.equal(mix.op, theirs.relax("arch")[kind].op)
