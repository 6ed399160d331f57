"""Weights of other programs, tested without a run folder."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import diffnas
from diffnas.cli.main import main
from diffnas.core.space import Shape
from diffnas.errors import UserError, WeightsError
from diffnas.interop import load_weights
from diffnas.pipeline.network import build
from diffnas.pipeline.published import PROGRAMS
from diffnas.recipe.recipe import read_recipe

# parameters, auxiliary head included, of the network that each program builds at the size of its publication
WHOLE = {
    ("darts", "cifar10", "DARTS_V2"): 3_825_768,
    ("darts", "imagenet", "DARTS_V2"): 5_979_528,
    ("pdarts", "cifar10", "PDARTS"): 3_910_224,
    ("pdarts", "imagenet", "PDARTS"): 6_206_664,
    ("pcdarts", "cifar10", "PC_DARTS_cifar"): 4_111_104,
    ("pcdarts", "imagenet", "PC_DARTS_image"): 6_603_240,
    ("drnas", "cifar10", "DrNAS_cifar10"): 4_575_720,
    ("drnas", "imagenet", "DrNAS_imagenet"): 6_987_144,
    ("snas", "cifar10", "SNAS_mild_edge_all"): 3_139_968,
    ("snas", "imagenet", "SNAS_moderate_edge_all"): 5_902_347,
}


@pytest.mark.parametrize(("source", "data", "genotype"), WHOLE)
def test_the_networks_of_every_program(source: str, data: str, genotype: str) -> None:
    name, *settings = PROGRAMS[source][data]
    recipe = read_recipe(name, [*settings, "train.auxiliary=true"])
    shape = Shape(10) if data == "cifar10" else Shape(1000, 3, 224)
    with torch.device("meta"):
        network = build(diffnas.load_genotype(genotype), recipe, shape)
    assert sum(p.numel() for p in network.parameters()) == WHOLE[source, data, genotype]


def test_the_other_sizes() -> None:
    for data, outputs in (("cifar10", 10), ("cifar100", 100), ("imagenet16-120", 120)):
        name, *settings = PROGRAMS["nasbench201"][data]
        recipe = read_recipe(name, [*settings, "train.auxiliary=false"])
        with torch.device("meta"):
            network = build(diffnas.load_genotype("nb201-all-3x3"), recipe, Shape(outputs))
        assert sum(p.numel() for p in network.parameters()) == 1_531_546 + 65 * (outputs - 10)
    recipe = read_recipe(*PROGRAMS["darts-rnn"]["ptb"])
    with torch.device("meta"):
        network = build(diffnas.load_genotype("darts-rnn-v2"), recipe, diffnas.TextShape(10_000))
    assert sum(p.numel() for p in network.parameters()) == 22_960_000
    assert all(read_recipe(name, settings) for sets in PROGRAMS.values() for name, *settings in sets.values())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of 32 x 32 in each of ten classes."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label in range(10):
        (root / str(label)).mkdir()
        for k in range(2):
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(root / str(label) / f"{k}.png")
    return root


@pytest.fixture
def weights(oracle: Any, tmp_path: Path) -> Path:
    """What the original DARTS saved of a small network of NASNet's cell, as `torch.save` wrote it before PyTorch 1.6."""
    torch.save(oracle("a_darts_eval_nasnet").state, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    return tmp_path / "model.pt"


def small(images: Path) -> list[str]:
    statistics = ["data.mean=[0.5, 0.5, 0.5]", "data.std=[0.25, 0.25, 0.25]", "device=cpu"]
    size = ["train.channels=4", "train.layers=6"]
    return [*statistics, "data.name=folder", f"data.path={images}", "data.side=32", *size]


def test_a_network_of_darts(weights: Path, images: Path, oracle: Any) -> None:
    found = diffnas.test_weights(weights, "darts", "NASNet", overrides=small(images))
    network = diffnas.build_network("nasnet", channels=4, layers=6)
    load_weights(network, oracle("a_darts_eval_nasnet").state, "darts")
    files = [(label, images / str(label) / f"{k}.png") for label in range(10) for k in range(2)]
    pixels = np.stack([np.asarray(Image.open(file)) for _, file in files])
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        logits = network.eval()(x)
    labels = torch.tensor([label for label, _ in files])
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert found["accuracy"] == pytest.approx(100 * float((logits.argmax(1) == labels).double().mean()))
    assert (found["n"], found["source"], found["genotype"]) == (20, "darts", "nasnet")
    assert 0 <= found["interval"][0] <= found["accuracy"] <= found["interval"][1] <= 100
    assert 0 <= found["accuracy"] <= found["top5"] and found["auxiliary_params"] == 0
    assert sorted(path.name for path in weights.parent.iterdir()) == ["model.pt"]  # nothing is written


def test_on_the_command_line(weights: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [part for each in small(images) for part in ("-s", each)]
    command = ["test", "--weights", str(weights), "--source", "darts", "--genotype", "nasnet", *settings]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"test accuracy: {found['accuracy']:.2f} %" in out and f"weights: {weights}" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a run folder, or weights of another program"),
        (["--weights", "a.pt"], "--weights a.pt: needs --source PROGRAM"),
        (["--weights", "a.pt", "--source", "darts"], "--weights a.pt: needs --genotype NAME"),
        (["run", "--source", "darts"], "--source is for weights without a run"),
        (["--weights", "a.pt", "--source", "dart", "--genotype", "DARTS"], "--source dart: is unknown; did you mean"),
        (["--weights", "a.pt", "--source", "darts", "--genotype", "DARTS"], "a.pt: cannot be read: No such file"),
        (["--weights", "a.pt", "--source", "darts", "--genotype", "DARTS", "--train", "x"], "--train names a training"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["test", *arguments]) == 2
    assert said in capsys.readouterr().err


def refusal(*arguments: Any, **named: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        diffnas.test_weights(*arguments, **named)
    return list(caught.value.lines)


def test_weights_that_do_not_fit(weights: Path, images: Path) -> None:
    (line,) = refusal(weights, "darts", "NASNet", overrides=small(images)[:-2])
    assert "holds a network of 4 channels and 6 layers, and cifar10-train has 36 channels and 20 layers" in line
    assert line.endswith("--set train.channels=4 --set train.layers=6")
    lines = refusal(weights, "darts", "DARTS_V2", overrides=small(images))
    assert "does not fit the network of darts-v2 by darts; is --genotype or --source another one?" in lines[0]
    assert "others have no place in this module" in lines[2] and "others are filled by nothing" in lines[4]
    assert len(lines) < 12
    state: dict[str, Tensor] = torch.load(weights)
    torch.save({**state, "extra.weight": torch.zeros(1)}, weights)
    lines = refusal(weights, "darts", "NASNet", overrides=small(images))
    assert lines[1:] == [f"{weights}: extra.weight: no place for it in this module"]
    torch.save({key: value for key, value in state.items() if key != "stem.1.bias"}, weights)
    lines = refusal(weights, "darts", "NASNet", overrides=small(images))
    assert lines[1:] == [f"{weights}: stem.1.bias: nothing in the state dict fills it"]
    torch.save({**state, "classifier.weight": torch.zeros(7, 64)}, weights)
    assert "7 outputs, which does not tell the data" in refusal(weights, "darts", "NASNet")[0]
    lines = refusal(weights, "darts", "NASNet", "cifar10", small(images))
    assert lines == [
        f"{weights}: tells 7 classes or words apart, and the data have 10; set data.path to data of the same kind"
    ]
    assert refusal(weights, "darts", "NASNet", "ptb") == [
        "--data ptb: weights of darts are for cifar10, cifar100 or imagenet"
    ]


def test_a_recurrent_model(tmp_path: Path) -> None:
    """By the names of the recurrent program, whose DARTS_V1 is not the convolutional cell."""
    words = [f"word{k}" for k in range(12)]
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text("\n".join(" ".join(words[k:] + words[:k]) for k in range(12)) + "\n")
    network = diffnas.build_network("darts-rnn-v1", vocabulary=13, units=8)
    own = network.state_dict()
    state = {"encoder.weight": own["embedding.weight"], "decoder.bias": own["bias"], "rnns.0._W0": own["cell.start"]}
    state |= {f"rnns.0._Ws.{k}": own[f"cell.nodes.{k}"] for k in range(8)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    text = ["data.name=text", f"data.path={tmp_path}", "device=cpu", "train.test_batch=1"]
    found = diffnas.test_weights(
        tmp_path / "model.safetensors", "darts-rnn", "DARTS_V1", "ptb", [*text, "train.units=8"]
    )
    assert math.isclose(found["loss"], math.log(found["perplexity"])) and found["n"] == 12 * 13 - 1
    assert found["genotype"] == "darts-rnn-v1" and abs(found["loss"] - math.log(13)) < 0.5
    (line,) = refusal(tmp_path / "model.safetensors", "darts-rnn", "DARTS_V1", "ptb", text)
    assert "holds a network of 8 units, and ptb-train has 850 units" in line


def test_the_cell_of_the_benchmark(images: Path, tmp_path: Path) -> None:
    network = diffnas.build_network("nb201-resnet", channels=4, layers=1)
    state = {
        re.sub(r"(cells\.\d+\.)ops\.(\d)\.", r"\1layers.\2.op.", name): tensor
        for name, tensor in network.state_dict().items()
    }
    renamed = {"first": "conv_a.op", "second": "conv_b.op", "shortcut": "downsample"}
    for ours, theirs in renamed.items():
        state = {name.replace(f".{ours}.", f".{theirs}."): tensor for name, tensor in state.items()}
    state = {re.sub(r"^norm\.", "lastact.0.", name): tensor for name, tensor in state.items()}
    torch.save({"network": state}, tmp_path / "a.pth")
    (line,) = refusal(tmp_path / "a.pth", "nasbench201", "resnet", overrides=small(images)[:-2])
    assert line.endswith("--set train.channels=4 --set train.layers=1")
    overrides = [*small(images)[:-2], "train.channels=4", "train.layers=1"]
    found = diffnas.test_weights(tmp_path / "a.pth", "nasbench201", "resnet", overrides=overrides)
    assert found["n"] == 20 and found["params"] == sum(p.numel() for p in network.parameters())
    with pytest.raises(WeightsError, match="does not fit the network of nb201-all-skip"):
        diffnas.test_weights(tmp_path / "a.pth", "nasbench201", "nb201-all-skip", overrides=overrides)


@pytest.mark.slow
def test_two_processes_find_what_one_does(weights: Path, images: Path) -> None:
    whole = diffnas.test_weights(weights, "darts", "NASNet", overrides=[*small(images), "train.batch=8"])
    assert whole == diffnas.test_weights(
        weights, "darts", "NASNet", overrides=[*small(images), "train.batch=8"], devices=2
    )
