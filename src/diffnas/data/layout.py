"""Finds the splits in a folder of images from names alone: PATH/train/CLASS/* with PATH/test/CLASS/*, or PATH/CLASS/*.

Splits are known by their names in any case and Unicode form (`train`, `Testing`, `val_set`, `seg_train`), and are never
taken for classes: what does not fit is refused in one line that says what was wanted and what was found.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffnas.data import few
from diffnas.data.files import Files, Joined
from diffnas.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
KINDS_READ = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
WANTED = (
    "PATH/train/CLASS/* with PATH/test/CLASS/* (or val), or PATH/CLASS/* alone, where no class has the name of a split"
)
MACHINES = frozenset({"__MACOSX", "@eaDir", "lost+found"})  # folders that systems leave, no more ours than hidden ones
PICTURES = frozenset({"image", "images", "img", "imgs", "jpegimages", "photos", "pictures"})
MARKINGS = frozenset({"label", "labels", "mask", "masks", "annotation", "annotations", "boxes", "bboxes", "gt"})
LOOSE = "images outside of class folders"
_PIECE = re.compile(
    r"(?P<train>train(?:ing)?)|(?P<valid>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?|eval(?:uation)?)"
    r"|data(?:set)?|sets?|split|folder|images?|imgs?|pictures?|photos?|samples?|seg|[\W\d_]+"
)
_SPLIT_WORD = re.compile(rf"(?<![^\W\d_])(?:{_PIECE.pattern.partition('|data')[0]})(?![^\W\d_])")

Classes = dict[str, Sequence[str]]


@dataclass(frozen=True)
class Layout:
    """Images by class: `parts` has `train`, `test` and `valid` as far as they are there, `folders` where they came from.

    Where the classes stand alone there is one part, `all`.  `aside` counts what no part uses, by what it is.
    """

    parts: Mapping[str, Classes]
    folders: Mapping[str, str]
    aside: Mapping[str, int] = field(default_factory=dict)


def roles(name: str) -> frozenset[str]:
    """Returns the splits that a folder's name stands for: none for an ordinary name, two for `trainval`."""
    text, at = unicodedata.normalize("NFKC", name).casefold(), 0
    served: set[str] = set()
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            return frozenset()
        served |= {piece.lastgroup} if piece.lastgroup else set()
        at = piece.end()
    return frozenset(served)


def find_layout(path: Path, whole_test: bool = False) -> Layout:
    """Finds the splits in the folder at `path`; with `whole_test` only the test split, or all classes if they stand alone.

    With both, `val` is for choosing and `test` is the test; `val` alone is the test.  Raises `DataError` in one line
    where the names do not say which folder serves as what, and a line per kind of mistake in the classes.
    """
    aside: Counter[str] = Counter()
    folders = folders_in(path, aside)
    if not any(roles(folder.name) for folder in folders):
        return Layout({"all": class_files(path, folders, aside)}, {"all": "."}, aside)
    serving = _serving(path, folders, whole_test)
    used = {folder.relative_to(path).parts[0] for folder in serving.values()}
    aside.update({f"folder {shown_name(folder.name)}": 1 for folder in folders if folder.name not in used})
    parts = {role: class_files(folder, folders_in(folder, aside), aside) for role, folder in serving.items()}
    shown = {role: shown_name(folder.relative_to(path).as_posix()) for role, folder in serving.items()}
    return Layout(parts, shown, aside)


def shown_name(name: str) -> str:
    r"""`name` in NFC, one spelling for all systems; bytes that are no UTF-8 as `\xe9`, so that it can be written anywhere."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def mistakes(path: Path, layout: Layout) -> list[str]:
    """A line per kind of mistake in the classes of a part: some without images, or not those of train."""
    lines = []
    for role, classes in layout.parts.items():
        place = path / layout.folders[role]
        empty = [name for name, files in classes.items() if not files]
        lines += [f"{place}: {_classes_of(empty)} without images (read are {KINDS_READ})"] if empty else []
    train = layout.parts.get("train", {})
    for role in sorted(layout.parts.keys() - {"train"} if train else ()):
        pairs = [(train, "train", layout.parts[role], role), (layout.parts[role], role, train, "train")]
        said = [
            f"{_classes_of(missing)} in {layout.folders[here]}, not in {layout.folders[there]}"
            for one, here, other, there in pairs
            if (missing := sorted(one.keys() - other.keys()))
        ]
        lines += [f"data.path {path}: {'; '.join(said)}"] if said else []
    return lines


def _classes_of(names: Sequence[str]) -> str:
    return f"class {names[0]} is" if len(names) == 1 else f"{len(names):,} classes ({few(names)}) are"


def _serving(path: Path, folders: Sequence[Path], whole_test: bool) -> dict[str, Path]:
    """The folder of each part that is used, by role; `DataError` where that is not clear."""
    by_role: dict[str, list[Path]] = {"train": [], "test": [], "valid": []}
    for folder in folders:
        named = roles(folder.name)
        if len(named) == 1 and folders_in(folder):
            by_role[next(iter(named))].append(folder)
    twice = [serving for serving in by_role.values() if len(serving) > 1]
    if twice:
        both = " and ".join(shown_name(folder.name) for folder in twice[0])
        raise _refusal(path, folders, f"{both} both serve as the same part")
    serving = {role: _inner(folders[0]) for role, folders in by_role.items() if folders}
    if "test" not in serving and "valid" in serving:
        serving["test"] = serving.pop("valid")
    if whole_test and "test" in serving:
        return {"test": serving["test"]}
    if "test" not in serving and "train" in serving:
        train, use = serving["train"], "test all of it" if whole_test else "hold out a fifth of it"
        raise _refusal(
            path, folders, f"has {shown_name(train.name)} but no test with class folders; to {use}, give {train}"
        )
    if "train" not in serving:
        raise _refusal(path, folders, "names of splits are no classes, and there is no train with class folders")
    return serving


def _inner(folder: Path) -> Path:
    """Returns `folder`, or the only folder in it with the same role (train/train), as archives often unpack."""
    inside = folders_in(folder)
    return _inner(inside[0]) if len(inside) == 1 and roles(inside[0].name) == roles(folder.name) else folder


def _refusal(path: Path, folders: Iterable[Path], why: str) -> DataError:
    contents = [f"{shown_name(folder.name)} ({_content(folder)})" for folder in folders]
    return DataError(f"data.path {path}: {why}; wanted: {WANTED}; found: {few(contents)}")


def _content(folder: Path) -> str:
    """`2 folders`, `8 images`, `nothing`: what a folder holds directly."""
    aside: Counter[str] = Counter()
    counts = {"folder": len(folders_in(folder, aside)), "image": aside[LOOSE]}
    return ", ".join(f"{count:,} {what}{'s' * (count > 1)}" for what, count in counts.items() if count) or "no images"


def class_files(path: Path, folders: Sequence[Path], aside: Counter[str]) -> Classes:
    """The images below each class folder of `path`, also in its sub-folders, in order of their names."""
    names = [folder.name for folder in folders]
    if not folders:
        raise DataError(f"data.path {path}: holds no class folders; wanted: {WANTED}; found: {_content(path)}")
    if _are_splits(names):
        raise _refusal(path, folders, "names of splits are no classes")
    if _are_drawn_on(names):
        raise _refusal(path, folders, "these are pictures and what was marked on them, no classes")
    classes: dict[str, list[Files]] = {}
    for folder in folders:
        files, inner = _images(folder, aside)
        if _are_splits(inner):
            remedy = f"give {folder}" if len(folders) == 1 else "splits stand above classes, not below them"
            raise _refusal(folder, folders_in(folder), f"has the names of splits inside of a class ({remedy})")
        classes.setdefault(shown_name(folder.name), []).append(files)
    return {name: parts[0] if len(parts) == 1 else Joined(parts) for name, parts in sorted(classes.items())}


def _are_splits(names: Sequence[str]) -> bool:
    """Whether sibling folders are splits, not classes: several or all have such names, or all speak of different splits.

    One class among others may well be called train.
    """
    named = [name for name in names if roles(name)]
    if len(named) > 1 or (named and len(named) == len(names)):
        return True
    spoken = [_SPLIT_WORD.search(unicodedata.normalize("NFKC", name).casefold()) for name in names]
    return all(spoken) and len({word.lastgroup for word in spoken if word is not None}) > 1


def _are_drawn_on(names: Sequence[str]) -> bool:
    """Whether sibling folders are those of a set for detection or segmentation (`images` and `labels`), not classes."""
    plain = {name.casefold() for name in names}
    return plain <= PICTURES | MARKINGS and bool(plain & PICTURES) and bool(plain & MARKINGS)


def folders_in(path: Path, aside: Counter[str] | None = None) -> list[Path]:
    """The visible folders in `path` by name; files beside them count as left aside."""
    folders = []
    for entry in _entries(path):
        if _is_folder(entry) and not _is_hidden(entry.name):
            folders.append(Path(entry.path))
        elif aside is not None:
            aside[_kind(entry) or LOOSE] += 1
    return sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; of plain files the disk is not asked."""
    # unlike those of an entry, questions to a path stand a link that leads to itself
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and Path(entry.path).is_dir())


def find_images(folder: Path) -> list[Path]:
    """The images in `folder` and its sub-folders, in order of their names; what is hidden or no file is passed over."""
    return [Path(file) for file in _images(folder, Counter())[0]]


def _images(folder: Path, aside: Counter[str]) -> tuple[Files, list[str]]:
    """The images below `folder` in order of their names, and the folders in it; what else is there is counted."""
    names: list[str] = []
    places, inner = [""], []
    while places:
        place = places.pop()
        for entry in _entries(folder / place):
            name = entry.name
            if entry.is_file(follow_symlinks=False) and not _is_hidden(name) and _is_image(name):
                names.append(f"{place}{name}")  # nearly all of them, and the disk is not asked
            elif _is_hidden(name):
                aside["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                places.append(f"{place}{name}/")
                inner += [] if place else [name]
            elif kind := _kind(entry):
                aside[kind] += 1
            else:
                names.append(f"{place}{name}")
    return Files(sorted(names), os.path.join(folder, "")), inner


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns a name for a file that is not an image, or an empty string for an image."""
    if _is_hidden(entry.name):
        return "hidden"
    if _is_folder(entry):
        return "links to folders"
    if not _is_image(entry.name):
        return "files that are no images"
    return "" if Path(entry.path).is_file() else "pipes, devices or broken links"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in MACHINES


def _is_image(name: str) -> bool:
    return name[name.rfind(".") :].lower() in SUFFIXES
