"""Counting parameters and multiply-adds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import diffnas
from diffnas.core.count import Counts, count, in_millions, mmrazor_flops
from diffnas.core.space import Shape, TextShape
from diffnas.errors import UserError
from diffnas.pipeline.sizes import size_facts, size_lines


def test_a_hand_count() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    macs = 3 * 8 * 9 * 64 + 8 * 9 * 16 + 80
    assert count(layers, (3, 8, 8)) == Counts(3 * 8 * 9 + 16 + 8 * 9 + 8 + 90, macs, 0)
    assert count(layers, (1, 3, 8, 8)).macs == macs


def test_the_network_is_left_as_it_was() -> None:
    network = diffnas.build_network("darts-v1", channels=4, layers=3, auxiliary=True).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    counts = diffnas.count(network, (3, 32, 32))
    assert network.training and all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert counts.auxiliary == sum(p.numel() for p in network.auxiliary.parameters())
    assert counts.params + counts.auxiliary == sum(p.numel() for p in network.parameters())


def test_a_smaller_input_costs_less() -> None:
    network = diffnas.build_network("darts-v2", channels=4, layers=3)
    assert count(network, (3, 16, 16)).macs < count(network, (3, 32, 32)).macs / 3.9


def test_a_language_model_is_counted_for_one_word() -> None:
    network = diffnas.build_network("darts-rnn-v2", vocabulary=50, units=8)
    cell = 16 * 16 + 8 * 8 * 16
    assert count(network, TextShape(50)) == Counts(cell + 50 * 8 + 50, cell + 50 * 8, 0)


@pytest.mark.parametrize(
    ("genotype", "shape", "said"),
    [
        (
            "darts-rnn-v2",
            [3, 32, 32],
            "cannot read an input [3, 32, 32]; give [C, H, W] for images, TextShape(V) for",
        ),
        ("darts-v2", TextShape(50), "cannot read 50 words; give [C, H, W]"),
        ("darts-v2", [1, 32, 32], "cannot read an input [1, 32, 32]"),
    ],
)
def test_an_input_that_the_network_cannot_read(genotype: str, shape: Any, said: str) -> None:
    size = {"vocabulary": 50, "units": 8} if genotype == "darts-rnn-v2" else {"channels": 2, "layers": 1}
    with pytest.raises(UserError) as caught:
        count(diffnas.build_network(genotype, **size), shape)  # type: ignore[arg-type]
    (line,) = caught.value.lines
    assert line.startswith("count: the network ") and said in line


def test_the_rule_of_openmmlab_by_hand() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.BatchNorm2d(8, affine=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    inside = 8 * 64
    expected = 3 * 8 * 9 * 64 + 2 * inside + inside + inside + inside // 4 + inside // 4 + 80
    assert mmrazor_flops(layers, Shape(10, 3, 8)) == expected


@pytest.mark.parametrize(
    ("cell", "printed", "params", "flops"),
    [("mmrazor-cifar10", "3.42M parameters, 0.48G FLOPs", 3_422_712, 483_633_792),
     ("darts-v2", "3.83M parameters, 0.55G FLOPs", 3_825_768, 547_473_024)],
)  # fmt: skip
def test_the_figures_that_openmmlab_prints(cell: str, printed: str, params: int, flops: int) -> None:
    """3.42M and 0.48G, 3.83M and 0.55G in its tables; pools are normalised there, which adds some thousand of each."""
    genotype = diffnas.load_genotype(cell)
    lines = list(size_lines(genotype))
    assert lines[1] == f"  as OpenMMLab counts: {printed}" and lines[-1].startswith("OpenMMLab: FLOPs are these")
    found = size_facts(genotype, "cifar10-train-mmrazor", Shape(10))["sizes"]
    assert size_facts(genotype)["sizes"][0]["openmmlab"] == {"params": params, "flops": flops}
    assert 0 < found[0]["openmmlab"]["flops"] - flops < 1e6 and 0 < found[0]["openmmlab"]["params"] - params < 1e4


def test_without_an_auxiliary_head_there_is_our_count_alone() -> None:
    lines = list(size_lines(diffnas.load_genotype("darts-v2"), "darts-digits-tiny", Shape(10, 3, 8)))
    assert len(lines) == 2 and "openmmlab" not in size_facts(diffnas.load_genotype("darts-rnn-v2"))["sizes"][0]


@pytest.mark.parametrize(("macs", "said"), [(0, "0"), (31_234, "31,234"), (100_000, "0.1M"), (574_300_000, "574.3M")])
def test_numbers_for_people(macs: int, said: str) -> None:
    assert in_millions(macs) == said
