"""The table that the phases of `dense_phases` read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from diffnas.kernels.native import dense_places as places
from diffnas.kernels.native.compiled import kernel, lanes
from diffnas.kernels.native.loops import ADD, STORE
from diffnas.kernels.native.team import run

HEAD = len(places.NAMES.split())


class Template:
    """The table of all passes through what leaves a state of one shape: all but the addresses of a pass."""

    def __init__(self, x: Tensor, edges: int, convs: int, fresh: Sequence[bool], threads: int) -> None:
        n, c, h, width = x.shape
        self.threads, self.scratch = threads, h * width * c
        size, here = x.dtype.itemsize, lanes(c, x.dtype.itemsize)

        def made(name: str, *constants: int) -> int:
            return kernel(name, size, here, *constants)

        self.words = np.zeros(HEAD + edges * places.EDGE, np.int64)
        head = {
            "N": n, "C": c, "PIXELS": h * width, "H": h, "WIDTH": width, "SIZE": size, "EDGES": edges,
            "SCRATCH_SIZE": self.scratch * size, "POOL": made("mean_pool"), "POOL_GRADIENT": made("mean_pool_gradient"),
            "COLUMN_SUMS": made("column_sums"), "CENTRED": made("centred"), "OUTER": made("outer"),
            "CONV_MOMENTS": made("moments"), "TO_CONV": made("to_conv"), "PRODUCT_ADD": made("product", ADD, False),
            "SCALED": made("scaled", STORE), "SCALED_ADD": made("scaled", ADD), "MASKED": made("masked", STORE),
            "PRODUCT_BOTH": made("product", ADD, True),
            "THROUGH": made("through_relu"), "BLEND": made("blend"), "WEIGHED": made("weighed"),
        }  # fmt: skip
        for name, value in head.items():
            self.words[getattr(places, name)] = value
        rows = self.words[HEAD:].reshape(edges, places.EDGE)
        rows[:, places.MODE] = [STORE if new else ADD for new in fresh]
        rows[:, places.Z_STEP] = convs * c

    def begin(self, x: Tensor) -> DenseTable:
        """The table of a pass."""
        return DenseTable(self, x)


class DenseTable:
    """The table of a pass; the tensors in it are kept alive."""

    def __init__(self, template: Template, x: Tensor) -> None:
        self.words, self.threads = template.words.copy(), template.threads
        self.kept: list[Tensor] = []
        self.put(places.X, x)
        self.put(places.SCRATCH, x.new_empty(self.threads * template.scratch))
        self.put(places.ZERO, x.new_zeros(x.shape[1]))
        self.words[places.ROWS] = self.words.ctypes.data + 8 * HEAD

    def put(self, place: int, tensor: Tensor) -> None:
        """Fills a place of the head."""
        self.kept.append(tensor)
        self.words[place] = tensor.data_ptr()

    def put_rows(self, place: int, edges: Sequence[int], tensor: Tensor, step: int | None = None) -> None:
        """Fills a place of the rows of `edges` with the parts of `tensor`, `step` numbers apart (None: its first axis)."""
        if edges:
            self.kept.append(tensor)
            apart = (tensor.stride(0) if step is None else step) * tensor.element_size()
            first = tensor.data_ptr()
            for k, i in enumerate(edges):
                self.words[HEAD + i * places.EDGE + place] = first + k * apart

    def put_each(self, place: int, tensors: Sequence[Tensor]) -> None:
        """Fills a place of all rows."""
        self.kept += tensors
        for i, tensor in enumerate(tensors):
            self.words[HEAD + i * places.EDGE + place] = tensor.data_ptr()

    def run(self, *phases: str) -> None:
        """Runs phases."""
        for phase in phases:
            run(phase, self.words.ctypes.data, self.threads)
