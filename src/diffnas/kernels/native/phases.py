"""What all edges that leave a state compute, in phases: C functions `phase(shared, thread, threads)`.

`shared` is the address of a table of integers of 64 bits (see `table`): sizes, and addresses of images, matrices and
kernels, at the places named in `places`.  Each thread takes a fixed run of images, or every so many terms, and
what is summed over images is left image by image: results do not depend on who computed what when.

A term is a depthwise convolution and a normalised 1x1 convolution, or two such pairs, one after the other; the terms of two
come first.  Images are [n, pixel, channel], whole and without a border; scratch memory has one.  "Even" terms are pools and
identities, which treat all channels alike.
"""

from __future__ import annotations

from numba import njit

from diffnas.kernels.native.loops import ADD, MASK, STORE

from diffnas.kernels.native.places import (  # isort: skip
    BEGIN, BORDER, CENTRE, CENTRED, COLUMN_PRODUCTS, COLUMN_SUMS, CONSTANT, CORRELATE, COUNT, DILATION, DX, E_FRESH,
    E_GRADIENT, E_IMAGE, E_SHIFT, E_TARGET, E_TOTAL, EDGE, EDGE_ROWS, EDGES, EVEN, EVEN_ROWS, EVENS, FACTOR,
    FLIPPED_KERNEL, FOLD, FOLD_EVEN, FOLD_POOL, FRESH, FROM_D, FROM_G, GATHERED, GRADIENT, HO, IMAGES, INPUT_GRADIENT,
    KERNEL, KERNEL_GRADIENT, MAP, MASKED_ADD, MEANS, MOMENTS, OUTER, OWN, OWN_SHIFT, P_MEANS, PAD, PAIR, PARTS, POOL,
    POOL_GRADIENT, POOL_ROW, POOL_ROWS, POOLED, POOLS, PRODUCT, PRODUCT_ADD, PRODUCT_BOTH, PRODUCT_RELU, PRODUCTS,
    PULL, PULL_EVEN, PULL_POOL, REACH, RESULT, SCALED, SCALED_ADD, SCRATCH, SCRATCH_SIZE, SHIFT, SIZE, SKIPS, SOURCE,
    SQUARES, STRIDE, TAPS, TARGET, TERM, TERM_ROWS, TERMS, TO_KERNEL, TO_STATE, TO_WEIGHTS, TOTALS, TURNED,
    TURNED_KERNEL, TWICE, WHERE, WIDTH, WO, ZERO, C, H, N, X,
)  # fmt: skip
from diffnas.kernels.native.vectors import ask, call, words


@njit
def clear(address: int, size: int) -> None:
    """Writes `size` bytes of 0, a multiple of 8."""
    w = words(address)
    for i in range(size // 8):
        w[i] = 0


def enter(pack: int) -> None:
    """What a team of OpenMP threads runs: `pack` holds the C functions that number and count them, a phase, its table."""
    p = words(pack)
    call(p[2], (p[3], ask(p[0]), ask(p[1])))


def turn_kernels(shared: int, thread: int, threads: int) -> None:
    """The kernels of all terms as the other phases read them."""
    w = words(shared)
    for t in range(thread, w[TERMS], threads):
        for side in range(2 if t < w[TWICE] else 1):
            row = words(w[TERM_ROWS] + 8 * (TERM * t + PAIR * side))
            call(w[TURNED], (row[KERNEL], row[TAPS], row[TURNED_KERNEL], row[FLIPPED_KERNEL], w[C]))


def gather_kernels(shared: int, thread: int, threads: int) -> None:
    """The gradients to the kernels of all terms, summed over images."""
    w = words(shared)
    for t in range(thread, w[TERMS], threads):
        for side in range(2 if t < w[TWICE] else 1):
            row = words(w[TERM_ROWS] + 8 * (TERM * t + PAIR * side))
            call(w[GATHERED], (row[PARTS], w[N], row[TAPS], row[TO_KERNEL], w[C]))


def fold_first(shared: int, thread: int, threads: int) -> None:
    """The algebra of first pairs, of pools and of identities, once the sums over the images are there."""
    w = words(shared)
    for t in range(thread, w[TERMS], threads):
        call(w[FOLD], (shared, w[TERM_ROWS] + 8 * TERM * t))
    for e in range(thread, w[EVENS], threads):
        if words(w[EVEN_ROWS] + 8 * EVEN * e)[SKIPS] != 0:
            call(w[FOLD_EVEN], (shared, w[EVEN_ROWS] + 8 * EVEN * e))
    for k in range(thread, w[POOLS], threads):
        call(w[FOLD_POOL], (shared, w[POOL_ROWS] + 8 * POOL_ROW * k))


def fold_second(shared: int, thread: int, threads: int) -> None:
    """The algebra of second pairs."""
    w = words(shared)
    for t in range(thread, w[TWICE], threads):
        call(w[FOLD], (shared, w[TERM_ROWS] + 8 * (TERM * t + PAIR)))


def pull_last(shared: int, thread: int, threads: int) -> None:
    """The algebra of the way back, of each term's last pair, of pools and of identities."""
    w = words(shared)
    for t in range(thread, w[TERMS], threads):
        side = 1 if t < w[TWICE] else 0
        call(w[PULL], (shared, w[TERM_ROWS] + 8 * (TERM * t + PAIR * side)))
    for e in range(thread, w[EVENS], threads):
        if words(w[EVEN_ROWS] + 8 * EVEN * e)[SKIPS] != 0:
            call(w[PULL_EVEN], (shared, w[EVEN_ROWS] + 8 * EVEN * e))
    for k in range(thread, w[POOLS], threads):
        call(w[PULL_POOL], (shared, w[POOL_ROWS] + 8 * POOL_ROW * k))


def pull_first(shared: int, thread: int, threads: int) -> None:
    """The algebra of the way back, of the first pairs of terms of two."""
    w = words(shared)
    for t in range(thread, w[TWICE], threads):
        call(w[PULL], (shared, w[TERM_ROWS] + 8 * TERM * t))


@njit
def take_moments(shared: int, o: int, pair: int, image: int, pixels: int) -> None:
    """The means of an image, which is centred by them, and the products of its channels."""
    w, row = words(shared), words(pair)
    c, size = w[C], w[SIZE]
    mean = row[MEANS] + size * image * c
    call(w[COLUMN_SUMS], (o, pixels, pixels, mean, c))
    call(w[CENTRE], (o, pixels, mean, c))
    call(w[OUTER], (o, c, o, row[MOMENTS] + size * image * c * c, pixels, c))


def first(shared: int, thread: int, threads: int) -> None:
    """Pads the state's ReLU, pools the state, and takes the first depthwise convolution of every term."""
    w = words(shared)
    c, size, border, n = w[C], w[SIZE], w[BORDER], w[N]
    pixels = w[HO] * w[WO]
    line = (w[WIDTH] + 2 * border) * c
    padded = w[SCRATCH] + w[SCRATCH_SIZE] * thread
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        x = w[X] + size * image * w[H] * w[WIDTH] * c
        at = size * image * pixels * c
        if w[TERMS] > 0:
            call(w[PAD], (x, padded, w[H], w[WIDTH], border, c))
        for k in range(w[POOLS]):
            pool = words(w[POOL_ROWS] + 8 * POOL_ROW * k)
            o = pool[POOLED] + at
            if pool[WHERE] != 0:
                call(pool[POOL], (x, o, pool[WHERE] + image * pixels * c, w[H], w[WIDTH], w[STRIDE], c))
            else:
                call(pool[POOL], (x, o, w[H], w[WIDTH], w[STRIDE], c))
            if w[CENTRED] != 0:
                mean = pool[P_MEANS] + size * image * c
                call(w[COLUMN_SUMS], (o, pixels, pixels, mean, c))
                call(w[CENTRE], (o, pixels, mean, c))
                call(w[COLUMN_PRODUCTS], (o, o, pixels, pool[SQUARES] + size * image * c, c))
        for t in range(w[TERMS]):
            pair = w[TERM_ROWS] + 8 * TERM * t
            row = words(pair)
            begin = padded + size * (border - row[REACH]) * (line + c)
            o = row[IMAGES] + at
            call(row[CORRELATE], (begin, line, row[TURNED_KERNEL], o, w[WO] * c, 0, 0, STORE, w[HO], w[WO], c))
            if w[CENTRED] != 0:
                take_moments(shared, o, pair, image, pixels)


def second(shared: int, thread: int, threads: int) -> None:
    """Takes the second depthwise convolution of the terms of two, of the ReLU of the normalised first."""
    w = words(shared)
    c, size, border, n = w[C], w[SIZE], w[BORDER], w[N]
    pixels = w[HO] * w[WO]
    line = (w[WO] + 2 * border) * c
    between = w[SCRATCH] + w[SCRATCH_SIZE] * thread
    middle = between + size * border * (line + c)
    clear(between, size * (w[HO] + 2 * border) * line)
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at = size * image * pixels * c
        for t in range(w[TWICE]):
            before, pair = words(w[TERM_ROWS] + 8 * TERM * t), w[TERM_ROWS] + 8 * (TERM * t + PAIR)
            row = words(pair)
            d, o, shift = before[IMAGES] + at, row[IMAGES] + at, before[SHIFT] + size * image * c
            call(w[PRODUCT_RELU], (d, before[MAP], c, 0, 0, 0, shift, middle, w[HO], w[WO], line, c, c))
            begin = between + size * (border - row[REACH]) * (line + c)
            call(row[CORRELATE], (begin, line, row[TURNED_KERNEL], o, w[WO] * c, 0, 0, STORE, w[HO], w[WO], c))
            if w[CENTRED] != 0:
                take_moments(shared, o, pair, image, pixels)


def add(shared: int, thread: int, threads: int) -> None:
    """Adds to each edge what flows along it; what comes first is written."""
    w = words(shared)
    c, size, n = w[C], w[SIZE], w[N]
    pixels = w[HO] * w[WO]
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at, line = size * image * pixels * c, size * image * c
        for e in range(w[EVENS]):
            even = words(w[EVEN_ROWS] + 8 * EVEN * e)
            function = w[SCALED] if even[E_FRESH] != 0 else w[SCALED_ADD]
            call(function, (even[SOURCE] + at, even[FACTOR], even[E_SHIFT] + line, even[E_TARGET] + at, pixels, c))
        for t in range(w[TERMS]):
            row = words(w[TERM_ROWS] + 8 * (TERM * t + (PAIR if t < w[TWICE] else 0)))
            function = w[PRODUCT] if row[FRESH] != 0 else w[PRODUCT_ADD]
            d, y, shift = row[IMAGES] + at, row[TARGET] + at, row[SHIFT] + line
            call(function, (d, row[MAP], c, 0, 0, 0, shift, y, 1, pixels, pixels * c, c, c))


def products(shared: int, thread: int, threads: int) -> None:
    """Multiplies the gradients of the edges by what flowed along them, and sums them up, image by image."""
    w = words(shared)
    c, size, n = w[C], w[SIZE], w[N]
    pixels = w[HO] * w[WO]
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at, line = size * image * pixels * c, size * image * c
        for e in range(w[EDGES]):
            edge = words(w[EDGE_ROWS] + 8 * EDGE * e)
            call(w[COLUMN_SUMS], (edge[E_IMAGE] + at, pixels, 1, edge[E_TOTAL] + line, c))
        for e in range(w[EVENS]):
            even = words(w[EVEN_ROWS] + 8 * EVEN * e)
            call(w[COLUMN_PRODUCTS], (even[E_GRADIENT] + at, even[SOURCE] + at, pixels, even[RESULT] + line, c))
        for t in range(w[TERMS]):
            row = words(w[TERM_ROWS] + 8 * (TERM * t + (PAIR if t < w[TWICE] else 0)))
            call(w[OUTER], (row[GRADIENT] + at, c, row[IMAGES] + at, row[PRODUCTS] + line * c, pixels, c))


def inner(shared: int, thread: int, threads: int) -> None:
    """From the gradients of the edges to those of the normalised first pairs of terms of two."""
    w = words(shared)
    c, size, border, n = w[C], w[SIZE], w[BORDER], w[N]
    pixels = w[HO] * w[WO]
    wide = (w[WO] + 2 * border) * c
    whole = size * (w[HO] + 2 * border) * wide
    between = w[SCRATCH] + w[SCRATCH_SIZE] * thread
    slope = between + whole
    itself = c if w[CENTRED] != 0 else 0  # where statistics were given, the gradient has no part of what was kept
    clear(between, 2 * whole)
    middle = size * border * (wide + c)
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at, line = size * image * pixels * c, size * image * c
        for t in range(w[TWICE]):
            before, row = words(w[TERM_ROWS] + 8 * TERM * t), words(w[TERM_ROWS] + 8 * (TERM * t + PAIR))
            d, g, o = before[IMAGES] + at, row[GRADIENT] + at, before[GRADIENT] + at
            call(
                w[PRODUCT_RELU],
                (d, before[MAP], c, 0, 0, 0, before[SHIFT] + line, between + middle, w[HO], w[WO], wide, c, c),
            )
            call(
                w[PRODUCT_BOTH],
                (row[IMAGES] + at, row[FROM_D], itself, g, row[FROM_G], c, row[CONSTANT] + line,
                 slope + middle, w[HO], w[WO], wide, c, c),
            )  # fmt: skip
            inset = size * (border - row[REACH]) * (wide + c)
            if w[TO_WEIGHTS] != 0:
                part = row[PARTS] + line * row[TAPS]
                call(row[KERNEL_GRADIENT], (between + inset, wide, slope + middle, wide, part, 1, 1, w[HO], w[WO], c))
            call(
                row[INPUT_GRADIENT],
                (slope + inset, wide, row[FLIPPED_KERNEL], o, w[WO] * c, between + middle, wide, MASK, w[HO], w[WO], c),
            )
            call(w[OUTER], (o, c, d, before[PRODUCTS] + line * c, pixels, c))
            call(w[COLUMN_SUMS], (o, pixels, 1, before[TOTALS] + line, c))


@njit
def even_slopes(shared: int, image: int, dx: int, total: int) -> None:
    """Writes to `dx` the gradient of an image of the state by pools and identities; `total` is scratch memory."""
    w = words(shared)
    c, size = w[C], w[SIZE]
    pixels, whole = w[HO] * w[WO], w[H] * w[WIDTH]
    at = size * image * pixels * c
    clear(dx, size * whole * c)
    for e in range(w[EVENS]):
        even = words(w[EVEN_ROWS] + 8 * EVEN * e)
        if even[SKIPS] != 0:
            call(w[SCALED_ADD], (even[E_GRADIENT] + at, even[FACTOR], w[ZERO], dx, pixels, c))
    for k in range(w[POOLS]):
        pool = words(w[POOL_ROWS] + 8 * POOL_ROW * k)
        if w[CENTRED] != 0:
            call(w[SCALED], (pool[POOLED] + at, pool[OWN], pool[OWN_SHIFT] + size * image * c, total, pixels, c))
        else:
            clear(total, size * pixels * c)
        for e in range(pool[BEGIN], pool[BEGIN] + pool[COUNT]):
            even = words(w[EVEN_ROWS] + 8 * EVEN * e)
            call(w[SCALED_ADD], (even[E_GRADIENT] + at, even[FACTOR], w[ZERO], total, pixels, c))
        if pool[WHERE] != 0:
            where = pool[WHERE] + image * pixels * c
            call(pool[POOL_GRADIENT], (total, where, dx, w[H], w[WIDTH], w[STRIDE], c))
        else:
            call(pool[POOL_GRADIENT], (total, dx, w[H], w[WIDTH], w[STRIDE], c))


def outermost(shared: int, thread: int, threads: int) -> None:
    """From the gradients of the first pairs, of pools and of identities to those of kernels and of the state."""
    w = words(shared)
    c, size, border, n, stride = w[C], w[SIZE], w[BORDER], w[N], w[STRIDE]
    pixels, whole = w[HO] * w[WO], w[H] * w[WIDTH]
    wide = (w[WIDTH] + 2 * border) * c
    slope = w[SCRATCH] + w[SCRATCH_SIZE] * thread
    padded = slope + size * (w[H] + 2 * border) * wide
    total = padded + size * (w[H] + 2 * border) * wide
    middle = slope + size * border * (wide + c)
    itself = c if w[CENTRED] != 0 else 0
    clear(slope, size * (w[H] + 2 * border) * wide)
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        x, dx = w[X] + size * image * whole * c, w[DX] + size * image * whole * c
        at, line = size * image * pixels * c, size * image * c
        if w[TO_STATE] != 0:
            even_slopes(shared, image, dx, total)
            clear(total, size * whole * c)
        if w[TO_WEIGHTS] != 0 and w[TERMS] > 0:
            call(w[PAD], (x, padded, w[H], w[WIDTH], border, c))
        for t in range(w[TERMS]):
            row = words(w[TERM_ROWS] + 8 * TERM * t)
            call(
                w[PRODUCT_BOTH],
                (row[IMAGES] + at, row[FROM_D], itself, row[GRADIENT] + at, row[FROM_G], c, row[CONSTANT] + line,
                 middle, w[HO], w[WO], wide * stride, c * stride, c),
            )  # fmt: skip
            inset = size * (border - row[REACH]) * (wide + c)
            if w[TO_WEIGHTS] != 0:
                part = row[PARTS] + line * row[TAPS]
                call(
                    row[KERNEL_GRADIENT],
                    (padded + inset, wide, middle, wide, part, stride, row[DILATION], w[HO], w[WO], c),
                )
            if w[TO_STATE] != 0:
                call(
                    row[INPUT_GRADIENT],
                    (slope + inset, wide, row[FLIPPED_KERNEL], total, w[WIDTH] * c, 0, 0, ADD, w[H], w[WIDTH], c),
                )
        if w[TO_STATE] != 0 and w[TERMS] > 0:
            call(w[MASKED_ADD], (x, total, dx, whole * c))
