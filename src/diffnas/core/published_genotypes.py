"""Published genotypes by name, as plain data.

A node is written as its inputs, `op@source`, and nodes are separated by bars; sources 0 and 1 are the outputs of the two
cells before; in a recurrent cell, source 0 is what it makes of the word and of its own last output.  A chain of blocks is
written as its ops, with bars between stages.  The lists are numbers from the papers' public code; nothing here was searched
by diffnas.
"""

from __future__ import annotations

import re
from typing import Any

from diffnas.core.genotype import Genotype, Nodes, parse_edges

SHORT = {
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "sep7": "sep_conv_7x7",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "conv7": "conv_7x1_1x7",
    "none": "none",
    "3": "shuffle_3x3",
    "5": "shuffle_5x5",
    "7": "shuffle_7x7",
    "x": "shuffle_xception",
    "tanh": "tanh",
    "relu": "relu",
    "sigm": "sigmoid",
    "id": "identity",
}

# name: (source, normal cell, its concat, reduction cell, its concat)
CELLS: dict[str, tuple[str, str, tuple[int, ...], str, tuple[int, ...]]] = {
    "nasnet": (
        "Zoph et al., 2018",
        "sep5@1 sep3@0 | sep5@0 sep3@0 | avg@1 skip@0 | avg@0 avg@0 | sep3@1 skip@1",
        (2, 3, 4, 5, 6),
        "sep5@1 sep7@0 | max@1 sep7@0 | avg@1 sep5@0 | skip@3 avg@2 | sep3@2 max@1",
        (4, 5, 6),
    ),
    "amoebanet": (
        "Real et al., 2019",
        "avg@0 max@1 | sep3@0 sep5@2 | sep3@0 avg@3 | sep3@1 skip@1 | skip@0 avg@1",
        (4, 5, 6),
        "avg@0 sep3@1 | max@0 sep7@2 | sep7@0 avg@1 | max@0 max@1 | conv7@0 sep3@5",
        (3, 4, 6),
    ),
    "darts-v1": (
        "Liu et al., 2019, first order",
        "sep3@1 sep3@0 | skip@0 sep3@1 | skip@0 sep3@1 | sep3@0 skip@2",
        (2, 3, 4, 5),
        "max@0 max@1 | skip@2 max@0 | max@0 skip@2 | skip@2 avg@0",
        (2, 3, 4, 5),
    ),
    "darts-v2": (
        "Liu et al., 2019, second order",
        "sep3@0 sep3@1 | sep3@0 sep3@1 | sep3@1 skip@0 | skip@0 dil3@2",
        (2, 3, 4, 5),
        "max@0 max@1 | skip@2 max@1 | max@0 skip@2 | skip@2 max@1",
        (2, 3, 4, 5),
    ),
    "pdarts": (
        "Chen et al., 2019",
        "skip@0 dil3@1 | skip@0 sep3@1 | sep3@1 sep3@3 | sep3@0 dil5@4",
        (2, 3, 4, 5),
        "avg@0 sep5@1 | sep3@0 dil5@2 | max@0 dil3@1 | dil3@1 dil5@3",
        (2, 3, 4, 5),
    ),
    "pc-darts-cifar10": (
        "Xu et al., 2020, searched on CIFAR-10",
        "sep3@1 skip@0 | sep3@0 dil3@1 | sep5@0 sep3@1 | avg@0 dil3@1",
        (2, 3, 4, 5),
        "sep5@1 max@0 | sep5@1 sep5@2 | sep3@0 sep3@3 | sep3@1 sep3@2",
        (2, 3, 4, 5),
    ),
    "pc-darts-imagenet": (
        "Xu et al., 2020, searched on ImageNet",
        "skip@1 sep3@0 | sep3@0 skip@1 | sep3@1 sep3@3 | sep3@1 dil5@4",
        (2, 3, 4, 5),
        "sep3@0 skip@1 | dil5@2 max@1 | sep3@2 sep3@1 | sep5@0 sep3@3",
        (2, 3, 4, 5),
    ),
    "drnas-cifar10": (
        "Chen et al., 2021, searched on CIFAR-10",
        "sep3@0 sep5@1 | sep3@1 sep3@2 | skip@0 sep3@1 | sep3@2 dil5@3",
        (2, 3, 4, 5),
        "max@0 sep5@1 | dil5@2 sep5@1 | sep5@1 dil5@3 | skip@4 sep5@1",
        (2, 3, 4, 5),
    ),
    "drnas-imagenet": (
        "Chen et al., 2021, searched on ImageNet",
        "sep3@1 sep3@0 | sep3@0 sep3@1 | sep3@0 dil3@3 | skip@0 sep3@1",
        (2, 3, 4, 5),
        "max@0 sep3@1 | sep3@0 skip@2 | sep3@0 sep3@2 | sep3@3 sep3@1",
        (2, 3, 4, 5),
    ),
    "snas-mild": (
        "Xie et al., 2019, mild constraint",
        "sep3@0 sep3@1 | skip@0 dil3@1 | skip@0 skip@1 | skip@0 sep3@1",
        (2, 3, 4, 5),
        "max@0 max@1 | max@1 skip@2 | max@1 skip@2 | max@0 dil5@2",
        (2, 3, 4, 5),
    ),
    "snas-mild-edge-all": (
        "Xie et al., 2019, mild constraint, with the edges that have no op",
        "sep3@0 sep3@1 | skip@0 dil3@1 none@2 | skip@0 skip@1 none@3 none@2 | skip@0 sep3@1 none@4 none@3 none@2",
        (2, 3, 4, 5),
        "max@0 max@1 | none@0 max@1 skip@2 | none@0 max@1 skip@2 none@3 | max@0 dil5@2 none@1 none@3 none@4",
        (2, 3, 4, 5),
    ),
    "snas-moderate": (
        "Xie et al., 2019, moderate constraint",
        "dil5@0 skip@1 | sep3@0 skip@1 | skip@0 skip@1 | sep3@0 dil5@1",
        (2, 3, 4, 5),
        "max@0 max@1 | sep5@0 dil5@1 | sep5@0 sep5@1 | sep5@0 sep5@1",
        (2, 3, 4, 5),
    ),
    "snas-moderate-edge-all": (
        "Xie et al., 2019, moderate constraint, with the edges that have no op",
        "dil5@0 skip@1 | sep3@0 skip@1 none@2 | skip@0 none@3 none@2 skip@1 | sep3@0 dil5@1 none@4 none@3 none@2",
        (2, 3, 4, 5),
        "max@0 max@1 | sep5@0 none@2 dil5@1 | none@3 none@2 sep5@0 sep5@1 | none@4 none@3 none@2 sep5@0 sep5@1",
        (2, 3, 4, 5),
    ),
    "snas-aggressive": (
        "Xie et al., 2019, aggressive constraint; `none` is kept as an op",
        "sep5@0 skip@1 | skip@0 skip@1 | dil5@1 skip@0 | skip@0 dil5@1",
        (2, 3, 4, 5),
        "sep5@0 none@1 | sep5@0 none@1 | none@1 none@0 | none@1 none@0",
        (2, 3, 4, 5),
    ),
    "snas-aggressive-edge-all": (
        "Xie et al., 2019, aggressive constraint, with the edges that have no op",
        "sep5@0 skip@1 | skip@0 skip@1 none@2 | dil5@1 skip@0 none@2 none@3 | skip@0 dil5@1 none@2 none@3 none@4",
        (2, 3, 4, 5),
        "sep5@0 none@1 | sep5@0 none@1 none@2 | none@0 none@1 none@2 none@3 | none@0 none@1 none@2 none@3 none@4",
        (2, 3, 4, 5),
    ),
    "gdas-v1": (
        "Dong and Yang, 2019",
        "skip@0 skip@1 | skip@0 sep5@2 | sep3@3 skip@0 | sep5@4 sep3@3",
        (2, 3, 4, 5),
        "sep5@0 sep3@1 | sep5@2 sep5@1 | dil5@2 sep3@1 | sep5@0 sep5@1",
        (2, 3, 4, 5),
    ),
    "mmrazor-cifar10": (
        "OpenMMLab MMRazor, DARTS searched, 97.32 %",
        "sep3@0 sep3@1 | skip@0 sep5@1 | sep3@0 skip@1 | skip@0 skip@1",
        (2, 3, 4, 5),
        "max@0 sep3@1 | max@0 dil5@2 | max@0 skip@2 | max@0 skip@2",
        (2, 3, 4, 5),
    ),
    "sdarts-rs-cifar10": (
        "Chen and Hsieh, 2020, random smoothing",
        "sep3@1 sep3@0 | sep5@1 skip@0 | sep3@3 skip@1 | sep3@1 dil3@2",
        (2, 3, 4, 5),
        "max@0 sep3@1 | skip@2 max@0 | dil5@3 max@0 | sep3@2 sep5@3",
        (2, 3, 4, 5),
    ),
    "sdarts-adv-cifar10": (
        "Chen and Hsieh, 2020, adversarial",
        "sep3@0 sep3@1 | sep3@1 skip@0 | sep5@0 dil3@3 | dil3@4 skip@0",
        (2, 3, 4, 5),
        "max@0 sep5@1 | skip@2 max@0 | skip@3 skip@2 | skip@2 sep5@4",
        (2, 3, 4, 5),
    ),
    "sgas-cri1-cifar10": (
        "Li et al., 2020, criterion 1, best",
        "sep3@0 dil3@1 | sep3@0 sep3@1 | sep5@1 sep5@3 | skip@0 dil5@2",
        (2, 3, 4, 5),
        "max@0 dil5@1 | sep3@0 skip@2 | sep3@1 skip@2 | max@0 max@1",
        (2, 3, 4, 5),
    ),
    "sgas-cri2-cifar10": (
        "Li et al., 2020, criterion 2, best",
        "sep3@0 sep3@1 | sep3@0 sep3@2 | max@0 sep3@3 | sep3@2 sep3@3",
        (2, 3, 4, 5),
        "sep3@0 max@1 | dil3@0 max@1 | max@0 sep3@2 | max@0 sep5@2",
        (2, 3, 4, 5),
    ),
    "enas-cifar10": (
        "Pham et al., 2018, micro space; its separable convolutions differ from those built here",
        "avg@0 sep3@0 | skip@0 sep5@0 | skip@0 sep5@1 | sep3@1 sep5@0 | avg@0 sep5@1",
        (2, 3, 4, 5, 6),
        "sep3@1 sep3@1 | max@0 avg@0 | sep5@1 sep5@3 | sep3@1 skip@0 | max@0 sep5@1",
        (2, 4, 5, 6),
    ),
}

# name: (source, the ops of the blocks in order)
BLOCKS: dict[str, tuple[str, str]] = {
    "spos": ("Guo et al., 2020, block search, 319M", "3 3 x 5 | 5 5 3 3 | 7 3 7 5 5 3 7 3 | 7 5 x 7"),
    "dsnas": ("Hu et al., 2020, searched on ImageNet, 324M", "3 3 x 3 | x 7 3 3 | x x 7 x x x 7 3 | 3 x x 3"),
    "mmrazor-dsnas": (
        "OpenMMLab MMRazor, DSNAS searched on ImageNet, 73.56 %",
        "3 7 3 5 | 3 3 3 7 | x 3 3 5 3 5 7 7 | x 3 7 3",
    ),
}

# name: (source, the recurrent cell, the nodes whose mean it puts out)
RECURRENT: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "enas-rnn": (
        "Pham et al., 2018, searched on Penn Treebank",
        "tanh@0 | tanh@1 | relu@1 | tanh@3 | tanh@3 | relu@3 | relu@4 | relu@7 | relu@8 | relu@8 | relu@8",
        (2, 5, 6, 9, 10, 11),
    ),
    "darts-rnn-v1": (
        "Liu et al., 2019, first order, searched on Penn Treebank",
        "relu@0 | relu@1 | tanh@2 | relu@3 | relu@4 | id@1 | relu@5 | relu@1",
        (1, 2, 3, 4, 5, 6, 7, 8),
    ),
    "darts-rnn-v2": (
        "Liu et al., 2019, second order, searched on Penn Treebank",
        "sigm@0 | relu@1 | relu@1 | id@1 | tanh@2 | sigm@5 | tanh@3 | relu@5",
        (1, 2, 3, 4, 5, 6, 7, 8),
    ),
}

# name: (source, the cell of NAS-Bench-201)
NASBENCH201: dict[str, tuple[str, str]] = {
    "nb201-resnet": (
        "Dong and Yang, 2020: the residual block of ResNet",
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|",
    ),
    **{
        f"nb201-all-{name}": (
            f"Dong and Yang, 2020: {op} on every edge",
            f"|{op}~0|+|{op}~0|{op}~1|+|{op}~0|{op}~1|{op}~2|",
        )
        for name, op in {"3x3": "nor_conv_3x3", "1x1": "nor_conv_1x1", "skip": "skip_connect"}.items()
    },
}

PUBLISHED: dict[str, tuple[Any, ...]] = {**CELLS, **BLOCKS, **RECURRENT, **NASBENCH201}
"""All of them; an entry begins with its source."""

ALIASES = {
    "darts": "darts-v2",
    "p-darts": "pdarts",
    "pcdarts": "pc-darts-cifar10",
    "pc-darts": "pc-darts-cifar10",
    "pc-darts-cifar": "pc-darts-cifar10",
    "pc-darts-image": "pc-darts-imagenet",
    "drnas": "drnas-cifar10",
    "snas": "snas-mild",
    "gdas": "gdas-v1",
    "enas": "enas-rnn",  # the DARTS repository has it beside its recurrent cells
    "c10-s5-random": "sdarts-rs-cifar10",
    "c10-s5-pgd": "sdarts-adv-cifar10",
    **dict.fromkeys(("cri1-cifar-best", "cri1-cifar-3", "cri1-imagenet-best", "cri1-imagenet-3"), "sgas-cri1-cifar10"),
    **dict.fromkeys(("cri2-cifar-best", "cri2-cifar-3", "cri2-imagenet-1"), "sgas-cri2-cifar10"),
    "resnet": "nb201-resnet",
    "all-c3x3": "nb201-all-3x3",
    "all-c1x1": "nb201-all-1x1",
    "all-idnt": "nb201-all-skip",
}
"""Names that the authors' own files have for these genotypes, where they are not the same but for case and underscores."""


def published_name(name: str) -> str | None:
    """Returns the name in `PUBLISHED` of the authors' `name`, in any case; None for an unknown name."""
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    known = ALIASES.get(plain, plain)
    return known if known in PUBLISHED else None


def published(name: str) -> Genotype:
    """The published genotype `name`, one of `PUBLISHED`; raises `KeyError` for another name."""
    if name in BLOCKS:
        source, ops = BLOCKS[name]
        chain = tuple(((SHORT[op], block),) for block, op in enumerate(ops.replace("|", " ").split()))
        blocks = Nodes(chain, (len(chain),), first=1)
        return Genotype("shufflenet-blocks", {"blocks": blocks}, {"name": name, "source": source})
    if name in RECURRENT:
        source, nodes, concat = RECURRENT[name]
        return Genotype("darts-rnn", {"recurrent": _nodes(nodes, concat, first=1)}, {"name": name, "source": source})
    if name in NASBENCH201:
        source, text = NASBENCH201[name]
        return Genotype("nasbench201", parse_edges(text).cells, {"name": name, "source": source})
    source, normal, normal_concat, reduce, reduce_concat = CELLS[name]
    cells = {"normal": _nodes(normal, normal_concat), "reduce": _nodes(reduce, reduce_concat)}
    return Genotype("darts-cnn", cells, {"name": name, "source": source})


def _nodes(text: str, concat: tuple[int, ...], first: int = 2) -> Nodes:
    inputs = []
    for node in text.split("|"):
        pairs = (term.split("@") for term in node.split())
        inputs.append(tuple((SHORT[op], int(source)) for op, source in pairs))
    return Nodes(tuple(inputs), concat, first)
