"""Compiles all Triton kernels for a GPU of compute capability 9.0, which need not be there.

It prints, for each, how many bytes of a multiprocessor's shared memory a program takes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffnas.kernels.gpu import algebra, launch, products, stencils

KERNELS = (
    stencils.expand, stencils.kernel_slopes, stencils.state_slope, products.mix, products.products, products.slopes,
    algebra.fold, algebra.pull,
)  # fmt: skip
TABLES = {"images": "*i32", "terms": "*i32", "edges": "*i32", "where": "*u8"}
IMAGES = {"x", "d", "g", "slope", "out"}
SMALL = {"shift", "flat", "means", "squares", "matrices", "vectors", "shares", "given", "outer", "totals", "to_flat"}
FLAGS = {"SHIFTED", "GIVEN", "TO_FLAT", "TO_SHARES"}


def source(kernel: Any, channels: int, precision: str, flag: bool) -> ASTSource:
    """A kernel for images of so many channels in `precision`."""
    sizes = launch._sizes(torch.empty(1, 1, channels), torch.empty(0)) | {"R": 16} | dict.fromkeys(FLAGS, flag)
    signature, constants = {}, {}
    for name in kernel.arg_names:
        if name in sizes:
            signature[name], constants[name] = "constexpr", sizes[name]
        elif name in IMAGES and not (kernel is stencils.kernel_slopes and name == "out"):
            signature[name] = f"*{precision}"
        elif name in SMALL | {"to_shares", "out"}:
            signature[name] = "*fp32"
        else:
            signature[name] = TABLES.get(name, "fp32" if name == "EPS" else "i32")
    return ASTSource(kernel, signature, constants)


def main() -> None:
    """Prints a line of JSON."""
    found = {}
    for channels in (4, 16, 32, 64):
        for kernel in KERNELS:
            for precision in ("fp32", "bf16")[: 1 if kernel.__module__.endswith("algebra") else 2]:
                made = triton.compile(
                    source(kernel, channels, precision, flag=precision == "fp32"),
                    target=GPUTarget("cuda", 90, 32),
                    options=launch.OPTIONS,
                )
                found[f"{kernel.__name__} {channels} {precision}"] = made.metadata.shared
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
