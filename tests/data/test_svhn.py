"""SVHN from MATLAB files that scipy writes, from parquet files, and from a hub that is not there."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat

from diffnas.data import DATA, matlab, svhn
from diffnas.data.images import load_images
from diffnas.errors import DataError

TRAIN, TEST = svhn.ORIGINAL
DIGITS = [*range(1, 10), 10]  # 10 is the digit 0


def some_pixels(count: int, seed: int) -> np.ndarray:
    """uint8 [32, 32, 3, n], as the original files have them."""
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)


def mat(pixels: np.ndarray, labels: Any, compress: bool = True, **more: Any) -> bytes:
    out = io.BytesIO()
    digits = np.asarray(labels)
    savemat(out, {"X": pixels, "y": digits[:, None] if digits.ndim == 1 else digits, **more}, do_compression=compress)
    return out.getvalue()


def write(folder: Path, train: bytes, test: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAIN).write_bytes(train)
    (folder / TEST).write_bytes(mat(some_pixels(10, 9), np.uint8(DIGITS)) if test is None else test)
    return folder


def refusal(path: Path | None, **options: int) -> str:
    with pytest.raises(DataError) as caught:
        load_images("svhn", path, **options)
    assert len(caught.value.lines) == 1
    return str(caught.value)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFNAS_SKIP_CHECKSUMS", "1")


def test_what_is_known_of_it() -> None:
    info = DATA["svhn"]
    assert (info.classes, info.channels, info.side, info.crop, info.flip) == (10, 3, 32, 4, True)
    assert (info.mean, info.std) == ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


# ---- the MATLAB files ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_matlab_files(tmp_path: Path, compress: bool, kind: type) -> None:
    pixels = some_pixels(20, 0)
    folder = write(tmp_path, mat(pixels, np.array(DIGITS * 2, kind), compress))
    data = load_images("svhn", folder)
    assert data.train.labels.tolist() == [*range(1, 10), 0] * 2
    assert data.train.names == tuple("0123456789")
    for image, row, column, channel in ((0, 0, 0, 0), (3, 5, 7, 1), (19, 31, 30, 2)):
        assert data.train.pixels[image, channel, row, column] == pixels[row, column, channel, image]
    assert torch.equal(data.train.pixels, torch.tensor(pixels).permute(3, 2, 0, 1))
    assert data.train.pixels.is_contiguous()
    assert (data.classes, data.channels, data.side) == (10, 3, 32)
    few = load_images("svhn", folder, train_limit=13).train.pixels
    assert torch.equal(few, data.train.pixels[:13])


@pytest.mark.parametrize("compress", [True, False])
def test_variables_are_read_as_scipy_reads_them(compress: bool) -> None:
    others = {"note": "a text", "cell": np.array([{"X": 1}, "y"], dtype=object), "Z": np.eye(3) * 1j}
    content = mat(some_pixels(7, 1), np.arange(1, 8), compress, **others)
    expected = loadmat(io.BytesIO(content))
    x, y = svhn._variables(content, "some.mat")
    assert np.array_equal(x, expected["X"])
    assert np.array_equal(y, expected["y"])


def element(kind: int, content: bytes) -> bytes:
    """An element as the format has it: small content lies within the tag."""
    if len(content) <= 4:
        return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


@pytest.mark.parametrize(("number", "code"), [(2, "B"), (4, "H"), (9, "d")])
def test_doubles_may_be_stored_as_smaller_numbers(number: int, code: str) -> None:
    """MATLAB does so where nothing is lost; scipy never writes it."""
    pixels = some_pixels(2, 0)
    digits = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", 2, 1)) + element(1, b"y")
    digits += element(number, struct.pack(f"<2{code}", 7, 10))
    x, y = svhn._variables(
        mat(pixels, np.uint8([7, 10]))[:128] + element(14, image_of(pixels)) + element(14, digits), ""
    )
    assert y.tolist() == [[7], [10]]
    assert np.array_equal(x, pixels)


def image_of(pixels: np.ndarray) -> bytes:
    head = element(6, struct.pack("<II", 9, 0)) + element(5, struct.pack("<4i", *pixels.shape)) + element(1, b"X")
    return head + element(2, pixels.tobytes(order="F"))


def test_a_wrong_checksum_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = mat(some_pixels(10, 0), np.uint8(DIGITS))
    folder = write(tmp_path, content)
    monkeypatch.setattr(svhn, "_variables", lambda *_: pytest.fail("was read"))
    found = hashlib.md5(content).hexdigest()
    expected = "e26dedcc434d2e4c54c9b2d4a06d8373"
    text = f"{folder / TRAIN}: its md5 sum is {found}, the original has {expected}; download it again"
    assert refusal(folder) == text


def test_a_right_checksum_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, mat(some_pixels(10, 0), np.uint8(DIGITS)))
    for file in svhn.ORIGINAL:
        monkeypatch.setitem(svhn.ORIGINAL, file, hashlib.md5((folder / file).read_bytes()).hexdigest())
    assert len(load_images("svhn", folder).train) == 10


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.uint8([*DIGITS[:4], 0, *DIGITS[5:]]), "image 4: label 0 is not one of 1 to 10 (10 is the digit 0)"),
        (np.uint8([*DIGITS[:9], 11]), "image 9: label 11 is not"),
        (np.array([*DIGITS[:9], np.nan]), "image 9: label nan is not"),
        (np.array([1.5, *DIGITS[1:]]), "image 0: label 1.5 is not"),
        (np.array([-1e300, *DIGITS[1:]]), "image 0: label -1"),
        (np.int16([-3, *DIGITS[1:]]), "image 0: label -3 is not"),
        (np.uint8(DIGITS[:9]), "is not SVHN: needs X, uint8 [32, 32, 3, n], and y, n labels [n, 1]"),
        (np.uint8([DIGITS]), "is not SVHN"),
    ],
)
def test_labels_that_cannot_be(tmp_path: Path, labels: np.ndarray, text: str) -> None:
    folder = write(tmp_path, mat(some_pixels(10, 0), labels))
    assert refusal(folder).startswith(f"{folder / TRAIN}")
    assert text in refusal(folder)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "content",
    [
        mat(some_pixels(10, 0)[:16], np.uint8(DIGITS)),
        mat(some_pixels(10, 0).astype(np.float64), np.uint8(DIGITS)),
        mat(some_pixels(10, 0)[..., 0], np.uint8(DIGITS)),
    ],
    ids=["size", "type", "one"],
)
def test_pixels_that_cannot_be(tmp_path: Path, content: bytes) -> None:
    assert "is not SVHN: needs X, uint8 [32, 32, 3, n]" in refusal(write(tmp_path, content))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_whole_matlab_file(tmp_path: Path) -> None:
    content = mat(some_pixels(10, 0), np.uint8(DIGITS))
    version_7_3 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)
    for damaged in (b"", b"text", content[:-200], content[: len(content) // 2], version_7_3, b"\x00" * 4096):
        text = refusal(write(tmp_path, damaged))
        assert text.startswith(f"{tmp_path / TRAIN}: is not a whole MATLAB file of version 5 (")
    assert "needs X" in refusal(write(tmp_path, content[:128]))


@pytest.mark.usefixtures("unchecked")
def test_a_variable_that_unpacks_to_more_than_any_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zlib.compress(bytes(2_000_000))
    bomb = bytes(124) + b"\x00\x01IM" + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    monkeypatch.setattr(matlab, "MAX_BYTES", 1_000_000)
    assert "larger than any original" in refusal(write(tmp_path, bomb))


@pytest.mark.parametrize("compress", [True, False])
def test_damage_anywhere_is_one_line(compress: bool) -> None:
    content = mat(some_pixels(2, 0), np.uint8([1, 2]), compress)
    some = random.Random(0)
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(some.randrange(1, 4)):
            damaged[some.randrange(124, min(len(damaged), 400))] = some.randrange(256)
        try:
            x, y = svhn._variables(bytes(damaged), "some.mat")
            assert x.shape == (32, 32, 3, len(y))
        except DataError as error:
            assert len(error.lines) == 1


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"data.path {tmp_path / 'none'}: there is no such folder"
    assert refusal(tmp_path) == (
        f"data.path {tmp_path}: holds neither train-*.parquet and test-*.parquet nor the original train_32x32.mat and "
        "test_32x32.mat"
    )
    write(tmp_path, b"")
    assert refusal(tmp_path / TRAIN) == f"data.path {tmp_path / TRAIN}: there is no such folder"
    (tmp_path / TEST).unlink()
    assert refusal(tmp_path) == f"data.path {tmp_path}: lacks test_32x32.mat of the original SVHN"
    assert refusal(tmp_path, side=16) == "data.side 16: svhn has images of 32 x 32"


# ---- parquet and the hub ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Any:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def table(pixels: np.ndarray, labels: list[int], names: tuple[str, ...] | None = svhn.NAMES) -> Any:
    import datasets

    encoded = []
    for image in pixels.transpose(3, 0, 1, 2):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        encoded.append({"bytes": out.getvalue(), "path": None})
    label = datasets.Value("int64") if names is None else datasets.ClassLabel(names=list(names))
    features = datasets.Features({"image": datasets.Image(), "label": label})
    return datasets.Dataset.from_dict({"image": encoded, "label": labels}, features=features)


def write_parquet(folder: Path, **options: Any) -> np.ndarray:
    """Train and test as the hub has them, and another split beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = some_pixels(10, 3)
    for split in ("train", "test", "extra"):
        given = pixels if split != "extra" else some_pixels(10, 4)
        with (folder / f"{split}-00000-of-00001.parquet").open("wb") as out:
            table(given, [*range(10)], **options).to_parquet(out)
    return pixels


@pytest.mark.parametrize("sub", ["", "cropped_digits", "data"])
@pytest.mark.parametrize("names", [svhn.NAMES, None])
def test_parquet_files(tmp_path: Path, sub: str, names: tuple[str, ...] | None) -> None:
    pixels = write_parquet(tmp_path / sub, names=names)
    data = load_images("svhn", tmp_path)
    assert torch.equal(data.train.pixels, torch.tensor(pixels).permute(3, 2, 0, 1))
    assert torch.equal(data.test.pixels, data.train.pixels)
    assert data.train.labels.tolist() == [*range(10)]
    assert data.train.names == svhn.NAMES


def test_parquet_files_of_something_else(tmp_path: Path) -> None:
    write_parquet(tmp_path, names=tuple("abcdefghij"))
    file = tmp_path / "train-00000-of-00001.parquet"
    assert refusal(tmp_path) == f"{file}: its classes are a, b, c, d, e, f, g, h, i, j; svhn has the digits 0 to 9"
    file.write_bytes(b"PAR1 but not really")
    assert refusal(tmp_path).startswith(f"{file}: is not a readable parquet file (")
    file.unlink()
    assert "lacks the parquet files of train or of test" in refusal(tmp_path)


def test_without_the_hubs_library_the_same_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_parquet(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert torch.equal(load_images("svhn", tmp_path).train.pixels, torch.tensor(pixels).permute(3, 2, 0, 1))
    assert "pip install datasets" in refusal(None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in refusal(tmp_path)


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    pixels, seen = some_pixels(10, 5), []

    def load_dataset(*arguments: str) -> dict[str, Any]:
        seen.append(arguments)
        return {split: table(pixels, [*range(10)]) for split in ("train", "test", "extra")}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert torch.equal(load_images("svhn").test.pixels, torch.tensor(pixels).permute(3, 2, 0, 1))
    assert seen == [("ufldl-stanford/svhn", "cropped_digits")]


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: str) -> None:
        raise ConnectionError("no way there")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert refusal(None) == (
        "data.path: svhn is not at hand and cannot be fetched (no way there); put cropped_digits/train-*.parquet and "
        "test-*.parquet of ufldl-stanford/svhn, or the original train_32x32.mat and test_32x32.mat, in a folder and set "
        "data.path to it"
    )
