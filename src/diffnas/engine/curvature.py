"""The curvature of the validation loss in the architecture: what flattens or sharpens before a search collapses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.engine.gradients import differentiate
from diffnas.engine.search import Search


def largest_eigenvalue(search: Search, batch: Batch, decay: float = 0.0, steps: int = 20, eps: float = 1e-2) -> float:
    """The largest eigenvalue of the Hessian of the loss on `batch` in the architecture's parameters, plus `decay`
    (Zela et al., Understanding and Robustifying DARTS, 2020, section 4).

    By `steps` of Lanczos on central differences of the gradient, `eps` apart, in full float32 and with the same noise in every
    pass; parameters, weights, running statistics and torch's generators are as before afterwards.  Where the evaluation
    mixture does not depend on parameters by gradient, the Hessian is 0.
    """
    parameters = [p for p in search.arch.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters]
    size = sum(p.numel() for p in parameters)
    if not size:
        return decay
    devices = [search.device] if search.device.type == "cuda" else []

    def gradient(shift: Tensor) -> Tensor:
        _write(parameters, start, shift)
        mixture = search.relax("eval")
        with torch.random.fork_rng(devices):  # dropout, and ops that are noise
            grads_of_mixture = differentiate(search, mixture, batch, {"mixture"}, "train_frozen_stats").mixture
        outputs = [(t, g) for t, g in zip(mixture.tensors(), grads_of_mixture, strict=True) if t.requires_grad]
        if not outputs:
            return torch.zeros(size, dtype=torch.float64)
        tensors, seeds = zip(*outputs, strict=True)
        grads = torch.autograd.grad(tensors, parameters, seeds, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True)]
        return torch.cat([g.double().flatten() for g in flat]).cpu()

    try:
        with search.differencing():
            top = lanczos(
                lambda v: (gradient(eps * v) - gradient(-eps * v)) / (2.0 * eps),
                size,
                steps,
                search.fork("eigenvalue"),
            )
    finally:
        _write(parameters, start, None)
    return top + decay


def lanczos(product: Callable[[Tensor], Tensor], size: int, steps: int, generator: torch.Generator) -> float:
    """The largest eigenvalue of the symmetric matrix whose products with [size] vectors `product` gives, to the accuracy of
    `steps` products (Lanczos with full reorthogonalisation); exact where `steps` reaches `size`, nan where a product is not
    finite."""
    v = torch.randn(size, generator=generator, dtype=torch.float64)
    basis = [v / v.norm()]
    rows: list[Tensor] = []
    for step in range(min(steps, size)):
        rows.append(product(basis[step]))
        if step + 1 == min(steps, size):
            break
        w, known = rows[step].clone(), torch.stack(basis)
        for _ in range(2):  # twice is enough for orthogonality to rounding
            w = w - known.T @ (known @ w)
        if w.norm() <= 1e-10 * rows[step].norm():
            break
        basis.append(w / w.norm())
    Q, image = torch.stack(basis), torch.stack(rows)
    projected = Q @ image.T
    if not projected.isfinite().all():
        return math.nan
    return float(torch.linalg.eigvalsh((projected + projected.T) / 2)[-1])


def _write(parameters: list[torch.nn.Parameter] | list[Tensor], start: list[Tensor], shift: Tensor | None) -> None:
    """parameters := start + shift."""
    at = 0
    with torch.no_grad():
        for parameter, base in zip(parameters, start, strict=True):
            parameter.copy_(base)
            if shift is not None:
                parameter += shift[at : at + base.numel()].view_as(base).to(base)
            at += base.numel()
