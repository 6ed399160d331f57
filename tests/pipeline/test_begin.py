"""Trainings that begin with the weights of a search or of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import diffnas
from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape, TextShape
from diffnas.errors import RunError, UserError, WeightsError
from diffnas.pipeline import begin
from diffnas.registry import TASKS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.spaces.shufflenet_blocks.space import ShuffleNetBlocks
from diffnas.tasks.classification import Classification

QUICK = ["data.train_limit=96", "data.test_limit=64", "space.layers=3", "search.epochs=1", "train.epochs=2"]
OPS = ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5")


def chosen(cell: Cell, seed: int) -> tuple[Nodes, Mix]:
    """A cell with two inputs a node where it has as many, all where they stay, and the mixture that is it."""
    draw, inputs = torch.Generator().manual_seed(seed), []
    op_EO = torch.zeros(len(cell.edges), len(cell.ops))
    for node in cell.nodes:
        edges = cell.edges_into(node)
        kept = edges if cell.in_degree is None else sorted(torch.randperm(len(edges), generator=draw)[:2].tolist())
        kept = kept if cell.in_degree is None else [edges[k] for k in kept]
        picks = torch.randint(len(cell.ops), (len(kept),), generator=draw).tolist()
        op_EO[kept, picks] = 1.0
        inputs.append(tuple((cell.ops[o], cell.edges[e][0]) for e, o in zip(kept, picks, strict=True)))
    return Nodes(tuple(inputs), cell.concat, cell.inputs), Mix(op_EO)


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (DartsCNN(channels=4, layers=3, ops=OPS, excluded=()), {"channels": 4, "layers": 3, "pool_norm": "plain"}),
        (NASBench201(channels=4, layers=1), {"channels": 4, "layers": 1}),
        (ShuffleNetBlocks(channels=4), {"channels": 4, "layers": 20, "norm_eps": 1e-2}),
    ],
    ids=["darts-cnn", "nasbench201", "shufflenet-blocks"],
)
def test_the_network_computes_what_the_supernet_did(space: Any, settings: dict[str, Any]) -> None:
    """With statistics of a batch, and scales that are still 1 where a supernet has none."""
    shape, images = Shape(5, 3, 32), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    cells = {kind: chosen(cell, seed) for seed, (kind, cell) in enumerate(space.cells.items())}
    supernet = space.supernet(shape).double().train()
    network = space.network(Genotype(space.name, {k: nodes for k, (nodes, _) in cells.items()}), shape, **settings)
    begin.put_searched(network.double().train(), supernet.state_dict(), Path("run"))
    with torch.no_grad():
        expected, found = supernet(images, {k: mix for k, (_, mix) in cells.items()}), network(images)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_a_language_model_has_the_matrices_of_its_supernet() -> None:
    space = DartsRNN(units=6, steps=8)
    supernet, words = space.supernet(TextShape(20)), TextShape(20)
    network = space.network(diffnas.load_genotype("darts-rnn-v2"), words, units=6)
    own = len(network.state_dict())
    assert begin.put_searched(network, supernet.state_dict(), Path("run")) == (own, 0)
    assert all(torch.equal(t, supernet.state_dict()[name]) for name, t in network.state_dict().items())


@pytest.fixture
def searched(tmp_path: Path) -> diffnas.Run:
    return diffnas.search(diffnas.read_recipe("darts-digits-tiny", QUICK), tmp_path / "run")


def recipe(*more: str) -> Any:
    return diffnas.read_recipe("darts-digits-tiny", [*QUICK, *more])


class Stopping(Classification):
    """Stops a training at its first step."""

    def loss(self, net: Any, batch: Any) -> Any:
        raise KeyboardInterrupt


def test_a_training_begins_with_the_search_and_resumes(searched: diffnas.Run, monkeypatch: Any) -> None:
    diffnas.train(searched, recipe(), searched, init="search", name="whole")
    diffnas.train(searched, recipe(), searched, name="fresh")
    facts = json.loads((searched.train("whole").path / "environment.json").read_text())["init"]
    assert facts["from"] == "search" and facts["path"] == str(searched.path) and len(facts["digest"]) == 64
    with monkeypatch.context() as patched:  # before there is a checkpoint
        patched.setitem(TASKS, "classification", Stopping)
        with pytest.raises(KeyboardInterrupt):
            diffnas.train(searched, recipe(), searched, init="search", name="part")
    assert not list(searched.train("part").path.glob("checkpoint/*"))
    diffnas.train(None, None, searched, resume=True, name="part")
    for name, begun in (("fresh", {"from": "fresh"}), ("part", facts)):
        assert json.loads((searched.train(name).path / "environment.json").read_text())["init"] == begun
    whole, part, fresh = (load_file(searched.train(name).weights) for name in ("whole", "part", "fresh"))
    assert all(torch.equal(part[name], whole[name]) for name in whole)
    assert not torch.equal(fresh["stem.0.weight"], whole["stem.0.weight"])


def test_how_it_begins_is_written_before_it_can_be_resumed(searched: diffnas.Run, monkeypatch: Any) -> None:
    def killed(part: Any, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("diffnas.runtime.run_folder.Part.write_recipe", killed)
        with pytest.raises(KeyboardInterrupt):
            diffnas.train(searched, recipe(), searched, init="search", name="part")
    facts = searched.train("part").path / "environment.json"
    assert json.loads(facts.read_text())["init"]["from"] == "search"
    diffnas.train(searched, recipe("train.epochs=1"), searched, name="part")  # what is left does not stand in the way
    assert json.loads(facts.read_text())["init"] == {"from": "fresh"}


def test_it_resumes_from_the_search_as_it_was_only(searched: diffnas.Run, monkeypatch: Any) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(TASKS, "classification", Stopping)
        with pytest.raises(KeyboardInterrupt):
            diffnas.train(searched, recipe(), searched, init="search", name="part")
    diffnas.search(recipe("search.epochs=2"), searched, resume=True)
    with pytest.raises(WeightsError, match="holds other weights than when the training began"):
        diffnas.train(None, None, searched, resume=True, name="part")


def test_shapes_are_refused_by_name(searched: diffnas.Run) -> None:
    with pytest.raises(WeightsError) as caught:
        diffnas.train(searched, recipe("train.channels=6"), searched, init="search")
    first, *lines = caught.value.lines
    assert first.endswith("(a network of its size: --set train.channels=4 --set train.layers=3)")
    assert any("has the shape" in line and "in the supernet" in line for line in lines) and len(lines) <= 10
    with pytest.raises(WeightsError, match=r"cells\.3\.\S+: the supernet has no cells\.3\."):
        diffnas.train(searched, recipe("train.layers=4"), searched, init="search")
    assert not (searched.path / "train").exists()


def test_partial_channels_fit_no_network(tmp_path: Path) -> None:
    more = ["space.partial=2", "method={name: pcdarts, warmup: 0}"]
    run = diffnas.search(diffnas.read_recipe("darts-digits-tiny", [*QUICK, *more]), tmp_path)
    with pytest.raises(WeightsError, match="its ops see one channel in 2, which no network does"):
        diffnas.train(run, recipe(), init="search")


def test_a_file_of_ours(searched: diffnas.Run, caplog: Any) -> None:
    diffnas.train(searched, recipe("train.epochs=1"), searched, name="first")
    file = searched.train("first").weights
    diffnas.train(searched, recipe("train.epochs=1", "train.lr=1e-30"), searched, init=file, name="still")
    first, still = load_file(file), load_file(searched.train("still").weights)
    assert all(torch.equal(first[name], still[name]) for name in first if "running" not in name and "num_b" not in name)
    assert json.loads((searched.train("still").path / "environment.json").read_text())["init"]["path"] == str(file)
    with pytest.raises(WeightsError, match=r"weights\.safetensors: .* has the shape"):
        diffnas.train(searched, recipe("train.channels=6"), searched, init=file, name="other")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    (file.parent / "damaged.safetensors").write_bytes(damaged)
    with pytest.raises(WeightsError, match="damaged"):
        diffnas.train(searched, recipe(), searched, init=file.parent / "damaged.safetensors", name="other")
    caplog.clear()
    with pytest.raises(UserError):
        diffnas.train("darts-v2", recipe(), searched, init=file, name="other")
    assert "weights of another cell" in caplog.text


def test_a_file_of_another_program(oracle: Any, tmp_path: Path) -> None:
    """The recorded weights of NASNet's cell in DARTS's code, under its names."""
    state, genotype = oracle("a_darts_eval_nasnet").state, diffnas.load_genotype("nasnet")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "model.pth.tar"
    )
    start = begin.start_of(tmp_path / "model.pth.tar", genotype, [])
    assert start is not None
    network = diffnas.build_network(genotype, channels=4, layers=6)
    start.put(network)
    assert torch.equal(network.classifier.bias, state["classifier.bias"])
    with pytest.raises(WeightsError, match=r"model\.pth\.tar: .*has the shape"):
        start.put(diffnas.build_network(genotype, channels=8, layers=6))


def test_what_is_not_there(searched: diffnas.Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--init search: there is no search"):
        diffnas.train("darts-v2", recipe(), tmp_path / "alone", init="search")
    with pytest.raises(RunError, match=r"--init nothing\.pt: is no file"):
        diffnas.train(searched, recipe(), searched, init="nothing.pt")
    with pytest.raises(WeightsError, match="genotype.json: no weights can be read from it"):
        diffnas.train(searched, recipe(), searched, init=searched.search.genotype)
    with pytest.raises(WeightsError, match="is a checkpoint to resume from"):
        diffnas.train(searched, recipe(), searched, init=max(searched.search.checkpoints.iterdir()))
    with pytest.raises(RunError, match="leave init out"):
        diffnas.train(None, None, searched, resume=True, init="search")
    assert not (tmp_path / "alone").exists()
