"""Tensors, tasks and modalities of plug-ins: searched, resumed, trained, tested and refused by every command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

import diffnas
from diffnas import plugins, registry
from diffnas.cli.main import main
from diffnas.core.batch import loss_of
from diffnas.core.count import count
from diffnas.data import tensors as data_tensors
from diffnas.data.registered import TENSORS
from diffnas.errors import DataError, Interrupted, PluginError, RecipeError
from diffnas.recipe.modalities import modalities

EXAMPLES = Path(__file__).parents[1] / "examples"
PLUGIN, RECIPE = str(EXAMPLES / "signals.py"), str(EXAMPLES / "signals.yaml")
TINY = ["space.channels=4", "space.layers=3", "search.epochs=2", "data.train_limit=128", "data.test_limit=64"]
TINY += ["train.channels=4", "train.epochs=2"]

POINTS = '''
"""A modality of its own: points in the plane, whose networks are given them in pairs."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

import diffnas


@dataclass(frozen=True)
class PointData(diffnas.schema.Samples):
    """The points."""

    name: str = diffnas.setting("clouds", "data set")
    noise: float = diffnas.setting(0.1, "deviation of the points from their centre", ge=0)


@dataclass(frozen=True)
class PointInputs:
    modality: ClassVar[str] = "points"
    data: str
    sides: int

    @property
    def names(self):
        return ("left", "right")

    @property
    def shape(self):
        return diffnas.TensorShape((2,), 2)


def points(recipe, part, count):
    stream = torch.Generator().manual_seed(hash(part) % 7)
    labels = torch.arange(count) % 2
    return diffnas.sources.Samples(
        torch.stack([labels * 2.0 - 1.0, torch.zeros(count)], 1)
        + recipe.data.noise * torch.randn(count, 2, generator=stream),
        labels,
    )


class Source(diffnas.sources.TensorSource):
    def __init__(self, recipe):
        self.recipe = recipe
        self.parts = {part: points(recipe, part, 64) for part in ("train", "test")}
        self.inputs = PointInputs(recipe.data.name, 2)
        self.shape, self.names = self.inputs.shape, self.inputs.names


class Test(diffnas.sources.TensorTest):
    def __init__(self, recipe, inputs):
        self.recipe, self.inputs, self.names = recipe, inputs, inputs.names
        self.samples = points(recipe, "test", 64)


class Reading:
    inputs = PointInputs

    def source(self, recipe, stored):
        return Source(recipe)

    def test_set(self, recipe, inputs, elsewhere):
        return Test(recipe, inputs)

    def shape(self, recipe):
        return diffnas.TensorShape((2,), 2)


diffnas.register(
    diffnas.Modality(
        "points",
        PointData,
        diffnas.schema.SampleSearch,
        diffnas.schema.SampleTrain,
        sets={"clouds": SimpleNamespace(about="two clouds of points")},
        shape=lambda data: diffnas.TensorShape((2,), 2),
        task=lambda data: "parting",
        check=lambda sections, method: [("data.noise", "is too large")] * (sections["data"].noise > 9),
        reading=Reading(),
    )
)


@diffnas.register
@dataclass(frozen=True)
class Parting(diffnas.Classification):
    """Part the clouds."""

    name: ClassVar[str] = "parting"
    modalities: ClassVar[tuple[str, ...]] = ("points",)


@diffnas.register
@dataclass(frozen=True)
class Layers(diffnas.CellSpace):
    """Cells of linear layers."""

    name: ClassVar[str] = "layers"
    modality: ClassVar[str] = "points"
    kinds: ClassVar[tuple[str, ...]] = ("normal",)
    ops: tuple[str, ...] = diffnas.setting(("none", "skip", "linear"), "candidate ops", min_length=1)

    def op(self, name, channels, stride, affine):
        return torch.nn.Identity() if name == "skip" else torch.nn.Linear(channels, channels)

    def stem(self, inputs, channels):
        return torch.nn.Linear(inputs, channels)

    def fit(self, inputs, channels, halve, affine):
        return torch.nn.Linear(inputs, channels)

    def layout(self, layers):
        return ("normal",) * layers
'''
POINTS_RECIPE = """
name: points
data: {name: clouds}
space: {name: layers, channels: 4, layers: 2, nodes: 1, in_degree: 1}
method: {name: darts}
search: {epochs: 2, batch: 8}
train: {epochs: 2, batch: 8, channels: 4, layers: 2, lr: 0.2}
"""


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test registers is gone after it."""
    names = ("SPACES", "METHODS", "TASKS", "MODALITIES", "OWNERS")
    before = [(getattr(registry, name), dict(getattr(registry, name))) for name in names] + [(TENSORS, dict(TENSORS))]
    monkeypatch.setattr(plugins, "_files", {})
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


def tiny(*sets: str) -> diffnas.Recipe:
    return diffnas.read_recipe(RECIPE, [*TINY, *sets], plugins=[PLUGIN])


def rows(part: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in part.metrics()]


def test_the_example_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    sets = [word for text in TINY for word in ("--set", text)]
    with_plugin = ["--plugin", PLUGIN]
    assert main(["search", RECIPE, "--run", run, *with_plugin, *sets]) == 0
    assert main(["train", run, *with_plugin, *sets]) == 0
    capsys.readouterr()
    assert main(["test", run, *with_plugin, "--json"]) == 0
    tested = json.loads(capsys.readouterr().out)
    assert tested["task"] == "focal" and tested["n"] == 64
    low, high = tested["interval"]
    assert 0 <= low <= tested["accuracy"] <= high <= 100
    assert main(["test", run, *with_plugin]) == 0
    assert "test accuracy:" in capsys.readouterr().out
    assert main(["show", run, "--stats", "--out", str(tmp_path), *with_plugin]) == 0
    assert "C=4 L=3, [1, 64], 3 outputs" in capsys.readouterr().out
    assert main(["compare", run]) == 0 and "test accuracy, %" in capsys.readouterr().out
    assert main(["report", run]) == 0 and "test accuracy" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert main(["predict", run, "x.png", *with_plugin]) == 2
    assert "this network reads tensors; use diffnas.load_network" in capsys.readouterr().err
    network = diffnas.load_network(run)
    assert network.inputs.names == ("slow", "middle", "fast")
    assert network(torch.zeros(2, 1, 64)).shape == (2, 3)
    assert main(["list", "tasks", *with_plugin]) == 0 and "focal" in capsys.readouterr().out
    # in a process that has not loaded the plug-in
    for table in (registry.SPACES, registry.TASKS, TENSORS):
        for name in ("signal-cells", "focal", "waves"):
            table.pop(name, None)
    assert main(["test", run]) == 2
    assert f"this run was made with --plugin {PLUGIN}" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["darts", "drnas", "gdas", "snas", "sgas"])
def test_methods_search_cells_of_tensors(method: str, tmp_path: Path) -> None:
    recipe = tiny(f"method={{name: {method}}}", "space.nodes=1", "space.in_degree=1", "data.train_limit=64")
    run = diffnas.search(recipe, tmp_path / "run")
    assert set(diffnas.load_genotype(run).cells) == {"normal", "reduce"}


def test_it_learns(tmp_path: Path) -> None:
    recipe = diffnas.read_recipe(RECIPE, ["train.epochs=4"], plugins=[PLUGIN])
    run = diffnas.search(diffnas.read_recipe(RECIPE, ["search.epochs=1"], plugins=[PLUGIN]), tmp_path / "run")
    assert diffnas.test(diffnas.train(run, recipe, run))["accuracy"] > 80  # a guess: 33


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_stopped_search_and_training_go_on_bit_for_bit(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("search.batch=16", "train.batch=48")
    plain = data_tensors.TensorEpoch.__getitem__

    def stopping(epoch: Any, step: int) -> Any:
        seen.append(epoch.name)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(epoch, step)

    whole = diffnas.search(recipe, tmp_path / "whole")
    diffnas.train(whole, recipe, whole)
    seen: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(data_tensors.TensorEpoch, "__getitem__", stopping)
        with pytest.raises(Interrupted):
            diffnas.search(recipe, tmp_path / "part")
    part = diffnas.search(None, tmp_path / "part", resume=True)
    assert rows(part.search) == rows(whole.search)
    assert part.search.genotype.read_bytes() == whole.search.genotype.read_bytes()
    seen.clear()
    with monkeypatch.context() as patched:
        patched.setattr(data_tensors.TensorEpoch, "__getitem__", stopping)
        with pytest.raises(Interrupted):
            diffnas.train(part, recipe, part)
    diffnas.train(None, None, part, resume=True)
    assert rows(part.training()) == rows(whole.training())
    ours, theirs = (load_file(run.training().weights) for run in (part, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["task={name: focal, gamma: -1}"], "task.gamma: must be a number of at least 0; got -1"),
        (["task={name: focal, gama: 1}"], "task.gama is unknown; did you mean task.gamma?"),
        (["task={name: foal}"], "'foal' is unknown; did you mean focal?"),
        (["task={name: language}"], "language is for text, and the data are tensors"),
        (["search.cutout=2"], "is a key for images, and the data are tensors; leave it out"),
        (["space={name: darts-cnn}"], "darts-cnn reads images, and waves is tensors"),
        (["search.weights.lr_min=1"], "must not exceed search.weights.lr"),
    ],
)
def test_what_a_recipe_may_not_say(sets: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        tiny(*sets)
    assert any(said in line for line in refused.value.lines), refused.value.lines


def test_a_task_says_what_it_is_for_and_where_it_is_set() -> None:
    with pytest.raises(RecipeError, match="regression is for tensors, and the data are images"):
        diffnas.read_recipe("darts-digits-tiny", ["task={name: regression}"])
    with pytest.raises(RecipeError, match="is search.smoothing and train.smoothing for images; set that"):
        diffnas.read_recipe("darts-digits", ["task={name: classification, smoothing: 0.1}"])
    space = tiny().space
    assert space is not None and space.check_size(diffnas.TensorShape((1, 62), 3)) == [
        ("layers", "3 layers need sides that are a multiple of 4, not 62")
    ]
    recipe = tiny("task={name: classification, smoothing: 0.1}")
    assert recipe.task is not None and recipe.values()["task"] == {
        "name": "classification",
        "auxiliary": 0.4,
        "smoothing": 0.1,
    }


def test_an_own_task_trains_images(tmp_path: Path) -> None:
    recipe = diffnas.read_recipe("darts-digits-tiny", ["task={name: focal, gamma: 1}"], plugins=[PLUGIN])
    assert recipe.values()["task"] == {"name": "focal", "gamma": 1}  # smoothing is search.smoothing
    run = diffnas.search(recipe, tmp_path / "focal")
    assert diffnas.read_recipe(run.search.recipe) == recipe
    assert 0 <= diffnas.test(diffnas.train(run, recipe, run))["accuracy"] <= 100
    plain = diffnas.search(diffnas.read_recipe("darts-digits-tiny"), tmp_path / "plain")
    assert rows(run.search)[0]["train_loss"] < rows(plain.search)[0]["train_loss"]  # sure answers count less
    recorded = json.loads((run.search.path / "environment.json").read_text())["plugins"]
    assert [entry["kind"] for entry in recorded] == ["task"]


def test_regression(tmp_path: Path) -> None:
    def read(path: Path | None) -> dict[str, Any]:
        stream = torch.Generator().manual_seed(1)
        inputs = torch.randn(96, 1, 64, generator=stream)
        return {"train": (inputs[:64], inputs[:64].mean(2)), "test": (inputs[64:], inputs[64:].mean(2))}

    diffnas.read_recipe(RECIPE, plugins=[PLUGIN])
    registry.register(diffnas.TensorSet("means", read, diffnas.TensorShape((1, 64), 1), task="regression"))
    recipe = tiny("data={name: means}", "data.train_limit=null", "data.test_limit=null", "search.batch=16")
    run = diffnas.train(diffnas.search(recipe, tmp_path / "run"), recipe, tmp_path / "run")
    result = diffnas.test(run)
    assert result["rmse"] == pytest.approx(result["loss"] ** 0.5) and "accuracy" not in result
    assert [group["measure"] for group in diffnas.compare(run)] == ["test loss"]
    (run.training().path / "test.json").unlink()
    assert [group["measure"] for group in diffnas.compare(run)] == ["test loss"]  # as its epochs say


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"train": None}, "read gives ['train']; it must give train and test, and may give valid"),
        ({"train": 1, "test": 1}, "train must be a pair of tensors"),
        (
            {"train": (torch.zeros(4, 2), torch.zeros(4)), "test": 1},
            "train inputs are [4, 2]; they must be [M, 1, 64]",
        ),
        (
            {"train": (torch.zeros(4, 1, 64), torch.zeros(3).long()), "test": 1},
            "train targets are [3]; there must be 4",
        ),
        ({"train": (torch.zeros(4, 1, 64), torch.zeros(4)), "test": 1}, "classes are int64 [M]"),
        ({"train": (torch.zeros(4, 1, 64), torch.full((4,), 3)), "test": 1}, "targets must be from 0 to 2"),
        ({"train": (torch.full((4, 1, 64), torch.nan), torch.zeros(4).long()), "test": 1}, "inputs are not finite"),
    ],
)
def test_wrong_tensors_are_refused(parts: dict[str, Any], said: str, tmp_path: Path) -> None:
    recipe = tiny()
    TENSORS["waves"] = diffnas.TensorSet(
        "waves", lambda path: parts, diffnas.TensorShape((1, 64), 3), ("a", "b", "c"), task="focal"
    )
    with pytest.raises(DataError, match="data set waves") as refused:
        diffnas.search(recipe, tmp_path / "run")
    assert said in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("targets", "task", "said"),
    [
        (torch.full((80,), torch.nan), "regression", "train targets are not finite"),
        (torch.zeros(80, 2), "regression", "train targets must be 3 real numbers for each sample"),
        (torch.zeros(80), "focal", "train targets must be the numbers of classes, int64 [M] (task focal)"),
        (torch.full((80,), 3), "focal", "train targets must be from 0 to 2"),
    ],
)
def test_targets_that_the_task_cannot_use(targets: torch.Tensor, task: str, said: str, tmp_path: Path) -> None:
    recipe = tiny()
    pair = torch.zeros(80, 1, 64), targets
    TENSORS["waves"] = diffnas.TensorSet(
        "waves", lambda path: {"train": pair, "test": pair}, diffnas.TensorShape((1, 64), 3), task=task
    )
    with pytest.raises(DataError) as refused:
        diffnas.search(recipe, tmp_path / "run")
    assert said in str(refused.value) and not (tmp_path / "run").exists()


def test_a_task_that_plugins_name_wrongly() -> None:
    tiny()
    shape = diffnas.TensorShape((1, 64), 3)
    for task, said in (
        ("foal", "the task of waves, 'foal', is unknown"),
        ("language", "its task language is for text"),
    ):
        TENSORS["waves"] = diffnas.TensorSet("waves", lambda path: {}, shape, task=task)
        with pytest.raises(RecipeError, match=said):
            tiny()


NUMBERS = (torch.zeros(()), torch.zeros((), dtype=torch.int64), 2)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (torch.zeros(()), "it returns [] float32"),
        (None, "it returns None"),
        (
            diffnas.Loss(torch.zeros(2), *NUMBERS[1:]),
            "value must be a tensor [] float, such as a mean over the batch; it is [2]",
        ),
        (diffnas.Loss(0.5, *NUMBERS[1:]), "value must be a tensor [] float, such as a mean over the batch; it is 0.5"),  # type: ignore[arg-type]
        (diffnas.Loss(NUMBERS[0], 3, 2), "correct must be a tensor []"),  # type: ignore[arg-type]
        (diffnas.Loss(*NUMBERS[:2], 0), "count must be the number of samples, a whole number from 1; it is 0"),
        (diffnas.Loss(*NUMBERS, torch.zeros(3)), "weight_only must be a tensor [] float"),
    ],
)
def test_a_loss_that_is_none(loss: Any, said: str) -> None:
    class Odd(diffnas.Task):
        name = "odd"

        def loss(self, net: Any, batch: Any) -> Any:
            return loss

    with pytest.raises(PluginError, match="task 'odd': loss must return diffnas.Loss") as refused:
        loss_of(Odd(), lambda inputs: inputs, diffnas.Batch(torch.zeros(2), torch.zeros(2)))
    assert said in str(refused.value)


@pytest.mark.parametrize("metrics", [None, {"a": torch.zeros(())}, {"a": "good"}, {3: 1.0}])
def test_metrics_are_numbers_by_name(metrics: Any) -> None:
    class Odd(diffnas.Task):
        name = "odd"

        def metrics(self, loss: float, accuracy: float) -> Any:
            return metrics

    with pytest.raises(PluginError, match="task 'odd': metrics must return a dict"):
        Odd().check_metrics(1.0, 0.0)


def test_the_loss_is_always_recorded() -> None:
    class Quiet(diffnas.Task):
        name = "quiet"

        def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
            return {"close": accuracy}

    assert Quiet().check_metrics(2.0, 1) == {"loss": 2.0, "close": 1.0}


def odd_task(**parts: Any) -> Any:
    parts = {"name": "odd", "loss": lambda self, net, batch: None, "__annotations__": {}, **parts}
    return dataclass(frozen=True)(type("Odd", (diffnas.Task,), parts))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"loss": diffnas.Task.loss}, "needs loss(self, net, batch)"),
        ({"reward": lambda self, metrics: 1}, "reward must take (self, loss, accuracy)"),
        ({"format_metrics": lambda self, name: ""}, "format_metrics must take (self, name, row)"),
        ({"modalities": "tensors"}, "modalities must be a tuple of names"),
    ],
)
def test_tasks_that_could_not_be_called(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError) as refused:
        diffnas.register(odd_task(**parts))
    assert said in str(refused.value) and "odd" not in registry.TASKS


def test_a_setting_without_default_is_refused() -> None:
    with pytest.raises(PluginError, match="x: a setting needs a default"):

        @diffnas.register
        @dataclass(frozen=True)
        class Odd(diffnas.Task):
            name: ClassVar[str] = "odd"
            x: int

            def loss(self, net: Any, batch: Any) -> Any:
                return None


def test_a_modality_that_commands_could_not_use() -> None:
    class Lacking:
        inputs = object

    @dataclass(frozen=True)
    class Bare:
        size: int = 3

    odd = diffnas.Modality(
        "odd",
        Bare,
        Bare,
        diffnas.schema.Train,
        sets={"digits": SimpleNamespace(about="x"), "A/b": SimpleNamespace(about="y")},
        shape=lambda data: diffnas.TensorShape((3,), 2),
        task="classification",  # type: ignore[arg-type]
        check=lambda sections: [],  # type: ignore[arg-type, misc]
        reading=Lacking(),
    )
    with pytest.raises(PluginError) as refused:
        diffnas.register(odd)
    said = "\n".join(refused.value.lines)
    assert "task must be a function of the data section" in said
    assert "check must be a function of sections and method" in said
    assert "its reading lacks source, test_set, shape" in said
    assert "data set 'A/b': a name is small letters" in said and "data sets digits exist already" in said
    assert "section data lacks name, path" in said and "section search lacks epochs, arch" in said
    assert "section train lacks epochs, clip" in said and "odd" not in modalities()


@dataclass(frozen=True)
class PairShape:
    """A shape of a modality whose networks read two tensors."""

    def sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, 3), torch.zeros(1, 4)


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(7, 2)

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> Any:
        return self.layer(torch.cat(inputs, 1))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_network_of_other_inputs_is_counted(device: str) -> None:
    counts = count(Pair().to(device), PairShape())
    assert (counts.params, counts.macs) == (16, 14)


def test_a_shape_that_nothing_counts_by_is_refused(tmp_path: Path) -> None:
    plugin, recipe = tmp_path / "points.py", tmp_path / "points.yaml"
    plugin.write_text(POINTS.replace("shape=lambda data: diffnas.TensorShape((2,), 2)", "shape=lambda data: 3"))
    recipe.write_text(POINTS_RECIPE)
    with pytest.raises(RecipeError, match=r"the shape of modality points needs `sizes` or sample\(\)"):
        diffnas.read_recipe(recipe, plugins=[plugin])


def test_a_modality_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin, recipe = tmp_path / "points.py", tmp_path / "points.yaml"
    plugin.write_text(POINTS)
    recipe.write_text(POINTS_RECIPE)
    run, with_plugin = str(tmp_path / "run"), ["--plugin", str(plugin)]
    assert main(["search", str(recipe), "--run", run, *with_plugin]) == 0
    assert main(["search", "--resume", run, "--set", "search.epochs=3", *with_plugin]) == 0
    assert main(["train", run, *with_plugin]) == 0
    capsys.readouterr()
    assert main(["test", run, *with_plugin, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 90
    assert main(["list", "keys", *with_plugin]) == 0
    assert "deviation of the points from their centre" in capsys.readouterr().out
    assert main(["list", "data", *with_plugin]) == 0 and "two clouds of points" in capsys.readouterr().out
    assert main(["search", str(recipe), *with_plugin, "--set", "data.noise=10"]) == 2
    assert "data.noise=10: is too large" in capsys.readouterr().err
    recorded = json.loads((tmp_path / "run" / "search" / "environment.json").read_text())["plugins"]
    assert {entry["kind"] for entry in recorded} == {"modality", "data", "task", "space"}
    registry.MODALITIES.clear()
    assert main(["test", run]) == 2
    assert f"this run was made with --plugin {plugin}" in capsys.readouterr().err.splitlines()[0]


def test_names_of_modalities_cannot_be_taken() -> None:
    images = modalities()["images"]
    with pytest.raises(PluginError, match="modality 'images': is a name of diffnas's own"):
        registry.register(images)


def test_a_plugin_that_failed_at_once_may_be_corrected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As long as nothing was computed, a run goes on with the file as it is now."""
    plugin, run = tmp_path / "signals.py", str(tmp_path / "run")
    text = Path(PLUGIN).read_text()
    plugin.write_text(text.replace("* losses).mean()", "* losses)"))
    sets = [word for text in TINY for word in ("--set", text)]
    assert main(["search", RECIPE, "--run", run, "--plugin", str(plugin), *sets]) == 2
    assert "loss must return diffnas.Loss" in capsys.readouterr().err
    plugin.write_text(text)
    assert main(["search", "--resume", run, "--plugin", str(plugin)]) == 0
    assert "nothing was computed yet, so the run begins with it as it is now" in capsys.readouterr().err
    plugin.write_text(text + "\n")
    assert main(["search", "--resume", run, "--plugin", str(plugin), "--set", "search.epochs=3"]) == 2
    assert "put it back" in capsys.readouterr().err
