"""What others build on: forms and workflows are sound, and say what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", ".github/PULL_REQUEST_TEMPLATE.md")]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms(path: Path) -> None:
    form = read(path)
    assert form["name"] and form["description"] and form["body"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["type"] in ("textarea", "input") and field["attributes"]["label"] for field in form["body"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows(path: Path) -> None:
    text, flow = path.read_text(encoding="utf-8"), read(path)
    assert flow[True] and flow["permissions"] == {"contents": "read"}  # YAML 1.1 reads the key `on` as true
    for job in flow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
    assert "://" not in text and "index" not in text  # packages come from wherever pip is told to look


def test_the_matrix_is_what_the_project_supports() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    least = PROJECT["project"]["requires-python"].removeprefix(">=")
    pythons = jobs["tests"]["strategy"]["matrix"]["python"]
    assert pythons[0] == least and pythons == ["3.11", "3.12", "3.13", "3.14"]
    (torch,) = (line for line in PROJECT["project"]["dependencies"] if line.startswith("torch>="))
    oldest = f"{torch.replace('>=', '==')}.0"
    assert {"python": least, "torch": oldest} in jobs["tests"]["strategy"]["matrix"]["include"]
    assert jobs["wheel"]["strategy"]["matrix"]["torch"] == [oldest, "torch"]


def test_pre_commit_runs_the_tools_that_are_installed() -> None:
    (repo,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local" and all(hook["language"] == "system" for hook in repo["hooks"])
    assert {hook["entry"].split()[0] for hook in repo["hooks"]} == {"ruff", "mypy"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_pages_name_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:src|tests|docs|examples)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"^make ([\w./-]+)", text, re.MULTILINE):
        assert target.replace(".venv", "$(VENV)") + ":" in (ROOT / "Makefile").read_text(encoding="utf-8"), target


def test_the_citation_is_of_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["title"].startswith("diffnas")
