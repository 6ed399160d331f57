"""DrNAS: draws and their gradients, the divergence, the two stages, and the original's recorded calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

import diffnas
from diffnas.core.batch import Batch
from diffnas.core.genotype import parse_genotype
from diffnas.core.mixture import Mix, Mixture, allowed_mask
from diffnas.core.seeds import generator
from diffnas.core.space import Size
from diffnas.engine import Search, differentiate
from diffnas.engine.stage import Stage
from diffnas.interop import load_weights, translate
from diffnas.methods.drnas import DrNAS, concentrations, divergence
from diffnas.pipeline.stages import top
from diffnas.registry import choice_class
from diffnas.spaces.darts_cnn.layout import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN

Build = Callable[..., Search]
KINDS = ("normal", "reduce")
SMALL = DartsCNN(channels=4, layers=2, nodes=2)


def made(make_search: Build, space: Any = SMALL, method: DrNAS | None = None, **settings: Any) -> Search:
    """A search whose alphas are N(0, 1) unless `settings` say otherwise."""
    return make_search(space, method or DrNAS(), **{"dtype": torch.float64, "scale": 1.0, **settings})


def draws(search: Search, use: Any) -> Tensor:
    return search.relax(use)["normal"].op.detach()


def pruned(space: DartsCNN) -> DartsCNN:
    """The space with three ops an edge, not the same ones everywhere."""
    draw = generator(0, "pruned")
    shapes = {kind: (len(cell.edges), len(cell.ops)) for kind, cell in space.cells.items()}
    return space.narrow({kind: top(torch.rand(shape, generator=draw), 3) for kind, shape in shapes.items()})


def test_one_stage_or_two_on_one_schedule() -> None:
    size = Size(36, 20, 6)
    assert DrNAS().stages(100, size) == (Stage(100, size, warmup=10),)
    late = Stage(25, replace(size, partial=4), fresh=False, keep=4, warmup=10)
    assert DrNAS(progressive=True).stages(50, size) == (Stage(25, size, warmup=10), late)
    assert [s.epochs for s in DrNAS(progressive=True).stages(7, size)] == [3, 4]
    assert [s.epochs for s in DrNAS(progressive=True).stages(1, size)] == [1, 1]
    assert [key for key, _ in DrNAS(progressive=True).check_space(DartsCNN(partial=2))] == ["partial"]
    assert DrNAS(progressive=True).check_space(DartsCNN(partial=6)) == [] == DrNAS().check_space(DartsCNN(partial=2))


def test_concentrations_start_near_one(make_search: Build) -> None:
    search = made(make_search, scale=1e-3)
    for kind, (c, allowed) in concentrations(search).items():
        alpha = search.arch.get_parameter(f"alpha.{kind}").detach()
        torch.testing.assert_close(c.detach(), torch.where(alpha > 0, alpha + 1.0, alpha.exp()))
        assert allowed.all() and (c - 1.0).abs().max() < 1e-2


def test_steps_draw_anew_and_evaluations_do_not_shift_them(make_search: Build) -> None:
    search, twin = made(make_search), made(make_search)
    first = draws(search, "arch")
    assert torch.equal(draws(search, "eval"), draws(search, "eval"))  # within an epoch
    second = draws(search, "weights")
    assert torch.equal(draws(twin, "arch"), first) and torch.equal(draws(twin, "weights"), second)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sum(-1), torch.ones_like(first[:, 0]))
    before = draws(search, "eval")
    search.advance(epoch=1)
    assert not torch.equal(draws(search, "eval"), before)


def test_what_an_evaluation_spends(make_search: Build) -> None:
    space = pruned(SMALL)
    search = made(make_search, space, DrNAS(evaluate="mean"))
    ok = allowed_mask(space.cells["normal"])
    c = concentrations(search)["normal"][0].detach() * ok
    torch.testing.assert_close(draws(search, "eval"), c / c.sum(-1, keepdim=True))
    mix = made(make_search, space, DrNAS(evaluate="argmax")).relax("eval")["normal"]
    assert mix.active is not None and torch.equal(mix.active.double(), mix.op)
    assert torch.equal(mix.op.argmax(-1), c.argmax(-1))
    assert torch.equal(draws(search, "weights") > 0, ok)


def test_the_divergence_is_that_of_torch() -> None:
    draw = torch.rand(5, 4, generator=generator(0, "divergence"), dtype=torch.float64)
    c = (0.2 + 3.0 * draw).requires_grad_()
    everything = torch.ones(5, 4, dtype=torch.bool)
    torch.testing.assert_close(divergence(c, everything), kl_divergence(Dirichlet(c), Dirichlet(torch.ones_like(c))))
    some = everything.clone()
    some[0, 1], some[1, 1:], some[2] = False, False, False
    found = divergence(c, some)
    left = c[0, [0, 2, 3]]
    torch.testing.assert_close(found[0], kl_divergence(Dirichlet(left), Dirichlet(torch.ones_like(left))))
    torch.testing.assert_close(found[1:3], torch.zeros(2, dtype=torch.float64))  # one op, no op: nothing to say
    (grad,) = torch.autograd.grad(found.sum(), c)
    assert grad.isfinite().all() and torch.equal(grad[~some], torch.zeros_like(grad[~some]))


def test_the_penalty_pulls_to_one(make_search: Build) -> None:
    search = made(make_search, method=DrNAS(regulariser="kl", scale=0.5))
    mixture = search.relax("arch")
    penalty = search.penalty(mixture)
    expected = sum(
        kl_divergence(Dirichlet(c), Dirichlet(torch.ones_like(c))).sum() for c, _ in concentrations(search).values()
    )
    assert penalty is not None
    torch.testing.assert_close(penalty, 0.5 * torch.as_tensor(expected))
    optimizer = torch.optim.Adam(search.arch.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        torch.autograd.backward(search.penalty(mixture))
        optimizer.step()
    assert all(a.abs().max() < 1e-2 for a in search.arch.parameters())
    assert made(make_search).penalty(mixture) is None


def test_the_architecture_learns(make_search: Build) -> None:
    batch = Batch(torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(0, 10, (4,)))
    for regulariser in ("l2", "kl"):
        search = made(make_search, pruned(SMALL), DrNAS(regulariser=regulariser))
        before = [a.detach().clone() for a in search.arch.parameters()]
        search.method.step(search, {"train": batch})
        assert all(torch.equal(a, b) for a, b in zip(search.arch.parameters(), before, strict=True))
        search.method.step(search, {"train": batch, "valid": batch})
        after = list(search.arch.parameters())
        assert all(a.isfinite().all() and not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_samples_follow_the_distribution(make_search: Build) -> None:
    space = choice_class("space", "nasbench201")(channels=4, layers=1)
    search = made(make_search, space)
    with torch.no_grad():
        search.arch.get_parameter("alpha.cell").copy_(torch.tensor([[0.0, 0.0, 0.0, 3.0, -5.0]]).expand(6, 5))
    state = search.shared.get_state()
    found = search.method.samples(search, 400, search.fork("samples"))
    assert torch.equal(search.shared.get_state(), state)
    assert found == search.method.samples(search, 400, search.fork("samples"))
    ops = [op for genotype in found for op in genotype.cells["cell"].ops]
    assert len(ops) == 2400 and ops.count("avg_pool_3x3") < 24
    # of Dirichlet(1, 1, 1, 4, 0), the fourth is the largest where its gamma exceeds those of the three others
    exact = Dirichlet(torch.tensor([1.0, 1.0, 1.0, 4.0, 0.0067]))
    torch.manual_seed(0)
    share = (exact.sample(torch.Size([20_000])).argmax(-1) == 3).double().mean().item()
    assert ops.count("nor_conv_3x3") / 2400 == pytest.approx(share, abs=0.03)
    legal = made(make_search).method.samples(made(make_search), 5, search.fork("samples"))
    assert all("none" not in nodes.ops and len(nodes.ops) == 4 for g in legal for nodes in g.cells.values())


def test_a_progressive_search(tmp_path: Path) -> None:
    settings = ["method.name=drnas", "method.progressive=true", "method.warmup=0", "method.partial_late=2"]
    size = ["space.channels=8", "space.partial=4", "space.layers=2", "space.nodes=2", "data.train_limit=128"]
    recipe = diffnas.read_recipe("darts-digits-tiny", [*settings, *size, "search.epochs=2"])
    run = diffnas.search(recipe, tmp_path / "run")
    rows = list(run.search.metrics())
    assert [row["stage"] for row in rows] == [0, 1] and rows[0]["lr"] > rows[1]["lr"]
    kept = [sum(share > 0 for share in edge) for edge in rows[1]["strength"]["normal"]]
    assert kept == [4] * 5 and all(share > 0 for edge in rows[0]["strength"]["normal"] for share in edge)


def test_the_original_supernet_of_darts(oracle: Any, close: Any, make_search: Build) -> None:
    call = oracle("f_drnas_darts_given")
    search = make_search(DartsCNN(channels=12, layers=5, partial=6, ops=OPS[1:]), DrNAS(), side=16)
    load_weights(search.supernet, call.state, "drnas")
    mixture = Mixture({kind: Mix(call.given[f"weights_{kind}"]) for kind in KINDS})
    close(search.supernet(call.given["x"], mixture), call.found["logits"])
    found = differentiate(search, mixture, Batch(call.given["x"], call.given["y"]), {"weights", "mixture"})
    close(found.loss.value, call.found["loss"])
    close(torch.cat(found.mixture), torch.cat([call.found[f"grad/weights_{kind}"] for kind in KINDS]))
    names = [name for name, _ in search.supernet.named_parameters()]
    expected = {name: t for name, t in call.group("grad/").items() if not name.startswith("weights_")}
    for theirs, ours in translate(search.supernet, expected, "drnas").items():
        close(found.weights[names.index(ours)], expected[theirs])


def test_the_original_gradient_of_its_own_draw(
    oracle: Any, close: Any, make_search: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded sample is drawn, by gamma variables that add up to 1: the pathwise gradient is that of the original."""
    call = oracle("f_drnas_nb201_seeded_f64")
    space = choice_class("space", "nasbench201")(channels=4, layers=1)
    search = made(make_search, space, side=16)
    load_weights(search.supernet, call.state, "drnas-nb201")
    alpha = search.arch.get_parameter("alpha.cell")
    with torch.no_grad():
        alpha.copy_(call.given["alphas"])
    monkeypatch.setattr(torch, "_standard_gamma", lambda *_, **__: call.found["sampled_weights"])
    mixture = search.relax("arch")
    close(mixture["cell"].op, call.found["sampled_weights"])
    found = differentiate(search, mixture, Batch(call.given["x"], call.given["y"]), {"weights", "mixture"})
    close(found.loss.value, call.found["loss"])
    close(found.mixture[0], call.found["grad/sampled_weights"])
    (grad,) = torch.autograd.grad(mixture.tensors(), [alpha], found.mixture)
    close(grad, call.found["grad/alphas"])


def derived(make_search: Build, space: Any, alphas: dict[str, list[Any]]) -> Search:
    search = made(make_search, space)
    with torch.no_grad():
        for kind, values in alphas.items():
            search.arch.get_parameter(f"alpha.{kind}").copy_(torch.tensor(values))
    return search


def test_the_original_derivations(record: Any, make_search: Build) -> None:
    space = DartsCNN(channels=2, layers=2, ops=OPS[1:])
    cases = record("i_genotype_drnas_darts")["cases"]
    assert sum("mask_normal" in case for case in cases) > 3
    for case in cases:
        alphas = {kind: case[f"alphas_{kind}"] for kind in KINDS}
        search = derived(make_search, space, alphas)
        assert same(search, case["genotype"])
        if "mask_normal" not in case:
            continue
        keep = {kind: top(strength, 4) for kind, strength in search.strength().items()}
        assert all(keep[kind].int().tolist() == case[f"mask_{kind}"] for kind in KINDS)
        assert same(derived(make_search, space.narrow(keep), alphas), case["genotype_after_pruning4"])


def same(search: Search, recorded: Any) -> bool:
    genotype = search.derive()
    assert genotype is not None
    return all(
        [[op, source] for node in nodes.inputs for op, source in node] == recorded[kind]
        for kind, nodes in genotype.cells.items()
    )


def test_the_original_derivations_on_nasbench201(record: Any, make_search: Build) -> None:
    space = choice_class("space", "nasbench201")(channels=4, layers=1)
    for case in record("i_genotype_drnas_nb201")["cases"]:
        search = derived(make_search, space, {"cell": case["alphas"]})
        assert search.derive() == parse_genotype(case["arch"])
        if "mask" in case:
            keep = {"cell": top(search.strength()["cell"], 3)}
            assert keep["cell"].int().tolist() == case["mask"]
            late = derived(make_search, space.narrow(keep), {"cell": case["alphas"]})
            assert late.derive() == parse_genotype(case["arch_after_pruning3"])
