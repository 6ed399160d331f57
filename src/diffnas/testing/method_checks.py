"""What every method must keep.  A check takes a `Case` and raises `AssertionError` with what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from diffnas import engine
from diffnas.core.mixture import Mixture, by_cell
from diffnas.core.space import Size
from diffnas.engine import Search, Transition
from diffnas.testing.cases import Case

Check = Callable[[Case], None]


def runs(case: Case) -> None:
    """Steps give finite losses."""
    losses = case.walk(case.search(), range(3))
    assert all(loss == loss and abs(loss) < 1e3 for loss in losses), f"the losses of three steps are {losses}"


def moves_the_architecture_when_it_should(case: Case) -> None:
    """Steps move the architecture's parameters; a step on the training half alone does not, unless both learn from it."""
    search = case.search()
    before = [parameter.detach().clone() for parameter in search.arch.parameters()]

    def moved() -> bool:
        return any(not torch.equal(a, b) for a, b in zip(before, search.arch.parameters(), strict=True))

    feeds = {feed for phase in case.stage.phases for feed in phase.feeds}
    if "valid" in feeds:
        search.method.step(search, {"train": case.batch(0)})
        assert not moved(), "a step that was given no validation batch moved the architecture"
    case.walk(search, range(2))
    learns = any(parameter.requires_grad for parameter in search.arch.parameters())
    assert moved() == learns, "steps did not move the architecture" if learns else "steps moved frozen parameters"


def unused_weights_have_zero_gradients(case: Case) -> None:
    """The gradients of all weights are there and finite, and those of ops that are left out are 0."""
    search, batch = case.search(), case.batch(0)
    mixture = search.relax("weights", batch)
    grads = engine.differentiate(search, mixture, batch, {"weights"}).weights
    idle = _idle(search, mixture)
    for place, (grad, weight) in enumerate(zip(grads, search.weights, strict=True)):
        assert grad.shape == weight.shape and bool(grad.isfinite().all()), (
            f"the gradient of weight {place} is not finite"
        )
        assert place not in idle or not bool(grad.any()), f"weight {place} is of an idle op and has a gradient"


def _idle(search: Search, mixture: Mixture) -> set[int]:
    """The places of the weights of ops that `mixture` leaves out; none where the ops have no weights of their own."""
    chain = search.space.chain()
    if search.space.modality == "text" or all(mixture[kind].live is None for kind in chain):
        return set()
    mixes = list(by_cell(mixture, chain))
    return {
        place
        for (cell, edge, op), places in search.op_weights.items()
        for place in places
        if mixes[cell].live is not None and not mixes[cell].live[edge][op]
    }


def evaluation_never_shifts_the_search(case: Case) -> None:
    """Evaluating, deriving and asking for strengths draw no random numbers of the search."""
    search = case.search()
    before = search.shared.get_state()
    for _ in range(2):
        search.relax("eval")
        search.strength()
        search.derive()
    same = torch.equal(before, search.shared.get_state())
    assert same, 'relax("eval"), strength or derive draw from search.shared; use search.fork(name)'


def is_asked_between_epochs(case: Case) -> None:
    """`on_epoch_boundary` gives a `Transition`, and a genotype can be derived after every epoch."""
    search = case.search()
    for _ in range(3):
        asked = search.method.on_epoch_boundary(search, search.clock.stage_epoch)
        assert isinstance(asked, Transition), f"on_epoch_boundary returned {type(asked).__name__}, not a Transition"
        assert not asked.stop, "on_epoch_boundary stops the search in its first three epochs"
        case.walk(search, range(1))
        clock = search.clock
        search.advance(stage_epoch=clock.stage_epoch + 1, epoch=clock.epoch + 1, total=clock.total + 1)
        assert search.derive() is not None, "derive gave None"


def mixtures_fit_the_space(case: Case) -> None:
    """Mixtures are [E, O], or [I, E, O] with a row for every cell, and strengths [E, O], for every kind of cell."""
    search = case.search()
    for kind, cell in search.space.cells.items():
        sizes = len(cell.edges), len(cell.ops)
        for use in ("arch", "weights", "eval"):
            shape, cells = tuple(search.relax(use)[kind].op.shape), search.space.chain().count(kind)
            assert shape in (sizes, (cells, *sizes)), (
                f'relax("{use}") gives {list(shape)} for {kind}, not {list(sizes)}'
            )
        shape = tuple(search.strength()[kind].shape)
        assert shape == sizes, f"strength gives {list(shape)} for {kind}, not {list(sizes)}"


def resumes_exactly(case: Case) -> None:
    """A search that is stored and read again goes on bit for bit as one that was not."""
    whole, first, second = case.search(), case.search(), case.search(seed=3)
    case.walk(whole, range(3))
    case.walk(first, range(2))
    second.load_state_dict(first.state_dict())
    case.walk(second, range(2, 3))
    for part in ("weights", "arch"):
        ours, theirs = second.state_dict()[part], whole.state_dict()[part]
        different = [name for name in theirs if not torch.equal(ours[name], theirs[name])]
        assert not different, (
            f"after resuming these differ: {', '.join(different)}; keep all state in what arch returns"
        )


def derives_a_cell_that_can_be_built(case: Case) -> None:
    """The genotype is of the space, and its network reads what the supernet reads."""
    search = case.search()
    case.walk(search, range(1))
    genotype = search.derive()
    assert genotype is not None and genotype.space == search.space.name, f"derive gave {genotype}"
    case.network(genotype).eval()(case.given(0))


def describes_its_settings(case: Case) -> None:
    """The method is a dataclass whose fields say what they mean, and it has a stage."""
    method = case.method
    assert dataclasses.is_dataclass(method), "put @dataclass(frozen=True) above the method"
    assert method.stages(3, Size(2, 2)), "stages gave none"
    for entry in dataclasses.fields(method):
        about = entry.metadata.get("about", "")
        assert len(about) > 10, f"{entry.name}: say what it means: diffnas.setting(default, 'meaning')"


def both_supernets_agree(case: Case) -> None:
    """Two steps give the same weights and architecture on the plain and on the fast supernet, in float64."""
    if case.method.needs_double_backward:
        return
    states = []
    for form in ("plain", "fast"):
        formed = dataclasses.replace(case, form=form)
        search = formed.search(dtype=torch.float64)
        formed.walk(search, range(2), torch.float64)
        states.append(search.supernet.state_dict() | search.arch.state_dict())
    plain, fast = states
    assert list(plain) == list(fast), "the two supernets have weights of different names"
    for name, tensor in plain.items():
        try:
            torch.testing.assert_close(fast[name], tensor, rtol=1e-7, atol=1e-7)
        except AssertionError as error:
            raise AssertionError(f"{name} differs between the two supernets: {error}") from None


METHOD_CHECKS: tuple[Check, ...] = (
    runs,
    moves_the_architecture_when_it_should,
    unused_weights_have_zero_gradients,
    evaluation_never_shifts_the_search,
    is_asked_between_epochs,
    mixtures_fit_the_space,
    resumes_exactly,
    derives_a_cell_that_can_be_built,
    describes_its_settings,
)
"""The checks of a method on a space, in one form of its supernet; `both_supernets_agree` compares the forms."""
