"""`diffnas doctor`: it finds what works, and what does not without failing itself."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas.checkup import findings
from diffnas.checkup import torch_findings as computing
from diffnas.checkup.finding import Finding
from diffnas.checkup.findings import described
from diffnas.cli.main import main

ROOT = Path(__file__).parents[2]


def test_what_is_needed_is_what_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = [re.match(r"([\w-]+)>=([\d.]+)", line) for line in project["dependencies"]]
    assert {pin[1]: pin[2] for pin in pins if pin} == findings.NEEDED and len(pins) == len(findings.NEEDED)
    extras = project["optional-dependencies"]
    extra = (*extras["data"], *extras["jpeg"], *extras["fast"], *extras["board"])
    assert {line.partition(">")[0] for line in extra} == set(findings.EXTRA)


def test_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["works"] and not list(tmp_path.iterdir())
    states = {each["name"]: each["state"] for each in found["findings"]}
    assert states["torch"] == states["packages"] == states["disk"] == states["search on cpu"] == "ok"
    assert states["environment"] == "note" and "compiler for cpu" in states
    facts = next(each["facts"] for each in found["findings"] if each["name"] == "search on cpu")
    assert facts["losses"]["fast"] == pytest.approx(facts["losses"]["plain"], rel=1e-2)
    lines = list(described(found))
    assert lines[-1] == "everything needed works" and all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "raise ImportError('libcudart.so: cannot open shared object file')",
            "cannot be used: ImportError: libcudart.so",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "crashed (6: SIGABRT)"),
    ],
)
def test_a_torch_that_is_broken(code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = findings.computing()
    assert (found.name, found.state) == ("torch", "bad") and said in found.said and "pip install" in found.remedy


def test_where_a_check_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [json.dumps({"begins": "torch"}), "hello from a library", json.dumps({"begins": "search on cpu"})]

    class Child:
        returncode, stdout, stderr = -11, "\n".join(told), ""

    monkeypatch.setattr("subprocess.run", lambda *arguments, **more: Child)
    (found,) = findings.computing()
    assert found == Finding("search on cpu", "bad", "crashed (11: SIGSEGV)")


def test_what_is_missing_is_said_with_what_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"torch": "1.9.0", "numpy": "2.0.0", "datasets": ""}
    monkeypatch.setattr(findings, "_version", lambda name: versions.get(name, "99.0"))
    monkeypatch.setattr(findings, "_broken", lambda name: "ImportError: no" if name == "pillow" else "")
    monkeypatch.setattr(findings, "CHECKS", (findings.packages, findings.extras))
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok")]
    text = "\n".join(lines)
    assert "bad   torch" in text and "1.9.0 is too old; 2.11 or newer is needed" in text
    assert '-> pip install "torch>=2.11"' in text and "-> pip install datasets" in text
    assert "is not installed, which is needed for CIFAR" in text and "cannot be loaded: ImportError: no" in text
    assert lines[-1] == "does not work: torch, pillow"
    assert diffnas.doctor()["works"] is False


def test_a_busy_machine_and_a_disk_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    assert [found.state for found in findings.processor() if found.name == "load"] == ["note"]
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.0, 0.0), raising=False)
    assert [found.state for found in findings.processor() if found.name == "load"] == ["ok"]

    def full(*arguments: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(findings, "write_bytes", full)
    (found,) = findings.disk()
    assert found.state == "bad" and found.said == "./ cannot be written: Read-only file system"


@pytest.mark.parametrize(
    ("fast", "plain", "state", "said", "remedy"),
    [
        (2.3, 2.3001, "ok", "run and agree", ""),
        (2.3, 2.5, "bad", "disagree: losses 2.30000 and 2.50000", "--set search.supernet=plain"),
        (
            RuntimeError("no\nkernel"),
            2.3,
            "bad",
            "fast supernet fails: RuntimeError: no kernel",
            "--set search.supernet=plain",
        ),
        (MemoryError(), MemoryError(), "bad", "fast supernet fails: the memory is full", ""),
        (2.3, RuntimeError("no"), "bad", "plain supernet fails", ""),
    ],
)
def test_a_step_that_fails(
    fast: Any, plain: Any, state: str, said: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(form: str, device: torch.device) -> tuple[float, float]:
        outcome = {"fast": fast, "plain": plain}[form]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, 0.1

    monkeypatch.setattr(computing, "_step", step)
    found = computing.search_step(torch.device("cpu"))
    assert (found.state, found.remedy) == (state, remedy) and said in found.said
    json.dumps(found.facts)


def test_versions_are_compared_by_number() -> None:
    assert findings._numbers("2.9.1+cpu") < findings._numbers("2.11") <= findings._numbers("2.11.0rc1")
    assert findings._numbers("") == ()
