"""The original programs of the other methods, piece by piece: what they recorded is met."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.space import Shape
from diffnas.engine import Search, differentiate
from diffnas.engine.stage import Clock
from diffnas.interop import translate
from diffnas.methods import darts_pt as decisions
from diffnas.methods.beta_darts import BetaDARTS
from diffnas.methods.darts_pt import DARTSPT
from diffnas.methods.enas import ENAS
from diffnas.methods.fairdarts import FairDARTS
from diffnas.methods.gdas import GDAS
from diffnas.methods.sgas import SGAS
from diffnas.methods.smooth_darts import SmoothDARTS
from diffnas.spaces.darts_cnn.layout import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.tasks.classification import Classification

KINDS = ("normal", "reduce")
S5 = OPS[1:]  # without none


def searched(method: Any, space: Any, side: int = 16, dtype: torch.dtype = torch.float64) -> Search:
    """A search of `method` on fresh weights."""
    torch.manual_seed(0)
    arch = method.arch(space, torch.Generator().manual_seed(0)).to(dtype)
    supernet = space.supernet(Shape(10, 3, side)).to(dtype)
    return Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.025),
        arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-4),
        task=Classification(),
        clock=Clock(epochs=100),
        shape=Shape(10, 3, side),
    )


def take(search: Search, alphas: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for kind, alpha in search.arch.get_submodule("alpha").named_parameters():
            alpha.copy_(alphas[kind])


def put(search: Search, state: dict[str, Tensor], source: str) -> None:
    """The recorded weights; running statistics, which were left out, are those of a fresh supernet."""
    names = translate(search.supernet, state, source)
    found = search.supernet.load_state_dict({ours: state[theirs] for theirs, ours in names.items()}, strict=False)
    fresh = ("running_mean", "running_var", "num_batches_tracked")
    assert not found.unexpected_keys and all(name.endswith(fresh) for name in found.missing_keys), found


# -- ENAS: the controller


def controller(state: dict[str, Tensor]) -> Any:
    """Ours with the recorded weights; TensorFlow's cell has its gates in the order i, f, o, g in one matrix."""
    ops = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")
    space = DartsCNN(nodes=5, ops=ops, excluded=())
    found: Any = ENAS(units=16).arch(space, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer, cell in enumerate(found.lstm):
            i, f, o, g = state[f"lstm/layer_{layer}/w"].chunk(4, dim=1)
            whole = torch.cat([i, f, g, o], dim=1)
            cell.weight_ih.copy_(whole[:16].T)
            cell.weight_hh.copy_(whole[16:].T)
        found.start.copy_(state["g_emb"])
        found.op_inputs.copy_(state["emb/w"])
        found.op_head.weight.copy_(state["softmax/w"].T)
        found.op_bias.copy_(state["softmax/b"][0])
        found.key.weight.copy_(state["attention/w_1"].T)
        found.query.weight.copy_(state["attention/w_2"].T)
        found.attention.weight.copy_(state["attention/v"].T)
    return found.double()


def test_enas_controller(oracle: Any, close: Any, monkeypatch: Any) -> None:
    def near(found: Tensor, expected: Tensor) -> None:
        close(found.to(expected.dtype), expected)

    call = oracle("k_enas_controller")
    ours = controller(call.state)
    for case, script in enumerate(call.given["choices"].flatten(1).tolist()):
        turns = iter(script)

        def scripted(like: Tensor, generator: Any, turns: Any = turns) -> Tensor:
            return torch.zeros_like(like).index_fill(0, torch.tensor(next(turns)), 1e6)

        monkeypatch.setattr("diffnas.methods.enas.gumbel", scripted)
        child = ours(torch.Generator())
        near(-child.log_prob, call.found["neg_log_prob"][case])
        near(child.entropy, call.found["entropy"][case])
        for mix, arc in zip(child.values(), call.found["arc"][case].tolist(), strict=True):
            expected = torch.zeros_like(mix.op)
            for node in range(5):
                for source, op in (arc[4 * node : 4 * node + 2], arc[4 * node + 2 : 4 * node + 4]):
                    expected[2 * node + node * (node - 1) // 2 + source, op] += 1.0
            assert torch.equal(mix.op, expected)
        if case == 0:
            grads = dict(zip(dict(ours.named_parameters()), grads_of(-child.log_prob, ours), strict=True))
            theirs = call.group("grad/")
            for layer in range(2):
                ih, hh = grads[f"lstm.{layer}.weight_ih"].T, grads[f"lstm.{layer}.weight_hh"].T
                i, f, g, o = torch.cat([ih, hh]).chunk(4, dim=1)
                near(torch.cat([i, f, o, g], dim=1), theirs[f"lstm/layer_{layer}/w"])
            for name, grad in (
                ("g_emb", grads["start"]),
                ("emb/w", grads["op_inputs"]),
                ("softmax/w", grads["op_head.weight"].T),
                ("softmax/b", grads["op_bias"][None]),
                ("attention/w_1", grads["key.weight"].T),
                ("attention/w_2", grads["query.weight"].T),
                ("attention/v", grads["attention.weight"].T),
            ):
                near(grad, theirs[name])


def grads_of(value: Tensor, module: torch.nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, list(module.parameters()))


def test_enas_leads_in_the_normal_cell_only(oracle: Any, monkeypatch: Any) -> None:
    """What the recorded runs depend on: with a lead in both cells their probabilities are not met."""
    call = oracle("k_enas_controller")
    ours = controller(call.state)
    ours.leads = KINDS
    turns = iter(call.given["choices"][0].flatten().tolist())
    monkeypatch.setattr(
        "diffnas.methods.enas.gumbel",
        lambda like, generator: torch.zeros_like(like).index_fill(0, torch.tensor(next(turns)), 1e6),
    )
    assert abs(float((-ours(torch.Generator()).log_prob - call.found["neg_log_prob"][0]).detach())) > 0.1


# -- GDAS


def test_gdas_supernet(oracle: Any, close: Any, monkeypatch: Any) -> None:
    """Loss and gradient of a sample; the published gradient leaks into ops that did not run, ours is the one without."""
    call = oracle("k_gdas_nb201_supernet_f64")
    space = NASBench201(channels=4, layers=1)
    search = searched(GDAS(temperature=float(call.given["tau"])), space)
    put(search, call.state, "nasbench201")
    take(search, {"cell": call.given["alpha"]})
    monkeypatch.setattr("diffnas.methods.sampling.gumbel", lambda like, generator: call.given["gumbel"])
    mixture = search.relax("arch")
    batch = Batch(call.given["x"].double(), call.given["y"])
    found = differentiate(search, mixture, batch, {"mixture"}, "train_frozen_stats")
    close(found.loss.value, call.found["loss"])
    (grad,) = torch.autograd.grad(mixture["cell"].op, search.arch.get_submodule("alpha")["cell"], found.mixture[0])  # type: ignore[index]
    close(grad, call.found["grad/alpha_without_leak"])


# -- SmoothDARTS


def test_smooth_darts_random_shares(oracle: Any, close: Any, monkeypatch: Any) -> None:
    """A row that the noise moves below 0 altogether is included: its sum goes to the share that was moved the least."""
    call = oracle("k_sdarts_rs_f64")
    epsilon = float(call.given["epsilon"])
    method = SmoothDARTS(epsilon_first=epsilon, epsilon_last=epsilon)
    search = searched(method, DartsCNN(channels=2, layers=3, nodes=2, ops=S5))
    take(search, {kind: call.given[f"alphas_{kind}"] for kind in KINDS})
    noise = iter([call.given["noise_normal"], call.given["noise_reduce"]])
    monkeypatch.setattr("diffnas.methods.smooth_darts._uniform", lambda like, epsilon, generator: next(noise))
    moved = search.relax("weights")
    for kind in KINDS:
        close(moved[kind].op, call.found[f"shares_{kind}"])


# -- DARTS-PT


def test_darts_pt_decisions_on_edges(oracle: Any, close: Any) -> None:
    call = oracle("k_dartspt_edges")
    space = DartsCNN(channels=2, layers=3, nodes=2, ops=S5)
    search = searched(DARTSPT(), space)
    put(search, call.state, "darts")
    take(search, {kind: call.given[f"alphas_{kind}"] for kind in KINDS})
    batches = [Batch(x.double(), y) for x, y in zip(call.given["x"], call.given["y"], strict=True)]
    search.feeds["score"] = type("Feed", (), {"epoch": lambda self, epoch: batches})()
    search.advance(stage=1, epochs=81, selecting=True)
    for k, (kind, edge) in enumerate((kind, e) for kind in KINDS for e in call.given["edges"].tolist()):
        entries = [(edge, o) for o in range(7)]
        accuracy = decisions.score_without(search, kind, entries, "accuracy")
        loss = decisions.score_without(search, kind, entries, "loss")
        close(100 * torch.tensor(accuracy), call.found["accuracy"][k])
        close(-torch.tensor(loss), call.found["loss"][k])
        decisions.decide_edge(search, kind, edge, "accuracy")
        assert int(search.arch.get_buffer(f"choice_{kind}")[edge]) == int(call.found["op"][k])


# -- FairDARTS


def test_fairdarts(oracle: Any, close: Any) -> None:
    call, space = oracle("k_fairdarts"), DartsCNN(channels=2, layers=3, ops=S5, excluded=())
    search = searched(FairDARTS(), space, dtype=torch.float32)
    assert not any(alpha.any() for alpha in search.arch.parameters())  # they begin at 0
    for case, alphas in enumerate(call.given["alphas"]):
        take(search, dict(zip(KINDS, alphas, strict=True)))
        derived = search.derive()
        assert derived is not None
        for kind, expected in zip(KINDS, call.found["op"][case].tolist(), strict=True):
            cell = space.cells[kind]
            chosen = {
                (source, node): cell.ops.index(op)
                for node, inputs in zip(cell.nodes, derived.cells[kind].inputs, strict=True)
                for op, source in inputs
            }
            assert [chosen.get(edge, -1) for edge in cell.edges] == expected
    take(search, dict(zip(KINDS, call.given["alphas"][0], strict=True)))
    term = search.penalty(search.relax("arch"))
    assert term is not None
    close(term, call.found["zero_one"])
    for kind, grad in zip(KINDS, torch.autograd.grad(term, list(search.arch.parameters())), strict=True):
        close(grad, call.found[f"grad/{kind}"])


# -- SGAS


def test_sgas_decisions(oracle: Any) -> None:
    """Fifty epochs: after each, what is decided of every edge."""
    call, space = oracle("k_sgas_criterion1"), DartsCNN(channels=2, layers=3)
    search = searched(SGAS(), space, dtype=torch.float32)
    for epoch in range(50):
        take(search, {kind: call.given[f"alphas_{kind}"][epoch] for kind in KINDS})
        search.advance(total=epoch + 1, stage_epoch=epoch + 1)
        search.method.on_epoch_boundary(search, epoch + 1)
        for kind, expected in zip(KINDS, call.found["selected"][epoch].tolist(), strict=True):
            assert told(search, kind) == expected, (epoch, kind)


def told(search: Search, kind: str) -> list[int]:
    """-1 for an edge that is open, 0 for one that is dropped, else the column of its op."""
    undecided, chosen = (search.arch.get_buffer(f"{what}_{kind}") for what in ("open", "chosen"))
    return torch.where(undecided, -1, chosen.int().argmax(-1)).tolist()  # a dropped edge has no op: 0


# -- beta-DARTS


def test_beta_darts(oracle: Any, close: Any) -> None:
    call = oracle("k_betadarts_nb201")
    search = searched(BetaDARTS(), NASBench201(channels=2, layers=1), dtype=torch.float32)
    take(search, {"cell": call.given["alpha"]})
    for epoch, expected in enumerate(call.found["penalty"]):
        search.advance(epoch=epoch)
        term = search.penalty(search.relax("arch"))
        assert term is not None
        close(term, expected)
    (grad,) = torch.autograd.grad(term, list(search.arch.parameters()))
    close(grad / (50 * 99 / 100), call.found["grad"])
