"""What every space must keep.  A check takes a `Case` and raises `AssertionError` with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffnas.core.count import Unit, count
from diffnas.core.genotype import Genotype, parse_json
from diffnas.core.mixture import Mix, Mixture, allowed_mask
from diffnas.engine import differentiate, random_genotype
from diffnas.testing.cases import Case

Check = Callable[[Case], None]


def _mixture(case: Case, seed: int, active: bool = False) -> Mixture:
    """Random shares for every cell of the chain, float64; with `active`, about half of the entries are promised idle."""
    draw, mixes = torch.Generator().manual_seed(seed), {}
    for kind, cell in case.space.cells.items():
        sizes = case.space.chain().count(kind), len(cell.edges), len(cell.ops)
        live = (torch.rand(sizes, generator=draw) < 0.5) & allowed_mask(cell)
        op = (torch.rand(sizes, generator=draw, dtype=torch.float64) + 0.1) * allowed_mask(cell)
        mixes[kind] = Mix(op.masked_fill(~live, 0.0), active=live) if active else Mix(op)
    return Mixture(mixes)


def _slopes(case: Case, mixture: Mixture) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The loss of `mixture` in float64, and its gradients in the mixture and in the weights."""
    search = case.search(dtype=torch.float64)
    grads = differentiate(search, mixture, case.batch(0, torch.float64), {"weights", "mixture"})
    return grads.loss.value, grads.mixture, grads.weights


def _close(found: Any, expected: Any, what: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=lambda text: f"{what}: {text}")


def cells_are_sound(case: Case) -> None:
    """Every kind has an op that may be derived, and the chain names kinds that there are."""
    space = case.space
    for kind, cell in space.cells.items():
        assert any(cell.eligible(e) for e in range(len(cell.edges))), f"cell {kind}: no op may be derived"
    strangers = sorted(set(space.chain()) - set(space.cells))
    assert not strangers, f"chain names kinds that cells lacks: {', '.join(strangers)}"
    assert space.chain(), "chain names no cell"


def this_size_is_accepted(case: Case) -> None:
    """`check_size` has nothing against the size that is tested."""
    problems = case.space.check_size(case.inputs)
    assert not problems, f"check_size: {problems}"


def every_cell_takes_its_own_shares(case: Case) -> None:
    """Any finite shares give finite losses and gradients, and every cell of the chain spends its own."""
    loss, slopes, weights = _slopes(case, _mixture(case, 0))
    assert bool(loss.isfinite()) and all(bool(grad.isfinite().all()) for grad in [*slopes, *weights]), "not finite"
    for kind, slope in zip(case.space.cells, slopes, strict=True):
        unread = [index for index, cell in enumerate(slope) if not bool(cell.any())]
        assert not unread, f"cells {unread} of kind {kind} do not read their shares (see core.mixture.by_cell)"


def idle_entries_add_nothing(case: Case) -> None:
    """Entries that are promised to be idle give the value that shares of 0 give, and have gradients of 0."""
    mixture = _mixture(case, 1, active=True)
    zero = Mixture({kind: Mix(mix.op) for kind, mix in mixture.items()})
    found, slopes, _ = _slopes(case, mixture)
    expected, _, _ = _slopes(case, zero)
    _close(found, expected, "the loss changes where idle entries are left out")
    for mix, slope in zip(mixture.values(), slopes, strict=True):
        assert mix.active is not None
        assert not bool(slope[~mix.active].any()), "an idle entry has a gradient"


def keeps_nothing_between_passes(case: Case) -> None:
    """The same pass twice gives the same loss."""
    search, mixture = case.search(dtype=torch.float64), _mixture(case, 2)
    batch = case.batch(0, torch.float64)
    first, second = (differentiate(search, mixture, batch, {"mixture"}, "train_frozen_stats").loss for _ in range(2))
    assert torch.equal(first.value, second.value), "the supernet remembers the pass before"


def both_forms_agree(case: Case) -> None:
    """The plain and the fast supernet have the same weights, values and gradients."""
    found = []
    for form in ("plain", "fast"):
        found.append(
            _slopes(
                Case(case.method, case.space, form, case.shape, case.task, case.sizes, case.data), _mixture(case, 3)
            )
        )
    (loss, *plain), (other, *fast) = found
    _close(other, loss, "the losses of the two forms")
    for ours, theirs in zip(fast, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            _close(a, b, "gradients of the two forms")


def genotypes_can_be_built_and_stored(case: Case) -> None:
    """Random genotypes give networks that read a batch, and are the same when they are read from their JSON."""
    for seed in range(3):
        genotype = _random(case, seed)
        case.network(genotype).eval()(case.given(0))
        again = parse_json(genotype.to_json())
        assert again.cells == genotype.cells and again.space == genotype.space, "a genotype changes in its JSON"


def costs_add_up(case: Case) -> None:
    """The costs of its ops and what remains are the multiply-adds and the parameters of a network."""
    if case.space.modality == "text" or case.sizes is not None:
        return  # ops without costs, or a network of another size than the supernet
    genotype = _random(case, 4)
    counts = count(case.network(genotype), case.inputs)
    pairs: list[tuple[Unit, int]] = [("macs", counts.macs), ("params", counts.params)]
    for unit, counted in pairs:
        told = case.space.fixed_cost(case.inputs, unit) + _ops_cost(case, genotype, unit)
        assert told == counted, f"costs and fixed_cost say {told:.0f} {unit}; the network has {counted}"


def narrows(case: Case) -> None:
    """`narrow` keeps the entries that it is told to keep, and its supernet still runs."""
    keep = {kind: torch.tensor(cell.allowed) for kind, cell in case.space.cells.items()}
    for kind, cell in case.space.cells.items():
        row = next(e for e in range(len(cell.edges)) if len(cell.eligible(e)) > 1)
        keep[kind][row, cell.eligible(row)[0]] = False
    space = case.space.narrow(keep)
    for kind, cell in space.cells.items():
        assert torch.equal(torch.tensor(cell.allowed), keep[kind]), f"narrow kept other entries of {kind}"
    _slopes(Case(case.method, space, case.form, case.shape, case.task, case.sizes, case.data), _mixture(case, 5))


def _random(case: Case, seed: int) -> Genotype:
    return random_genotype(case.space.name, case.space.cells, torch.Generator().manual_seed(seed))


def _ops_cost(case: Case, genotype: Genotype, unit: Unit) -> float:
    """The sum of the costs of the ops of `genotype`."""
    costs, total = case.space.costs(case.inputs, unit), 0.0
    for kind, nodes in genotype.cells.items():
        cell = case.space.cells[kind]
        for node, inputs in zip(cell.nodes, nodes.inputs, strict=True):
            for op, source in inputs:
                total += costs[kind][cell.edges.index((source, node))][cell.ops.index(op)]
    return total


SPACE_CHECKS: tuple[Check, ...] = (
    cells_are_sound,
    this_size_is_accepted,
    every_cell_takes_its_own_shares,
    idle_entries_add_nothing,
    keeps_nothing_between_passes,
    both_forms_agree,
    genotypes_can_be_built_and_stored,
    costs_add_up,
    narrows,
)
"""The checks of a space; `space_tests` adds those of a method, first-order DARTS, on it."""
