"""Architectures of spaces that diffnas does not have, known by how they are written, so that they are refused by name."""

from __future__ import annotations

import re

_NO_SPACE = "diffnas has no such space"
STRANGERS: tuple[tuple[str, str], ...] = (
    (
        r"(?s)\A\s*[\[('\"]*\d+(?::\d+){4}[\])'\"]*\s*\Z",
        f"a size of NATS-Bench (the channels of five layers); {_NO_SPACE}",
    ),
    (
        r"\b\d{1,3}-[1-4]{3,8}-(?:\d_\d\d_\d\d\d|basic)\b",
        f"a network of TransNAS-Bench-101 (channels, blocks, cell); {_NO_SPACE}",
    ),
    (
        r"module_adjacency|module_operations|conv[13]x[13]-bn-relu|maxpool3x3",
        f"a cell of NAS-Bench-101, whose ops are its nodes; {_NO_SPACE}",
    ),
    (
        r"['\"]?(?:modules|super_network)['\"]?\s*:|DartsNetwork|PreOneStem",
        "vega's description of a whole network; give its two lists of entries as Genotype(normal=[...], "
        "normal_concat=[...], reduce=[...], reduce_concat=[...])",
    ),
    (r"ProxylessNASNets|MobileInvertedResidualBlock|MBConv\d", f"a network of ProxylessNAS; {_NO_SPACE}"),
    (
        r"['\"](?:ks|wid)['\"]\s*:|OFAMobileNet|OFAResNet|_expand_ratio\b|\.expand_ratio\b|\bdepth\.\d",
        f"a network of once-for-all, or of another space of kernels, widths and depths; {_NO_SPACE}",
    ),
    (
        r"(?m)^backbone\.[\w.]+:\s*\n\s*(?:- )?chosen:",
        f"a subnet of MMRazor, but not of its DARTS, SPOS or DSNAS; {_NO_SPACE}",
    ),
    (r"\b(?:ds|ir|er|cn)?_?r\d_k\d_s\d", f"a network of MnasNet's or EfficientNet's blocks; {_NO_SPACE}"),
    (
        r"['\"]?(?:InputChoice|LayerChoice)\d+['\"]?\s*:",
        "choices of NNI before 2.0 that have no names: only the code they come from says which edges they mean",
    ),
    (r"['\"]op['\"]\s*:\s*['\"](?:linear|blend|activation_)", f"a cell of NAS-Bench-NLP; {_NO_SPACE}"),
)
"""A pattern somewhere in a text that holds no genotype, and what such a text is."""


def stranger(text: str) -> str | None:
    """Describes `text` as an architecture of an unsupported space, or returns None if it is not recognised."""
    shown = text[:20_000]
    return next((said for pattern, said in STRANGERS if re.search(pattern, shown)), None)


def strange_value(value: object) -> str | None:
    """Describes a list of lists of numbers or op names, or returns None if it is not recognised."""
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(isinstance(item, str) for item in value):
        return (
            "a list of ops that does not say which edge each is of; write a cell as |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        )
    rows = [row for row in value if isinstance(row, list | tuple)]
    if len(rows) == len(value) and all(len(row) == len(value) and set(map(str, row)) <= {"0", "1"} for row in rows):
        return f"the matrix of a cell of NAS-Bench-101; {_NO_SPACE}"
    pairs = [pair for row in rows for pair in row if isinstance(pair, list | tuple) and len(pair) == 2]
    if len(rows) == 2 and len(pairs) == 16 and all(type(number) is int for pair in pairs for number in pair):
        return (
            "a NAS-Bench-301 cell as pairs of numbers, in which ops are counted with `none` by some programs and without "
            "by others; give it as Genotype(...) or as the configuration that NAS-Bench-301 makes of it"
        )
    return None
