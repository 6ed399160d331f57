"""What leaves a state, as numbers that kernels read: images made from the state, and terms that add them to edges.

An image is the state after ReLU and a depthwise convolution, after a pool, or as it is.  A term takes an image through a
1x1 convolution, a normalisation and a share to an edge; a pool's matrix is the identity, and a skip connection is not
normalised.  So one algebra serves all of them.  `inner` terms come first: they lead not to an edge but to a ReLU and one more
image each, the last ones, as in a separable convolution.

Tables have `COLUMNS` whole numbers in a row.  All weights stand in one row of numbers, `flat`: depthwise kernels, then a one
for each channel, the identity matrix, and the 1x1 kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHANNELS = 64  # matrices of more do not fit into a program
COLUMNS = 8
CONV, COPY, MAX, MEAN = range(4)
"""Kinds of images: ReLU and a depthwise convolution, the source itself, the largest and the mean of 3x3 pixels."""
KIND, SIDE, DILATION, OFFSET, KERNEL, BEGIN, END, WHERE = range(8)
"""Columns of the images: `BEGIN` to `END` - 1 are its terms, `KERNEL` is a place in `flat`, `WHERE` counts largest ones."""
IMAGE, ROW, POINT, SHARE, NORMED = range(5)
"""Columns of the terms: `ROW` is where the gradient to what a term puts out stands; without a share, `SHARE` is -1."""
MAP, SPREAD, FROM_G, FROM_D = range(4)
"""Matrices [C, C] of a term; see `reference.fold` and `reference.pull`."""
SHIFT, INVERSE, CENTRE, YMEAN, YVAR, CONSTANT = range(6)
"""Rows [C] of a term."""
ROWS = 512
"""Pixels whose sums are taken by one program; these are joined in the same order every time."""


@dataclass(frozen=True)
class Image:
    """How an image is made; `kernel` is a place among the weights (None: 1), `offset` the first pixel that is read."""

    kind: int = CONV
    side: int = 1
    dilation: int = 1
    offset: int = 0
    kernel: int | None = None


@dataclass(frozen=True)
class Term:
    """An image's way to row `row`: of the edges, an inner term's own; `point` is a place among the weights (None: identity).

    Where `half` is 0 or 1, the 1x1 kernel has half of the output channels, the first or the second ones.
    """

    image: int
    row: int
    share: int = -1
    point: int | None = None
    half: int | None = None
    normed: bool = True


class Layout:
    """The tables of `images` and `terms`, sorted by image, of which the first `inner` are inner and as many the last.

    `sizes` says how many numbers each weight has; `edges` is how many edges leave the state.
    """

    def __init__(
        self,
        images: Sequence[Image],
        terms: Sequence[Term],
        inner: int,
        edges: int,
        channels: int,
        sizes: Sequence[int],
    ) -> None:
        self.inner, self.edges, self.channels = inner, edges, channels
        self.images, self.terms, self.sizes = len(images), len(terms), tuple(sizes)
        self.maxima = sum(image.kind == MAX for image in images)
        self.side = max((image.side for image in images if image.kernel is not None), default=0)
        self._begins = [sum(term.image < j for term in terms) for j in range(len(images) + 1)]
        self.places = [0] * len(sizes)
        self.size = 0
        self._pieces: list[int | str] = []
        for image in images:
            if image.kernel is not None:
                self._put(image.kernel)
        self.taps = self.size  # numbers of depthwise kernels
        one, eye = self._put("ones"), self._put("eye")
        points = [eye if term.point is None else self._point(term.point, term.half) for term in terms]
        kernels = [one if image.kernel is None else self.places[image.kernel] for image in images]
        self._rows = _image_rows(images, kernels, terms), _term_rows(terms, points), _by_edge(terms, inner, edges)
        self._tables: dict[torch.device, tuple[Tensor, ...]] = {}
        self._constants: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}

    def tables(self, device: torch.device) -> tuple[Tensor, ...]:
        """Images [J, 8]; terms [T, 8]; and for each edge where its terms begin in the list that follows."""
        if device not in self._tables:
            with torch.inference_mode(False):
                made = [torch.tensor(rows, dtype=torch.int32) for rows in self._rows]
                self._tables[device] = tuple(each.to(device, non_blocking=True) for each in made)
        return self._tables[device]

    def flat(self, weights: Sequence[Tensor], like: Tensor) -> Tensor:
        """All weights, and constants, one after the other."""
        constants = self._known(like)
        return torch.cat([constants[p] if isinstance(p, str) else weights[p].flatten() for p in self._pieces])

    def begin(self, image: int) -> int:
        """The first term of an image."""
        return self._begins[image]

    def apart(self, flat: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """The numbers of each of the `weights`, of their shapes, within `flat`."""
        return [flat[at : at + w.numel()].view(w.shape) for at, w in zip(self.places, weights, strict=True)]

    def _put(self, piece: int | str) -> int:
        c, place = self.channels, self.size
        self._pieces.append(piece)
        if isinstance(piece, int):
            self.places[piece] = place
            self.size += self.sizes[piece]
        else:
            self.size += {"ones": c, "eye": c * c, "zeros": c * c // 2}[piece]
        return place

    def _point(self, weight: int, half: int | None) -> int:
        """Puts a matrix [C, C]; below or above half a one are zeros."""
        if half is None:
            return self._put(weight)
        pieces: list[int | str] = [weight, "zeros"]
        return [self._put(piece) for piece in (pieces if half == 0 else pieces[::-1])][0]

    def _known(self, like: Tensor) -> dict[str, Tensor]:
        key, c = (like.device, like.dtype), self.channels
        if key not in self._constants:
            with torch.inference_mode(False):
                made = {"ones": torch.ones(c), "eye": torch.eye(c).flatten(), "zeros": torch.zeros(c * c // 2)}
                self._constants[key] = {name: value.to(*key, non_blocking=True) for name, value in made.items()}
        return self._constants[key]


def parts(pixels: int, rows: int) -> int:
    """How many runs of `rows` pixels there are."""
    return -(-pixels // rows)


def pixel_step(x: Tensor) -> int:
    """How many numbers the pixels of `x` [.., N, H, W, C] lie apart, by the last of N, H and W that has more than one."""
    step = 1
    for side, stride in zip(x.shape[-2:-5:-1], x.stride()[-2:-5:-1], strict=True):
        if side > 1:
            return stride // step
        step *= side
    return x.shape[-1]


def by_pixels(x: Tensor) -> Tensor:
    """`x` [N, C, H, W], or a copy, in memory where pixels follow one another, each with its channels side by side."""
    pixels = x.permute(0, 2, 3, 1)
    step = pixel_step(pixels)
    expected = (x.shape[2] * x.shape[3] * step, x.shape[3] * step, step, 1)
    strides = zip(pixels.shape, pixels.stride(), expected, strict=True)
    regular = all(side == 1 or stride == step for side, stride, step in strides)
    return x if regular else x.contiguous(memory_format=torch.channels_last)


def _image_rows(images: Sequence[Image], kernels: Sequence[int], terms: Sequence[Term]) -> list[list[int]]:
    found, maxima = [], 0
    for j, (image, kernel) in enumerate(zip(images, kernels, strict=True)):
        begin, end = (sum(term.image < at for term in terms) for at in (j, j + 1))
        found.append([image.kind, image.side, image.dilation, image.offset, kernel, begin, end, maxima])
        maxima += image.kind == MAX
    return found


def _term_rows(terms: Sequence[Term], points: Sequence[int]) -> list[list[int]]:
    rows = [[term.image, term.row, point, term.share, term.normed] for term, point in zip(terms, points, strict=True)]
    return [[int(value) for value in row] + [0] * (COLUMNS - len(row)) for row in rows]


def _by_edge(terms: Sequence[Term], inner: int, edges: int) -> list[int]:
    members = [[t for t, term in enumerate(terms) if t >= inner and term.row == edge] for edge in range(edges)]
    starts = [edges + 1]
    for each in members:
        starts.append(starts[-1] + len(each))
    return starts + [t for each in members for t in each]
