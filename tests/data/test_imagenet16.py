"""ImageNet16-120 from batches that the tests write in the published layout."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffnas.data import DATA, imagenet16
from diffnas.data.images import load_images, split_train
from diffnas.errors import DataError

FILES = [*imagenet16.TRAIN, *imagenet16.TEST]
LABELS = [*range(120, 0, -1), 121, 1000]  # all that are kept, and two that are not


def some_rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 768), dtype=np.uint8)


def batch(rows: Any, labels: Any, protocol: int = 2) -> bytes:
    return pickle.dumps({"data": rows, "labels": labels, "mean": np.zeros(768)}, protocol=protocol)


def write(folder: Path, **contents: bytes) -> Path:
    """All eleven files: a row per label of `LABELS` in each, unless `contents` has the file."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, file in enumerate(FILES):
        (folder / file).write_bytes(contents.get(file) or batch(some_rows(len(LABELS), seed), LABELS))
    return folder


def refusal(path: Path | None, **options: int) -> str:
    with pytest.raises(DataError) as caught:
        load_images("imagenet16-120", path, **options)
    assert len(caught.value.lines) == 1
    return str(caught.value)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFNAS_SKIP_CHECKSUMS", "1")


def test_what_is_known_of_it() -> None:
    info = DATA["imagenet16-120"]
    assert (info.classes, info.channels, info.side, info.crop, info.flip) == (120, 3, 16, 2, True)
    assert info.mean == pytest.approx((0.481098, 0.457490, 0.407882), abs=1e-6)
    assert info.std == pytest.approx((0.247922, 0.240235, 0.255255), abs=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("sub", ["", "ImageNet16"])
def test_the_first_120_classes_are_kept_in_the_order_of_the_files(tmp_path: Path, sub: str) -> None:
    write(tmp_path / sub)
    data = load_images("imagenet16-120", tmp_path)
    assert (len(data.train), len(data.test)) == (1200, 120)
    assert data.train.labels.tolist() == [*range(119, -1, -1)] * 10
    assert (data.classes, data.channels, data.side) == (120, 3, 16)
    assert data.test.names[0] == "1"
    assert data.test.names[119] == "120"
    assert (data.mean, data.std) == (DATA["imagenet16-120"].mean, DATA["imagenet16-120"].std)
    rows = np.concatenate([some_rows(len(LABELS), seed)[:120] for seed in range(10)])
    assert torch.equal(data.train.pixels.view(1200, 768), torch.tensor(rows))
    assert torch.equal(data.test.pixels.view(120, 768), torch.tensor(some_rows(len(LABELS), 10)[:120]))
    few = load_images("imagenet16-120", tmp_path, train_limit=130).train
    assert torch.equal(few.pixels, data.train.pixels[:130])
    weights, architecture = split_train(data.train, 0.5, batch=64)
    assert (len(weights), len(architecture)) == (600, 600)


@pytest.mark.usefixtures("unchecked")
def test_a_row_is_three_planes_row_by_row(tmp_path: Path) -> None:
    rows = np.zeros((120, 768), np.uint8)
    rows[0, 256 * 2 + 16 * 3 + 5] = 200
    write(tmp_path, val_data=batch(rows, [*range(1, 121)]))
    pixels = load_images("imagenet16-120", tmp_path).test.pixels
    assert pixels.nonzero().tolist() == [[0, 2, 3, 5]]
    assert pixels[0, 2, 3, 5] == 200


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_batches_of_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    rows = some_rows(len(LABELS), 3)
    write(tmp_path, val_data=batch(rows, [np.int64(label) for label in LABELS], protocol))
    assert torch.equal(load_images("imagenet16-120", tmp_path).test.pixels.view(120, 768), torch.tensor(rows[:120]))


@pytest.mark.usefixtures("unchecked")
def test_batches_as_python_2_writes_them(tmp_path: Path) -> None:
    rows = some_rows(120, 4)
    state = b"(I1\n(I120\nI768\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n"
    text = repr(rows.tobytes())[1:].encode()  # the bytes of an array were a string
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state + b"S" + text + b"\ntb"
    labels = b"(l" + b"".join(b"I%d\na" % number for number in range(1, 121))
    write(tmp_path, val_data=b"(dS'data'\n" + array + b"sS'labels'\n" + labels + b"s.")
    data = load_images("imagenet16-120", tmp_path)
    assert torch.equal(data.test.pixels.view(120, 768), torch.tensor(rows))
    assert data.test.labels.tolist() == [*range(120)]


def test_a_wrong_checksum_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet16, "load_pickle", lambda *_: pytest.fail("was unpickled"))
    file = write(tmp_path) / "train_data_batch_1"
    found = hashlib.md5(file.read_bytes()).hexdigest()
    text = f"its md5 sum is {found}, the original has 27846dcaa50de8e21a7d1a35f30f0e91; download it again"
    assert refusal(tmp_path) == f"{file}: {text}"


def test_right_checksums_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    for sums in (imagenet16.TRAIN, imagenet16.TEST):
        for file in sums:
            monkeypatch.setitem(sums, file, hashlib.md5((tmp_path / file).read_bytes()).hexdigest())
    assert len(load_images("imagenet16-120", tmp_path).train) == 1200


@pytest.mark.usefixtures("unchecked")
def test_hostile_and_damaged_batches_are_one_line(tmp_path: Path) -> None:
    file = write(tmp_path) / "train_data_batch_7"
    whole = file.read_bytes()
    file.write_bytes(b"cos\nsystem\n(S'touch HACKED'\ntR.")
    assert refusal(tmp_path) == f"{file}: refused: it asks for os.system, which no data set needs"
    for content in (whole[:-20], b"", b"not a pickle"):
        file.write_bytes(content)
        assert refusal(tmp_path).startswith(f"{file}: damaged or cut short (")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (some_rows(3, 0)[:, :700], [1, 2, 3]),
        (some_rows(3, 0).astype(np.int64), [1, 2, 3]),
        (some_rows(3, 0).reshape(3, 3, 16, 16), [1, 2, 3]),
        (some_rows(3, 0), [1, 2]),
        (some_rows(3, 0), "123"),
        (None, [1, 2, 3]),
        (some_rows(3, 0), None),
    ],
)
def test_what_is_no_batch_of_it(tmp_path: Path, rows: Any, labels: Any) -> None:
    write(tmp_path, train_data_batch_2=batch(rows, labels))
    text = "is not a batch of ImageNet16: needs data, uint8 [n, 768], and labels, n numbers"
    assert refusal(tmp_path) == f"{tmp_path / 'train_data_batch_2'}: {text}"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("label", [0, 1001, -1, "7", None, 2.0])
def test_a_label_that_cannot_be(tmp_path: Path, label: Any) -> None:
    write(tmp_path, train_data_batch_2=batch(some_rows(3, 0), [1, label, 3]))
    assert refusal(tmp_path) == f"{tmp_path / 'train_data_batch_2'} row 1: label {label!r} is not one of 1 to 1000"


@pytest.mark.usefixtures("unchecked")
def test_a_class_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, val_data=batch(some_rows(118, 0), [*range(2, 120)]))
    assert refusal(tmp_path) == "the test split lacks classes 1, 120"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    batches = "train_data_batch_1 to train_data_batch_10 and val_data of ImageNet16"
    assert refusal(None) == f"data.path: imagenet16-120 is not fetched; set it to the folder that holds {batches}"
    assert refusal(tmp_path / "none") == f"data.path {tmp_path / 'none'}: there is no such folder"
    assert refusal(tmp_path) == f"data.path {tmp_path}: does not hold {batches}"
    write(tmp_path)
    for file in ("train_data_batch_3", "val_data"):
        (tmp_path / file).unlink()
    assert refusal(tmp_path) == f"data.path {tmp_path}: lacks train_data_batch_3, val_data of ImageNet16"
    assert refusal(tmp_path, side=32) == "data.side 32: imagenet16-120 has images of 16 x 16"
