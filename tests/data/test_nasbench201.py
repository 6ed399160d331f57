"""The official per-cell files: both layouts, written here as their authors write them, whole and damaged."""

from __future__ import annotations

import bz2
import collections
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffnas.data import nasbench201
from diffnas.data.nasbench201 import list_cells, read_cell
from diffnas.errors import DataError

TEXT = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
INDEX = 11
SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}


def accuracy(data: str, seed: int, name: str, epochs: int) -> float:
    """A number that tells where it comes from."""
    return (
        10.0 * list(SETS).index(data)
        + seed % 10
        + {"x-valid": 0.25, "x-test": 0.5, "ori-test": 0.75}[name]
        + epochs / 1000
    )


def result(data: str, seed: int, epochs: int, weights: bool) -> dict[str, Any]:
    """One training, as the state of the authors' ResultsCount."""
    accuracies = {f"{name}@{epochs - 1}": accuracy(data, seed, name, epochs) for name in SETS[data]}
    earlier = {f"{name}@{epoch}": 1.5 for name in SETS[data] for epoch in range(epochs - 1)}
    net = torch.nn.Conv2d(1, 1, 1).state_dict() if weights else None
    return {
        "name": data,
        "net_state_dict": net,
        "train_acc1es": dict.fromkeys(range(epochs), 2.5),
        "train_acc5es": None,
        "train_losses": dict.fromkeys(range(epochs), 0.5),
        "train_times": collections.OrderedDict((epoch, 7.2) for epoch in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": TEXT, "class_num": 10},
        "params": np.float64(0.802426),
        "flop": 113.95137,
        "seed": f"{seed:04d}",
        "epochs": epochs,
        "latency": [np.float64(0.0139)],
        "eval_names": list(SETS[data]),
        "eval_acc1es": {**earlier, **accuracies},
        "eval_times": {},
        "eval_losses": {},
    }


def schedule(epochs: int, seeds: dict[str, tuple[int, ...]], weights: bool = False) -> dict[str, Any]:
    """One training schedule, as the state of the authors' ArchResults."""
    return {
        "arch_index": INDEX,
        "arch_str": TEXT,
        "all_results": collections.OrderedDict(
            ((data, seed), result(data, seed, epochs, weights)) for data, several in seeds.items() for seed in several
        ),
        "dataset_seed": {data: list(several) for data, several in seeds.items()},
        "clear_net_done": not weights,
    }


LONG = dict.fromkeys(SETS, (777, 888, 999))
SHORT: dict[str, tuple[int, ...]] = dict.fromkeys(SETS, (777,)) | {"cifar10-valid": (111, 777)}


def nats(path: Path, stored: Any) -> Path:
    path.write_bytes(bz2.compress(pickle.dumps(stored, 4)))
    return path


def archived(path: Path, stored: Any, zipped: bool = False) -> Path:
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    return path


def both_schedules(weights: bool = False) -> dict[str, Any]:
    return {"200": schedule(200, LONG, weights), "12": schedule(12, SHORT)}


def old_names(stored: dict[str, Any]) -> dict[str, Any]:
    return collections.OrderedDict(full=stored["200"], less=stored["12"])


Write = Callable[[Path], Path]
LAYOUTS: dict[str, Write] = {
    "NATS-Bench": lambda folder: nats(folder / "000011.pickle.pbz2", both_schedules()),
    "1.1 without weights": lambda folder: archived(folder / "000011-SIMPLE.pth", old_names(both_schedules())),
    "1.1 with weights": lambda folder: archived(folder / "000011-FULL.pth", old_names(both_schedules(weights=True))),
    "1.1 saved by a later PyTorch": lambda folder: archived(
        folder / "000011-FULL.pth", old_names(both_schedules(weights=True)), zipped=True
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(layout: str, tmp_path: Path) -> None:
    path = LAYOUTS[layout](tmp_path)
    assert list_cells(tmp_path) == [(INDEX, path)]
    found = read_cell(INDEX, path)
    assert (found.index, found.text) == (INDEX, TEXT)
    assert found.accuracies == {
        "cifar10_test_200": (17.95, 18.95, 19.95),
        "cifar10_valid_200": (7.45, 8.45, 9.45),
        "cifar100_test_200": (27.7, 28.7, 29.7),
        "cifar100_valid_200": (27.45, 28.45, 29.45),
        "imagenet16-120_test_200": (37.7, 38.7, 39.7),
        "imagenet16-120_valid_200": (37.45, 38.45, 39.45),
        "cifar10_test_12": (17.762,),
        "cifar10_valid_12": (1.262, 7.262),
        "cifar100_test_12": (27.512,),
        "cifar100_valid_12": (27.262,),
        "imagenet16-120_test_12": (37.512,),
        "imagenet16-120_valid_12": (37.262,),
    }


def test_the_first_edition_has_less_after_12_epochs(tmp_path: Path) -> None:
    stored = {"full": schedule(200, LONG), "less": schedule(12, {"cifar10-valid": (777,)})}
    found = read_cell(INDEX, archived(tmp_path / "000011-SIMPLE.pth", stored))
    assert [name for name in found.accuracies if name.endswith("_12")] == ["cifar10_valid_12"]


# -- folders


def test_folders(tmp_path: Path) -> None:
    folder = tmp_path / "NAS-Bench-201-v1_1-096897-archive"
    folder.mkdir()
    for name in (
        "000002-FULL.pth",
        "000002-SIMPLE.pth",
        "000010-FULL.pth",
        "meta.pickle.pbz2",
        "015625-FULL.pth",
        "x.txt",
    ):
        (folder / name).touch()
    expected = [(2, folder / "000002-SIMPLE.pth"), (10, folder / "000010-FULL.pth")]
    assert list_cells(folder) == list_cells(tmp_path) == expected


def no_cells(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_cells(path)
    assert len(caught.value.lines) == 1 and caught.value.lines[0].startswith(f"{path}")
    return caught.value.lines[0]


@pytest.mark.parametrize("name", ["NAS-Bench-201-v1_1-096897.pth", "NATS-tss-v1_0-3ffb9.pickle.pbz2"])
def test_the_benchmark_in_one_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    for text in (no_cells(tmp_path / name), no_cells(tmp_path)):
        assert "whole benchmark in one pickle" in text and "NATS-tss-v1_0-3ffb9-simple/NNNNNN.pickle.pbz2" in text


def test_places_without_cells(tmp_path: Path) -> None:
    assert "there is no such folder" in no_cells(tmp_path / "none")
    assert "holds no per-cell files" in no_cells(tmp_path)
    (tmp_path / "readme").touch()
    assert "is a file; name a folder" in no_cells(tmp_path / "readme")
    (tmp_path / "NATS-sss-v1_0-50262-simple").mkdir()
    assert "size space" in no_cells(tmp_path / "NATS-sss-v1_0-50262-simple")


# -- files that cannot be used


def refusal(path: Path, index: int = INDEX) -> str:
    with pytest.raises(DataError) as caught:
        read_cell(index, path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def spoilt(*keys: Any, value: Any) -> dict[str, Any]:
    """A stored cell with one value replaced."""
    stored = both_schedules()
    at = stored
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return stored


ONE = ("200", "all_results", ("cifar100", 888))
LAST = (*ONE, "eval_acc1es", "x-test@199")


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([1, 2], "holds no results of 200 or 12 epochs"),
        ({"90": {}}, "holds no results of 200 or 12 epochs"),
        ({"200": 5}, "arch_str is missing or no str"),
        (spoilt("200", "arch_index", value=12), "holds results of different cells"),
        (spoilt("200", "arch_str", value="|none~0|"), "holds results of different cells"),
        (spoilt("200", "all_results", value=None), "all_results is missing or no dict"),
        (spoilt(*ONE, value=3.5), "epochs is missing or no int"),
        (spoilt(*ONE, "epochs", value=90), "a result of cifar100 has 90 epochs, not 200"),
        (spoilt(*ONE, "eval_acc1es", value=[1]), "eval_acc1es is missing or no dict"),
        (spoilt(*LAST, value="91"), "an accuracy of cifar100 is '91', not a number of 0 to 100"),
        (spoilt(*LAST, value=float("nan")), "an accuracy of cifar100 is nan, not"),
        (spoilt(*LAST, value=100.5), "an accuracy of cifar100 is 100.5, not"),
        ({"200": {**schedule(200, LONG), "arch_index": 12}}, "is named after cell 11, but holds cell 12"),
        ({"200": schedule(200, {})}, "holds no accuracy after 200 or 12 epochs"),
    ],
)
def test_contents_that_are_no_cell(stored: Any, said: str, tmp_path: Path) -> None:
    assert refusal(nats(tmp_path / "000011.pickle.pbz2", stored)).startswith(said)


def test_odd_keys_are_passed_over(tmp_path: Path) -> None:
    stored = both_schedules()
    stored["200"]["all_results"] |= {"cifar10": 1, ("cifar10",): {"epochs": 200, "eval_acc1es": {}}, ("x", 1): 2}
    assert len(read_cell(INDEX, nats(tmp_path / "a.pickle.pbz2", stored)).accuracies["cifar10_test_200"]) == 3


class Hostile:
    """Runs a command where pickles are run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch HACKED",)


def test_hostile_files_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = {**both_schedules(), "more": Hostile()}
    files = [nats(tmp_path / "a.pickle.pbz2", stored)]
    files += [archived(tmp_path / f"{zipped}.pth", stored, zipped) for zipped in (True, False)]
    for path in files:
        assert refusal(path) == f"refused: it asks for {os.system.__module__}.system, which no data set needs"
    assert not (tmp_path / "HACKED").exists()


def test_what_unpacks_to_more_than_a_cell_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nasbench201, "LARGEST", 10_000)
    path = tmp_path / "000011.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(bytes(100_000_000))))
    assert path.stat().st_size < 10_000 and refusal(path) == "refused: a pickle of over 10000 bytes"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_cut_or_damaged_are_one_line(layout: str, tmp_path: Path) -> None:
    path = LAYOUTS[layout](tmp_path)
    whole = path.read_bytes()
    pickled = len(whole) - 5000 if path.suffix == ".pth" else len(whole)  # the weights behind it are not read
    for length in (0, 1, 10, len(whole) // 2, pickled - 1):
        path.write_bytes(whole[:length])
        assert "damaged or cut short" in refusal(path)
    generator = np.random.default_rng(0)
    for _ in range(20):
        copy = bytearray(whole)
        for at in generator.integers(0, len(whole), 3):
            copy[at] = generator.integers(0, 256)
        path.write_bytes(copy)
        try:
            read_cell(INDEX, path)
        except DataError as error:
            assert len(error.lines) == 1  # noqa: PT017


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    for name in ("a.pth", "a.pickle.pbz2"):
        (tmp_path / name).write_text("hello")
        assert "damaged or cut short" in refusal(tmp_path / name)
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        assert "damaged or cut short" in refusal(tmp_path / name)
