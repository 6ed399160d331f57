"""Run folders as commands leave them, made without any search."""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from diffnas.core.published_genotypes import published
from diffnas.recipe.recipe import read_recipe

GOLDENS = Path(__file__).parents[1] / "goldens"
VOID = {"meta", "input", "br", "rect", "path", "circle", "polygon", "polyline", "hr"}


class Page(HTMLParser):
    """What a page holds: its elements, the text of all but style and script, and whatever would be requested or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.open, self.tags, self.said, self.active = (
            html,
            list[str](),
            list[str](),
            list[str](),
            list[str](),
        )
        self.feed(html)
        self.close()
        assert not self.open, self.open
        self.text = " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            wanted = (
                name in {"src", "srcset", "data", "action", "xlink:href"} or name.startswith("on") or name == "style"
            )
            if wanted or (name == "href" and not str(value).startswith("#")):
                self.active.append(f"{tag} {name}={value}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.said.append(data)


def steps(epoch: int) -> dict[str, list[list[float]]]:
    """Strengths of 14 edges and 8 ops that become decided."""
    rows = [[math.exp(epoch * 0.05 * ((e + o) % 8)) for o in range(8)] for e in range(14)]
    return {kind: [[v / sum(row) for v in row] for row in rows] for kind in ("normal", "reduce")}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder of a DARTS search on CIFAR-10, with a tested training where `accuracy` is given."""

    def make(
        name: str = "run",
        epochs: int = 6,
        overrides: tuple[str, ...] = (),
        accuracy: float | None = 97.0,
        recipe: str = "darts-cifar10",
        **environment: Any,
    ) -> Path:
        run, chosen = tmp_path / name, read_recipe(recipe, overrides)
        genotypes = [published("darts-v1"), published("darts-v2"), published("pdarts")]
        around = {"device": "NVIDIA H100", "diffnas": "0.1.0", "torch": "2.15.0", "commit": "abc", "attempts": [{}]}
        for part in ("search", *(["train/main"] if accuracy is not None else [])):
            write(run / part / "recipe.yaml", chosen.to_yaml())
            write(run / part / "environment.json", around | environment)
            write(run / part / "genotype.json", genotypes[-1].to_json())
        rows = [
            {"epoch": e, "stage": 0, "train_loss": 2 - e / 50, "score_loss": 2.1 - e / 60, "train_accuracy": 30 + e}
            | {"skips_normal": e % 3, "eigenvalue": 0.1 + e / 99, "strength": steps(e), "seconds": 864.0}
            for e in range(epochs)
        ]
        write(run / "search" / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
        for e in range(epochs):
            write(run / "search" / "genotypes" / f"epoch-{e + 1:03d}.json", genotypes[e % 3].to_json())
        write(run / "search" / "finished.json", {"format": "diffnas-finished-1", "epochs": epochs})
        if accuracy is not None:
            write(run / "train" / "main" / "weights.safetensors", "")
            row = {"epoch": 0, "train_loss": 1.0, "test_loss": 1.1, "test_accuracy": 50.0, "seconds": 9.0}
            write(run / "train" / "main" / "metrics.jsonl", json.dumps(row) + "\n")
            test = {
                "accuracy": accuracy,
                "interval": [accuracy - 1, accuracy + 1],
                "n": 100,
                "params": 3.3e6,
                "macs": 5e8,
            }
            write(run / "train" / "main" / "test.json", test)
        return run

    return make


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str], Path]:
    """Unpacks a run folder that an earlier version wrote."""

    def unpack(name: str) -> Path:
        with tarfile.open(GOLDENS / f"run_{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        return tmp_path / name

    return unpack
