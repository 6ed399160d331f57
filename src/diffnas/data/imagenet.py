"""ImageNet (ILSVRC 2012), or a part of it, in the layouts that people have it in.

O. Russakovsky et al., ImageNet large scale visual recognition challenge (IJCV 2015).  A folder of images by class; flat
validation images with the development kit's or Kaggle's list; arrow or parquet files; the Hugging Face hub.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from diffnas.data import DATA, Listed, few, tables
from diffnas.data.cifar import import_datasets, quietly
from diffnas.data.devkit import classes_of
from diffnas.data.folder import listed_of, read, read_test
from diffnas.data.layout import Layout, class_files, find_images, folders_in, mistakes, roles, shown_name
from diffnas.errors import DataError

KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")


def read_imagenet(name: str, path: Path | None = None, side: int | None = None, test_only: bool = False) -> Listed:
    """Train and test of "imagenet", listed but not decoded; its validation images are the test.

    Classes are in alphabetical order of their folders, which is the usual order of WordNet ids.  With `test_only` there need
    not be training images.  Raises `DataError`, a line per mistake, where the layout is none of those above.
    """
    if path is None:
        return _read_hub(name)
    if not path.is_dir():
        raise DataError(f"data.path {path}: there is no such folder")
    found = tables.find_tables(path)
    if found:
        return _read_tables(path, found, test_only)
    place = next((path / inside for inside in KAGGLE if (path / inside).is_dir()), path)
    flat = _flat_validation(place)
    if flat is not None:
        return _read_flat(path, place, flat, test_only)
    return (read_test if test_only else read)("folder", place, side)


def read_imagenet_test(name: str, path: Path | None = None, side: int | None = None) -> Listed:
    """Reads the test images alone, or all images of a folder of classes."""
    return read_imagenet(name, path, side, test_only=True)


def _flat_validation(place: Path) -> Path | None:
    """The folder of validation images that has no folders in it."""
    for folder in folders_in(place):
        if roles(folder.name) == {"valid"} and not folders_in(folder):
            return folder
    return None


def _read_flat(path: Path, place: Path, flat: Path, test_only: bool) -> Listed:
    """Training images by folder, and the classes of the validation images from a list."""
    images = [str(image) for image in find_images(flat)]
    if not images:
        raise DataError(f"{flat}: holds no images")
    parts = {"test": classes_of(images, [path, place, flat, *path.absolute().parents[:3]])}
    aside: Counter[str] = Counter()
    folders = {"test": shown_name(flat.relative_to(path).as_posix())}
    train = [folder for folder in folders_in(place) if roles(folder.name) == {"train"}]
    if train and not test_only:
        parts["train"] = class_files(train[0], folders_in(train[0]), aside)
        folders["train"] = shown_name(train[0].relative_to(path).as_posix())
    elif not test_only:
        raise DataError(f"data.path {path}: has {flat.name} but no train with class folders")
    layout = Layout(parts, folders, aside)
    lines = mistakes(path, layout)
    if lines:
        raise DataError(*lines)
    return listed_of(layout)


def _read_tables(path: Path, found: dict[str, list[Path]], test_only: bool) -> Listed:
    test = "valid" if "valid" in found else "test"  # the labels of ImageNet's test are not published
    if test not in found or ("train" not in found and not test_only):
        lacking = "validation" if test not in found else "train"
        files = [file.name for files in found.values() for file in files]
        raise DataError(f"data.path {path}: has {few(files, 3)} but lacks the arrow or parquet files of {lacking}")
    splits = {role: tables.list_tables(found[role]) for role in ("train", test) if role in found}
    folders = {"train": "train", "test": "validation" if test == "valid" else "test"}
    return Listed(None if test_only else splits["train"], splits[test], folders=folders)


def _read_hub(name: str) -> Listed:
    """The set of the hub, which its library keeps in arrow files."""
    datasets, hub = import_datasets(), DATA[name].hub
    try:
        with quietly(datasets):
            splits = datasets.load_dataset(hub)
            files = {role: [each["filename"] for each in splits[role].cache_files] for role in ("train", "validation")}
            names = tuple(splits["train"].features["label"].names)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise DataError(
            f"data.path: {name} is not at hand and cannot be fetched ({error}); set data.path to a folder with train/CLASS/*"
            " and val/CLASS/*, or with train-*.parquet and validation-*.parquet"
        ) from None
    train, test = (tables.list_tables(files[role], names) for role in ("train", "validation"))
    return Listed(train, test, folders={"train": "train", "test": "validation"})
