"""Who may import whom, and other promises about the tree that a reader can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffnas

SOURCE = Path(diffnas.__file__).parent
CODE = {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}

# part -> the parts it may import; `errors` may be imported by all, `core` by nearly all
ARROWS = {
    "errors": set(),
    "core": set(),
    "kernels": set(),
    "runtime": {"kernels"},
    "spaces": {"kernels", "core"},
    "engine": {"core", "runtime"},
    "methods": {"engine", "runtime", "core"},
    "tasks": {"core"},
    "interop": {"core", "runtime"},
    "data": {"core", "interop"},
    "draw": {"core", "runtime"},
    "registry_checks": {"tasks", "data", "core"},
    "registry": {"registry_checks", "methods", "spaces", "tasks", "engine", "data", "core"},
    "plugins": {"registry", "runtime"},
    "recipe": {"registry", "plugins", "engine", "tasks", "data", "runtime", "core"},
    "reports": {"recipe", "registry", "draw", "interop", "runtime", "core"},
    "boards": {"reports", "runtime"},
    "sinks": {"runtime"},
    "pipeline": {
        "sinks",
        "reports",
        "recipe",
        "plugins",
        "registry",
        "engine",
        "spaces",
        "tasks",
        "data",
        "draw",
        "interop",
        "runtime",
        "kernels",
        "core",
    },
    "checkup": {"pipeline", "kernels", "recipe", "engine", "tasks", "runtime", "core", "__init__"},
    "starters": {"registry", "registry_checks", "data", "runtime"},
    "testing": {"methods", "spaces", "engine", "tasks", "core"},
    "api": {
        "starters",
        "boards",
        "checkup",
        "pipeline",
        "reports",
        "recipe",
        "plugins",
        "registry",
        "spaces",
        "interop",
        "runtime",
        "core",
    },
    "cli": {
        "starters",
        "api",
        "boards",
        "checkup",
        "pipeline",
        "reports",
        "recipe",
        "plugins",
        "registry",
        "data",
        "draw",
        "interop",
        "runtime",
        "core",
        "__init__",
    },
    "__main__": {"cli"},
    "__init__": {
        "testing",
        "api",
        "pipeline",
        "tasks",
        "data",
        "recipe",
        "registry",
        "spaces",
        "methods",
        "engine",
        "interop",
        "runtime",
        "core",
    },
}
LATE = {"datasets", "pyarrow", "sklearn"}  # what is optional, and what takes a while to load and few need


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in CODE}


def imported(path: Path) -> Iterator[tuple[str, ast.AST, bool]]:
    """Every module that a file names: by an import, one within a function included, or by a string.

    With each the node, and whether it is for types alone.
    """
    typed = {
        id(inner)
        for node in ast.walk(CODE[path])
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(CODE[path]):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            joined = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in joined]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [name for name in [node.value.partition(":")[0]] if name in MODULES and "." in name]
        yield from ((name, node, id(node) in typed) for name in names)


def part(module: str) -> str:
    """The first word after `diffnas.`, which is a folder or a file."""
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows(path: Path) -> None:
    """Imports run down only, those within functions and those by name included."""
    here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    names = {name for name, _, _ in imported(path) if name.split(".")[0] == "diffnas"}
    strangers = {part(name) for name in names} - ARROWS[here] - {here, "errors"}
    assert not strangers, f"{here} must not import {strangers}"


def test_no_circles() -> None:
    """No module imports one that imports it, by however many steps; `diffnas` itself loads its names on first use."""
    ahead = {
        module: {name for name, _, typed in imported(path) if name in MODULES and name != module and not typed}
        for module, path in MODULES.items()
        if module != "diffnas"
    }
    while free := [module for module, names in ahead.items() if not names & ahead.keys()]:
        for module in free:
            del ahead[module]
    assert not ahead, sorted(ahead)


def test_imports_stand_at_the_top() -> None:
    """Within functions there are only those of optional packages; commands and the registry load what they need."""
    for path, tree in CODE.items():
        if path.relative_to(SOURCE).parts[0] not in {"engine", "methods", "spaces", "tasks", "data", "pipeline"}:
            continue
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                    assert str(name).split(".")[0] in LATE, f"{path}:{node.lineno}"


def test_only_the_registry_names_methods_and_spaces() -> None:
    for path in CODE:
        for name, node, _ in imported(path):
            named = isinstance(node, ast.Constant) and part(name) in {"methods", "spaces"}
            assert not named or path.name in {"registry.py", "__init__.py"}, f"{path}: {name}"


def test_pipeline_does_not_ask_which_method_runs() -> None:
    for path in (SOURCE / "pipeline").rglob("*.py"):
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
