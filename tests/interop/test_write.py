"""Genotypes and weights written for other programs are read back as what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import diffnas
from diffnas.cli.main import main
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.published_genotypes import PUBLISHED
from diffnas.errors import GenotypeError, UserError
from diffnas.interop.genotypes import read_genotype
from diffnas.interop.write import to_darts, to_edges, to_subnet

CELLS = {name: diffnas.load_genotype(name) for name in PUBLISHED}


@pytest.mark.parametrize("name", CELLS)
def test_every_published_cell_comes_back(name: str) -> None:
    """By each form that can hold it; the other forms say why they cannot."""
    genotype, held = CELLS[name], 0
    for write in (to_darts, to_subnet, to_edges):
        try:
            text = write(genotype)
        except GenotypeError as error:
            assert len(error.lines) == 1 and error.lines[0].startswith("genotype: ")
            continue
        again, held = read_genotype(text), held + 1
        assert {k: [sorted(n) for n in cell.inputs] for k, cell in again.cells.items()} == {
            k: [sorted(n) for n in cell.inputs] for k, cell in genotype.cells.items()
        }
        assert {k: set(cell.concat) for k, cell in again.cells.items()} == {
            k: set(cell.concat) for k, cell in genotype.cells.items()
        }
    numbers = {len(inputs) for cell in genotype.cells.values() for inputs in cell.inputs}
    assert held or genotype.space == "shufflenet-blocks" or len(numbers) > 1


def test_a_subnet_is_written_back_as_the_same_mapping(tmp_path: Path) -> None:
    """Ops of edges that are not chosen included, which are no part of the genotype; by way of a genotype file as well."""
    mapping = {}
    for kind, nodes in CELLS["mmrazor-cifar10"].cells.items():
        for node, inputs in enumerate(nodes.inputs, 2):
            mapping[f"{kind}_n{node}"] = {"chosen": [f"{kind}_n{node}_p{source}" for _, source in inputs]}
            ops = dict.fromkeys(range(node), "skip_connect") | {source: op for op, source in inputs}
            mapping |= {f"{kind}_n{node}_p{source}": {"chosen": [op]} for source, op in ops.items()}
    subnet = tmp_path / "SUBNET.yaml"
    subnet.write_text(yaml.safe_dump(mapping))
    assert diffnas.load_genotype(subnet) == CELLS["mmrazor-cifar10"]
    diffnas.convert(subnet, tmp_path / "deep" / "cell.json")
    for source in (subnet, tmp_path / "deep" / "cell.json"):
        back = yaml.safe_load(diffnas.convert(source, tmp_path / "back.yml").read_text())
        assert back == mapping
    bare = yaml.safe_load(to_subnet(CELLS["mmrazor-cifar10"]))
    assert len(bare) == 8 + 16 and all(bare[key] == mapping[key] for key in bare)


def test_what_a_form_cannot_hold() -> None:
    def both(*inputs: tuple[str, int]) -> Genotype:
        return Genotype("darts-cnn", {kind: Nodes((inputs,), (2,), 2) for kind in ("normal", "reduce")})

    twice = both(("skip_connect", 0), ("sep_conv_3x3", 0))
    with pytest.raises(GenotypeError, match="normal, node 2 reads a state twice"):
        to_subnet(twice)
    assert read_genotype(to_darts(twice)) == twice
    with pytest.raises(GenotypeError, match="NAS-Bench-201 has one cell"):
        to_edges(twice)
    with pytest.raises(GenotypeError, match="lists 2 inputs a node"):
        to_darts(both(("skip_connect", 0)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cell.txt"
    assert main(["convert", "darts-v2", str(out)]) == 0 and capsys.readouterr().out == f"written: {out}\n"
    assert main(["convert", str(out), str(tmp_path / "cell.json")]) == 0
    assert json.loads((tmp_path / "cell.json").read_text())["space"] == "darts-cnn"
    assert diffnas.load_genotype(tmp_path / "cell.json") == CELLS["darts-v2"]
    capsys.readouterr()
    for arguments, said in (
        (["darts-v2", str(tmp_path / "cell.doc")], "its name does not say a form; give --to"),
        (["darts-v2", str(out), "--to", "vega"], "--to vega: is unknown; forms: diffnas, darts, mmrazor, nasbench201"),
        (["darts-v2", str(tmp_path / "new" / "cell.txt"), "--to", "nasbench201"], "NAS-Bench-201 has one cell"),
        (["nothing", str(out)], "is no published name"),
    ):
        assert main(["convert", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_weights_alone(tmp_path: Path) -> None:
    """Of a checkpoint with other things in it; tensors that share memory are written as often as they are named."""
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"state_dict": {"a": weight, "b": weight.t()}, "epoch": 3}, tmp_path / "model.pt")
    found = load_file(diffnas.convert(tmp_path / "model.pt", tmp_path / "model.safetensors"))
    assert torch.equal(found["a"], weight) and torch.equal(found["b"], weight.t())
    with pytest.raises(UserError, match="weights are written as .safetensors"):
        diffnas.convert(tmp_path / "model.pt", tmp_path / "cell.json")
