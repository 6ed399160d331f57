"""What others named or wrote reaches a terminal as text only, however it gets into a line."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from diffnas.core.published_genotypes import published

pty = pytest.importorskip("pty")

# a title, a question that the terminal would answer, marks of direction and without width, and a markup of rich
FORMATS = "\u202e\u2066\u200b\u061c\ufeff\x9b"
NAME = f"e\x1b]0;OWNED\x07\x1b[6n{FORMATS}\x7f\x08\r\n\u2028[red]X"
EVIL = f"{NAME}[/red][link=x]y[/link]/z"
RAW = ("\x1b]0;", "\x1b[6n", *FORMATS, "\x7f", "\x08", "\u2028")
TINY = "darts-digits-tiny"
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
RUNNER = """
import json, os, sys
from diffnas.cli.main import main
for number, arguments in enumerate(json.load(open(sys.argv[1]))):
    print(f"way {number}", flush=True)
    print("code", main(arguments), flush=True)
"""


def on_a_terminal(arguments: list[str], folder: Path) -> str:
    """What `arguments` run in `folder` writes to a terminal."""
    own, its = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen(arguments, stdin=its, stdout=its, stderr=its, cwd=folder, env=environment)
    os.close(its)
    shown, deadline = b"", time.monotonic() + 300
    try:
        while time.monotonic() < deadline:
            if not select.select([own], [], [], 0.2)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                shown += os.read(own, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
    finally:
        os.close(own)
        process.kill()
        process.wait()
    return shown.decode("utf-8", "surrogateescape")


def recipes(folder: Path) -> list[list[str]]:
    """Commands that refuse recipes."""
    wrong = [
        {EVIL: 1},
        {"search": {EVIL: 1}},
        {"search": {"weights": {EVIL: 1}}},
        {"search": {"epochs": EVIL}},
        {"search": {"epochs": [EVIL]}},
        {"name": EVIL},
        {"device": EVIL},
        {"data": {"name": EVIL}},
        {"data": {"name": "folder", "path": EVIL}},
        {"space": {"name": EVIL}},
        {"space": {"name": "darts-cnn", "ops": [EVIL, "none"]}},
        {"method": {"name": EVIL}},
        {"method": {"name": "budget", "base": EVIL}},
        {"method": {"name": "budget", "base": "darts", "base_settings": {EVIL: 1}}},
        {"method": {"name": "budget", "base": "darts", "table": EVIL}},
        {"extends": EVIL},
    ]
    ways = []
    for number, content in enumerate(wrong):
        path = folder / f"{number}.yaml"
        path.write_text(json.dumps({"extends": TINY} | content))
        ways.append(["search", path.name])
    (folder / "twice.yaml").write_text(f"{json.dumps(EVIL)}: 1\n{json.dumps(EVIL)}: 2\n")
    (folder / f"{NAME}.yaml").write_text("foo: 1")
    return [*ways, ["search", "twice.yaml"], ["search", f"{NAME}.yaml"]]


def typed() -> list[list[str]]:
    """Commands that are mistyped, or name what is not there."""
    return [
        [NAME],
        ["search", f"--{NAME}"],
        ["list", EVIL],
        ["search", TINY, EVIL],
        ["search", EVIL],
        ["search", TINY, "--set", f"{EVIL}=1"],
        ["search", TINY, "--set", f"data.path={{{EVIL}"],
        ["search", TINY, "--set", f"device={EVIL}"],
        ["search", "--resume", EVIL],
        ["train", "--resume", EVIL],
        ["train", EVIL, "--recipe", TINY],
        ["train", "darts-v2", "--recipe", EVIL],
        ["test", EVIL],
        ["lookup", f"|{EVIL}~0|"],
        ["lookup", CELL, "--table", EVIL],
        ["data", "nasbench201", EVIL],
    ]


def files(folder: Path) -> list[list[str]]:
    """Commands that read what others wrote."""
    good = json.loads(published("darts-v2").to_json())
    for name, change in {
        "op": {"cells": {"normal": {"concat": [2], "inputs": [[[EVIL, 0]]]}}},
        "kind": {"cells": {EVIL: {"concat": [2], "inputs": [[["none", 0]]]}}},
        "space": {"space": EVIL},
        "format": {"format": EVIL},
        "provenance": {"provenance": {"name": EVIL, EVIL: [EVIL]}},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(good | change))
    (folder / NAME).write_text("{")
    (folder / "columns.csv").write_text(f'"{EVIL}",b\n1,2\n', encoding="utf-8", newline="")
    (folder / "device.csv").write_text(f'arch_str,"latency_ms_{EVIL}"\n"{CELL}",3\n', encoding="utf-8", newline="")
    return [
        *(["show", f"{name}.json", "--stats"] for name in ("op", "kind", "space", "format", "provenance")),
        ["show", "provenance.json", "--json"],
        ["show", NAME],
        ["show", "darts-v2", "--out", f"pictures{NAME}"],
        ["lookup", CELL, "--table", "columns.csv"],
        ["lookup", CELL, "--latency", "device.csv"],
        ["lookup", CELL, "--latency", "device.csv", "--json"],
    ]


def computed(folder: Path) -> list[list[str]]:
    """Commands that read data and run."""
    for part in ("train/a", "train/b", "test/a", f"test/{NAME}"):
        (folder / "images" / part).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (90 * number, 40, 40)).save(folder / "images" / part / f"{number}.png")
    limits = [
        "data.train_limit=64",
        "data.test_limit=64",
        "search.epochs=1",
        "search.batch=16",
        "search.validate_every=0",
    ]
    sets = [word for limit in limits for word in ("--set", limit)]
    images = ["data.name=folder", "data.path=images", "data.side=8", "data.train_limit=null", "data.test_limit=null"]
    return [
        ["search", TINY, *(word for key in images for word in ("--set", key))],
        ["search", TINY, *sets, "--run", f"run{NAME}"],
    ]


def test_nothing_reaches_a_terminal_raw(tmp_path: Path) -> None:
    ways = [*typed(), *recipes(tmp_path), *files(tmp_path), *computed(tmp_path)]
    (tmp_path / "ways.txt").write_text(json.dumps(ways))
    shown = on_a_terminal([sys.executable, "-c", RUNNER, "ways.txt"], tmp_path)
    parts = shown.split("way ")[1:]
    assert len(parts) == len(ways) > 40, shown[-3000:]
    for arguments, part in zip(ways, parts, strict=True):
        assert "code 0" in part or "code 2" in part, (arguments, part)
        leaked = [ascii(raw) for raw in RAW if raw in part]
        assert not leaked, (arguments, leaked, part)
        assert "\r" not in part.replace("\r\n", "").replace("\r\x1b[2K", "") or "search 1/1" in part, (
            arguments,
            part,
        )
    said = "".join(parts)
    assert said.count(r"\x1b]0;OWNED") > 20 and "[red]X[/red][link=x]y[/link]" in said  # they are shown, spelt out
    assert not (tmp_path / "diffnas-error.log").exists()
