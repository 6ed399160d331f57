"""What all edges that leave a state of NAS-Bench-201 compute, in phases, as in `phases`: C functions
`phase(shared, thread, threads)` that go through images, with the table of `dense_places`.

An edge may carry a 1x1 convolution of the state's ReLU r, a 3x3 convolution of it (z, computed elsewhere), the state x and
its pool p.  Convolutions are normalised; the 1x1 one needs no image of its own, as the moments of r tell those of W r.
"""

from __future__ import annotations

from numba import njit

from diffnas.kernels.native.dense_places import (  # isort: skip
    BLEND, BY_P, BY_X, BY_Z, C, CENTRED, COLUMN_SUMS, CONSTANT, CONSTANT_D, CONV_MOMENTS, DR, DX, DZ, DZ_BY_G, DZ_BY_Z,
    DZ_CONSTANT, EDGE, EDGES, FOLD_CONV, FOLD_SHARE, FOLD_POINT, FOLD_STATE, FROM_D, FROM_G, G, H, MAP_TURNED, MASKED, MEAN,
    MEANS, MODE, MOMENTS, N, OUTER, PIXELS, POOL, POOLED, POOL_GRADIENT, PRODUCTS, PRODUCT_ADD, PRODUCT_BOTH, PULL_CONV,
    PULL_SHARE, PULL_POINT, PULL_STATE, R, ROWS, SCALED, SCALED_ADD, SCRATCH, SCRATCH_SIZE, SHARE_CONV, SHARE_POINT, SIZE,
    SUMS, THROUGH, TO_CONV, WEIGHED, WIDTH, X, Y, Z, ZERO, Z_MEANS, Z_SQUARES, Z_STEP,
)  # fmt: skip
from diffnas.kernels.native.vectors import call, words


@njit
def edge_row(shared: int, e: int) -> int:
    """The address of the row of edge `e`."""
    return words(shared)[ROWS] + 8 * EDGE * e


def dense_survey(shared: int, thread: int, threads: int) -> None:
    """Pools the state, and takes the moments of its ReLU and of the 3x3 convolutions, image by image."""
    w = words(shared)
    c, size, pixels, n = w[C], w[SIZE], w[PIXELS], w[N]
    scratch = w[SCRATCH] + w[SCRATCH_SIZE] * thread
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at, line = size * image * pixels * c, size * image * c
        if w[POOLED] != 0:
            call(w[POOL], (w[X] + at, w[POOLED] + at, w[H], w[WIDTH], 1, c))
        if w[MOMENTS] != 0:
            call(w[COLUMN_SUMS], (w[R] + at, pixels, pixels, w[MEANS] + line, c))
            call(w[CENTRED], (w[R] + at, w[MEANS] + line, scratch, pixels, c))
            call(w[OUTER], (scratch, c, scratch, w[MOMENTS] + line * c, pixels, c))
        for e in range(w[EDGES]):
            edge = words(edge_row(shared, e))
            if edge[Z_MEANS] != 0:
                z = edge[Z] + size * image * pixels * edge[Z_STEP]
                means, squares = edge[Z_MEANS] + line, edge[Z_SQUARES] + line
                call(w[CONV_MOMENTS], (z, edge[Z_STEP], means, squares, pixels, c))


def dense_fold(shared: int, thread: int, threads: int) -> None:
    """The algebra of all edges, once the sums over the images are there."""
    w = words(shared)
    if thread > 0:
        return
    if w[MEAN] != 0:
        call(w[FOLD_STATE], (shared,))
    for e in range(w[EDGES]):
        row = edge_row(shared, e)
        call(w[FOLD_SHARE], (shared, row))
        if words(row)[SHARE_POINT] >= 0:
            call(w[FOLD_POINT], (shared, row))
        if words(row)[SHARE_CONV] >= 0:
            call(w[FOLD_CONV], (shared, row))


def dense_blend(shared: int, thread: int, threads: int) -> None:
    """Adds to each edge's node what flows along it, or writes it."""
    w = words(shared)
    c, size, pixels, n = w[C], w[SIZE], w[PIXELS], w[N]
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at = size * image * pixels * c
        for e in range(w[EDGES]):
            edge = words(edge_row(shared, e))
            z = edge[Z] + size * image * pixels * edge[Z_STEP]
            call(
                w[BLEND],
                (w[R] + at, edge[MAP_TURNED], edge[CONSTANT], w[X] + at, edge[BY_X], w[POOLED] + at, edge[BY_P], z,
                 edge[Z_STEP], edge[BY_Z], edge[Y] + at, edge[MODE], pixels, c),
            )  # fmt: skip


def dense_weigh(shared: int, thread: int, threads: int) -> None:
    """Multiplies the gradients of the nodes by what flowed to them, and sums them up, image by image."""
    w = words(shared)
    c, size, pixels, n = w[C], w[SIZE], w[PIXELS], w[N]
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at, line = size * image * pixels * c, size * image * c
        for e in range(w[EDGES]):
            edge = words(edge_row(shared, e))
            g = edge[G] + at
            x = w[X] + at if edge[BY_X] != 0 else 0
            pool = w[POOLED] + at if edge[BY_P] != 0 else 0
            z = edge[Z] + size * image * pixels * edge[Z_STEP] if edge[Z] != 0 else 0
            call(w[WEIGHED], (g, x, pool, z, edge[Z_STEP], edge[SUMS] + 4 * line, pixels, c))
            if edge[PRODUCTS] != 0:
                call(w[OUTER], (g, c, w[R] + at, edge[PRODUCTS] + line * c, pixels, c))


def dense_pull(shared: int, thread: int, threads: int) -> None:
    """The algebra of the way back, edge by edge."""
    w = words(shared)
    for e in range(thread, w[EDGES], threads):
        row = edge_row(shared, e)
        call(w[PULL_SHARE], (shared, row))
        if words(row)[SHARE_POINT] >= 0:
            call(w[PULL_POINT], (shared, row))
        if words(row)[SHARE_CONV] >= 0:
            call(w[PULL_CONV], (shared, row))


def dense_to_conv(shared: int, thread: int, threads: int) -> None:
    """Writes the gradients to the 3x3 convolutions."""
    w = words(shared)
    c, size, pixels, n = w[C], w[SIZE], w[PIXELS], w[N]
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at = size * image * pixels * c
        for e in range(w[EDGES]):
            edge = words(edge_row(shared, e))
            if edge[DZ] != 0:
                z = size * image * pixels * edge[Z_STEP]
                call(
                    w[TO_CONV],
                    (edge[G] + at, edge[DZ_BY_G], edge[Z] + z, edge[DZ_BY_Z], edge[DZ_CONSTANT], edge[DZ] + z, edge[Z_STEP],
                     pixels, c),
                )  # fmt: skip


def dense_pull_state(shared: int, thread: int, threads: int) -> None:
    """What all edges together need for the way back to the state."""
    w = words(shared)
    if thread == 0 and w[FROM_D] != 0:
        call(w[PULL_STATE], (shared,))


def dense_to_state(shared: int, thread: int, threads: int) -> None:
    """Adds to the gradient to the ReLU that of the 1x1 convolutions, and from it makes the gradient to the state."""
    w = words(shared)
    c, size, pixels, n = w[C], w[SIZE], w[PIXELS], w[N]
    scratch = w[SCRATCH] + w[SCRATCH_SIZE] * thread
    row = pixels * c
    for image in range(n * thread // threads, n * (thread + 1) // threads):
        at = size * image * pixels * c
        dr, dx = w[DR] + at, w[DX] + at
        # two products at a time: each pass reads and writes all of dr
        waiting, its_map, constant = w[R] + at, w[FROM_D], w[CONSTANT_D]
        for e in range(w[EDGES]):
            edge = words(edge_row(shared, e))
            if edge[FROM_G] != 0:
                g = edge[G] + at
                if its_map != 0:
                    call(
                        w[PRODUCT_BOTH],
                        (waiting, its_map, c, g, edge[FROM_G], c, constant, dr, 1, pixels, row, c, c),
                    )
                    its_map, constant = 0, w[ZERO]
                else:
                    waiting, its_map, constant = g, edge[FROM_G], w[ZERO]
        if its_map != 0:
            call(w[PRODUCT_ADD], (waiting, its_map, c, 0, 0, 0, constant, dr, 1, pixels, row, c, c))
        pooled = passed = False
        for e in range(w[EDGES]):
            edge = words(edge_row(shared, e))
            if edge[BY_X] != 0:
                g = edge[G] + at
                if passed:
                    call(w[SCALED_ADD], (g, edge[BY_X], w[ZERO], dx, pixels, c))
                else:
                    call(w[THROUGH], (w[X] + at, dr, g, edge[BY_X], dx, pixels, c))
                passed = True
        if not passed:
            call(w[MASKED], (w[X] + at, dr, dx, row))
        for e in range(w[EDGES]):
            edge = words(edge_row(shared, e))
            if edge[BY_P] != 0:
                function = w[SCALED_ADD] if pooled else w[SCALED]
                call(function, (edge[G] + at, edge[BY_P], w[ZERO], scratch, pixels, c))
                pooled = True
        if pooled:
            call(w[POOL_GRADIENT], (scratch, dx, w[H], w[WIDTH], 1, c))
