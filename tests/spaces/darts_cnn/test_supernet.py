"""The plain supernet: it adds up what a mixture says, in any shape of cell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import diffnas
from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.space import Form, Shape, Size
from diffnas.interop import load_weights, translate
from diffnas.spaces.darts_cnn.layout import OPS, CellPlan
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_cnn.supernet import MixedCell, MixedEdge, interleave

SHAPES = [
    {},
    {"nodes": 1},
    {"nodes": 3, "concat": (4,)},
    {"nodes": 2, "inputs": 1, "in_degree": 1},
    {"nodes": 2, "inputs": 3, "layers": 9},
    {"ops": ("skip_connect", "sep_conv_3x3")},
    {"nodes": 1, "edge_ops": {"normal": [["none"], ["skip_connect", "max_pool_3x3"]], "reduce": [["none"], ["none"]]}},
]


def uniform(space: DartsCNN) -> Mixture:
    return Mixture({k: Mix(torch.rand(len(c.edges), len(c.ops), dtype=torch.float64)) for k, c in space.cells.items()})


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("settings", SHAPES)
def test_any_shape_of_cell(settings: dict[str, Any]) -> None:
    space = DartsCNN(**{"channels": 4, "layers": 3, **settings})
    supernet = space.supernet(Shape(5, 1, 8)).double()
    logits = supernet(torch.randn(2, 1, 8, 8, dtype=torch.float64), uniform(space))
    assert logits.shape == (2, 5) and torch.isfinite(logits).all()


def test_an_edge_is_the_weighted_sum_of_its_ops(close: Any) -> None:
    edge = MixedEdge(OPS, (True,) * 8, 4, 1).double().eval()
    x, shares = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    expected = sum(shares[OPS.index(name)] * op(x) for name, op in edge.ops.items())
    close(edge(x, shares), expected)
    assert "none" not in edge.ops and len(edge.ops) == 7


def test_the_share_of_none_changes_nothing() -> None:
    space = DartsCNN(channels=4, layers=2, nodes=2)
    supernet, mixture, x = space.supernet(Shape(3)).double(), uniform(space), images()
    changed = Mixture({k: Mix(m.op + torch.eye(8)[0]) for k, m in mixture.items()})
    assert torch.equal(supernet(x, mixture), supernet(x, changed))


def test_edge_weights_scale_whole_edges(close: Any) -> None:
    space = DartsCNN(channels=4, layers=2, nodes=2)
    supernet, mixture, x = space.supernet(Shape(3)).double().eval(), uniform(space), images()
    weights = torch.rand(5, dtype=torch.float64)
    edges = Mixture({k: Mix(m.op, weights) for k, m in mixture.items()})
    folded = Mixture({k: Mix(m.op * weights[:, None]) for k, m in mixture.items()})
    close(supernet(x, edges), supernet(x, folded))


def test_a_plain_dictionary_serves_as_a_mixture() -> None:
    space = DartsCNN(channels=4, layers=2, nodes=1)
    supernet, mixture, x = space.supernet(Shape(3)).double(), uniform(space), images()
    assert torch.equal(supernet(x, mixture), supernet(x, dict(mixture)))


def test_only_allowed_ops_are_built() -> None:
    whole = DartsCNN(channels=4, layers=3, nodes=2)
    keep = {kind: torch.zeros(5, 8, dtype=torch.bool) for kind in whole.cells}
    keep["normal"][:, 3] = True
    keep["reduce"][:, [4, 0]] = True
    narrow = whole.narrow(keep)
    supernet = narrow.supernet(Shape(3))
    assert {tuple(edge.ops) for edge in supernet.cells[0].edges} == {("skip_connect",)}
    assert {tuple(edge.ops) for edge in supernet.cells[1].edges} == {("sep_conv_3x3",)}
    again = narrow.narrow({kind: torch.ones(5, 8, dtype=torch.bool) for kind in whole.cells})
    assert again.cells == narrow.cells


def test_a_one_hot_mixture_is_the_derived_cell() -> None:
    """The supernet with one op on two edges of a node computes what the network of that genotype does."""
    genotype = diffnas.load_genotype("darts-v2")
    space = DartsCNN(channels=4, layers=3)
    shape = Shape(10, 3, 8)
    supernet = space.supernet(shape).double().eval()
    network = space.network(genotype, shape, channels=4, layers=3, pool_norm="plain").double().eval()
    mixes = {}
    for kind, cell in space.cells.items():
        op = torch.zeros(14, 8, dtype=torch.float64)
        for node, inputs in zip(cell.nodes, genotype.cells[kind].inputs, strict=True):
            for name, source in inputs:
                op[cell.edges.index((source, node)), OPS.index(name)] = 1.0
        mixes[kind] = Mix(op)
    weights = supernet.state_dict()
    for name in network.state_dict():  # the weights of the derived ops lie on their edges in the supernet
        if ".ops." not in name:
            network.state_dict()[name].copy_(weights[name]) if name in weights else None
    for index, cell in enumerate(network.cells):
        kind = supernet.kinds[index]
        pairs = [
            (op, s, n) for n, i in zip(space.cells[kind].nodes, genotype.cells[kind].inputs, strict=True) for op, s in i
        ]
        for op, (name, source, node) in zip(cell.ops, pairs, strict=True):
            edge = supernet.cells[index].edges[space.cells[kind].edges.index((source, node))]
            op.load_state_dict(edge.ops[name].state_dict(), strict=False)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(network(x), supernet(x, Mixture(mixes)), atol=1e-9)


def test_sizes_by_name() -> None:
    supernet = diffnas.build_supernet("darts-cnn", channels=4, layers=5, classes=7)
    assert supernet.classifier.out_features == 7 and len(supernet.cells) == 5
    assert len(DartsCNN().supernet(Shape(10), Size(2, 2)).cells) == 2


SEVEN = tuple(op for op in OPS if op != "none")


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"channels": 16, "layers": 8, "partial": 2}, 956_512),  # PC-DARTS
        ({"channels": 48, "layers": 14, "partial": 6, "ops": SEVEN}, 3_642_896),  # DrNAS
    ],
)
def test_supernets_of_imagenet_have_the_published_size(settings: dict[str, Any], weights: int) -> None:
    with torch.device("meta"):
        supernet = diffnas.build_supernet("darts-cnn", stem="imagenet", classes=1000, side=224, **settings)
    assert sum(p.numel() for p in supernet.parameters()) == weights


@pytest.mark.parametrize("inputs", [1, 2])
def test_both_supernets_agree_on_images_of_imagenet(inputs: int) -> None:
    space = DartsCNN(channels=2, layers=2, nodes=2, inputs=inputs, in_degree=1, stem="imagenet")
    plain, fast = (space.supernet(Shape(5, 3, 32), form=form).double() for form in ("plain", "fast"))
    fast.load_state_dict(plain.state_dict())
    x, mixture = torch.randn(2, 3, 32, 32, dtype=torch.float64), uniform(space)
    assert torch.allclose(fast(x, mixture), plain(x, mixture), atol=1e-12)
    assert plain.stem0(x).shape[2] == 8 and plain.stem1(plain.stem0(x)).shape[2] == 4
    head = DartsCNN(channels=2, layers=2, nodes=2, stem="imagenet", auxiliary="trained").supernet(Shape(5, 3, 224))
    assert head.auxiliary.features[-2].kernel_size == (2, 2)  # without the second normalisation


def test_interleave_takes_the_groups_in_turns() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 4)
    assert interleave(x, 2)[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert interleave(x, 3)[1, :, 2, 3].tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(interleave(x, 1), x) and torch.equal(interleave(interleave(x, 2), 3), x)


def test_of_partial_channels_the_rest_passes_by() -> None:
    """With no op anywhere, the channels that ops do not see arrive all the same; pooled where the edge has a stride."""
    x = torch.rand(2, 4, 4, 4) + 1.0
    for kind, expected in [("normal", x), ("reduce", F.max_pool2d(x, 2))]:
        cell = MixedCell(Cell.dense(("none",), 1, 1), CellPlan(kind, 4, ((4, 0),)), partial=2)
        cell.preprocess[0] = torch.nn.Identity()
        y = cell([x], Mix(torch.ones(1, 1), torch.full((1,), 0.5)))
        assert torch.equal(y[:, 0::2], torch.zeros_like(y[:, 0::2]))  # what ops saw
        assert torch.equal(y[:, 1::2], 0.5 * expected[:, 2:])


def given_of_pc_darts(call: Any, space: DartsCNN) -> tuple[dict[str, Tensor], Mixture]:
    """The recorded alphas and betas as leaves, and their mixture."""
    given = {name: t.requires_grad_() for name, t in call.given.items() if name.startswith(("alphas", "betas"))}
    mixes = {}
    for kind, cell in space.cells.items():
        betas = [given[f"betas_{kind}"][list(cell.edges_into(node))].softmax(-1) for node in cell.nodes]
        mixes[kind] = Mix(given[f"alphas_{kind}"].softmax(-1), torch.cat(betas))
    return given, Mixture(mixes)


def test_both_supernets_agree_at_the_recorded_weights(oracle: Any, in_float64: Any, close: Any) -> None:
    """In float64, closer than a recording in float32 can tell."""
    call, found = in_float64(oracle("d_pcdarts_search")), []
    space = DartsCNN(channels=8, layers=5, partial=4)
    for form in ("plain", "fast"):
        supernet = space.supernet(Shape(10, 3, 16), form=form).double()
        load_weights(supernet, call.state, "darts")
        given, mixture = given_of_pc_darts(call, space)
        logits = supernet(call.given["x"], mixture)
        loss = F.cross_entropy(logits, call.given["y"])
        grads = torch.autograd.grad(loss, [*given.values(), *supernet.parameters()])
        found.append([logits, torch.cat([grad.flatten() for grad in grads[:4]]), *grads[4:]])
    for mine, theirs in zip(*found, strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_the_recorded_supernet_of_pc_darts(form: Form, oracle: Any, close: Any) -> None:
    """Xu et al.'s own, C = 8, K = 4: shares are softmax(alphas), edges softmax(betas) over what enters a node."""
    call = oracle("d_pcdarts_search")
    space = DartsCNN(channels=8, layers=5, partial=4)
    supernet = space.supernet(Shape(10, 3, 16), form=form)
    load_weights(supernet, call.state, "darts")
    given, mixture = given_of_pc_darts(call, space)
    logits = supernet(call.given["x"], mixture)
    loss = F.cross_entropy(logits, call.given["y"])
    close(logits, call.found["logits"])
    close(loss, call.found["loss"])
    parameters = dict(supernet.named_parameters())
    recorded = call.group("grad/")
    ours = {
        name: given[name] if name in given else parameters[translate(supernet, [name], "darts")[name]]
        for name in recorded
    }
    grads = dict(zip(ours, torch.autograd.grad(loss, list(ours.values())), strict=True))
    for group in ("alphas", "betas"):  # the tolerance holds for all of a call together
        close(*(torch.cat([t[f"{group}_{kind}"] for kind in space.cells]) for t in (grads, recorded)))
    for name in recorded:
        close(grads[name], recorded[name]) if name not in given else None
    after, buffers = supernet.state_dict(), call.group("buffer_after/")
    for theirs, name in translate(supernet, buffers, "darts").items():
        close(after[name], buffers[theirs])
    close(supernet.eval()(call.given["x"], mixture), call.found["logits_evalmode_after"])
