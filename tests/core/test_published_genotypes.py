"""Every published genotype has the published size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas.core.count import Counts, count
from diffnas.core.published_genotypes import ALIASES, CELLS, PUBLISHED, published, published_name
from diffnas.core.space import Shape
from diffnas.errors import RunError
from diffnas.spaces.darts_cnn.space import DartsCNN

# parameters and multiply-adds in millions: C=36 L=20 on CIFAR-10, C=48 L=14 on ImageNet; no auxiliary head
SIZES = {
    "nasnet": (3_830_950, 603.5, 5_564_320, 604.0),
    "amoebanet": (3_145_078, 488.9, 4_627_360, 526.7),
    "darts-v1": (3_169_414, 501.0, 4_510_432, 505.9),
    "darts-v2": (3_349_342, 528.4, 4_718_752, 529.9),
    "pdarts": (3_433_798, 532.2, 4_944_352, 542.8),
    "pc-darts-cifar10": (3_634_678, 556.7, 5_270_560, 571.1),
    "pc-darts-imagenet": (3_721_510, 570.5, 5_342_464, 581.6),
    "drnas-cifar10": (4_099_294, 635.1, 5_738_464, 633.8),
    "drnas-imagenet": (4_048_750, 617.9, 5_726_368, 624.4),
    "snas-mild": (2_661_382, 422.2, 3_939_328, 438.0),
    "snas-moderate": (2_847_358, 440.7, 4_312_576, 465.6),
    "snas-aggressive": (2_313_622, 374.9, 3_561_952, 395.7),
    "gdas-v1": (3_368_782, 519.4, 4_969_216, 537.6),
    "mmrazor-cifar10": (2_946_286, 467.8, 4_289_152, 478.3),
    "sdarts-rs-cifar10": (3_606_166, 562.4, 5_120_320, 566.8),
    "sdarts-adv-cifar10": (3_344_806, 526.8, 4_768_864, 531.6),
    "sgas-cri1-cifar10": (3_795_166, 601.7, 5_285_440, 594.8),
    "sgas-cri2-cifar10": (4_094_110, 631.7, 5_697_664, 630.0),
}


def size(name: str, shape: Shape, **settings: Any) -> Counts:
    with torch.device("meta"):
        network = DartsCNN().network(published(name), shape, auxiliary=True, **settings)
    return count(network, (shape.channels, shape.side, shape.side))


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name: str) -> None:
    params, macs, imagenet_params, imagenet_macs = SIZES[name]
    cifar = size(name, Shape(10), channels=36, layers=20)
    imagenet = size(name, Shape(1000, 3, 224), channels=48, layers=14, stem="imagenet")
    assert (cifar.params, round(cifar.macs / 1e6, 1)) == (params, macs)
    assert (imagenet.params, round(imagenet.macs / 1e6, 1)) == (imagenet_params, imagenet_macs)
    nodes = len(published(name).cells["reduce"].concat)
    assert cifar.auxiliary == {4: 476_426, 3: 457_994}[nodes]
    assert imagenet.auxiliary == {4: 1_260_776, 3: 1_236_200}[nodes]


def test_counts_of_the_original(record: Any) -> None:
    names = {"NASNet": "nasnet", "AmoebaNet": "amoebanet", "DARTS_V1": "darts-v1", "DARTS_V2": "darts-v2"}
    rows = [
        row for row in record("counts")["evaluation"] if row["peer"].startswith("quark0") and row["genotype"] in names
    ]
    assert len(rows) == 8
    for row in rows:
        stem = "cifar" if row["dataset"] == "cifar" else "imagenet"
        shape = Shape(row["classes"], 3, row["input"])
        found = size(names[row["genotype"]], shape, channels=row["C"], layers=row["layers"], stem=stem)
        assert found == Counts(row["params"], row["macs"], row["params_with_aux"] - row["params"])


def test_every_published_genotype_builds() -> None:
    for name in CELLS:
        assert size(name, Shape(10), channels=4, layers=3, pool_norm="affine").params > 0


ORIGINAL_NAMES = {
    "DARTS": "darts-v2",
    "DARTS_V1": "darts-v1",
    "DARTS_V2": "darts-v2",
    "PDARTS": "pdarts",
    "PC_DARTS_cifar": "pc-darts-cifar10",
    "PC_DARTS_image": "pc-darts-imagenet",
    "PCDARTS": "pc-darts-cifar10",
    "DrNAS_cifar10": "drnas-cifar10",
    "DrNAS_imagenet": "drnas-imagenet",
    "SNAS_mild": "snas-mild",
    "SNAS_mild_edge_all": "snas-mild-edge-all",
    "SNAS_aggressive_edge_all": "snas-aggressive-edge-all",
    "GDAS_V1": "gdas-v1",
    "NASNet": "nasnet",
    "AmoebaNet": "amoebanet",
    "ENAS": "enas-rnn",
    "c10_s5_pgd": "sdarts-adv-cifar10",
    "Cri2_CIFAR_Best": "sgas-cri2-cifar10",
    "resnet": "nb201-resnet",
    "all_c3x3": "nb201-all-3x3",
    "all_idnt": "nb201-all-skip",
}


def test_the_authors_own_names() -> None:
    for theirs, ours in ORIGINAL_NAMES.items():
        for name in (theirs, theirs.lower(), theirs.upper(), theirs.replace("_", "-"), f" {theirs.replace('_', ' ')} "):
            assert published_name(name) == ours
            assert diffnas.load_genotype(name) == published(ours)
    assert set(ALIASES.values()) <= set(PUBLISHED) and not set(ALIASES) & set(PUBLISHED)
    assert published_name("darts-v3") is None


def test_a_folder_goes_before_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "darts").mkdir()
    with pytest.raises(RunError, match="run darts: is not a run folder"):
        diffnas.load_genotype("darts")
    assert diffnas.load_genotype("DARTS") == published("darts-v2")


def test_edge_all_lists_the_edges_without_an_op_besides() -> None:
    for name in ("snas-mild", "snas-moderate", "snas-aggressive"):
        for kind, nodes in published(f"{name}-edge-all").cells.items():
            kept = [{entry for entry in node if entry[0] != "none"} for node in nodes.inputs]
            short = [{entry for entry in node if entry[0] != "none"} for node in published(name).cells[kind].inputs]
            assert kept == short and [len(node) for node in nodes.inputs] == [2, 3, 4, 5]


def test_enas_puts_out_its_loose_ends() -> None:
    for nodes in published("enas-cifar10").cells.values():
        read = {source for node in nodes.inputs for _, source in node}
        assert nodes.concat == tuple(i for i in range(2, 7) if i not in read)
