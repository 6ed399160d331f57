"""Weights out of other programs' checkpoints: whatever is around them, and nothing of it run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import diffnas
from diffnas.errors import WeightsError
from diffnas.interop import load_weights
from diffnas.interop.checkpoint import read_weights, state_dict_of


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.heads = nn.ModuleList([nn.Linear(2, 3, bias=False), nn.Linear(3, 1)])
        self.weights = nn.ParameterList([torch.randn(2), torch.randn(1)])


def same(found: dict[str, Tensor], wanted: dict[str, Any]) -> bool:
    return list(found) == list(wanted) and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in wanted.items()
    )


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}: ") and len(line) < 600
    return line.removeprefix(f"{path}: ")


@pytest.fixture
def part() -> Part:
    torch.manual_seed(0)
    return Part()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "around",
    [
        lambda state: state,
        lambda state: {
            "state_dict": state,
            "epoch": 3,
            "best_acc_top1": torch.tensor(97.0),
            "optimizer": {"state": {}},
        },
        lambda state: {"model": {"state_dict": state}, "args": argparse.Namespace(lr=0.1), "path": Path("a")},
        lambda state: {"search_model": state, "genotypes": {-1: np.float32(3), "best": np.zeros(2)}, "seed": None},
        lambda state: {"net": {"module": state}, "ema": {name: tensor + 1 for name, tensor in state.items()}},
        lambda state: {"ema": {name: tensor + 1 for name, tensor in state.items()}, "state_dict": state},
        lambda state: {"meta": {"config": "x", "seen": {1, 2}}, "message_hub": io.StringIO, "state_dict": state},
    ],
    ids=range(7),
)
def test_files_of_torch(zipped: bool, around: Any, part: Part, tmp_path: Path) -> None:
    path, state = tmp_path / "a.pth.tar", part.state_dict()
    torch.save(around(state), path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path), state)
    if zipped:
        assert same(read_weights(str(path)), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_of_all_kinds(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    state = {
        "view": base.view(4, 6).t()[1:3],
        "shared": base[5:],
        "empty": torch.empty(0, 3),
        "number": torch.tensor(3.5),
        "truth": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.ones(2)),
        **{str(kind): torch.arange(3).to(kind) for kind in kinds},
    }
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert same(read_weights(tmp_path / "a.pt"), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_module_that_was_saved_whole(zipped: bool, part: Part, tmp_path: Path) -> None:
    """As the recurrent models of DARTS are."""
    torch.save({"model": nn.DataParallel(part)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    wanted = {f"module.{name}": tensor for name, tensor in part.state_dict().items()}
    assert set(read_weights(tmp_path / "a.pt")) == set(wanted)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in read_weights(tmp_path / "a.pt").items())
    assert state_dict_of({"model": part}).keys() == part.state_dict().keys()


class OldPickler(pickle._Pickler):
    """Pickles tensors and parameters as PyTorch 0.3 did: a parameter is built from its tensor, then given a state."""

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        if isinstance(value, nn.Parameter):
            return nn.Parameter, (value.data,), (value.requires_grad, False, OrderedDict())
        sizes = (value.storage_offset(), tuple(value.shape), value.stride())
        return torch._utils._rebuild_tensor, (value._typed_storage(), *sizes)


class OldPickle:
    """A module `pickle` for `torch.save`."""

    Pickler = OldPickler
    __name__ = "pickle"
    dump = staticmethod(pickle.dump)


def test_a_module_that_pytorch_03_saved_whole(part: Part, tmp_path: Path) -> None:
    """As the published recurrent model of DARTS was: its parameters are objects of their own."""
    torch.save(part, tmp_path / "a.pt", pickle_module=OldPickle(), _use_new_zipfile_serialization=False)
    assert b"torch.nn.parameter\nParameter" in (tmp_path / "a.pt").read_bytes()
    found, wanted = read_weights(tmp_path / "a.pt"), part.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], t) for name, t in wanted.items())


def test_weights_that_were_on_a_gpu_and_in_arrays(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pt").read_bytes()
    assert b"ctorch\nFloatStorage\n" in data
    (tmp_path / "a.pt").write_bytes(data.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n"))
    assert same(read_weights(tmp_path / "a.pt"), {"a": torch.ones(2)})
    assert same(state_dict_of({"params": {"a": np.ones(2, ">f4")}}), {"a": torch.ones(2)})


def test_safetensors(part: Part, tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in part.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    found = read_weights(tmp_path / "a.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[name], tensor) for name, tensor in state.items())
    (tmp_path / "a.safetensors").write_bytes(b"x" * 20)
    assert refusal(tmp_path / "a.safetensors").startswith("is no whole safetensors file")


# -- files that are refused


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_nothing_in_a_file_is_run(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.pt"
    evil = [
        Calls(os.system, "touch owned"),
        Calls(eval, "open('owned', 'w')"),
        Calls(getattr, "", "join"),
        Calls(open, "owned"),
    ]
    torch.save({"evil": evil, "state_dict": {"a": torch.ones(1)}}, path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path), {"a": torch.ones(1)})
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    assert refusal(path) == "holds no weights by name"
    torch.save({"state_dict": {"a": torch.ones(1), "b": evil[0]}}, path, _use_new_zipfile_serialization=zipped)
    assert refusal(path) == "b is no tensor (of 1 such entries)"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_cut_short_or_damaged_is_one_line(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3), "b": [1, "x"]}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for end in range(0, len(data) - 1, 7):
        path.write_bytes(data[:end])
        refusal(path)
    for at in range(0, len(data), 5):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            read_weights(path)
        except WeightsError as error:
            assert len(error.lines) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged or cut short"),
        (b"hello", "damaged or cut short"),
        (pickle.dumps({"a": 1}), "is not a file of torch.save"),
        (b"PK\x05\x06" + b"\0" * 18, "is not a file of torch.save"),
    ],
)
def test_what_is_no_checkpoint(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    assert said in refusal(tmp_path / "a.pt")


def test_what_is_no_file_and_what_holds_no_weights(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.pt") == "cannot be read: No such file or directory"
    assert refusal(tmp_path) == "cannot be read: Is a directory"
    torch.save({"epoch": 3, "seeds": {777: {"a": torch.ones(1)}}}, tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt") == "holds no weights by name; its keys: epoch, seeds"
    with pytest.raises(WeightsError, match="^checkpoint: holds no weights by name$"):
        state_dict_of([1])


def rebuilt(tmp_path: Path, **changes: Any) -> str:
    """What is said of a file whose one tensor is described otherwise."""
    values: dict[str, Any] = {
        "kind": b"FloatStorage",
        "count": 4,
        "offset": 0,
        "shape": (2, 2),
        "stride": (2, 1),
        **changes,
    }

    class Storage:
        def __reduce__(self) -> Any:
            raise AssertionError

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: object) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", values["count"]) if isinstance(item, Storage) else None

    storage, buffer = Storage(), io.BytesIO()
    arguments = (storage, values["offset"], values["shape"], values["stride"], False, OrderedDict())
    tensor = Calls(torch._utils._rebuild_tensor_v2, *arguments)  # type: ignore[attr-defined]
    Pickler(buffer, 2).dump({"a": tensor})
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("x/data.pkl", buffer.getvalue())
        archive.writestr("x/data/0", np.arange(4, dtype="<f4").tobytes())
    return refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 5},
        {"count": -1},
        {"count": 2**62},
        {"count": 4.0},
        {"offset": 1},
        {"offset": -1},
        {"shape": (3, 2)},
        {"shape": (2, 3)},
        {"stride": (3, 1)},
        {"stride": (-2, 1)},
        {"shape": (10**9, 10**9), "stride": (0, 0)},
        {"shape": (2,)},
        {"shape": 3},
        {"shape": ("2", 2)},
    ],
)
def test_a_tensor_cannot_leave_its_numbers(changes: dict[str, Any], tmp_path: Path) -> None:
    assert rebuilt(tmp_path, **changes).startswith("damaged or cut short")


class Knot:
    """Pickles as a module that holds itself ten times."""

    def __getstate__(self) -> Any:
        return {"_modules": {str(k): self for k in range(10)}, "_parameters": {}, "_buffers": {}}


def test_a_module_within_itself_and_names_for_a_terminal(tmp_path: Path) -> None:
    torch.save({"model": Knot()}, tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt") == "holds no weights by name; its keys: model"
    torch.save({"a\x1b[2J": torch.ones(1)}, tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt") == "a weight has a name that cannot be printed"


def test_a_legacy_file_cannot_ask_for_memory(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pt").read_bytes()
    large = pickle.dumps(2**40, 2)[2:-1]
    assert data.count(b"K\x03N") == 1
    (tmp_path / "a.pt").write_bytes(data.replace(b"K\x03N", large + b"N"))
    assert "more numbers than the file has bytes" in refusal(tmp_path / "a.pt")


# -- into a network


@pytest.fixture
def network() -> nn.Module:
    return diffnas.build_network("darts-v1", channels=4, layers=1)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "architecture.", "model.module.", "network."]
)
def test_prefixes_of_wrappers(prefix: str, network: nn.Module, tmp_path: Path) -> None:
    state = {name: torch.rand_like(t.float()).to(t.dtype) for name, t in network.state_dict().items()}
    profiled = {f"{prefix}cells.0.total_ops": torch.zeros(1), f"{prefix}total_params": torch.zeros(1)}
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()} | profiled
    torch.save({"epoch": 1, "state_dict": wrapped}, tmp_path / "a.pth.tar")
    load_weights(network, tmp_path / "a.pth.tar", "darts")
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in state.items())


def test_a_part_that_was_compiled(network: nn.Module) -> None:
    state = {name.replace("cells.0.", "cells.0._orig_mod."): t + 1 for name, t in network.state_dict().items()}
    load_weights(network, {"state_dict": state}, "darts")
    assert torch.equal(network.get_parameter("classifier.bias"), state["classifier.bias"])
    both = {**network.state_dict(), **{f"module.{name}": t + 1 for name, t in network.state_dict().items()}}
    with pytest.raises(WeightsError, match="differ, though they are one weight here"):
        load_weights(network, both, "darts")


def test_many_mismatches_are_summed_up(network: nn.Module) -> None:
    state = {name: torch.zeros(99) for name in network.state_dict()} | {
        f"strange.{k}": torch.zeros(1) for k in range(40)
    }
    del state["classifier.bias"]
    with pytest.raises(WeightsError) as caught:
        load_weights(network, state, "darts")
    lines = [line.removeprefix("weights of darts: ") for line in caught.value.lines]
    assert len(lines) == 5
    assert lines[:2] == [
        "strange.0: no place for it in this module",
        "39 others have no place in this module, such as strange.9",
    ]
    assert lines[2] == "classifier.bias: nothing in the state dict fills it"
    assert re.fullmatch(r"\S+ has the shape \[99\], \S+ has \[.*\]", lines[3])
    assert re.fullmatch(r"\d+ others have another shape, such as \S+", lines[4])


def test_names_of_fairdarts() -> None:
    """Ops by node and input, and where an edge has several, one after another."""
    text = "[('sep_conv_3x3', 2, 0), ('dil_conv_3x3', 2, 0), ('none', 2, 1), ('sep_conv_3x3', 4, 1)]"
    genotype = diffnas.load_genotype(
        f"Genotype(normal={text}, normal_concat=range(2, 6), reduce={text}, reduce_concat=range(2, 6))"
    )
    network = diffnas.build_network(genotype, channels=4, layers=1)
    names = {
        "cells.0._ops.2.0.0.op.1.weight": "cells.0.ops.0.1.weight",
        "cells.0._ops.2.0.1.op.2.weight": "cells.0.ops.1.2.weight",
        "cells.0._ops.4.1.0.op.5.weight": "cells.0.ops.3.5.weight",
        "cells.0._ops.4.1.1.op.5.weight": "cells.0.ops.4.1.1.5.weight",  # there is none
        "cells.0.preprocess0.op.1.weight": "cells.0.preprocess.0.1.weight",
    }
    assert diffnas.interop.translate(network, names, "fairdarts") == names
