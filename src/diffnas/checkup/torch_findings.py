"""The checks of `diffnas doctor` that need torch, in a process of their own: a line of JSON for each finding."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Literal

import torch

from diffnas.checkup.finding import Finding
from diffnas.core.batch import Batch
from diffnas.core.space import Shape
from diffnas.engine.stage import Clock
from diffnas.kernels import form as kernels
from diffnas.kernels import native
from diffnas.pipeline.stages import build
from diffnas.pipeline.supernet_weights import CosineSGD
from diffnas.recipe.recipe import read_recipe
from diffnas.recipe.schema import ImageSearch
from diffnas.runtime.compiling import no_compiler
from diffnas.runtime.room import in_words, lack_of_room
from diffnas.runtime.terminal import say
from diffnas.tasks.classification import Classification

SIZE = ["space.channels=8", "space.layers=2", "space.nodes=2", "data.side=8"]


def findings() -> Iterator[Finding | str]:
    """Yields the name of each check, then its finding, so that a crash can be attributed to a check."""
    yield "torch"
    yield processor_form()
    yield "kernels"
    yield compiled_kernels()
    for device in devices():
        if device.type == "cuda":
            yield f"{device}"
            yield gpu(device)
            yield f"kernels on {device}"
            yield kernels_on(device)
        yield f"search on {device}"
        yield search_step(device)
        yield f"compiler for {device}"
        yield compiler(device)
    if not torch.cuda.is_available():
        yield no_gpu()


def devices() -> list[torch.device]:
    """The processor, then every GPU."""
    return [torch.device("cpu"), *(torch.device("cuda", number) for number in range(torch.cuda.device_count()))]


def processor_form() -> Finding:
    """Reports torch's version, and its threads and instruction set on the processor."""
    facts = {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    return Finding(
        "torch", "ok", f"{facts['torch']}, {facts['threads']} threads, {facts['capability']} instructions", facts=facts
    )


def compiled_kernels() -> Finding:
    """Whether supernets are computed by compiled kernels."""
    said = f"convolutional supernets are computed by {native.described()}"
    facts = {"form": native.form()}
    remedy = "" if native.usable() or native.lack() is None else 'pip install "diffnas[fast]"'
    return Finding("kernels", "ok" if native.usable() else "note", said, remedy, facts)


def kernels_on(device: torch.device) -> Finding:
    """Whether supernets on a GPU are computed by Triton kernels, which are compiled for this, and compared with torch."""
    said, found = kernels.described(device), kernels.form(device)
    state: Literal["ok", "note"] = "ok" if found == "triton" else "note"
    return Finding(
        f"kernels on {device}", state, f"convolutional supernets are computed by {said}", facts={"form": found}
    )


def gpu(device: torch.device) -> Finding:
    """A GPU's name and memory."""
    name, (free, total) = torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)
    major, minor = torch.cuda.get_device_capability(device)
    facts = {"name": name, "free_memory": free, "memory": total, "capability": f"{major}.{minor}"}
    said = f"{name}, {in_words(free)} of {in_words(total)} of memory free, capability {major}.{minor}"
    return Finding(str(device), "ok", said, facts=facts)


def no_gpu() -> Finding:
    """Reports why no GPU can be used."""
    if torch.version.cuda is None:
        return Finding(
            "gpu", "note", "none is used: this torch is built without CUDA, so all is computed on the processor"
        )
    return Finding("gpu", "note", f"none is found by torch (built for CUDA {torch.version.cuda})")


def search_step(device: torch.device) -> Finding:
    """Whether a step of a search runs on `device` in both forms of the supernet, and gives the same loss."""
    name, seconds, losses, failed = f"search on {device}", {}, {}, {}
    for form in ("fast", "plain"):
        try:
            losses[form], seconds[form] = _step(form, device)
        except Exception as error:  # noqa: BLE001 (whatever fails here is what was looked for)
            lack = lack_of_room(error)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            failed[form] = reason if lack is None else lack.said
    facts = {"seconds": seconds, "losses": losses, "failed": failed}
    if "fast" in failed:
        works = "plain" in losses
        remedy = "--set search.supernet=plain" if works else "--set device=cpu" if device.type == "cuda" else ""
        return Finding(name, "bad", f"a step of the fast supernet fails: {failed['fast']}", remedy, facts)
    if "plain" in failed:
        return Finding(name, "bad", f"a step of the plain supernet fails: {failed['plain']}", facts=facts)
    if not math.isclose(losses["fast"], losses["plain"], rel_tol=1e-2):
        said = f"the fast and the plain supernet disagree: losses {losses['fast']:.5f} and {losses['plain']:.5f}"
        return Finding(name, "bad", said, "--set search.supernet=plain", facts)
    return Finding(
        name, "ok", f"steps of the fast and the plain supernet run and agree ({seconds['fast']:.2f} s)", facts=facts
    )


def _step(form: str, device: torch.device) -> tuple[float, float]:
    """Runs two steps of a tiny search on random images; returns the loss and the seconds of the second step."""
    recipe = read_recipe("darts-digits-tiny", [*SIZE, f"search.supernet={form}"])
    assert recipe.method is not None and recipe.space is not None and isinstance(recipe.search, ImageSearch)
    shape = Shape(10, 3, 8)
    draws = torch.Generator().manual_seed(0)
    images, targets = torch.randn(8, 3, 8, 8, generator=draws), torch.randint(10, (8,), generator=draws)
    batch = Batch(images.to(device, memory_format=torch.channels_last), targets.to(device))
    stage = recipe.method.stages(1, recipe.space.size)[0]
    search = build(
        recipe, recipe.space, stage, Clock(), CosineSGD(recipe.search.weights), 1.0, device, {}, shape, Classification()
    )
    for _ in range(2):
        started = time.monotonic()
        losses = recipe.method.step(search, {"train": batch, "valid": batch})
        loss = losses["train"].value.item()
    return loss, time.monotonic() - started


def compiler(device: torch.device) -> Finding:
    """Whether `search.compile=on` and `train.compile=on` would compile anything."""
    reason = no_compiler(device)
    if reason is None:
        return Finding(
            f"compiler for {device}", "ok", "there is one: search.compile=on and train.compile=on may be tried"
        )
    remedy = "install a C++ compiler (g++)" if device.type == "cpu" else "pip install triton"
    return Finding(
        f"compiler for {device}", "note", f"{reason}: search.compile=on and train.compile=on have no effect", remedy
    )


def main(tell: Callable[[str], None]) -> None:
    """Sends every finding, and the name of each check before it, as JSON."""
    for finding in findings():
        tell(json.dumps({"begins": finding} if isinstance(finding, str) else asdict(finding)))


if __name__ == "__main__":
    main(say)
