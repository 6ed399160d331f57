"""What the recurrent space lets choose, builds and refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from diffnas.core.mixture import Mix, allowed_mask
from diffnas.core.published_genotypes import RECURRENT, published
from diffnas.core.space import Shape, Size, TextShape
from diffnas.engine.derive import strongest
from diffnas.errors import GenotypeError, RecipeError
from diffnas.spaces.darts_rnn.layout import KIND, OPS
from diffnas.spaces.darts_rnn.space import DartsRNN


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_cell() -> None:
    cell = DartsRNN().cells[KIND]
    assert len(cell.edges) == 36 and cell.ops == OPS and cell.inputs == 1 and cell.nodes == tuple(range(1, 9))
    assert cell.in_degree == 1 and cell.concat == cell.nodes and cell.excluded == {"none"}
    assert DartsRNN(steps=4, concat=2).cells[KIND].concat == (3, 4)
    assert DartsRNN(units=20).size == Size(20, 1)


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_the_published_supernet_size(form: Any) -> None:
    with torch.device("meta"):
        supernet = DartsRNN().supernet(TextShape(10_000), form=form)
        assert parameters(DartsRNN().supernet(TextShape(10_000), Size(850, 1), form)) == 22_960_000
    assert parameters(supernet) == 4_810_000
    assert sum(b.numel() for b in supernet.state_dict().values()) == 4_810_000 + 601


def test_both_forms_begin_alike() -> None:
    built = []
    for form in ("plain", "fast"):
        torch.manual_seed(3)
        built.append(DartsRNN(units=5, steps=2).supernet(TextShape(7), form=form).state_dict())
    assert list(built[0]) == list(built[1])
    assert all(torch.equal(a, b) for a, b in zip(built[0].values(), built[1].values(), strict=True))
    assert all(t.abs().max() <= 0.04 for name, t in built[0].items() if "norm" not in name)
    assert not built[0]["bias"].any() and built[0]["cell.start"].std() > 0.01


def test_derived_cells_build() -> None:
    space = DartsRNN(units=4, steps=3)
    strength = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    strength[:, 0] = 2.0  # `none` is the strongest everywhere, and is never derived
    nodes = strongest(space.cells[KIND], strength)
    assert all(len(node) == 1 and node[0][0] != "none" for node in nodes.inputs) and nodes.first == 1
    genotype = dataclasses.replace(published("darts-rnn-v1"), cells={KIND: nodes})
    spoken = space.network(genotype, TextShape(9), units=4)((torch.zeros(2, 3, dtype=torch.int64), None))
    assert spoken.log_probs.shape == (2, 3, 9)


def test_narrowing() -> None:
    space = DartsRNN(units=4, steps=2)
    keep = torch.ones(3, 5, dtype=torch.bool)
    keep[1, 2:] = False
    narrow = space.narrow({KIND: keep})
    assert torch.equal(allowed_mask(narrow.cells[KIND]), keep)
    again = torch.ones(3, 5, dtype=torch.bool)
    again[0, 0] = False
    assert torch.equal(allowed_mask(narrow.narrow({KIND: again}).cells[KIND]), keep & again)
    assert narrow.edge_ops == {KIND: [list(OPS), ["none", "tanh"], list(OPS)]}
    assert not narrow.check_size(TextShape(5))


def test_costs() -> None:
    space = DartsRNN()
    for name in RECURRENT:
        sized = DartsRNN(steps=len(published(name).cells[KIND].inputs))
        with torch.device("meta"):
            network = space.network(published(name), TextShape(10_000))
        assert sized.fixed_cost(TextShape(10_000), "params", Size(850, 1)) == parameters(network)
    assert space.fixed_cost(TextShape(10_000), "macs") == 600 * 600 + 8 * 300 * 600 + 300 * 10_000
    assert space.costs(TextShape(10_000), "params") == {KIND: [[0.0] * 5] * 36}
    assert space.lookup(published("enas-rnn")) is None


def test_usual_sizes() -> None:
    found = []
    for words, settings in DartsRNN().usual_sizes.values():
        with torch.device("meta"):
            found.append(parameters(DartsRNN().network(published("darts-rnn-v2"), words, **settings)))
    assert found == [22_960_000, 33_127_878]


@pytest.mark.parametrize(
    ("space", "key", "said"),
    [
        (DartsRNN(ops=("none", "gelu")), "ops", "'gelu' is unknown; known: none, tanh"),
        (DartsRNN(excluded=("nnoe",)), "excluded", "'nnoe' is unknown"),
        (DartsRNN(ops=("tanh", "tanh")), "ops", "an op is listed twice"),
        (DartsRNN(ops=("none",)), "ops", "nothing is left to choose"),
        (DartsRNN(ops=("none", "tanh"), excluded=("tanh",)), "ops", "nothing is left to choose"),
        (DartsRNN(steps=3, concat=4), "concat", "must not exceed the 3 nodes; got 4"),
        (DartsRNN(edge_ops={"normal": []}), "edge_ops", "must have the one key recurrent"),
        (DartsRNN(steps=1, edge_ops={KIND: []}), "edge_ops", "0 lists for 1 edges"),
    ],
)
def test_refusals(space: DartsRNN, key: str, said: str) -> None:
    assert [(k, reason) for k, reason in space.check_size(TextShape(5)) if k == key and said in reason]
    assert not DartsRNN().check_size(TextShape(5))


def test_what_a_stage_may_not_ask_is_refused_by_name() -> None:
    ((key, reason),) = DartsRNN().check_size(TextShape(5), Size(300, 1, partial=4))
    assert key == "partial" and "must be 1, not 4" in reason
    ((key, reason),) = DartsRNN().check_size(TextShape(5), Size(300, 8))
    assert key == "layers" and "there is one recurrent cell" in reason


def test_images_are_refused() -> None:
    assert DartsRNN().check_size(Shape(10))[0] == DartsRNN().check_network(Shape(10), {})[0]
    assert "reads words, not images" in DartsRNN().check_size(Shape(10))[0][1]
    assert not DartsRNN().check_network(TextShape(5), {})
    with pytest.raises(RecipeError, match="space darts-rnn reads words, not images"):
        DartsRNN().network(published("enas-rnn"), Shape(10))


def test_illegal_genotypes() -> None:
    good = published("darts-rnn-v1")
    nodes = good.cells[KIND]
    twice = (nodes.inputs[0] * 2, *nodes.inputs[1:])
    strange = ((("sep_conv_3x3", 0),), *nodes.inputs[1:])
    for cells, said in [
        ({"normal": nodes}, "has one cell, recurrent; this one has normal"),
        ({KIND: dataclasses.replace(nodes, inputs=twice)}, "node 1 has 2 inputs; a recurrent node reads one state"),
        ({KIND: dataclasses.replace(nodes, inputs=strange)}, "op 'sep_conv_3x3' is unknown; known: tanh, relu"),
        ({KIND: dataclasses.replace(nodes, first=2)}, "must have one state to start from, not 2"),
    ]:
        with pytest.raises(GenotypeError, match=said):
            DartsRNN().network(dataclasses.replace(good, cells=cells), TextShape(5), units=4)


def test_a_mixture_of_another_kind_is_an_error() -> None:
    supernet = DartsRNN(units=4, steps=1).supernet(TextShape(5))
    with pytest.raises(KeyError):
        supernet((torch.zeros(1, 2, dtype=torch.int64), None), {"normal": Mix(torch.ones(1, 5))})
