"""A cut connection between two machines, which are two network namespaces here: it takes root, Linux and iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffnas.cli.main import main
from diffnas.runtime.run_folder import Run

pytestmark = pytest.mark.slow
TINY = ["-s", "search.batch=8", "-s", "data.train_limit=40", "-s", "data.test_limit=60", "-q", "-s", "device=cpu"]
TINY += ["-s", "space.channels=2", "-s", "space.layers=2", "-s", "space.nodes=1"]
ALLOWED = 10  # seconds


def ip(*words: str) -> None:
    """Runs iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[tuple[str, str, str]]]:
    """The name, the interface and the address of each of two machines that are joined by a cable."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    number = os.getpid() % 10_000
    made = [(f"dn{number}-{k}", f"dn{number}v{k}", f"10.77.1.{k + 1}") for k in (0, 1)]
    try:
        for name, _, _ in made:
            ip("netns", "add", name)
        ip("link", "add", made[0][1], "type", "veth", "peer", "name", made[1][1])
        for name, link, address in made:
            ip("link", "set", link, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield made
    except subprocess.CalledProcessError:
        pytest.skip("network namespaces cannot be made here")
    finally:
        for name, _, _ in made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def pull(machines: list[tuple[str, str, str]]) -> None:
    """Takes the link down."""
    ip("-n", machines[1][0], "link", "set", machines[1][1], "down")


def swallow(machines: list[tuple[str, str, str]]) -> None:
    """Sends all that either machine says to nobody; neither is told."""
    for (name, link, _), (_, _, other) in (machines, machines[::-1]):
        ip("-n", name, "neigh", "replace", other, "lladdr", "02:00:00:00:00:01", "dev", link, "nud", "permanent")


@pytest.mark.parametrize("cut", [pull, swallow])
def test_each_side_ends_and_the_run_goes_on(tmp_path: Path, machines: list[tuple[str, str, str]], cut: object) -> None:
    run, main_address = tmp_path / "run", f"{machines[0][2]}:29577"
    words = ["search", "darts-digits-tiny", *TINY, "-s", "search.epochs=900", "--run", str(run), "--nodes", "2"]
    words += ["--main", main_address, "--rank-timeout", str(ALLOWED)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIFFNAS_KERNELS": "torch"}
    started = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-m", "diffnas", *words, "--node-rank", str(k)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k, (name, _, _) in enumerate(machines)
    ]
    try:
        end = time.monotonic() + 100
        while not any(Run(run).search.checkpoints.glob("*.pt")) and time.monotonic() < end:
            time.sleep(0.2)
        assert callable(cut)
        cut(machines)
        said = [process.communicate(timeout=60)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    for k, process in enumerate(started):
        assert process.returncode == 1 and said[k].count("\n") == 1, said
        other = f"process {1 - k} of 2 on {machines[1 - k][2]} has died, has stopped, or its connection is lost"
        go_on = f"diffnas search --resume {run} --devices 1 --nodes 2 --node-rank {k} --main {main_address}"
        assert other in said[k] and f"{go_on} --rank-timeout {ALLOWED}\n" in said[k]
    assert main(["search", "--resume", str(run), "-s", "search.epochs=1"]) == 0
    assert Run(run).search.genotype.is_file()
