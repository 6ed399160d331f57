"""The one door for gradients, and the steps that use it.

`differentiate` cuts the graph at the mixture: its entries become leaves, only what is asked for is computed, and what a loss
does not reach gets a zero gradient, never a missing one.  Where processes share a batch, the loss and the gradients that it
returns are those of the whole batch.  The gradient of alpha follows from the mixture's:

    dL/dalpha = (dL/dmixture) (dmixture/dalpha) + d penalty/dalpha

Second order (Liu et al., 2019, equations 5 to 8): with w' = w - eta (mu m + dL_train/dw + lambda w) and v = dL_val(w')/dw',

    gradient = dL_val(w')/dmixture - eta H v        H v = d/dmixture (dL_train/dw . v)

where H v is a central difference, (dL_train(w + eps v) - dL_train(w - eps v)) / (2 eps) with eps = 0.01 / |v|, or exact.

With a `clip`, as in the paper's code for recurrent cells, dL_train/dw and v are first scaled down to that norm.  The code
also multiplies the implicit term by the first one's coefficient, even where that is above 1 and nothing was clipped:

    gradient = dL_val(w')/dmixture - kappa eta H v        kappa = clip / (|dL_train/dw| + 1e-6)
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffnas.core.batch import Batch, Loss, loss_of
from diffnas.core.mixture import Mixture
from diffnas.engine.optim import learning_rate, scaled_rate
from diffnas.engine.search import Search
from diffnas.engine.whole import each_piece, scaled, statistics_of, whole_of
from diffnas.runtime.distributed import world

Norm = Literal["update", "train_frozen_stats", "eval_batch_stats", "running"]
"""How a pass normalises.

`update`: training, by batch statistics that update the running ones; `train_frozen_stats`: the same without that update;
`eval_batch_stats`: evaluation by batch statistics; `running`: evaluation by the running ones.
Dropout happens in training alone.
"""


@dataclass(frozen=True)
class Grads:
    """A loss and the gradients asked for: `weights` in the order of `search.weights`, `mixture` in that of its tensors."""

    loss: Loss
    weights: list[Tensor]
    mixture: list[Tensor]


@contextlib.contextmanager
def normalisation(search: Search, norm: Norm) -> Iterator[None]:
    """Runs a block with the supernet's normalisation set to `norm`."""
    training = norm in ("update", "train_frozen_stats")
    if search.supernet.training != training:
        search.supernet.train(training)
    frozen = search.norms if norm in ("train_frozen_stats", "eval_batch_stats") else []
    for layer in frozen:
        layer.training = True
        layer.track_running_stats = False  # in training mode: batch statistics, buffers neither read nor written
    try:
        yield
    finally:
        for layer in frozen:
            layer.track_running_stats = True
        if not training:
            search.supernet.train()


def differentiate(
    search: Search, mixture: Mixture, batch: Batch, wrt: set[str], norm: Norm = "update", whole: bool | None = None
) -> Grads:
    """The loss of `mixture` on `batch` and its gradients with respect to `wrt`, of "weights" and "mixture".

    The loss is the `whole` one, with the task's `weight_only` part, where the weights' gradient alone is asked for (None).
    """
    mixture = mixture.leaves() if "mixture" in wrt else mixture.detach()
    targets = (search.weights if "weights" in wrt else []) + (mixture.tensors() if "mixture" in wrt else [])
    whole = wrt == {"weights"} if whole is None else whole
    moved = statistics_of(search.norms) if norm == "update" and batch.part is not None else []

    def computed(scale: float) -> tuple[Loss, list[Tensor]]:
        losses, grads = [], list[Tensor]()
        for piece in each_piece(batch, search.pieces, search.batch_dim):
            with _constant([] if "weights" in wrt else search.weights):
                loss = _loss(search, mixture, piece, norm)
            part = scaled(loss.total() if whole else loss.value, piece)
            more = _grad(part if scale == 1.0 else part * scale, targets)
            losses.append((piece, loss.detach()))
            grads = list(torch._foreach_add(grads, more)) if grads else more
        return whole_of(batch, losses, grads, moved)

    loss, grads = search.loss_scale.found(computed, search.device)
    split = len(search.weights) if "weights" in wrt else 0
    return Grads(loss, grads[:split], grads[split:])


def weight_step(search: Search, mixture: Mixture, batch: Batch) -> Loss:
    """Takes one step of the weights on `batch`, the gradient clipped to `search.clip`."""
    grads = differentiate(search, mixture, batch, {"weights"})
    apply_weights(search, mixture, grads.weights, batch.scale)
    return grads.loss


def arch_step(search: Search, mixture: Mixture, batch: Batch) -> Loss:
    """Takes one first-order step of the architecture on `batch`, with the current weights (equation 7 with eta = 0)."""
    grads = differentiate(search, mixture, batch, {"mixture"})
    apply_arch(search, mixture, grads.mixture)
    return grads.loss


def arch_loss_step(search: Search, loss: Tensor) -> None:
    """Takes one step of the architecture on its own `loss` [], without a pass of the supernet (REINFORCE)."""
    targets = [p for p in search.arch.parameters() if p.requires_grad]
    _apply(search.arch_optimizer, targets, _grad(loss, targets), search.arch_clip)


def joint_step(search: Search, mixture: Mixture, batch: Batch) -> Loss:
    """Takes one step of weights and architecture together, by one backward pass on one batch (Xie et al., SNAS, 2019)."""
    grads = differentiate(search, mixture, batch, {"weights", "mixture"}, whole=True)
    apply_arch(search, mixture, grads.mixture)
    apply_weights(search, mixture, grads.weights, batch.scale)
    return grads.loss


def apply_weights(
    search: Search, mixture: Mixture, grads: list[Tensor], scale: float = 1.0, frozen: Collection[int] = ()
) -> None:
    """Takes one step of the weights along `grads`, one for each of `search.weights`, clipped to `search.clip`.

    Adds the gradient of the method's weight penalty for `mixture`; multiplies the rate by `scale`.  The weights at the
    places `frozen` stay as they are, momentum and decay included.
    """
    grads = _with_weight_penalty(search, mixture, grads)
    moved = [None if place in frozen else grad for place, grad in enumerate(grads)] if frozen else grads
    _apply(search.weights_optimizer, search.weights, moved, search.clip, scale)


def unrolled_arch_step(
    search: Search, mixture: Mixture, train: Batch, valid: Batch, exact: bool = False, clip: float | None = None
) -> Loss:
    """Takes one second-order step of the architecture and returns the validation loss at the look-ahead weights.

    Weights, momentum and running statistics are bit-identical afterwards.  `exact` differentiates twice instead of taking
    a central difference, for tests and small nets.  `clip` is that of the paper's code for recurrent cells (None: that for
    images, which has none).  Raises `ValueError` where the weight optimizer is not plain SGD.
    """
    loss, gradient = hypergradient(search, mixture, train, valid, exact, clip)
    apply_arch(search, mixture, gradient)
    return loss


def hypergradient(
    search: Search, mixture: Mixture, train: Batch, valid: Batch, exact: bool = False, clip: float | None = None
) -> tuple[Loss, list[Tensor]]:
    """The validation loss at the look-ahead weights and its second-order gradient in the mixture's tensors."""
    eta = learning_rate(search.weights_optimizer) * train.scale
    saved = [weight.detach().clone() for weight in search.weights]
    grads = differentiate(search, mixture, train, {"weights"}, "train_frozen_stats", whole=False).weights
    train_grads, kappa = _clipped(_with_weight_penalty(search, mixture, grads), clip)
    direction = _descent(search, train_grads)
    try:
        _write(search.weights, saved, direction, -eta)
        ahead = differentiate(search, mixture, valid, {"weights", "mixture"}, "train_frozen_stats")
        vector, _ = _clipped(ahead.weights, clip)
        if not exact:
            implicit = _central_difference(search, mixture, train, saved, vector)
    finally:
        _write(search.weights, saved)
    if exact:
        implicit = _hessian_product(search, mixture, train, vector)
    return ahead.loss, [g - eta * kappa * h for g, h in zip(ahead.mixture, implicit, strict=True)]


def _loss(search: Search, mixture: Mixture, batch: Batch, norm: Norm) -> Loss:
    with normalisation(search, norm), search.autocast():
        return loss_of(search.task, lambda inputs: search.supernet(inputs, mixture), batch)


@contextlib.contextmanager
def _constant(weights: Sequence[Tensor]) -> Iterator[None]:
    """Runs a forward pass in which `weights` are numbers: nothing is kept, and later computed, for their gradients."""
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _grad(loss: Tensor, targets: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    if not loss.requires_grad:  # nothing that is asked for takes part
        return [torch.zeros_like(t) for t in targets]
    grads = torch.autograd.grad(loss, list(targets), allow_unused=True, create_graph=create_graph)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(grads, targets, strict=True)]


def _apply(
    optimizer: torch.optim.Optimizer,
    targets: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    clip: float | None,
    scale: float = 1.0,
) -> None:
    for target, grad in zip(targets, grads, strict=True):
        target.grad = grad
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(targets, clip, foreach=True)
    with scaled_rate(optimizer, scale):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _with_weight_penalty(search: Search, mixture: Mixture, grads: list[Tensor]) -> list[Tensor]:
    """`grads` of the weights plus those of the method's weight penalty, if it has one."""
    penalty = search.weight_penalty(mixture)
    return grads if penalty is None else list(torch._foreach_add(grads, _grad(penalty, search.weights)))


def apply_arch(search: Search, mixture: Mixture, grads: list[Tensor]) -> None:
    """Takes one step of the architecture: carries `grads` of the mixture's tensors to its parameters, adds the penalty's."""
    targets = [p for p in search.arch.parameters() if p.requires_grad]
    pairs = [(t, g) for t, g in zip(mixture.tensors(), grads, strict=True) if t.requires_grad]
    penalty = search.penalty(mixture)
    if penalty is not None and penalty.requires_grad:
        pairs.append((penalty, torch.ones_like(penalty)))
    if not pairs or not targets:
        return
    outputs, seeds = zip(*pairs, strict=True)
    arch_grads = torch.autograd.grad(outputs, targets, seeds, allow_unused=True)
    filled = [torch.zeros_like(t) if g is None else g for g, t in zip(arch_grads, targets, strict=True)]
    _apply(search.arch_optimizer, targets, filled, search.arch_clip)


def _descent(search: Search, grads: list[Tensor]) -> list[Tensor]:
    """mu m + g + lambda w: the direction of the step that plain SGD would take."""
    optimizer = search.weights_optimizer
    group = optimizer.param_groups[0]
    if not isinstance(optimizer, torch.optim.SGD) or len(optimizer.param_groups) > 1:
        raise ValueError("the second order looks one SGD step ahead; the weight optimizer must be SGD with one group")
    if group["nesterov"] or group["dampening"] or group["maximize"]:
        raise ValueError("the second order needs plain SGD: no nesterov, dampening or maximize")
    direction = torch._foreach_add(grads, [w.detach() for w in search.weights], alpha=group["weight_decay"])
    momenta = [optimizer.state.get(w, {}).get("momentum_buffer") for w in search.weights]
    moved = [i for i, m in enumerate(momenta) if m is not None]  # before the first step momentum is zero
    for i in moved:
        direction[i].add_(momenta[i], alpha=group["momentum"])
    return list(direction)


def _clipped(grads: list[Tensor], clip: float | None) -> tuple[list[Tensor], Tensor | float]:
    """`grads` scaled down to the norm `clip`, and clip / norm, which is above 1 where they are smaller."""
    if clip is None:
        return grads, 1.0
    kappa = clip / (torch.nn.utils.get_total_norm(grads) + 1e-6)
    return list(torch._foreach_mul(grads, kappa.clamp_max(1.0))), kappa


def _write(
    weights: Sequence[Tensor], base: list[Tensor], direction: list[Tensor] | None = None, step: float | Tensor = 0.0
) -> None:
    """weights := base + step * direction, in place; without a direction, the bits of `base`."""
    with torch.no_grad():
        values = base if direction is None else torch._foreach_add(base, torch._foreach_mul(direction, step))
        torch._foreach_copy_(list(weights), list(values))


def _central_difference(
    search: Search, mixture: Mixture, train: Batch, base: list[Tensor], vector: list[Tensor]
) -> list[Tensor]:
    """(dL_train(w + eps v) - dL_train(w - eps v)) / (2 eps) in the mixture's tensors, eps = 0.01 / |v|."""
    norm = torch.nn.utils.get_total_norm(vector)
    eps = 0.01 / norm.clamp_min(torch.finfo(norm.dtype).tiny)  # no direction, no difference: 0, not nan
    with search.differencing():
        with _same_noise(search.device):  # both passes draw the same dropout
            _write(search.weights, base, vector, eps)
            plus = differentiate(search, mixture, train, {"mixture"}, "train_frozen_stats").mixture
        _write(search.weights, base, vector, -eps)
        minus = differentiate(search, mixture, train, {"mixture"}, "train_frozen_stats").mixture
    return [(p - m) / (2.0 * eps) for p, m in zip(plus, minus, strict=True)]


@contextlib.contextmanager
def _same_noise(device: torch.device) -> Iterator[None]:
    """Runs a block after which torch's global generators stand where they stood; not in a CUDA graph, which may not draw."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _hessian_product(search: Search, mixture: Mixture, train: Batch, vector: list[Tensor]) -> list[Tensor]:
    """d/dmixture (dL_train/dw . v) by differentiating twice."""
    mixture = mixture.leaves()
    loss = scaled(_loss(search, mixture, train, "train_frozen_stats").value, train)
    grads = _grad(loss, search.weights, create_graph=True)
    product = torch.stack([(s * v).sum() for s, v in zip(grads, vector, strict=True)]).sum()
    found = _grad(product, mixture.tensors())
    return found if train.part is None else world().sum(found)
