"""The restricted unpickler: plain data comes through, everything else is refused by name and never run."""

from __future__ import annotations

import builtins
import collections
import contextlib
import copyreg
import io
import os
import pickle
import subprocess
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffnas.errors import DataError
from diffnas.interop import unpickle
from diffnas.interop.unpickle import Omitted, load_pickle, load_torch

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(data: bytes, encoding: str = "bytes") -> Any:
    return load_pickle(io.BytesIO(data), "some.pkl", encoding)


def refusal(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        load(data)
    assert len(caught.value.lines) == 1
    assert str(caught.value).startswith("some.pkl: ")
    return str(caught.value)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


# ---- what must come through ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_and_containers(protocol: int) -> None:
    value = {
        "numbers": [1, 2.5, -(10**20), True, None, 1 + 2j],
        "text": ("a", "ü", b"raw\xff", bytearray(b"more\x00")),
        "sets": [{1, 2}, frozenset({3}), collections.OrderedDict(b=1, a=2)],
    }
    assert load(pickle.dumps(value, protocol), "latin1" if protocol < 1 else "bytes") == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        np.arange(5, dtype=">i4"),
        np.array([], dtype=np.int64),
        np.array(7.5),
        np.array([True, False]),
        np.array([b"ab", b"c"]),
        np.array(["ab", "c"]),
        np.array([1 + 2j]),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_numeric_arrays(array: np.ndarray, protocol: int) -> None:
    found = load(pickle.dumps(array, protocol))
    assert isinstance(found, np.ndarray)
    assert found.dtype == array.dtype.newbyteorder("=") or found.dtype == array.dtype  # numpy loads > as native
    assert np.array_equal(found, array)
    assert found.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars(protocol: int) -> None:
    found = load(pickle.dumps([np.float64(1.5), np.int64(-3), np.bool_(True)], protocol))
    assert found == [1.5, -3, True]
    assert [type(value) for value in found] == [np.float64, np.int64, np.bool_]


def test_a_batch_of_python_2_with_numpy_1() -> None:
    # as CIFAR's own files: byte strings without a type, numpy under its old name, protocol 2
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
        b"U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\x02\xfd\xfe\xfftbU\x06labels]q\x08(K\x05K\x09eu."
    )
    found = load(data)
    assert found.keys() == {b"data", b"labels"}
    assert found[b"data"].tolist() == [[0, 1, 2], [253, 254, 255]]
    assert found[b"labels"] == [5, 9]


# ---- what must not ---------------------------------------------------------------------------------------------------

HOSTILE = {
    "os.system": Calls(os.system, "touch HACKED"),
    "eval": Calls(eval, "open('HACKED', 'w')"),
    "exec": Calls(builtins.exec, "open('HACKED', 'w')"),
    "getattr": Calls(getattr, 1, "real"),
    "popen": Calls(subprocess.Popen, ["touch", "HACKED"]),
    "open": Calls(open, "HACKED", "w"),
    "import": Calls(__import__, "os"),
    "copyreg": Calls(copyreg.__newobj__, Calls),  # type: ignore[attr-defined]
    "reconstructor": Calls(copyreg._reconstructor, Calls, object, None),  # type: ignore[attr-defined]
    "path": Path("x"),
    "a class": Calls(Calls, 1),
    "range": range(10),
    "numpy function": Calls(np.zeros, 10**12),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_name_that_is_not_data_is_refused(
    kind: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (HOSTILE[kind], {"deep": [({"in": HOSTILE[kind]},)]}):
        text = refusal(pickle.dumps(value, protocol))
        assert "some.pkl: refused: it asks for " in text
        assert text.endswith(", which no data set needs")
    assert not list(tmp_path.iterdir())


def test_the_message_names_what_is_asked_for() -> None:
    assert refusal(b"cos\nsystem\n.") == "some.pkl: refused: it asks for os.system, which no data set needs"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("numpy", "ndarray.__subclasses__"),
        ("collections", "OrderedDict.__init__"),
        ("builtins", "set.__class__"),
        ("_codecs", "decode"),
        ("numpy", "load"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_dotted_names_do_not_lead_further(module: str, name: str, protocol: int) -> None:
    named = b"c" + f"{module}\n{name}\n".encode()
    if protocol == 4:
        named = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93"
    assert f"it asks for {module}.{name}," in refusal(b"\x80" + bytes([protocol]) + named + b".")


@pytest.mark.parametrize("data", [b"Psomething\n.", b"\x80\x02U\x04someQ."])
def test_a_persistent_id_is_refused(data: bytes) -> None:
    assert refusal(data) == "some.pkl: refused: it asks for an object outside the file (a persistent id)"


def test_old_instance_instructions_are_refused_too() -> None:
    assert "it asks for os.system," in refusal(b"(S'true'\nios\nsystem\n.")
    assert "it asks for os.system," in refusal(b"(cos\nsystem\nS'true'\no.")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_object_arrays_are_refused_with_their_contents_unrun(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is not plain numbers" in refusal(pickle.dumps(np.array([1, "a"], dtype=object), protocol))
    hostile = np.array([HOSTILE["os.system"], None], dtype=object)
    refusal(pickle.dumps(hostile, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["O", [("a", "O")], [("a", "i4"), ("b", "f8")], "M8[ns]", "V8"], ids=str)
def test_other_types_of_array_are_refused(dtype: Any) -> None:
    refusal(pickle.dumps(np.dtype(dtype)))
    refusal(pickle.dumps(np.zeros(3, dtype)))


def array_pickle(
    shape: bytes, raw: bytes, dtype_state: bytes = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
) -> bytes:
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        + dtype_state
        + b"\x89"
        + raw
        + b"tb."
    )


def test_a_state_that_lies_about_an_array_is_refused() -> None:
    good_raw = b"U\x06\x00\x01\x02\x03\x04\x05"
    assert load(array_pickle(b"K\x02K\x03\x86", good_raw)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert "bytes do not fit its shape" in refusal(array_pickle(b"K\x02K\x09\x86", good_raw))
    assert "bytes do not fit its shape" in refusal(array_pickle(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", good_raw))
    assert "without a valid shape" in refusal(array_pickle(b"J\xfe\xff\xff\xffJ\xfd\xff\xff\xff\x86", good_raw))
    assert "not plain numbers" in refusal(array_pickle(b"K\x06\x85", b"]"))
    with_fields = b"(K\x03U\x01|N(U\x01atU\x01bK\x08K\x08K\x00tb"
    assert "with fields" in refusal(array_pickle(b"K\x06\x85", good_raw, with_fields))


@pytest.mark.parametrize("name", ["_codecs\nencode", "numpy\ndtype", "numpy\nndarray", "builtins\nbytearray"])
@pytest.mark.parametrize("state", [b"}U\x01aK\x01sb", b"N}X\x0c\x00\x00\x00__defaults__)s\x86b"])
def test_a_stand_in_cannot_be_changed(name: str, state: bytes) -> None:
    before = dict(unpickle._ALLOWED)
    assert "AttributeError" in refusal(b"\x80\x02c" + name.encode() + b"\n" + state + b".")
    assert before == unpickle._ALLOWED


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",  # bytearray(2 ** 31 - 1)
        b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",  # bytes of length 2 ** 63 - 1
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x05C\x01xr\xff\xff\xff\x7f.",  # memo number 2 ** 31 - 1, for which the unpickler in C takes 32 GiB
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fabc.",  # a frame
        b"\x80\x02\x8b\xff\xff\xff\x7fabc.",  # a long number
    ],
)
def test_a_claimed_size_takes_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            assert len(load(data)) <= 4
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def pairs_of_pairs(depth: int) -> bytes:
    """Instructions that leave a tuple which holds another twice, and so on: 2 ** `depth` values in few bytes."""
    parts = [b"K\x01q\x00" + b"0"]
    parts += [b"h%ch%c\x86q%c0" % (level, level, level + 1) for level in range(depth)]
    return b"".join([*parts, b"h%c" % depth])


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}" + pairs_of_pairs(60) + b"K\x01s.",  # the key of a dictionary
        b"\x80\x04\x8f(" + pairs_of_pairs(60) + b"\x90.",  # within a set
        b"\x80\x02cbuiltins\ntuple\n](" + pairs_of_pairs(3) + b"e\x85R.",  # made by a call
    ],
)
def test_a_tuple_that_would_take_for_ever_to_hash_is_refused(data: bytes) -> None:
    assert "a tuple" in refusal(data)


def test_tuples_of_tuples_come_through() -> None:
    value = {(1, (2, (3,))): tuple((n, (n, n)) for n in range(5000))}
    for protocol in PROTOCOLS:
        assert load(pickle.dumps(value, protocol)) == value


def test_bytes_are_written_as_latin1_and_by_no_other_codec() -> None:
    assert load(b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00abcX\x06\x00\x00\x00latin1\x86R.") == b"abc"
    text = refusal(b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00abcX\x03\x00\x00\x00hex\x86R.")
    assert "bytes that are not written as latin1" in text


def test_registered_numbers_for_names_are_unknown() -> None:
    copyreg.add_extension("os", "system", 0xF0F0)
    try:
        refusal(b"\x80\x02\x83\xf0\xf0.")
    finally:
        copyreg.remove_extension("os", "system", 0xF0F0)


def test_a_file_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "MAX_BYTES", 100)
    assert load(pickle.dumps(b"x" * 50)) == b"x" * 50
    assert refusal(pickle.dumps(b"x" * 100)) == "some.pkl: refused: a pickle of over 100 bytes"


def test_a_file_cut_anywhere_is_one_line() -> None:
    data = pickle.dumps({"data": np.arange(20), "labels": [1, 2]}, 2)
    for length in range(len(data)):
        assert "damaged or cut short" in refusal(data[:length])


def test_a_damaged_file_never_ends_in_another_error() -> None:
    generator = np.random.default_rng(0)
    data = pickle.dumps({"data": np.arange(20, dtype=np.uint8), "labels": [1, 2], "x": {1}, "s": np.float64(2)}, 2)
    for _ in range(2000):
        damaged = bytearray(data)
        for at in generator.integers(0, len(data), 2):
            damaged[at] = generator.integers(0, 256)
        try:
            load(bytes(damaged))
        except DataError as error:
            assert len(error.lines) == 1  # noqa: PT017


def test_control_characters_of_a_name_are_escaped() -> None:
    assert "it asks for evil\\x1b[2J.name," in refusal(b"cevil\x1b[2J\nname\n.")


# ---- files of torch.save ---------------------------------------------------------------------------------------------


def saved(value: Any, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def load_saved(data: bytes, limit: int | None = None) -> Any:
    return load_torch(io.BytesIO(data), "some.pth", limit)


def refused_saved(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        load_saved(data)
    assert len(caught.value.lines) == 1 and str(caught.value).startswith("some.pth: ")
    return str(caught.value)


both = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@both
def test_plain_data_beside_tensors_comes_through(zipped: bool) -> None:
    layer = torch.nn.Linear(3, 2)
    value = {
        "accuracy": {("cifar10", 777): 91.5},
        "params": np.float64(0.1),
        "weights": layer.state_dict(),
        "parameter": layer.weight,
        "view": torch.arange(6.0)[2:4],
        "kinds": [torch.zeros(2, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.int64, torch.bool)],
    }
    found = load_saved(saved(value, zipped))
    assert found["accuracy"] == value["accuracy"] and found["params"] == 0.1
    assert list(found["weights"]) == ["weight", "bias"]
    tensors = [*found["weights"].values(), found["parameter"], found["view"], *found["kinds"]]
    assert all(isinstance(tensor, Omitted) and not hasattr(tensor, "__dict__") for tensor in tensors)


@both
@pytest.mark.parametrize("kind", HOSTILE)
def test_names_in_torch_files_are_refused_too(
    kind: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (HOSTILE[kind], {"deep": [torch.zeros(1), HOSTILE[kind]]}):
        assert "some.pth: refused: it asks for " in refused_saved(saved(value, zipped))
    assert not list(tmp_path.iterdir())


@both
def test_modules_and_other_objects_of_torch_are_refused(zipped: bool) -> None:
    assert "asks for torch.nn.modules.linear.Linear," in refused_saved(saved(torch.nn.Linear(1, 1), zipped))
    assert "asks for torch.device," in refused_saved(saved(torch.device("cpu"), zipped))


def test_names_of_tensors_are_refused_in_plain_pickles() -> None:
    assert "asks for torch._utils._rebuild_tensor_v2" in refusal(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n.")
    assert "asks for torch.FloatStorage" in refusal(b"\x80\x02ctorch\nFloatStorage\n.")


def legacy(pickled: bytes) -> bytes:
    """A file of torch.save before 1.6 whose object is `pickled`."""
    head = saved({}, zipped=False)
    start = head.index(pickle.dumps({}, 2))
    return head[:start] + pickled


def test_hostile_pickles_in_torch_files() -> None:
    assert load_saved(legacy(b"\x80\x02K\x07.")) == 7
    assert "outside the file" in refused_saved(legacy(b"\x80\x02K\x07Q."))  # not the numbers of a tensor
    assert "outside the file" in refused_saved(legacy(b"\x80\x02X\x06\x00\x00\x00module\x85Q."))
    assert "AttributeError" in refused_saved(legacy(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x01aK\x01sb."))
    storage = b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R."  # FloatStorage(2 ** 31 - 1)
    assert "TypeError" in refused_saved(legacy(storage))
    assert "is not a file of torch.save" in refused_saved(pickle.dumps({"full": 1}, 2))
    assert "damaged or cut short" in refused_saved(b"")
    machine = saved({}, zipped=False).replace(b"little_endian", b"littleXendian")
    assert load_saved(machine) == {}  # said by the file, and not used


def archive(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def test_archives_that_are_none_of_torch() -> None:
    assert load_saved(archive({"archive/data.pkl": b"K\x07."})) == 7
    assert load_saved(archive({"any name/data.pkl": b"K\x07.", "any name/version": b"3"})) == 7
    for files in ({}, {"data.pkl": b"K\x07."}, {"a/data.pkl": b"K\x07.", "b/data.pkl": b"K\x08."}):
        assert "is not a file of torch.save" in refused_saved(archive(files))
    bomb = archive({"a/data.pkl": bytes(2**22)}, zipfile.ZIP_DEFLATED)
    assert "is not a file of torch.save" in refused_saved(bomb)


def test_torch_files_have_a_limit() -> None:
    for zipped in (True, False):
        data = saved({"x": b"1" * 5000}, zipped)
        assert load_saved(data, len(data)) == {"x": b"1" * 5000}
        with pytest.raises(DataError, match="refused: a pickle of over 1000 bytes"):
            load_saved(data, 1000)


@both
def test_damaged_torch_files_end_in_one_line(zipped: bool) -> None:
    generator = np.random.default_rng(0)
    data = saved({"full": {("a", 1): 2.5}, "w": torch.zeros(2), "s": np.float64(2)}, zipped)
    damaged = [data[:length] for length in range(0, len(data), 7)]
    for _ in range(1500):
        copy = bytearray(data)
        for at in generator.integers(0, len(data), 2):
            copy[at] = generator.integers(0, 256)
        damaged.append(bytes(copy))
    for copy in damaged:
        with contextlib.suppress(DataError):
            load_saved(bytes(copy))
