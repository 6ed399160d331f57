"""The supernet: it adds up what a mixture says, and runs only what is active."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape, Size
from diffnas.engine import random_genotype
from diffnas.spaces.shufflenet_blocks.layout import OPS, Place, places
from diffnas.spaces.shufflenet_blocks.space import ShuffleNetBlocks
from diffnas.spaces.shufflenet_blocks.supernet import MixedBlock, Supernet

TINY = ShuffleNetBlocks(channels=4, widths=(8, 12), depths=(1, 2), last=16)
SHAPE = Shape(5, 3, 16)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, dtype=torch.float64)


def one_hot(genotype: Genotype) -> Tensor:
    columns = [OPS.index(op) for op in genotype.cells["blocks"].ops]
    return nn.functional.one_hot(torch.tensor(columns), 4).double()


def test_where_blocks_stand() -> None:
    assert places(TINY, 16) == [Place(4, 8, 2, 8), Place(8, 12, 2, 4), Place(12, 12, 1, 2)]
    assert places(replace(TINY, stem="cifar"), 16)[0] == Place(4, 8, 2, 16)
    last = places(ShuffleNetBlocks(), 224)[-1]
    assert len(places(ShuffleNetBlocks(), 224)) == 20 and last == Place(640, 640, 1, 7)


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_every_feature_is_where_its_place_says(stem: str) -> None:
    space = replace(TINY, stem=stem)
    supernet = space.supernet(SHAPE, Size(2, 3)).double()
    assert supernet.stem[0].out_channels == 2
    for block in supernet.blocks:
        block.register_forward_hook(lambda block, inputs, output: seen.append((inputs[0].shape, output.shape)))
    seen: list[tuple[torch.Size, torch.Size]] = []
    assert supernet(images(), {"blocks": Mix(torch.rand(3, 4).double())}).shape == (4, 5)
    for place, (before, after) in zip(places(replace(space, channels=2), 16), seen, strict=True):
        assert before == (4, place.inputs, place.side, place.side)
        assert after == (4, place.outputs, place.side // place.stride, place.side // place.stride)


def test_a_block_is_the_weighted_sum_of_its_ops() -> None:
    torch.manual_seed(0)
    supernet = TINY.supernet(SHAPE).double()
    op, edge, x = torch.randn(3, 4).double(), torch.randn(3).double(), images()
    expected = supernet.stem(x)
    for e, block in enumerate(supernet.blocks):
        terms = [op[e, o] * block.ops[name](expected) for o, name in enumerate(OPS)]
        expected = edge[e] * torch.stack(terms).sum(0)
    torch.testing.assert_close(supernet(x, {"blocks": Mix(op, edge)}), supernet.head(expected))


def test_what_is_not_active_neither_runs_nor_learns() -> None:
    torch.manual_seed(0)
    supernet = TINY.supernet(SHAPE).double()
    genotype = random_genotype(TINY.name, TINY.cells, torch.Generator().manual_seed(0))
    share = torch.rand(3, 4).double().requires_grad_()
    active = one_hot(genotype).bool()
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet(images(), {"blocks": Mix(share, active=active)}).square().sum().backward()
    assert share.grad is not None and torch.equal(share.grad != 0, active)
    for e, block in enumerate(supernet.blocks):
        for o, (name, op) in enumerate(block.ops.items()):
            assert all((p.grad is not None) == bool(active[e, o]) for p in op.parameters())
            moved = any(
                not torch.equal(before[f"blocks.{e}.ops.{name}.{key}"], buffer) for key, buffer in op.named_buffers()
            )
            assert moved == bool(active[e, o])


def test_a_one_hot_mixture_is_the_network() -> None:
    torch.manual_seed(0)
    genotype = random_genotype(TINY.name, TINY.cells, torch.Generator().manual_seed(1))
    supernet = TINY.supernet(SHAPE).double()
    network = TINY.network(genotype, SHAPE, norm_eps=TINY.norm_eps).double()
    weights = supernet.state_dict()
    for e, op in enumerate(genotype.cells["blocks"].ops):
        weights |= {name.replace(f"blocks.{e}.ops.{op}.", f"blocks.{e}."): t for name, t in weights.items()}
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    hot, x = one_hot(genotype), images()
    torch.testing.assert_close(supernet(x, {"blocks": Mix(hot, active=hot.bool())}), network(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(supernet(x, {"blocks": Mix(hot)}), network(x), rtol=1e-12, atol=1e-12)


def test_a_block_without_a_live_op_is_zero() -> None:
    block = MixedBlock(OPS, (True,) * 4, Place(4, 8, 2, 8), 1e-2)
    y = block(torch.randn(3, 4, 8, 8), torch.ones(4), (False,) * 4)
    assert torch.equal(y, torch.zeros(3, 8, 4, 4))


def test_only_allowed_ops_are_built() -> None:
    space = replace(TINY, block_ops=[["shuffle_3x3"], ["shuffle_5x5", "shuffle_7x7"], list(OPS)])
    supernet = space.supernet(SHAPE)
    assert [tuple(block.ops) for block in supernet.blocks] == [OPS[:1], OPS[1:3], OPS]
    assert supernet(torch.randn(2, 3, 16, 16), {"blocks": Mix(torch.rand(3, 4))}).shape == (2, 5)


def test_both_forms_are_one_module() -> None:
    found = []
    for form in ("plain", "fast"):
        torch.manual_seed(0)
        found.append(TINY.supernet(SHAPE, form=form))  # type: ignore[arg-type]
    assert type(found[0]) is type(found[1]) is Supernet
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in found), strict=True))


def test_it_is_differentiable_twice() -> None:
    supernet = TINY.supernet(SHAPE).double()
    share = torch.rand(3, 4).double().requires_grad_()
    (grad,) = torch.autograd.grad(supernet(images(), {"blocks": Mix(share)}).square().sum(), share, create_graph=True)
    assert torch.autograd.grad(grad.sum(), list(supernet.parameters()), allow_unused=True)[0].abs().sum() > 0


def test_normalisation_and_fresh_weights() -> None:
    torch.manual_seed(0)
    supernet = ShuffleNetBlocks(widths=(64, 160), depths=(1, 1), dropout=0.1).supernet(Shape(100, 3, 32))
    norms = [layer for layer in supernet.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(norm.affine and norm.eps == 1e-2 and norm.bias[0].item() == pytest.approx(1e-4) for norm in norms)
    assert supernet.head[5].p == 0.1 and supernet.head[-1].bias is None
    pointwise = supernet.blocks[1].ops["shuffle_3x3"].main[0].weight  # 64 -> 80
    depthwise = supernet.blocks[1].ops["shuffle_7x7"].main[3].weight
    for weight, deviation in ((pointwise, 1 / 64), (depthwise, 1.0), (supernet.stem[0].weight, 0.01)):
        assert weight.std().item() == pytest.approx(deviation, rel=0.15)
    assert supernet.head[-1].weight.std().item() == pytest.approx(0.01, rel=0.05)
