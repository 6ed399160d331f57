"""Methods, spaces, data sets and ops in files outside the package, with every command."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas import plugins, registry
from diffnas.cli.main import main
from diffnas.data import DATA
from diffnas.data.texts import TEXTS
from diffnas.errors import PluginError, RecipeError
from diffnas.methods.darts import DARTS
from diffnas.recipe.plugins_used import used_by
from diffnas.registry import METHODS, SPACES
from diffnas.spaces.darts_cnn.layout import SEARCHED_OPS
from diffnas.spaces.darts_cnn.ops import OPS

METHOD = '''
"""A softmax that sharpens."""
from dataclasses import dataclass
from typing import ClassVar

import diffnas


@diffnas.register
@dataclass(frozen=True)
class Sharp(diffnas.Method):
    """Shares to a power that grows."""

    name: ClassVar[str] = "sharp"
    power: float = diffnas.setting(2.0, "the power at the end", gt=0)

    def relax(self, search, use, batch=None):
        power = 1.0 + (self.power - 1.0) * search.clock.stage_epoch / search.clock.epochs
        return search.arch().map(lambda share: share**power / (share**power).sum(-1, keepdim=True))
'''
OP = """
from torch import nn
import diffnas

def conv(channels, stride, affine):
    layers = nn.Conv2d(channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels, affine=affine)
    return nn.Sequential(nn.ReLU(), *layers)

diffnas.register(diffnas.Op("own_conv", conv))
"""
DATA_SET = """
import torch
import diffnas

def part(count, seed):
    labels = torch.arange(count) % 2
    images = torch.randint(0, 90, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    images[labels == 1, :, :4] += 150
    return images, labels

def read(path):
    return {"train": part(128, 0), "test": part(40, 1)}

diffnas.register(diffnas.ImageSet("halves", read, classes=("even", "top"), side=8, channels=1))
"""
TEXT_SET = """
import diffnas

def read(path):
    words = ["a b c <unk> d", "b a d c"] * 40
    return {"train": words, "valid": "a b c\\nd e", "test": "c d a b\\n" * 9}

diffnas.register(diffnas.TextSet("letters", read, about="four letters"))
"""
SPACE = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

import diffnas


@diffnas.register
@dataclass(frozen=True)
class Thin(diffnas.CellSpace):
    """Cells of 1x1 and 3x3 convolutions."""

    name: ClassVar[str] = "thin"
    nodes: int = diffnas.setting(1, "nodes of a cell", ge=1)
    ops: tuple[str, ...] = diffnas.setting(("none", "skip", "conv_1", "conv_3"), "candidate ops", min_length=1)

    def op(self, name, channels, stride, affine):
        if name == "skip" and stride == 1:
            return nn.Identity()
        size = 3 if name == "conv_3" else 1
        layers = nn.Conv2d(channels, channels, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels, affine=affine)
        return nn.Sequential(nn.ReLU(), *layers)
'''
FILES = {"my_method": METHOD, "my_op": OP, "my_data": DATA_SET, "my_space": SPACE}
SETTINGS = [
    "method={name: sharp, power: 3}",
    "space={name: thin, channels: 4, layers: 3}",
    "data={name: halves, train_limit: null, test_limit: null}",
    "search.epochs=2",
    "search.batch=32",
    "train.epochs=1",
    "train.batch=32",
    "train.channels=4",
    "train.layers=3",
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Everything as it was: what is registered, and the modules that did it."""
    tables: list[Any] = [METHODS, SPACES, DATA, TEXTS, OPS, registry.OWNERS, plugins._files]
    before = [dict(table) for table in tables]
    ops, modules, installed = list(SEARCHED_OPS), set(sys.modules), plugins._installed
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    SEARCHED_OPS[:] = ops
    plugins._installed = installed
    for name in set(sys.modules) - modules:
        if name.startswith(("diffnas_plugin_", "their_")):
            del sys.modules[name]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, text in FILES.items():
        found[name] = tmp_path / f"{name}.py"
        found[name].write_text(text)
    return found


def written(tmp_path: Path, text: str, name: str = "own.py") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def forget() -> None:
    """As a new process would be."""
    for (kind, name), _ in list(registry.OWNERS.items()):
        {"method": METHODS, "space": SPACES, "data": DATA, "op": OPS}[kind].pop(name)
        if kind == "op":
            SEARCHED_OPS.remove(name)
    registry.OWNERS.clear()
    plugins._files.clear()


def test_every_command_with_four_files(files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    run, given = str(tmp_path / "run"), [word for path in files.values() for word in ("--plugin", str(path))]
    sets = [word for setting in SETTINGS for word in ("-s", setting)]
    assert main(["search", "darts-digits-tiny", "--run", run, *given, *sets]) == 0
    noted = json.loads((tmp_path / "run" / "search" / "environment.json").read_text())["plugins"]
    for command in (["search", "--resume", run], ["train", run], ["show", run, "--stats"]):
        forget()
        capsys.readouterr()
        assert main(command) == 2
        said = capsys.readouterr().err
        for kind, name in (("method", "my_method"), ("space", "my_space"), ("data", "my_data")):
            assert f"{kind}.name: " in said and f"this run was made with --plugin {files[name]}" in said
    out = str(tmp_path / "pictures")
    assert main(["search", "--resume", run, *given, "-s", "search.epochs=3"]) == 0
    assert main(["train", run, *given]) == 0
    assert main(["test", run, *given, "--json"]) == 0
    assert main(["show", run, *given, "--stats", "--out", out]) == 0
    own = ["-s", "space={name: darts-cnn, channels: 4, layers: 3, nodes: 1, ops: [none, skip_connect, own_conv]}"]
    assert main(["search", "darts-digits-tiny", "--run", f"{run}-op", *given, *sets, *own]) == 0
    noted += json.loads((tmp_path / "run-op" / "search" / "environment.json").read_text())["plugins"]
    assert {(entry["kind"], entry["name"]) for entry in noted} == set(registry.OWNERS)
    assert {entry["file"] for entry in noted} == {str(path) for path in files.values()}
    assert main(["train", f"{run}-op", *given]) == 0
    files["my_method"].write_text(METHOD + "\n# another\n")
    capsys.readouterr()
    assert main(["search", "--resume", run, *given, "-s", "search.epochs=4"]) == 2
    changed = f"{files['my_method']}: has changed since the run began, and method sharp is defined there"
    assert f"{changed}; put it back" in capsys.readouterr().err
    assert main(["show", run, *given, "--out", out]) == 0
    assert changed in capsys.readouterr().err


def test_lists_and_refusals_know_their_settings(files: dict[str, Path], capsys: Any) -> None:
    given = ["--plugin", str(files["my_method"])]
    assert main(["list", "methods", *given]) == 0
    assert "Shares to a power that grows. A softmax that sharpens. [power=2.0]" in capsys.readouterr().out
    assert main(["list", "keys", *given]) == 0
    assert "method.power" in capsys.readouterr().out
    for setting, said in (
        ("method={name: sharp, powr: 1}", "method.powr is unknown; did you mean method.power?"),
        ("method={name: sharp, power: 0}", "must be a number above 0; got 0"),
        ("method={name: shrap}", "'shrap' is unknown; did you mean sharp?"),
    ):
        assert main(["search", "darts-digits-tiny", *given, "-s", setting]) == 2
        assert said in capsys.readouterr().err


def test_a_wrapper_takes_a_method_of_ones_own(files: dict[str, Path]) -> None:
    settings = ["method={name: budget, base: sharp, base_settings: {power: 4}, weight: 0.1}"]
    recipe = diffnas.read_recipe("darts-digits-tiny", settings, plugins=[files["my_method"]])
    assert recipe.method is not None and recipe.method.base.power == 4  # type: ignore[attr-defined]
    assert {name for _, name in used_by(recipe)} == {"sharp"}


def test_an_own_op_is_the_same_in_both_forms(files: dict[str, Path]) -> None:
    plugins.load_plugins([files["my_op"]])
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for form in ("plain", "fast"):
        torch.manual_seed(0)
        supernet = diffnas.build_supernet(
            "darts-cnn",
            form=form,
            channels=4,
            layers=3,
            nodes=2,
            ops=("skip_connect", "own_conv"),
            in_channels=1,
            side=8,
        ).double()
        draws = torch.Generator().manual_seed(1)
        mixture = {
            kind: diffnas.Mix(torch.rand(5, 2, generator=draws, dtype=torch.float64)) for kind in ("normal", "reduce")
        }
        logits = supernet(images, diffnas.Mixture(mixture))
        logits.square().sum().backward()
        found.append((logits, [parameter.grad for parameter in supernet.parameters()]))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-9, atol=1e-12)
    for plain, fast in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(plain, fast, rtol=1e-8, atol=1e-10)


def test_a_text(tmp_path: Path, capsys: Any) -> None:
    """Searched and trained on, resumed by name, listed; a word that its training part lacks is `<unk>`."""
    path, run = str(written(tmp_path, TEXT_SET)), str(tmp_path / "run")
    small = [
        "data.name=letters",
        "space.units=4",
        "space.steps=2",
        "search.batch=2",
        "search.epochs=1",
        "search.bptt=5",
    ]
    small += [
        "train.units=4",
        "train.batch=2",
        "train.epochs=1",
        "train.bptt=5",
        "train.valid_batch=1",
        "search.valid_batch=2",
    ]
    options = [part for setting in small for part in ("--set", setting)]
    assert main(["search", "darts-ptb", "--plugin", path, "--run", run, "-q", *options]) == 0
    assert main(["train", run, "--plugin", path, "-q"]) == 0
    assert main(["test", run, "--plugin", path, "--json"]) == 0
    assert diffnas.load_network(run).words == ("a", "b", "c", "<unk>", "d", "<eos>")
    capsys.readouterr()
    assert main(["list", "data", "--plugin", path]) == 0
    assert re.search(r"^letters +four letters$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ('"test": ', '"tset": '),
            "letters: read gives ['train', 'tset', 'valid']; it must give train, valid and test",
        ),
        (('"a b c\\nd e"', "[3]"), "data set letters: valid must be a string, or lines that are strings"),
        (("words = ", "words = 1 / 0 or "), "data set letters: read(None) failed: ZeroDivisionError: division by zero"),
        (("<unk> ", ""), "data set letters valid line 2: the word 'e' is not in data set letters train"),
    ],
)
def test_a_text_that_cannot_be_read(change: tuple[str, str], said: str, tmp_path: Path, capsys: Any) -> None:
    path = written(tmp_path, TEXT_SET.replace(*change))
    arguments = [
        "search",
        "darts-ptb",
        "--plugin",
        str(path),
        "--run",
        str(tmp_path / "run"),
        "-s",
        "data.name=letters",
    ]
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1/0", "cannot be loaded: ZeroDivisionError: division by zero (line 1)"),
        ("import sys\nsys.exit(3)", "cannot be loaded: SystemExit: 3 (line 2)"),
        ("x = (", "cannot be loaded: SyntaxError"),
        ("import diffnas\ndiffnas.register(3)", "register: 3 is no method, task or space"),
        (METHOD.replace('"sharp"', '"darts"'), "method 'darts': is a name of diffnas's own"),
        (METHOD.replace('"sharp"', '"../x"'), "its name is '../x'; a name is small letters and digits"),
        (
            METHOD.replace("@dataclass(frozen=True)\n", ""),
            "Sharp must be a dataclass: put @dataclass(frozen=True) above it",
        ),
        (METHOD.replace("power: float", "power: 'Nothing'"), "its fields cannot be settings"),
        (OP.replace("stride, bias", "1, bias"), "makes [2, 4, 8, 8] of images [2, 4, 8, 8]; it must make [2, 4, 4, 4]"),
        (OP.replace("channels, channels", "channels, 5"), "op 'own_conv': build(4, 1, False) on images [2, 4, 8, 8]: "),
        (OP.replace("own_conv", "skip_connect"), "op 'skip_connect': is a name of diffnas's own"),
        (DATA_SET.replace('("even", "top")', '("top", "top")'), "data 'halves': classes must be names, each once"),
        (
            "import diffnas\nclass S:\n    name = 's'\n    cells = supernet = network = None\ndiffnas.register(S)",
            "lacks modality",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(text: str, said: str, tmp_path: Path, capsys: Any) -> None:
    path = written(tmp_path, text)
    assert main(["list", "methods", "--plugin", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"diffnas: --plugin {path}: ") and said in lines[0]


def test_all_that_cannot_be_loaded_is_said_at_once(tmp_path: Path, capsys: Any) -> None:
    quiet = written(tmp_path, "x = 1", "quiet.py")
    assert main(["list", "methods", "--plugin", "no.such.module", "--plugin", "gone.py", "--plugin", str(quiet)]) == 2
    said = capsys.readouterr().err
    assert "--plugin no.such.module: there is no such module; a file ends in .py" in said
    assert "--plugin gone.py: there is no such file" in said


def test_two_files_with_one_name_are_refused_by_both(tmp_path: Path) -> None:
    first, second = written(tmp_path, METHOD, "first.py"), written(tmp_path, METHOD, "second.py")
    with pytest.raises(PluginError, match=r"'sharp': is registered by .*first\.py and by .*second\.py; use one"):
        plugins.load_plugins([first, second])


def test_a_file_is_loaded_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    path = written(tmp_path, METHOD)
    plugins.load_plugins([path])
    first = METHODS["sharp"]
    plugins.load_plugins([path, str(path)])
    assert METHODS["sharp"] is first
    path.write_text(METHOD.replace("2.0", "5.0"))
    plugins.load_plugins([path])
    assert METHODS["sharp"]().power == 5.0


@pytest.mark.parametrize("where", ["recipe", "run"])
def test_no_recipe_and_no_run_folder_imports_anything(where: str, tmp_path: Path, capsys: Any) -> None:
    trap = written(tmp_path, "raise SystemExit('imported')", "trap.py")
    folder = tmp_path / "run" / "search"
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text(
        json.dumps(
            {"attempts": [], "plugins": [{"kind": "method", "name": "trap", "module": "trap", "file": str(trap)}]}
        )
    )
    recipe = folder / "recipe.yaml"
    heads = ["plugins: [trap.py]\n", f"plugin: {trap}\n"] if where == "recipe" else [""]
    for head in heads:
        recipe.write_text(f"{head}method: {{name: trap}}\nspace: {{name: darts-cnn}}\nsearch: {{}}\n")
        command = ["search", str(recipe)] if where == "recipe" else ["search", "--resume", str(tmp_path / "run")]
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "method.name: 'trap' is unknown" in said and f"--plugin {trap}" in said
        assert "imported" not in said and "trap" not in sys.modules
        if head:
            assert f"{head.partition(':')[0]} is unknown" in said


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "their_method") -> None:
    """A package on the path with an entry point."""
    (tmp_path / f"{name}.py").write_text(text)
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[diffnas.plugins]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    plugins._installed = "wanted"


def test_an_installed_package_is_loaded_when_a_name_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    installed(tmp_path, monkeypatch, METHOD)
    diffnas.read_recipe("darts-digits-tiny")
    assert "their_method" not in sys.modules  # nothing is asked for that we have not
    assert diffnas.read_recipe("darts-digits-tiny", ["method={name: sharp}"]).method is not None
    assert registry.OWNERS["method", "sharp"].module == "their_method"
    assert main(["list", "methods"]) == 0 and "sharp " in capsys.readouterr().out


def test_installed_packages_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    installed(tmp_path, monkeypatch, METHOD)
    assert main(["--no-plugins", "search", "darts-digits-tiny", "-s", "method={name: sharp}"]) == 2
    assert "'sharp' is unknown" in capsys.readouterr().err and "their_method" not in sys.modules


def test_an_installed_package_that_fails_is_a_warning_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    installed(tmp_path, monkeypatch, "1/0", "their_fault")
    plugins.load_installed()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "plug-in their_fault of package their_fault: cannot be loaded: ZeroDivisionError: division by zero"


def test_a_method_that_cannot_be_named_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    class Mine(DARTS):
        """Without a name of its own."""

    recipe = diffnas.read_recipe("darts-digits-tiny")
    object.__setattr__(recipe, "method", Mine())
    with pytest.raises(PluginError, match="method 'darts': Mine is not registered under that name"):
        diffnas.search(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_plug_in_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, METHOD.replace("share**power / ", "share**power / 'x' / "))
    quick = ["-s", "method={name: sharp}", "-s", "search.epochs=1"]
    assert main(["search", "darts-digits-tiny", "--plugin", str(path), "--run", "run", *quick]) == 1
    line = 1 + path.read_text().splitlines().index(next(row for row in path.read_text().splitlines() if "'x'" in row))
    assert f"diffnas: plug-in {path} line {line}: TypeError: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("return {", "return {'more': part(2, 3), "),
            "read gives ['more', 'test', 'train']; it must give train and test",
        ),
        (
            ("dtype=torch.uint8)", "dtype=torch.int64)"),
            "train images are torch.int64 [128, 1, 8, 8]; they must be uint8",
        ),
        (("(count, 1, 8, 8)", "(count, 1, 8, 6)"), "train images are torch.uint8 [128, 1, 8, 6]; they must be uint8"),
        (("% 2", "% 2 + 1"), "labels outside of 0 to 1"),
        (("def read(path):\n", "def read(path):\n    1/0\n"), "read(None) failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_data_set_that_is_not_what_it_says(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = written(tmp_path, DATA_SET.replace(*change))
    recipe = diffnas.read_recipe("darts-digits-tiny", SETTINGS[2:], plugins=[path])
    with pytest.raises(diffnas.errors.UserError, match=r".*") as refused:  # type: ignore[attr-defined]
        diffnas.search(recipe, tmp_path / "run")
    assert said in str(refused.value) and not (tmp_path / "run").exists()


def test_recipes_refuse_what_nobody_registered() -> None:
    with pytest.raises(RecipeError, match=r"for a method of your own, name its module: --plugin FILE\.py"):
        diffnas.read_recipe("darts-digits-tiny", ["method={name: sharp}"])


def test_a_method_has_a_name_of_its_own() -> None:
    with pytest.raises(PluginError, match="Nameless: it has no name"):
        diffnas.register(type("Nameless", (diffnas.Method,), {}))
