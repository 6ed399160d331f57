"""Which machines have kernels for GPUs, what is said of those that have none, and the tables that kernels read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffnas.kernels import form, gpu, native
from diffnas.kernels.gpu import layout, ops, proof
from diffnas.kernels.gpu.layout import COPY, MAX, Image, Layout, Term, by_pixels, pixel_step

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was found out about a GPU is forgotten."""
    gpu.lack.cache_clear()
    yield
    gpu.lack.cache_clear()


def test_the_form_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who asks for it has the order of a GPU there."""
    monkeypatch.setenv("DIFFNAS_KERNELS", "torch")
    assert not gpu.usable(CPU) and form.form(CPU) == "torch" and form.described(CPU) == native.described()
    monkeypatch.delenv("DIFFNAS_KERNELS")
    assert not gpu.usable(CPU) and form.form(CPU) == native.form()
    monkeypatch.setenv("DIFFNAS_KERNELS", "triton")
    assert gpu.usable(CPU) and form.form(CPU) == "triton"
    assert form.described(CPU) == "torch in the order of the Triton kernels"


def test_the_form_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that fail, or find something else, are left out, which is said."""
    monkeypatch.delenv("DIFFNAS_KERNELS", raising=False)
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert form.form(CUDA) == "torch" and form.described(CUDA) == "torch alone: triton is not installed"
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    monkeypatch.setattr(proof, "apart", lambda device: 1 // 0)
    gpu.lack.cache_clear()
    assert form.form(CUDA) == "torch"
    assert form.described(CUDA).startswith("torch alone: triton compiles nothing for this GPU (ZeroDivisionError: ")
    for error, found in ((0.5, "torch"), (float("nan"), "torch"), (1e-6, "triton")):
        monkeypatch.setattr(proof, "apart", lambda device, error=error: error)
        gpu.lack.cache_clear()
        assert form.form(CUDA) == found
    monkeypatch.setenv("DIFFNAS_KERNELS", "torch")
    assert form.form(CUDA) == "torch" and form.described(CUDA) == "torch alone: DIFFNAS_KERNELS=torch"


def test_the_proof_tells_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proof.apart(CPU) < 1e-4
    right = ops.reference.slopes

    def wrong(*given: torch.Tensor) -> None:
        right(*given)
        if given[-1].dtype == torch.float32:
            given[-1][0] *= 1.5

    monkeypatch.setattr(ops.reference, "slopes", wrong)
    assert proof.apart(CPU) > gpu.APART


def test_few_files_need_triton() -> None:
    """And none of them is loaded where no kernel is launched."""
    folder = Path(layout.__file__).parent
    needing = set()
    for path in folder.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        if any(name.split(".")[0] == "triton" for name in names):
            needing.add(path.stem)
    assert needing == {"launch", "stencils", "products", "algebra"}


def test_the_tables_of_a_state() -> None:
    """One image for two edges; half of a matrix is filled up with zeros; no kernel stands among the 1x1 ones."""
    images = [Image(side=3, dilation=2, kernel=1), Image(offset=1), Image(MAX), Image(COPY)]
    terms = [Term(0, 0, 4, 0), Term(1, 1, 5, 2, half=1), Term(2, 0, 2), Term(2, 1, 3), Term(3, 1, 7, normed=False)]
    weights = [torch.full((2, 2), 1.0), torch.full((2, 1, 3, 3), 2.0), torch.full((1, 2), 3.0)]
    made = Layout(images, terms, 0, 2, 2, [weight.numel() for weight in weights])
    flat = made.flat(weights, weights[0])
    assert flat.tolist() == [2.0] * 18 + [1, 1] + [1, 0, 0, 1] + [1.0] * 4 + [0, 0, 3, 3]
    assert (made.taps, made.maxima, made.side) == (18, 1, 3)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(made.apart(flat, weights), weights, strict=True))
    rows, columns, edges = (table.tolist() for table in made.tables(CPU))
    assert rows[0] == [layout.CONV, 3, 2, 0, 0, 0, 1, 0] and rows[2][layout.BEGIN : layout.END + 1] == [2, 4]
    assert rows[1][layout.KERNEL] == 18
    assert [row[layout.POINT] for row in columns] == [24, 28, 20, 20, 20]
    assert [row[layout.NORMED] for row in columns] == [1, 1, 1, 1, 0]
    assert edges == [3, 5, 8, 0, 2, 1, 3, 4]


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 4, 5, 6), (3, 4, 1, 1), (1, 4, 1, 6), (2, 4, 6, 1), (1, 4, 1, 1)])
def test_pixels_are_found_in_memory(shape: tuple[int, ...]) -> None:
    """In whichever layout an image comes, or as some of the channels of another."""
    n, c, h, w = shape
    whole = torch.randn(n, 2 * c, h, w).contiguous(memory_format=torch.channels_last)
    for x in (whole[:, :c], whole[:, :c].contiguous(), whole, whole.transpose(2, 3)):
        laid = by_pixels(x)
        pixels = laid.permute(0, 2, 3, 1)
        assert torch.equal(laid, x) and pixels.stride(3) == 1 or x.shape[1] == 1
        count = x.numel() // x.shape[1]
        found = pixels.as_strided((count, x.shape[1]), (pixel_step(pixels), 1))
        assert torch.equal(found, x.permute(0, 2, 3, 1).reshape(count, -1))
    assert by_pixels(whole[:, :c]).data_ptr() == whole.data_ptr()
