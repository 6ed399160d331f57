"""The space's settings: what they refuse, what they narrow to, and that reading them needs no torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch

from diffnas.api import build_network, load_genotype
from diffnas.core.genotype import parse_genotype
from diffnas.core.space import Shape, Size
from diffnas.engine import strongest
from diffnas.errors import GenotypeError, RecipeError
from diffnas.recipe.schema import ImageTrain
from diffnas.spaces.nasbench201.layout import OPS
from diffnas.spaces.nasbench201.space import NASBench201

TEXT = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|nor_conv_1x1~2|"


def test_the_default_space_is_that_of_the_paper() -> None:
    cell = NASBench201().cells["cell"]
    assert cell.ops == OPS and cell.edges == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert cell.concat == (3,) and cell.in_degree is None and not cell.excluded
    assert NASBench201().size == Size(16, 5) and NASBench201().check_size(Shape(10)) == []


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ({"partial": 3}, "partial", "must divide the 16 channels; 3 does not"),
        ({"ops": ("none", "sep_conv_3x3")}, "ops", "'sep_conv_3x3' is unknown"),
        ({"ops": ("none", "none")}, "ops", "listed twice"),
        ({"edge_ops": {"normal": []}}, "edge_ops", "must have the one key cell"),
        ({"edge_ops": {"cell": [["none"]]}}, "edge_ops", "1 lists for 6 edges"),
        ({"edge_ops": {"cell": [["max_pool_3x3"]] * 6}}, "edge_ops", "max_pool_3x3 not among the ops"),
    ],
)
def test_refusals(settings: dict[str, Any], key: str, said: str) -> None:
    found = NASBench201(**settings).check_size(Shape(10))
    assert any(name == key and said in reason for name, reason in found), found


def test_sides_must_halve_twice() -> None:
    said = [("layers", "the three stages need images whose side is a multiple of 4, not 30")]
    assert NASBench201().check_size(Shape(10, 3, 30)) == said
    assert NASBench201().check_network(Shape(10, 3, 30), {}) == said
    assert NASBench201().check_size(Shape(10, 3, 16), Size(8, 2, 4)) == []


def test_networks_refuse_what_there_is_not() -> None:
    """One line each, with what to set; nothing else of a train section matters."""
    found = dict(NASBench201().check_network(Shape(10), asdict(ImageTrain())))
    assert set(found) == {"auxiliary", "drop_path"}
    asked = {"auxiliary": True, "stem": "imagenet", "pool_norm": "plain", "drop_path": 0.2}
    found = dict(NASBench201().check_network(Shape(10), asked))
    assert [reason.rpartition("set it to ")[2] for reason in found.values()] == ["false", "cifar", "none", "0"]
    with pytest.raises(RecipeError, match="auxiliary.*set it to false"):
        build_network(TEXT, auxiliary=True)
    with pytest.raises(GenotypeError, match="drop_path.*set it to 0"):
        build_network(TEXT, drop_path=True)


def test_narrow() -> None:
    keep = torch.ones(6, 5, dtype=torch.bool)
    keep[0] = torch.tensor([True, False, False, True, False])
    space = NASBench201(statistics="batch").narrow({"cell": keep})
    assert space.edge_ops is not None and space.edge_ops["cell"][0] == ["none", "nor_conv_3x3"]
    assert space.statistics == "batch" and space.check_size(Shape(10)) == []
    again = space.narrow({"cell": ~keep | (torch.arange(5) == 3)})
    assert again.cells["cell"].allowed == ((False, False, False, True, False),) * 6


def test_the_strongest_op_of_every_edge_is_derived() -> None:
    """`none` included; the first of equals; the text of the derived cell is read back as the same cell."""
    strength = torch.zeros(6, 5)
    for e, name in enumerate(("avg_pool_3x3", "nor_conv_1x1", "skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1")):
        strength[e, OPS.index(name)] = 1.0
    strength[3] = 0.5  # a tie
    nodes = strongest(NASBench201().cells["cell"], strength)
    found = load_genotype(TEXT)
    assert found.cells["cell"] == nodes and found.space == "nasbench201"
    assert parse_genotype(found.to_json()) == found
