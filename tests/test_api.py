"""Genotypes and modules by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import diffnas
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.published_genotypes import published
from diffnas.errors import GenotypeError, RecipeError, RunError, UserError
from diffnas.runtime.run_folder import Run
from diffnas.spaces.darts_cnn.space import DartsCNN

V2 = published("darts-v2")
EDGES = "[('skip_connect', 0), ('none', 1)]"
OLD = f"Genotype(normal={EDGES}, normal_concat=[2], reduce={EDGES}, reduce_concat=[2])"


def test_every_kind_of_source(tmp_path: Path) -> None:
    assert diffnas.load_genotype("darts-v2") == V2
    path = tmp_path / "my run (1)" / "search"
    path.mkdir(parents=True)
    (path / "genotype.json").write_text(V2.to_json())
    (path / "old.txt").write_text(OLD)
    for source in (path / "genotype.json", str(path / "genotype.json"), path.parent, str(path.parent), V2.to_json()):
        assert diffnas.load_genotype(source) == V2
    assert diffnas.load_genotype(OLD) == diffnas.load_genotype(str(path / "old.txt"))


def test_the_genotype_of_a_training(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for name in ("a", "b"):
        part = run.train(name)
        part.path.mkdir(parents=True)
        part.genotype.write_text(V2.to_json())
        if name == "a":
            assert diffnas.load_genotype(tmp_path) == V2
    with pytest.raises(
        RunError, match="holds several trainings and no search; name one file: .*a/genotype.json, .*b/gen"
    ):
        diffnas.load_genotype(tmp_path)
    (tmp_path / "search").mkdir()
    with pytest.raises(RunError, match="search/genotype.json: is missing; has the search finished an epoch?"):
        diffnas.load_genotype(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("darts-v3", "is no published name, file or run folder; did you mean darts-v2?; `diffnas list genotypes`"),
        ("dartsv2", "did you mean darts-v2?"),
        (" 9930 ", "a number alone is the index of a cell of NAS-Bench-201, which `diffnas lookup 9930` reads"),
        ("", "genotype: is empty; give a published name"),
        ("gone.json", "'gone.json' is no published name, file or run folder"),
        ("x" * 5000, "is no published name, file or run folder"),
        ("a\0b", "is no published name, file or run folder"),
        ("{" + "x" * 5000, "genotype: line 1, column 5002: ':' after the key 'xxx"),
        ('{"format": ' + "x" * 5000, "genotype: not valid JSON: damaged at line 1, column 12"),
        ("Genotype(" + "x" * 5000, "genotype: expected Genotype(normal=[...]"),
        ("__import__('os').system('true')", "genotype: expected Genotype(normal=[...]"),
    ],
)
def test_what_is_no_genotype(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        diffnas.load_genotype(text)
    (line,) = caught.value.lines
    assert said in line and len(line) < 400


def test_a_network_is_built() -> None:
    network = diffnas.build_network("darts-v2", channels=4, layers=3, classes=7, side=8)
    assert network.eval()(torch.zeros(2, 3, 8, 8)).shape == (2, 7)
    network = diffnas.build_network(V2, channels=4, layers=3, in_channels=1, auxiliary=True)
    logits, auxiliary = network.train()(torch.zeros(2, 1, 32, 32))
    assert logits.shape == auxiliary.shape == (2, 10)


def test_a_supernet_is_built() -> None:
    supernet = diffnas.build_supernet("darts-cnn", channels=4, layers=2, nodes=2, side=8)
    again = diffnas.build_supernet(DartsCNN(nodes=2), channels=4, layers=2, side=8)
    assert {k: v.shape for k, v in supernet.state_dict().items()} == {k: v.shape for k, v in again.state_dict().items()}


def with_op(
    op: str, space: str = "darts-cnn", kinds: tuple[str, ...] = ("normal", "reduce"), concat: int = 2
) -> Genotype:
    nodes = Nodes((((op, 0), ("none", 1)),), (concat,))
    return Genotype(space, dict.fromkeys(kinds, nodes))


@pytest.mark.parametrize(
    ("genotype", "said"),
    [
        (with_op("conv_9x9"), "genotype: cell normal: op 'conv_9x9' is unknown; known: "),
        (with_op("none", space="darts-mlp"), "genotype: its space 'darts-mlp' is unknown; known: darts-cnn"),
        (with_op("none", kinds=("normal",)), "reduce is missing"),
        (with_op("none", concat=1), "names an input; name nodes only"),
    ],
)
def test_a_genotype_that_cannot_be_built(genotype: Genotype, said: str) -> None:
    with pytest.raises(GenotypeError) as caught:
        diffnas.build_network(genotype, channels=4, layers=3, side=8)
    assert said in caught.value.lines[0]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"channels": 5}, "channels: must be even, not 5"),
        ({"channels": "36"}, "channels: must be a whole number from 2 to 4096; got '36'"),
        ({"stem": "resnet"}, "stem: must be cifar or imagenet; got 'resnet'"),
        ({"side": 10}, "layers: 3 layers need images whose side is a multiple of 4, not 10"),
        ({"auxiliary": True, "side": 8}, "auxiliary: the auxiliary head needs 8x8 features; here they are 2x2"),
    ],
)
def test_a_network_that_cannot_be_built(size: dict[str, int], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        diffnas.build_network(V2, **{"channels": 4, "layers": 3, **size})  # type: ignore[arg-type]
    assert caught.value.lines[0].startswith(said)


@pytest.mark.parametrize(
    ("genotype", "size", "said"),
    [
        (
            "darts-rnn-v2",
            {"channels": 4},
            "channels: is for networks of images, and darts-rnn reads text; leave it out",
        ),
        ("darts-rnn-v2", {"side": 32, "units": 8}, "side: is for networks of images"),
        ("darts-v2", {"units": 8}, "units: is for networks of text, and darts-cnn reads images; leave it out"),
    ],
)
def test_a_size_for_the_other_kind_of_network(genotype: str, size: dict[str, int], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        diffnas.build_network(genotype, **size)  # type: ignore[arg-type]
    (line,) = caught.value.lines
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("space", "size", "said"),
    [
        ("darts_cnn", {}, "space 'darts_cnn' is unknown; did you mean darts-cnn?; known: darts-cnn"),
        ("darts-cnn", {"chanels": 4}, "chanels is unknown; did you mean channels?"),
        ("darts-cnn", {"channels": 5}, "channels: must be even, not 5"),
        ("darts-cnn", {"side": 6}, "layers: 8 layers need images whose side is a multiple of 4, not 6"),
        ("darts-cnn", {"concat": (9,)}, "concat: [9] must name nodes"),
        ("darts-cnn", {"channels": "4"}, "channels: must be a whole number"),
        ("darts-cnn", {"nodes": 0}, "nodes: must be a whole number from 1 to 16; got 0"),
    ],
)
def test_a_supernet_that_cannot_be_built(space: str, size: dict[str, int], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        diffnas.build_supernet(space, **size)
    assert caught.value.lines[0].startswith(said)
