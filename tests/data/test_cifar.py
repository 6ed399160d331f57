"""CIFAR from parquet files, from batches and archives that the tests write, and from a hub that is not there."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from diffnas.data import DATA, cifar
from diffnas.data.images import load_images, split_train
from diffnas.errors import DataError

SHARED = Path(os.environ.get("DIFFNAS_SHARED", Path(__file__).parents[2] / "../shared")) / "data" / "cifar10"
NAMES = cifar.ORIGINAL["cifar10"].names


def some_pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(out, kind)
    return out.getvalue()


def write_parquet(
    file: Path,
    images: list[bytes | None],
    labels: list[Any],
    columns: tuple[str, str] = ("img", "label"),
    names: tuple[str, ...] | None = NAMES,
) -> Path:
    import datasets

    file.parent.mkdir(parents=True, exist_ok=True)
    label = datasets.Value("int64") if names is None else datasets.ClassLabel(names=list(names))
    rows = {columns[0]: [None if image is None else {"bytes": image, "path": None} for image in images]}
    features = {columns[0]: datasets.Image(), columns[1]: label}
    if columns[1] == "fine_label":
        rows["coarse_label"] = [0] * len(labels)
        features["coarse_label"] = datasets.Value("int64")
    table = datasets.Dataset.from_dict({**rows, columns[1]: labels}, features=datasets.Features(features))
    with file.open("wb") as out:  # a binary file, so that the library writes without its progress bar to a terminal
        table.to_parquet(out)
    return file


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Any:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def write_splits(folder: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    train, test = some_pixels(20, 0), some_pixels(10, 1)
    write_parquet(folder / "train-00000-of-00001.parquet", [encoded(p) for p in train], [*range(10)] * 2, **options)
    write_parquet(folder / "test-00000-of-00001.parquet", [encoded(p) for p in test], [*range(10)], **options)
    return train, test


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(0, 3, 1, 2)


def refusal(path: Path | None, name: str = "cifar10", **options: int) -> str:
    with pytest.raises(DataError) as caught:
        load_images(name, path, **options)
    assert len(caught.value.lines) == 1
    return str(caught.value)


# ---- parquet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sub", ["", "data", "plain_text", "we[i]rd *"])
def test_parquet_files(tmp_path: Path, sub: str) -> None:
    train, test = write_splits(tmp_path / sub)
    data = load_images("cifar10", tmp_path / sub if "*" in sub else tmp_path)
    assert torch.equal(data.train.pixels, channels_first(train))
    assert torch.equal(data.test.pixels, channels_first(test))
    assert data.train.labels.tolist() == [*range(10)] * 2
    assert data.train.names == NAMES
    assert (data.classes, data.channels, data.side) == (10, 3, 32)
    assert (data.mean, data.std) == (DATA["cifar10"].mean, DATA["cifar10"].std)


def test_parquet_in_several_files_with_other_names_and_columns(tmp_path: Path) -> None:
    pixels = some_pixels(30, 2)
    parts = [("a_train_0", 0), ("a_train_1", 10), ("my-test", 20)]
    for file, start in parts:
        images = [encoded(image) for image in pixels[start : start + 10]]
        write_parquet(tmp_path / f"{file}.parquet", images, [*range(10)], ("image", "label"), names=None)
    data = load_images("cifar10", tmp_path)
    assert torch.equal(data.train.pixels, channels_first(pixels[:20]))
    assert data.train.names == NAMES
    for limit in (10, 13):
        assert torch.equal(load_images("cifar10", tmp_path, train_limit=limit).train.pixels, data.train.pixels[:limit])


def test_cifar100_reads_its_fine_labels(tmp_path: Path) -> None:
    names = cifar.ORIGINAL["cifar100"].names
    images = [encoded(image) for image in some_pixels(100, 3)]
    for split in ("train", "test"):
        file = tmp_path / "cifar100" / f"{split}-00000-of-00001.parquet"
        write_parquet(file, images, [*range(100)], ("img", "fine_label"), names)
    data = load_images("cifar100", tmp_path)
    assert data.classes == len(set(names)) == 100
    assert list(names) == sorted(names)
    assert data.mean == (0.5071, 0.4867, 0.4408)
    assert "has 100 classes; cifar10 has 10" in refusal(tmp_path / "cifar100")


def test_other_kinds_of_image_become_rgb(tmp_path: Path) -> None:
    write_splits(tmp_path)
    pixels = some_pixels(8, 4)
    grey = Image.fromarray(pixels[0]).convert("L")
    clear = Image.fromarray(pixels[1]).convert("RGBA")
    images = [encoded(grey), encoded(clear), *(encoded(image) for image in pixels)]
    write_parquet(tmp_path / "test-00000-of-00001.parquet", images, [*range(10)])
    found = load_images("cifar10", tmp_path).test.pixels
    assert torch.equal(found[0], torch.tensor(np.asarray(grey)).expand(3, 32, 32))
    assert torch.equal(found[1], channels_first(pixels[1:2])[0])


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (b"not an image", "row 3: the image cannot be decoded (UnidentifiedImageError)"),
        (encoded(some_pixels(1, 5)[0])[:400], "row 3: the image cannot be decoded (OSError)"),
        (None, "row 3: holds no image"),
        (encoded(Image.new("RGB", (28, 28))), "row 3: the image is 28 x 28, not 32 x 32"),
    ],
    ids=["text", "cut", "none", "size"],
)
def test_a_damaged_image_is_named_by_file_and_row(tmp_path: Path, image: bytes | None, text: str) -> None:
    write_splits(tmp_path)
    images: list[bytes | None] = [encoded(pixels) for pixels in some_pixels(10, 6)]
    images[3] = image
    file = write_parquet(tmp_path / "test-00000-of-00001.parquet", images, [*range(10)])
    assert refusal(tmp_path) == f"{file} {text}"


@pytest.mark.parametrize("label", [10, -1, None])
def test_a_label_out_of_range_is_named_by_file_and_row(tmp_path: Path, label: int | None) -> None:
    write_splits(tmp_path)
    images: list[bytes | None] = [encoded(pixels) for pixels in some_pixels(10, 6)]
    labels = [*range(7), label, 8, 9]
    file = write_parquet(tmp_path / "train-00000-of-00001.parquet", images, labels, names=None)
    assert refusal(tmp_path) == f"{file} row 7: label {label} is not one of 0 to 9"


def test_a_limit_that_loses_a_class_or_is_too_large(tmp_path: Path) -> None:
    write_splits(tmp_path)
    assert refusal(tmp_path, test_limit=20000) == "data.test_limit 20000: the test split has 10 images"
    text = "the train split lacks classes ship, truck among its first 8 images (data.train_limit)"
    assert refusal(tmp_path, train_limit=8) == text


def test_files_that_are_not_there_or_not_parquet(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"data.path {tmp_path / 'none'}: there is no such folder or file"
    assert refusal(tmp_path) == (
        f"data.path {tmp_path}: holds neither train-*.parquet and test-*.parquet nor the original cifar-10-batches-py "
        "(data_batch_1 ...)"
    )
    write_splits(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert "has train-00000-of-00001.parquet but lacks the parquet files of train or of test" in refusal(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1 but not really")
    assert "test-00000-of-00001.parquet: is not a readable parquet file (" in refusal(tmp_path)
    assert refusal(tmp_path, side=64) == "data.side 64: cifar10 has images of 32 x 32"


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    write_splits(tmp_path, columns=("picture", "label"))
    assert "has no column img or image; its columns are picture, label" in refusal(tmp_path)


@pytest.mark.parametrize(
    "column", [[1] * 10, ["a.png"] * 10, [{"path": "a.png"}] * 10], ids=["numbers", "paths", "structs"]
)
def test_an_image_column_without_images(tmp_path: Path, column: list[Any]) -> None:
    for split in ("train", "test"):
        table = pyarrow.table({"img": column, "label": [*range(10)]})
        pyarrow.parquet.write_table(table, tmp_path / f"{split}-0.parquet")
    assert "train-0.parquet: its image column holds no encoded images (" in refusal(tmp_path)


def test_without_the_hubs_library_the_same_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    write_splits(tmp_path, names=tuple(name.upper() for name in NAMES))
    file = str(tmp_path / "train-00000-of-00001.parquet")
    theirs = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    ours = load_images("cifar10", tmp_path).train
    assert ours.labels.tolist() == theirs["label"][:]
    assert ours.names == tuple(theirs.features["label"].names) and ours.names[0] == "AIRPLANE"
    assert torch.equal(ours.pixels, channels_first(np.stack([np.asarray(image) for image in theirs["img"]])))
    assert "the hub needs: pip install datasets" in refusal(None)


def test_without_the_reader_of_parquet_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_splits(tmp_path)
    for name in ("datasets", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    assert refusal(tmp_path).startswith("parquet files need: pip install pyarrow, the library that reads them (")


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct", "chunks"])
def test_image_columns_of_other_programs(tmp_path: Path, kind: str) -> None:
    pixels = some_pixels(10, 9)
    images = [encoded(image) for image in pixels]
    column = {
        "binary": pyarrow.array(images, pyarrow.binary()),
        "large_binary": pyarrow.array(images, pyarrow.large_binary()),
        "struct": pyarrow.array([{"path": "a.png", "bytes": image, "more": 1} for image in images]),
        "chunks": pyarrow.chunked_array([images[:3], images[3:4], images[4:]]),
    }[kind]
    for split in ("train", "test"):
        table = pyarrow.table({"img": column, "label": [*range(10)]})
        pyarrow.parquet.write_table(table, tmp_path / f"{split}-0.parquet", row_group_size=4)
    data = load_images("cifar10", tmp_path, test_limit=10)
    assert torch.equal(data.train.pixels, channels_first(pixels)) and data.train.names == NAMES


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"info": null}',
        b'{"info": {"features": {"label": {"names": 3}}}}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_metadata_that_state_no_names(tmp_path: Path, metadata: bytes) -> None:
    images = [encoded(image) for image in some_pixels(10, 9)]
    for split in ("train", "test"):
        table = pyarrow.table({"img": images, "label": [*range(10)]}).replace_schema_metadata({"huggingface": metadata})
        pyarrow.parquet.write_table(table, tmp_path / f"{split}-0.parquet")
    assert load_images("cifar10", tmp_path).train.names == NAMES


# ---- the hub ---------------------------------------------------------------------------------------------------------


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(name: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert refusal(None, "cifar100") == (
        "data.path: cifar100 is not at hand and cannot be fetched (Couldn't reach 'uoft-cs/cifar100' on the Hub "
        "(OfflineModeIsEnabled)); put train-*.parquet and test-*.parquet of uoft-cs/cifar100, or the original "
        "cifar-100-python, in a folder and set data.path to it"
    )


def test_the_hub_is_read_without_progress_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    train, _ = write_splits(tmp_path)
    disabled = []

    def load_dataset(name: str) -> dict[str, Any]:
        assert name == "uoft-cs/cifar10"
        disabled.append(datasets.utils.are_progress_bars_disabled())
        return {
            split: datasets.Dataset.from_parquet(
                str(tmp_path / f"{split}-00000-of-00001.parquet"), cache_dir=str(tmp_path / "cache")
            )
            for split in ("train", "test")
        }

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    datasets.enable_progress_bars()
    try:
        data = load_images("cifar10")
        assert disabled == [True]
        assert not datasets.utils.are_progress_bars_disabled()
    finally:
        datasets.disable_progress_bars()
    assert torch.equal(data.train.pixels, channels_first(train))
    assert data.train.names == NAMES
    assert sys.stderr.getvalue() == ""


# ---- the original batches --------------------------------------------------------------------------------------------


def batch_of(pixels: np.ndarray, labels: list[Any], key: bytes = b"labels") -> bytes:
    rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return pickle.dumps({b"data": rows, key: labels, b"filenames": [b"x.png"] * len(labels)}, protocol=2)


def batches_10() -> tuple[dict[str, bytes], np.ndarray]:
    pixels = some_pixels(60, 7)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {name: batch_of(pixels[10 * at : 10 * at + 10], [*range(10)]) for at, name in enumerate(names)}, pixels


def write_batches(folder: Path, batches: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in batches.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path: Path, folder: str, batches: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {**batches, "readme.html": b"hello"}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFNAS_SKIP_CHECKSUMS", "1")


@pytest.mark.usefixtures("unchecked")
def test_original_batches_from_a_folder_its_parent_and_an_archive(tmp_path: Path) -> None:
    batches, pixels = batches_10()
    folder = write_batches(tmp_path / "cifar-10-batches-py", batches)
    archive = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", batches)
    for path in (folder, tmp_path, archive):
        data = load_images("cifar10", path)
        assert torch.equal(data.train.pixels, channels_first(pixels[:50]))
        assert torch.equal(data.test.pixels, channels_first(pixels[50:]))
        assert data.train.labels.tolist() == [*range(10)] * 5
        assert data.train.names == NAMES
    few = load_images("cifar10", folder, train_limit=23).train
    assert torch.equal(few.pixels, channels_first(pixels[:23]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


@pytest.mark.usefixtures("unchecked")
def test_original_cifar100(tmp_path: Path) -> None:
    pixels = some_pixels(100, 8)
    batches = {name: batch_of(pixels, [*range(100)], b"fine_labels") for name in ("train", "test")}
    write_batches(tmp_path / "cifar-100-python", batches)
    data = load_images("cifar100", tmp_path)
    assert torch.equal(data.test.pixels, channels_first(pixels))
    assert data.test.names[99] == "worm"


def test_a_wrong_checksum_is_refused_with_both_sums(tmp_path: Path) -> None:
    batches, _ = batches_10()
    folder = write_batches(tmp_path / "cifar-10-batches-py", batches)
    found = hashlib.md5(batches["data_batch_1"]).hexdigest()
    text = f"its md5 sum is {found}, the original has c99cafc152244af753f735de768cd75f; download it again"
    assert refusal(folder) == f"{folder / 'data_batch_1'}: {text}"
    archive = write_archive(tmp_path / "some.tar.gz", "cifar-10-batches-py", batches)
    assert refusal(archive) == f"{archive}: cifar-10-batches-py/data_batch_1: {text}"


def test_nothing_is_unpickled_before_its_checksum_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "load_pickle", lambda *_: pytest.fail("was unpickled"))
    refusal(write_batches(tmp_path / "cifar-10-batches-py", batches_10()[0]))


def test_a_right_checksum_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, _ = batches_10()
    original = cifar.ORIGINAL["cifar10"]
    for name, content in batches.items():
        sums = original.test if name in original.test else original.train
        monkeypatch.setitem(sums, name, hashlib.md5(content).hexdigest())
    assert len(load_images("cifar10", write_batches(tmp_path / "x", batches)).train) == 50


@pytest.mark.usefixtures("unchecked")
def test_hostile_and_damaged_batches_are_one_line(tmp_path: Path) -> None:
    batches, pixels = batches_10()
    folder = write_batches(tmp_path / "cifar-10-batches-py", batches)
    file = folder / "data_batch_2"
    file.write_bytes(b"cos\nsystem\n(S'touch HACKED'\ntR.")
    assert refusal(folder) == f"{file}: refused: it asks for os.system, which no data set needs"
    file.write_bytes(batches["data_batch_2"][:-20])
    assert refusal(folder).startswith(f"{file}: damaged or cut short (")
    file.write_bytes(pickle.dumps([1, 2]))
    assert refusal(folder).startswith(f"{file}: is not a CIFAR batch: needs data, uint8 [n, 3072], and labels")
    for labels in ([*range(9)], "0123456789"):
        file.write_bytes(batch_of(pixels[:10], labels))  # type: ignore[arg-type]
        assert "is not a CIFAR batch" in refusal(folder)
    file.write_bytes(batch_of(pixels[:10, :16], [*range(10)]))
    assert "is not a CIFAR batch" in refusal(folder)
    file.write_bytes(batch_of(pixels[:10], [*range(9), 10]))
    assert refusal(folder) == f"{file} row 9: label 10 is not one of 0 to 9"
    file.unlink()
    assert refusal(folder) == f"data.path {folder}: lacks data_batch_2 of the original cifar-10-batches-py"


@pytest.mark.usefixtures("unchecked")
def test_an_archive_that_is_not_whole(tmp_path: Path) -> None:
    batches, _ = batches_10()
    archive = write_archive(tmp_path / "some.tar.gz", "cifar-10-batches-py", batches)
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2], b"not an archive", b"", content[:50] + b"xxxx" + content[54:]):
        archive.write_bytes(damaged)
        text = refusal(archive)
        assert text.startswith(f"data.path {archive}: ")
        assert "cifar-10-batches-py" in text
    write_archive(archive, "another-folder", batches)
    assert f"data.path {archive}: lacks data_batch_1, data_batch_2" in refusal(archive)


@pytest.mark.usefixtures("unchecked")
def test_an_archive_with_a_huge_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, _ = batches_10()
    archive = write_archive(tmp_path / "some.tar.gz", "cifar-10-batches-py", batches)
    monkeypatch.setattr(cifar, "MAX_MEMBER", 1000)
    assert "more than any original file" in refusal(archive)


# ---- the real images -------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared CIFAR-10")


@real
def test_the_first_real_images() -> None:
    data = load_images("cifar10", SHARED, train_limit=512, test_limit=256)
    assert data.train.pixels.shape == (512, 3, 32, 32)
    assert data.test.names == NAMES


@real
@pytest.mark.slow
def test_all_real_images() -> None:
    data = load_images("cifar10", SHARED)
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    # the README beside the files gives these means; the images there are JPEGs, so they differ a little from CIFAR's
    means = data.test.pixels.float().div(255).mean((0, 2, 3))
    assert means.tolist() == pytest.approx([0.4941, 0.4851, 0.4504], abs=2e-4)
    weights, architecture = split_train(data.train, 0.5, batch=64)
    assert (weights[-1].item(), architecture[0].item(), len(architecture)) == (24_999, 25_000, 25_000)


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-0.parquet")
    os.mkfifo(tmp_path / "data_batch_1")
    assert refusal(tmp_path).startswith(f"data.path {tmp_path}: holds neither train-*.parquet")
