"""The layouts in which people have ImageNet."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnas.data import Row
from diffnas.data.images import list_splits
from diffnas.data.streamed_set import Reading, stream_images
from diffnas.data.views import View, read_view
from diffnas.errors import DataError

PICTURES = runpy.run_path(str(Path(__file__).parents[1] / "pictures.py"))
save, save_set = PICTURES["save"], PICTURES["save_set"]

WNIDS = ("n00000000", "n00000001", "n00000002")
CLASSES = [2, 0, 1, 1, 0, 2]  # of six validation images, in the order of their numbers


def labels(path: Path, test_only: bool = False) -> dict[str, int]:
    """The class of each test image by its file name."""
    listed = list_splits("imagenet", path, test_only=test_only)
    test = listed.test
    return dict(
        sorted((Path(str(place)).name, label) for place, label in zip(test.places, test.labels.tolist(), strict=True))
    )


def refusal(path: Path | None) -> str:
    with pytest.raises(DataError) as caught:
        list_splits("imagenet", path)
    return "; ".join(caught.value.lines)


def flat(root: Path, train: str = "train", val: str = "val") -> Path:
    """Training images by class, and six validation images in one folder."""
    save_set(root / "all", val=0)
    (root / train).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / "all" / "train", root / train)
    (root / "all").rmdir()
    for number in range(1, 7):
        save(root / val / f"ILSVRC2012_val_{number:08d}.JPEG")
    return root


EXPECTED = {f"ILSVRC2012_val_{number:08d}.JPEG": CLASSES[number - 1] for number in range(1, 7)}
NUMBERS = {0: 30, 1: 10, 2: 20}  # the kit numbers classes in an order of its own


def kit(folder: Path, meaning: str) -> None:
    """The development kit's files: a number a line, and what numbers mean."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    truth = folder / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{NUMBERS[label]}\n" for label in CLASSES))
    if meaning == "map_clsloc.txt":
        rows = [f"{WNIDS[label]} {number} some_name\n" for label, number in NUMBERS.items()]
        (folder / meaning).write_text("".join(rows))
    elif meaning == "meta.mat":
        fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
        entries = [(number, WNIDS[label], "a, b", 0) for label, number in NUMBERS.items()]
        synsets = np.array([*entries, (1001, "n99999999", "a thing", 3)], dtype=fields)
        savemat(folder / meaning, {"synsets": synsets.reshape(-1, 1)}, do_compression=True)


def test_folders_by_class(tmp_path: Path) -> None:
    listed = list_splits("imagenet", save_set(tmp_path))
    assert listed.train is not None and listed.test.names == WNIDS == listed.train.names
    assert len(listed.train.places) == 24 and len(listed.test.places) == 12
    for place, label in zip(listed.test.places, listed.test.labels.tolist(), strict=True):
        assert f"/val/{WNIDS[label]}/" in str(place)


@pytest.mark.parametrize("meaning", ["meta.mat", "map_clsloc.txt"])
@pytest.mark.parametrize("folder", ["", "ILSVRC2012_devkit_t12/data", "devkit/data"])
def test_flat_validation_images_with_the_development_kit(tmp_path: Path, meaning: str, folder: str) -> None:
    root = flat(tmp_path / "imagenet")
    kit(root / folder, meaning)
    assert labels(root) == EXPECTED == labels(root, test_only=True)
    shutil.rmtree(root / "train")
    assert labels(root, test_only=True) == EXPECTED  # a test needs no training images
    assert "no train with class folders" in refusal(root)


def test_a_part_of_the_validation_images_is_known_by_its_numbers(tmp_path: Path) -> None:
    root = flat(tmp_path)
    kit(root, "map_clsloc.txt")
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
    save(root / "val" / "ILSVRC2012_val_00000009.JPEG")
    assert "does not say the class of" in refusal(root)
    (root / "val" / "ILSVRC2012_val_00000009.JPEG").unlink()
    assert labels(root) == {name: label for name, label in EXPECTED.items() if "0001" not in name}


@pytest.mark.parametrize("given", [".", "ILSVRC", "ILSVRC/Data/CLS-LOC"])
def test_kaggle(tmp_path: Path, given: str) -> None:
    flat(tmp_path, "ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val")
    save(tmp_path / "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG")
    rows = [
        f"ILSVRC2012_val_{k:08d},{WNIDS[label]} 85 1 499 272 {WNIDS[label]} 1 2 3 4 "
        for k, label in enumerate(CLASSES, 1)
    ]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    assert labels(tmp_path / given) == EXPECTED


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "LOC_val_solution.csv (Kaggle), or ILSVRC2012_validation_ground_truth.txt with meta.mat"),
        (("ILSVRC2012_validation_ground_truth.txt",), "meta.mat or map_clsloc.txt, which says which class"),
        (("map_clsloc.txt",), "ILSVRC2012_validation_ground_truth.txt, which has a number for each image"),
    ],
)
def test_what_is_missing_is_said_in_a_line(tmp_path: Path, files: Sequence[str], said: str) -> None:
    root = flat(tmp_path / "a" / "b" / "c" / "d")
    kit(tmp_path / "kit", "map_clsloc.txt")
    for file in files:
        shutil.copy(tmp_path / "kit" / file, root)
    line = refusal(root)
    assert said in line and line.count("\n") == 0


def test_damaged_lists_are_named(tmp_path: Path) -> None:
    root = flat(tmp_path)
    kit(root, "meta.mat")
    whole = (root / "meta.mat").read_bytes()
    for content in (b"", b"text", whole[:200], whole[:-30]):
        (root / "meta.mat").write_bytes(content)
        assert "meta.mat: is not the development kit's list of synsets" in refusal(root)
    (root / "meta.mat").write_bytes(whole)
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("7\n" * 6)
    assert "has the class 7, which" in refusal(root)
    (root / "meta.mat").unlink()
    (root / "map_clsloc.txt").write_text("what is this\n")
    assert "map_clsloc.txt: is no list of classes" in refusal(root)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "gone")
    save(tmp_path / "val" / "one.JPEG")
    kit(tmp_path, "map_clsloc.txt")
    assert "has 6 lines for 1 images, whose names have no numbers" in refusal(tmp_path)


def write_table(path: Path, count: int, start: int, file: Path, names: list[str] | None = None) -> None:
    """`count` encoded images, as the hub stores them, in a file of either kind."""
    import json

    import pyarrow
    from pyarrow import ipc
    from pyarrow import parquet as pq

    images = [save(path / f"{start + at}.JPEG", 30 + at, 40, start + at).read_bytes() for at in range(count)]
    image = pyarrow.array([{"bytes": content, "path": "a.JPEG"} for content in images])
    table = pyarrow.table({"image": image, "label": pyarrow.array([(start + at) % 3 for at in range(count)])})
    if names is not None:
        info = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(table, file, row_group_size=2)
        return
    writer: Any = ipc.new_stream if "stream" in str(file) else ipc.new_file
    with writer(str(file), table.schema) as out:
        out.write_table(table, max_chunksize=2)


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
            "data/validation-00000-of-00001.parquet",
        ),
        (["imagenet-train-0.stream.arrow", "imagenet-train-1.stream.arrow"], "imagenet-validation.stream.arrow"),
        (["train/data-00000.arrow", "train/data-00001.arrow"], "validation/data-00000.arrow"),
    ],
)
def test_tables(tmp_path: Path, train: list[str], validation: str) -> None:
    pytest.importorskip("pyarrow")
    root, names = tmp_path / "set", ["tench", "goldfish", "great white shark"]
    for at, file in enumerate([*train, validation]):
        write_table(tmp_path / "images", 5, 5 * at, root / file, names)
    listed = list_splits("imagenet", root)
    assert listed.train is not None and listed.train.names == tuple(names)
    assert listed.train.labels.tolist() == [k % 3 for k in range(10)] and len(listed.test.places) == 5
    place = listed.train.places[7]
    assert isinstance(place, Row) and place.row == 2 and place.file.endswith(train[1])
    for view in (View(8), View(8, 9)):
        for at in (7, 0, 9, 3):
            assert (
                read_view(listed.train.places[at], view) == read_view(str(tmp_path / f"images/{at}.JPEG"), view)
            ).all()
    data = stream_images("imagenet", root, Reading(View(8, 9), workers=2))
    assert len(data.train) == 10 and data.test.names == tuple(names)


def test_tables_that_lack_a_part_or_are_damaged(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_table(tmp_path / "images", 3, 0, tmp_path / "set" / "train-0.parquet")
    assert "has train-0.parquet but lacks the arrow or parquet files of validation" in refusal(tmp_path / "set")
    (tmp_path / "set" / "validation-0.parquet").write_bytes(b"PAR1")
    assert "validation-0.parquet: is not a readable table" in refusal(tmp_path / "set")


def test_the_hub_keeps_arrow_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    for role in ("train", "validation"):
        write_table(tmp_path / "images", 4, 0, tmp_path / f"{role}.stream.arrow")

    def load_dataset(hub: str) -> dict[str, Any]:
        assert hub == "ILSVRC/imagenet-1k"
        features = {"label": SimpleNamespace(names=["a", "b", "c"])}
        return {
            role: SimpleNamespace(cache_files=[{"filename": str(tmp_path / f"{role}.stream.arrow")}], features=features)
            for role in ("train", "validation")
        }

    utils = SimpleNamespace(are_progress_bars_disabled=lambda: True)
    library = SimpleNamespace(load_dataset=load_dataset, utils=utils)
    monkeypatch.setattr("diffnas.data.imagenet.import_datasets", lambda: library)
    listed = list_splits("imagenet", None)
    assert listed.test.names == ("a", "b", "c") and len(listed.test.places) == 4

    def unreachable(hub: str) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(library, "load_dataset", unreachable)
    assert "imagenet is not at hand and cannot be fetched (offline); set data.path" in refusal(None)


def test_images_need_not_be_jpegs(tmp_path: Path) -> None:
    root = save_set(tmp_path)
    Image.new("L", (9, 9), 5).save(root / "val" / WNIDS[0] / "grey.png")
    assert "grey.png" in labels(root)
