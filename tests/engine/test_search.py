"""The state of a search: saved and loaded it goes on identically, under plain names."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.space import TextShape
from diffnas.engine import Search, restore, score, snapshot
from diffnas.engine.optim import load_optimizer_state, optimizer_state, set_learning_rate
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.tasks.language import LanguageTask


def batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(4, 3, 8, 8, generator=draw), torch.randint(0, 10, (4,), generator=draw))


def walk(search: Search, steps: range) -> None:
    for step in steps:
        search.method.step(search, {"train": batch(2 * step), "valid": batch(2 * step + 1)})
        search.advance(step=step + 1)


def test_saved_and_loaded_a_search_goes_on_identically(make_search: Callable[..., Search]) -> None:
    for method in (DARTS(), DARTS(unrolled=True)):
        whole = make_search(method=method)
        walk(whole, range(4))
        first = make_search(method=method)
        walk(first, range(2))
        torch.rand(3, generator=first.shared)
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = make_search(method=method, seed=7)
        second.load_state_dict(torch.load(file, weights_only=True))
        assert second.clock.step == 2
        assert torch.equal(torch.rand(2, generator=first.shared), torch.rand(2, generator=second.shared))
        walk(second, range(2, 4))
        for kind in ("weights", "arch"):
            ours, theirs = second.state_dict()[kind], whole.state_dict()[kind]
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_was_kept_aside_is_put_back_again_and_again(make_search: Callable[..., Search]) -> None:
    search = make_search()
    data = {name: Batch(torch.randn(4, 3, 8, 8), torch.arange(4)) for name in ("train", "valid")}

    def tried() -> list[Tensor]:
        search.method.step(search, data)
        search.advance(step=search.clock.step + 1)
        noise = torch.rand(3), torch.rand(2, generator=search.shared)
        return [*noise, *(t.clone() for part in (search.supernet, search.arch) for t in part.state_dict().values())]

    search.method.step(search, data)  # there is momentum
    kept = snapshot(search)
    first = tried()
    for _ in range(2):
        restore(search, kept)
        assert search.clock.step == 0
        assert all(torch.equal(a, b) for a, b in zip(first, tried(), strict=True))


def test_optimizer_state_has_plain_names(make_search: Callable[..., Search]) -> None:
    search = make_search()
    walk(search, range(1))
    state = search.state_dict()
    names = dict(search.supernet.named_parameters())
    assert set(state["weights_optimizer"]["slots"]) == set(names)
    assert set(state["arch_optimizer"]["slots"]) == {"alpha.normal", "alpha.reduce"}
    assert state["arch_optimizer"]["slots"]["alpha.normal"]["step"] == 1


def test_slots_of_parameters_that_are_gone_are_left_out() -> None:
    layer, smaller = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    set_learning_rate(optimizer, 0.05)
    other = torch.optim.SGD(smaller.parameters(), 0.1, momentum=0.9)
    load_optimizer_state(other, smaller, optimizer_state(optimizer, layer))
    assert torch.equal(other.state[smaller.weight]["momentum_buffer"], optimizer.state[layer.weight]["momentum_buffer"])
    assert other.param_groups[0]["lr"] == 0.05


def test_forks_never_shift_the_search(make_search: Callable[..., Search]) -> None:
    search = make_search()
    before = search.shared.get_state()
    first = torch.rand(2, generator=search.fork("pictures"))
    assert torch.equal(first, torch.rand(2, generator=search.fork("pictures")))
    assert torch.equal(search.shared.get_state(), before)
    search.advance(epoch=1)
    assert not torch.equal(first, torch.rand(2, generator=search.fork("pictures")))


def test_score_is_the_mean_over_images_and_leaves_no_trace(make_search: Callable[..., Search]) -> None:
    search = make_search()
    walk(search, range(1))
    before = {name: t.clone() for name, t in search.supernet.state_dict().items()}
    big, small = batch(1), Batch(*(t[:2] for t in (batch(2).inputs, batch(2).targets)))
    mixture = search.relax("eval")
    both = score(search, mixture, [big, small], "running")
    apart = [score(search, mixture, [part], "running") for part in (big, small)]
    assert torch.allclose(both.loss, (4 * apart[0].loss + 2 * apart[1].loss) / 6)
    assert torch.allclose(both.accuracy, (4 * apart[0].accuracy + 2 * apart[1].accuracy) / 6)
    assert not both.loss.requires_grad and search.supernet.training
    score(search, mixture, [big])  # batch statistics
    assert all(torch.equal(before[name], t) for name, t in search.supernet.state_dict().items())


def test_score_hands_the_hidden_state_from_batch_to_batch() -> None:
    space = DartsRNN(units=6, steps=2, dropout=0.0, dropouth=0.0, dropoutx=0.0, dropouti=0.0)
    supernet = space.supernet(TextShape(9)).double()
    method = DARTS()
    arch = method.arch(space, torch.Generator()).double()
    optimizers = (torch.optim.SGD(supernet.parameters(), 1.0), torch.optim.Adam(arch.parameters()))
    search = Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=optimizers[0],
        arch_optimizer=optimizers[1],
        task=LanguageTask(),
    )
    rows = torch.randint(9, (9, 3), generator=torch.Generator().manual_seed(0))
    whole = Batch(rows[:8], rows[1:])
    parts = [Batch(rows[:4], rows[1:5], carry="not this one"), Batch(rows[4:8], rows[5:])]
    found, expected = (score(search, search.relax("eval"), batches, "running") for batches in (parts, [whole]))
    assert torch.allclose(found.loss, expected.loss, rtol=1e-5) and torch.equal(found.accuracy, expected.accuracy)
    assert torch.allclose(found.reward, 80.0 * (-expected.loss).exp(), rtol=1e-5)  # sums are float32
