"""Who may import whom, and other promises about the tree that a reader can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffnas

SOURCE = Path(diffnas.__file__).parent
CODE = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}

# part -> the parts it may import when it is loaded; `errors` may be imported by all, `core` by nearly all
ARROWS = {
    "errors": set(),
    "core": set(),
    "kernels": set(),
    "spaces": {"kernels", "core"},
    "engine": {"core"},
    "methods": {"engine", "runtime", "core"},
    "tasks": {"core"},
    "data": {"core", "interop"},
    "interop": {"core", "yaml_text"},
    "runtime": {"kernels"},
    "draw": {"core", "runtime"},
    "run": {"runtime"},
    "yaml_text": set(),
    "sections": set(),
    "keys": {"sections", "spaces", "methods", "core"},
    "checks": {"keys", "plugins", "sections", "spaces", "yaml_text", "data", "core"},
    "registry": {"keys", "spaces", "engine", "data"},
    "plugins": {"registry", "runtime"},
    "recipe": {"checks", "keys", "plugins", "sections", "yaml_text", "runtime", "core"},
    "listing": {"recipe", "plugins", "keys", "yaml_text", "spaces", "methods", "data", "core"},
    "api": {"recipe", "checks", "keys", "plugins", "sections", "run", "runtime", "spaces", "interop", "core"},
    "checkup": {"runtime"},
    "pipeline": {
        "checkup",
        "plugins",
        "registry",
        "recipe",
        "sections",
        "keys",
        "engine",
        "spaces",
        "tasks",
        "data",
        "draw",
        "interop",
        "runtime",
        "run",
        "core",
    },
    "cli": {"runtime"},
    "__main__": {"cli"},
    "__init__": set(),
}


def part(module: str) -> str:
    """The first word after `diffnas.`, which is a folder or a file."""
    return module.split(".")[1] if "." in module else "__init__"


def loaded(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """The imports that run when the file is loaded: none within functions or `if TYPE_CHECKING`."""
    found: list[ast.Import | ast.ImportFrom] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        ):
            continue
        found += [child] if isinstance(child, ast.Import | ast.ImportFrom) else loaded(child)
    return found


def imports(path: Path) -> set[str]:
    """The parts of diffnas that the file at `path` imports when it is loaded."""
    names = set()
    for node in loaded(CODE[path]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module == "diffnas":
            names |= {f"diffnas.{alias.name}" for alias in node.names}
        else:
            names.add(str(node.module))
    return {part(name) for name in names if name.split(".")[0] == "diffnas"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows(path: Path) -> None:
    here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    strangers = imports(path) - ARROWS[here] - {here, "errors"}
    assert not strangers, f"{here} must not import {strangers}"


def test_pipeline_does_not_ask_which_method_runs() -> None:
    for path in (SOURCE / "pipeline").glob("*.py"):
        text = path.read_text()
        assert not re.search(r"method\.name\s*(==|!=|in\b)|isinstance\([^)]*method|\bDARTS\b", text), path


def test_nothing_is_evaluated_and_nothing_printed() -> None:
    for path, tree in CODE.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "print", "__import__"}, f"{path}: {node.func.id}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"echo", "secho"}, f"{path}: say it by runtime.terminal.say"
            if isinstance(node, ast.Attribute) and path.name != "terminal.py":
                assert ast.unparse(node) not in {"sys.stdout.write", "sys.stderr.write"}, path
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), path


def test_public_names_are_sorted_and_there() -> None:
    assert list(diffnas.__all__) == sorted(diffnas.__all__)
    for name in diffnas.__all__:
        assert getattr(diffnas, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        diffnas.serach  # noqa: B018


def test_importing_diffnas_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'matplotlib', 'sklearn', 'typer'}"
    code = f"import sys, diffnas; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_repository_names_no_places() -> None:
    root = SOURCE.parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    hosts = re.compile("py" + r"pi\.org|files\.python" + "hosted|/wo" + "rk/")
    for name in listed:
        path = root / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".cff", ""} and path.is_file():
            assert not hosts.search(path.read_text(errors="ignore")), name


def test_the_pages_are_finished() -> None:
    root = SOURCE.parents[1]
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text()
        assert not re.search(r"@[A-Z]+@|TODO|FIXME", text), page
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page}: {target}"
