"""Where sizes and addresses stand in the table that phases read (see `phases` and `table`)."""

from __future__ import annotations

# ---- places in the table
(
    N, H, WIDTH, C, STRIDE, HO, WO, BORDER, SIZE, CENTRED, TO_WEIGHTS, TO_STATE,
    TWICE, TERMS, TERM_ROWS, EVENS, EVEN_ROWS, POOLS, POOL_ROWS, EDGES, EDGE_ROWS,
    SCRATCH, SCRATCH_SIZE, X, DX, ZERO, SHARES, TO_SHARES,
    PAD, COLUMN_SUMS, CENTRE, OUTER, PRODUCT, PRODUCT_ADD, PRODUCT_RELU, PRODUCT_BOTH, SCALED, SCALED_ADD, COLUMN_PRODUCTS,
    MASKED_ADD, TURNED, GATHERED, FOLD, PULL, FOLD_EVEN, FOLD_POOL, PULL_EVEN, PULL_POOL, HEAD,
) = range(49)  # fmt: skip

# ---- places in the row of a pair; a term's row is twice that
(
    CORRELATE, KERNEL_GRADIENT, INPUT_GRADIENT, REACH, DILATION, TAPS, KERNEL, TURNED_KERNEL, FLIPPED_KERNEL, PARTS, TO_KERNEL,
    IMAGES, MEANS, MOMENTS, MAP, SHIFT, SHARE_AT, TARGET, FRESH, GRADIENT, PRODUCTS, TOTALS, FROM_D, FROM_G, CONSTANT, NOTES,
    POINT, TO_POINT, FOLDED, COVARIANCE, INVERSE, RUNNING_MEAN, RUNNING_VAR, BATCHES, EPSILON, MOMENTUM, PAIR,
) = range(37)  # fmt: skip
TERM = 2 * PAIR

# ---- places in the row of a pool or an identity on one edge
(
    SOURCE, FACTOR, E_SHIFT, E_SHARE_AT, E_TARGET, E_FRESH, E_GRADIENT, E_TOTALS, RESULT, E_INVERSE,
    E_RUNNING_MEAN, E_RUNNING_VAR, E_BATCHES, E_EPSILON, E_MOMENTUM, SKIPS, EVEN,
) = range(17)  # fmt: skip

# ---- places in the row of a pool: its terms are `COUNT` even ones from `BEGIN` on; WHERE is 0 for means
(POOL, POOL_GRADIENT, POOLED, WHERE, P_MEANS, SQUARES, OWN, OWN_SHIFT, BEGIN, COUNT, POOL_ROW) = range(11)

# ---- places in the row of an edge
(E_IMAGE, E_TOTAL, EDGE) = range(3)
