"""Which folder serves as what, by names alone; every image is an empty file, for nothing is decoded here."""

from __future__ import annotations

import os
import socket
import unicodedata
from pathlib import Path

import pytest

from diffnas.data.layout import find_layout, mistakes, roles, shown_name
from diffnas.errors import DataError

READ = "read are bmp, gif, jfif, jpe, jpeg, jpg, pbm, pgm, png, ppm, tif, tiff, webp"


def fill(root: Path, *names: str) -> Path:
    """`root` with empty files of these names; a name that ends with a slash is a folder of two images."""
    for name in names:
        for file in (f"{name}0.png", f"{name}1.jpg") if name.endswith("/") else (name,):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).touch()
    return root


def refusal(root: Path, whole_test: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        find_layout(root, whole_test)
    (line,) = caught.value.lines
    assert str(root) in line and line.isascii() and len(line) < 1000
    return line


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("train Train TRAINING training_set train1 Train-Images trainset seg_train train2017 ｔｒａｉｎ", "train"),
        ("val VALID validation dev Dev valid_data val2017 validation-set", "valid"),
        ("test Testing test_set TEST1 eval evaluation test_images testset", "test"),
        ("cat trains trainer valley validate tests developer bullet_train test_tube evaluate latest images data 1", ""),
    ],
)
def test_names_of_splits(names: str, role: str) -> None:
    for name in names.split():
        assert roles(name) == ({role} if role else set()), name
    assert roles("trainval") == {"train", "valid"} and roles("") == set()


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training_set"])
@pytest.mark.parametrize("test", ["test", "Testing", "eval", "val", "Valid", "validation", "dev"])
def test_splits_in_any_spelling(tmp_path: Path, train: str, test: str) -> None:
    layout = find_layout(fill(tmp_path, f"{train}/cat/", f"{train}/dog/", f"{test}/cat/", f"{test}/dog/"))
    assert layout.folders == {"train": train, "test": test}
    assert {role: list(classes) for role, classes in layout.parts.items()} == {
        "train": ["cat", "dog"],
        "test": ["cat", "dog"],
    }


def test_val_is_for_choosing_where_there_is_a_test(tmp_path: Path) -> None:
    names = [f"{split}/{name}/" for split in ("Train", "Val", "Test") for name in ("cat", "dog")]
    layout = find_layout(fill(tmp_path, *names))
    assert layout.folders == {"train": "Train", "valid": "Val", "test": "Test"}
    assert find_layout(tmp_path, whole_test=True).folders == {"test": "Test"}


@pytest.mark.parametrize(
    "names",
    [
        ["train/0.png", "test/0.png"],  # flat
        ["Train/0.png", "Test/0.png", "VAL/0.png"],
        ["train/", "bus/"],  # among classes
        ["test/", "cat/", "dog/"],
        ["Test/cat/", "Test/dog/"],  # no train
        ["train/cat/", "train/dog/", "fox/"],  # no test
        ["train/cat/", "train/dog/", "test/0.png"],
        ["train/cat/", "training/cat/", "test/cat/"],  # two of one
        ["train/cat/", "test/cat/", "testing/cat/"],
        ["trainval/cat/", "trainval/dog/"],
        ["train/train/", "train/test/", "test/train/", "test/test/"],  # splits within splits
        ["cat/train/", "cat/test/", "dog/train/", "dog/test/"],  # splits below classes
        ["train/images/", "train/labels/", "test/images/", "test/labels/"],  # of another kind of task
        ["JPEGImages/", "Masks/", "annotations/a.txt"],
        ["images/train/", "images/val/", "labels/train/a.txt"],
        ["archive/train/cat/", "archive/train/dog/", "archive/test/cat/"],
        ["pets_train/", "pets_test/"],  # names that speak of different splits
    ],
)
def test_what_does_not_say_what_it_is_shows_the_layout_that_is_wanted(tmp_path: Path, names: list[str]) -> None:
    line = refusal(fill(tmp_path, *names))
    assert "wanted: PATH/train/CLASS/* with PATH/test/CLASS/* (or val), or PATH/CLASS/* alone" in line
    assert "; found: " in line and "image" in line or "folder" in line


def test_remedies(tmp_path: Path) -> None:
    line = refusal(fill(tmp_path / "a", "train/cat/", "train/dog/"))
    assert f"to hold out a fifth of it, give {tmp_path / 'a' / 'train'}" in line
    assert f"to test all of it, give {tmp_path / 'a' / 'train'}" in refusal(tmp_path / "a", whole_test=True)
    assert f"(give {tmp_path / 'b' / 'data'})" in refusal(fill(tmp_path / "b", "data/train/cat/", "data/test/cat/"))
    fill(tmp_path / "c", "train/a/", "Training/a/", "test/a/")
    assert "Training and train both serve as the same part" in refusal(tmp_path / "c")


def test_a_class_may_be_called_train_where_it_can_be_nothing_else(tmp_path: Path) -> None:
    names = [f"{split}/{name}/" for split in ("train", "test") for name in ("bus", "train")]
    assert list(find_layout(fill(tmp_path / "a", *names)).parts["train"]) == ["bus", "train"]
    assert list(find_layout(fill(tmp_path / "b", "bullet_train/", "test_tube/", "cat/")).parts["all"]) == [
        "bullet_train",
        "cat",
        "test_tube",
    ]


def test_a_split_in_itself_is_opened(tmp_path: Path) -> None:
    layout = find_layout(fill(tmp_path, "Train/Train/cat/", "Train/Train/dog/", "test/test/cat/", "test/test/dog/"))
    assert layout.folders == {"train": "Train/Train", "test": "test/test"}


def test_a_test_alone(tmp_path: Path) -> None:
    assert find_layout(fill(tmp_path / "a", "cat/", "dog/"), whole_test=True).folders == {"all": "."}
    assert find_layout(fill(tmp_path / "b", "Valid/cat/"), whole_test=True).folders == {"test": "Valid"}


def test_what_is_left_aside_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["train/cat/", "train/dog/", "test/cat/", "test/dog/", "labels/a.txt", "val/0.png", "__MACOSX/", ".git/"]
    fill(tmp_path, *names, "readme.md", "train/loose.png", "train/cat/.thumb.png", "train/cat/Thumbs.db")
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")
    (tmp_path / "train" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train" / "dog" / "zero.png").symlink_to("/dev/zero")
    for name in ("loop.png", "dog/loop.png"):  # what leads to itself is neither file nor folder
        (tmp_path / "train" / name).symlink_to("loop.png")
    (tmp_path / "train" / "dog" / "folder.png").mkdir()
    (tmp_path / "train" / "dog" / "loop").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path / "train" / "cat")  # a socket's name must be short
        listener.bind("socket.png")
    layout = find_layout(tmp_path)
    assert layout.aside == {
        "folder labels": 1,
        "folder val": 1,
        "hidden": 3,
        "files that are no images": 2,
        "images outside of class folders": 1,
        "pipes, devices or broken links": 6,
        "links to folders": 1,
    }
    assert [len(files) for files in layout.parts["train"].values()] == [2, 2]


def test_both_spellings_of_unicode_are_one_class(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path, f"train/{composed}/a", f"train/{composed}/0.png", f"train/{apart}/1.png", f"test/{apart}/0.png")
    layout = find_layout(tmp_path)
    assert [list(classes) for classes in layout.parts.values()] == [[composed], [composed]]
    assert len(layout.parts["train"][composed]) == 2 and mistakes(tmp_path, layout) == []


def test_a_name_that_is_no_utf8_can_be_written_everywhere(tmp_path: Path) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    open(os.fsencode(tmp_path) + b"/caf\xe9/0.png", "w").close()
    layout = find_layout(fill(tmp_path, "dog/"))
    assert list(layout.parts["all"]) == ["caf\\xe9", "dog"]
    assert shown_name("dog") == "dog"


def test_a_line_for_a_thousand_classes(tmp_path: Path) -> None:
    classes = [f"class-{number:04d}" for number in range(1000)]
    for name in classes:
        (tmp_path / "train" / name).mkdir(parents=True)
    fill(tmp_path, "test/class-0000/", "test/other/")
    first, second = mistakes(tmp_path, find_layout(tmp_path))
    shown = ", ".join(classes[:10])
    assert first == f"{tmp_path / 'train'}: 1,000 classes ({shown} and 990 more) are without images ({READ})"
    assert second.startswith(f"data.path {tmp_path}: 999 classes (class-0001, ")
    assert second.endswith(" and 989 more) are in train, not in test; class other is in test, not in train")


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "cat/", "dog/")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(tmp_path) == f"{tmp_path / 'dog'}: cannot be read (Permission denied)"
