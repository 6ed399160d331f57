"""SNAS: its sample, temperature, resource term and derivation, worked out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.space import Shape, Size
from diffnas.engine import Search, strongest
from diffnas.engine.stage import Clock, Phase
from diffnas.methods.sampling import concrete
from diffnas.methods.snas import SNAS
from diffnas.recipe.recipe import read_recipe
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

Build = Callable[..., Search]
COSTS = torch.tensor([[0.0, 1.0, 2.0], [10.0, 30.0, 70.0]], dtype=torch.float64)


def expected_sample(search: Search, alpha: Tensor, tau: float) -> Tensor:
    """The sample that the search is about to draw."""
    draw = torch.Generator()
    draw.set_state(search.shared.get_state())
    uniform = torch.rand(alpha.shape, generator=draw, dtype=torch.float64)
    powers = torch.exp((alpha - torch.log(-torch.log(uniform))) / tau)
    return powers / powers.sum(-1, keepdim=True)


def test_log_alpha_starts_at_one() -> None:
    arch: Any = SNAS().arch(DartsCNN(), torch.Generator().manual_seed(0))
    alphas = torch.cat(list(arch.alpha.values())).detach()
    assert alphas.shape == (28, 8) and abs(float(alphas.mean()) - 1.0) < 3e-3 and 0.008 < float(alphas.std()) < 0.012


def test_the_sample_is_concrete(toy: Build, close: Any) -> None:
    search = toy(SNAS())
    for epoch, tau in ((0, 0.03 + 0.97 * 149 / 150), (74, 0.515), (149, 0.03), (400, 0.03)):
        search.advance(epoch=epoch)
        assert search.method.tau(search) == pytest.approx(tau)
        expected = expected_sample(search, search.arch.alpha["cell"].detach(), tau)
        close(search.relax("arch")["cell"].op.detach(), expected)
        assert search.relax("weights")["cell"].active is None


def test_the_line_may_end_with_the_search(toy: Build) -> None:
    search = toy(SNAS(temperature=10.0, temperature_end=1.0, anneal_epochs=None, anneal_from=0, bilevel=True))
    search.advance(epoch=11)
    assert search.method.tau(search) == 1.0
    search.advance(epoch=0)
    assert search.method.tau(search) == 10.0


@pytest.mark.parametrize("log", [False, True])
def test_one_pass_moves_weights_and_architecture(log: bool, toy: Build, table: Batch, close: Any) -> None:
    search = toy(SNAS(resource_weight=0.3, resource_log=log, resource_sum="network", resource_unit="macs"))
    before = search.arch.alpha["cell"].detach().clone()
    alpha = before.clone().requires_grad_()
    sample = expected_sample(search, alpha, search.method.tau(search))
    cost = (COSTS * sample).sum()
    loss = (table.inputs * sample).sum()
    (grad,) = torch.autograd.grad(loss + 0.3 * (cost.log() if log else cost), alpha)
    assert set(search.method.step(search, {"train": table})) == {"train"}
    close(search.arch.alpha["cell"].detach(), before - grad)
    close(search.supernet.weight, 1.0 - 0.1 * loss.detach())


def test_phases(toy: Build, table: Batch) -> None:
    assert SNAS().stages(5, Size(16, 8))[0].phases == (Phase(("train",)),)
    assert SNAS(bilevel=True).stages(5, Size(16, 8))[0].phases == (Phase(),)
    search = toy(SNAS(bilevel=True))
    assert list(search.method.step(search, {"train": table, "valid": table})) == ["valid", "train"]


def test_costs_are_needed_where_they_count() -> None:
    space: Any = type("Uncounted", (), {"name": "plain", "modality": "text"})()
    assert SNAS().check_space(space) == [] == SNAS(resource_weight=1.0).check_space(DartsCNN())
    ((key, reason),) = SNAS(resource_weight=1.0).check_space(space)
    assert key == "name" and "method.resource_weight" in reason


def test_costs_are_those_of_the_space(toy: Build) -> None:
    search = toy(SNAS(resource_weight=2.0, resource_log=False, resource_sum="network", resource_unit="macs"))
    mixture = search.relax("arch")
    assert search.penalty(mixture).item() == pytest.approx(2.0 * (COSTS * mixture["cell"].op).sum().item())
    assert toy(SNAS()).penalty(mixture) is None
    ((key, reason),) = SNAS(resource_sum="network").check_settings()
    assert key == "resource_unit" and reason.startswith("must be params or macs")


def test_edges_are_charged_one_by_one_and_cells_averaged(toy: Build) -> None:
    """Two cells, of which the second has three times the multiply-adds; memory is 7 everywhere."""
    mixture = toy(SNAS()).relax("arch")
    params = (COSTS * mixture["cell"].op).sum(-1).detach()
    for unit, expected in (
        ("params", params.clamp_min(1).log().sum()),
        ("macs", (params.clamp_min(1).log() + (3 * params).clamp_min(1).log()).sum() / 2),
        ("memory", torch.tensor(7.0, dtype=torch.float64).log() * 2),
    ):
        search = toy(SNAS(resource_weight=0.5, resource_unit=unit))
        assert search.penalty(mixture).item() == pytest.approx(0.5 * expected.item())
    search = toy(SNAS(resource_weight=1.0, resource_log=False))
    both = ((2 * params + params / 4000 + 0.07) * 0.43).sum(), ((2 * params + 3 * params / 4000 + 0.07) * 0.43).sum()
    assert search.penalty(mixture).item() == pytest.approx(sum(both).item() / 2)


def test_the_original_resource_term(oracle: Any, close: Any, make_search: Build) -> None:
    call = oracle("snas_resources")
    samples = {kind: call.given[f"z_{kind}"].requires_grad_() for kind in ("normal", "reduce")}
    mixture = Mixture({kind: Mix(sample) for kind, sample in samples.items()})
    space = DartsCNN()  # C = 16, L = 8, on images of 32 x 32
    arch = SNAS().arch(space, torch.Generator().manual_seed(0))
    for unit in ("all", "params", "macs", "memory"):
        for log in (True, False):
            search: Any = type("At", (), {"arch": arch, "space": space, "shape": Shape(10)})()
            term = SNAS(resource_weight=1.0, resource_unit=unit, resource_log=log).penalty(search, mixture)
            close(term, call.found[f"{unit}/{'log' if log else 'plain'}"])
            if unit == "all":
                grads = call.group(f"grad_{'log' if log else 'plain'}/")
                for kind, grad in zip(samples, torch.autograd.grad(term, list(samples.values())), strict=True):
                    close(grad, grads[kind])


def test_the_original_temperatures(oracle: Any) -> None:
    search: Any = type("At", (), {})()
    for name, method, found in (
        ("k_snas_schedule", SNAS(), "temp"),
        ("k_snas_nb201_sample_f64", read_recipe("nb201-snas").method, "tau_by_epoch"),
    ):
        for epoch, tau in enumerate(oracle(name).found[found].tolist()):
            search.clock = Clock(epoch=epoch, epochs=100)
            assert method.tau(search) == pytest.approx(tau, rel=1e-6)  # type: ignore[union-attr]


def test_the_original_sample_of_the_bilevel_form(oracle: Any, close: Any, monkeypatch: Any) -> None:
    call = oracle("k_snas_nb201_sample_f64")
    monkeypatch.setattr("diffnas.methods.sampling.gumbel", lambda like, generator: call.given["gumbel"])
    allowed = torch.ones(6, 5, dtype=torch.bool)
    found = concrete(call.given["alpha"], allowed, float(call.given["tau"]), torch.Generator())
    close(found, call.found["weights"])


def test_the_original_derivations(oracle: Any) -> None:
    call, space = oracle("k_snas_genotypes"), DartsCNN()
    for alphas, expected in zip(call.given["log_alpha"], call.found["op"], strict=True):
        for cell, rows, kept in zip(space.cells.values(), alphas, expected.tolist(), strict=True):
            nodes = strongest(cell, rows.softmax(-1), "all").inputs
            ours = {(source, node): op for node, row in zip(cell.nodes, nodes, strict=True) for op, source in row}
            assert [cell.ops.index(ours.get(edge, "none")) for edge in cell.edges] == kept


def test_every_edge_that_none_does_not_win_is_kept(make_search: Build) -> None:
    search = make_search(DartsCNN(channels=4, layers=2, nodes=2), SNAS(), scale=1.0)
    with torch.no_grad():
        for alpha in search.arch.alpha.values():
            alpha.zero_()
            alpha[:, 3] = 1.0
            alpha[[0, 3], 0] = 2.0  # none
    nodes = search.derive().cells["normal"].inputs
    assert nodes == ((("skip_connect", 1),), (("skip_connect", 0), ("skip_connect", 2)))
    object.__setattr__(search, "method", SNAS(keep="strongest"))
    assert [len(node) for node in search.derive().cells["normal"].inputs] == [2, 2]
    search = make_search(NASBench201(channels=4, layers=1), SNAS())
    assert [len(node) for node in search.derive().cells["cell"].inputs] == [1, 2, 3]


def test_what_evaluations_take(toy: Build, close: Any) -> None:
    def taken(how: Any) -> Tensor:
        search = toy(SNAS(evaluate=how))
        state = search.shared.get_state()
        found = search.relax("eval")["cell"].op.detach()
        assert torch.equal(found, search.relax("eval")["cell"].op) and torch.equal(state, search.shared.get_state())
        return found

    alpha = toy(SNAS()).arch.alpha["cell"].detach()
    close(taken("mean"), alpha.softmax(-1))
    assert torch.equal(taken("argmax").argmax(-1), alpha.argmax(-1)) and taken("argmax").sum() == 2
    assert not torch.equal(taken("sample"), taken("mean"))
