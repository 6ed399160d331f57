"""Checkpoints: whole or absent, the last two kept, damage found, nothing executed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from diffnas.errors import CheckpointError
from diffnas.runtime.checkpoint import MAGIC, load_checkpoint, read_checkpoint, save_checkpoint


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((300,), float(step)), "names": ["a", None, 1.5, True]}


def names(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.iterdir())


def sealed(content: bytes) -> bytes:
    """`content` with a digest that is right."""
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path, step, state(step))
        found = load_checkpoint(tmp_path)
        assert found is not None and found["step"] == step and path.name == f"{step:012d}.pt"
    assert names(tmp_path) == [2, 3]
    assert torch.equal(read_checkpoint(path)["weights"], torch.full((300,), 3.0))


def test_the_largest_position_is_the_newest(tmp_path: Path) -> None:
    for step in (5, 10**12 - 1, 10**12, 10**13):
        save_checkpoint(tmp_path, step, {"step": step})
    assert load_checkpoint(tmp_path) == {"step": 10**13} and names(tmp_path) == [10**12, 10**13]


def test_going_on_from_an_earlier_one_loses_nothing(tmp_path: Path) -> None:
    for step in (10, 20):
        save_checkpoint(tmp_path, step, state(step))
    (tmp_path / f"{30:012d}.pt").write_bytes(b"")
    (tmp_path / f"{40:012d}.pt").write_bytes(b"")
    assert load_checkpoint(tmp_path)["step"] == 20  # type: ignore[index]
    save_checkpoint(tmp_path, 25, state(25))
    assert names(tmp_path) == [20, 25]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("mine")
    (tmp_path / "1.txt").write_text("mine")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {})
    assert (tmp_path / "notes.pt").exists() and (tmp_path / "1.txt").exists()


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "empty": lambda good, folder: b"",
    "truncated": lambda good, folder: good[: len(good) // 2],
    "cut by a byte": lambda good, folder: good[:-1],
    "header only": lambda good, folder: good.partition(b"\n")[0],
    "flipped bit": lambda good, folder: flipped(good),
    "wrong magic": lambda good, folder: b"x" + good[1:],
    "plain torch file": lambda good, folder: good.partition(b"\n")[2],
    "grown": lambda good, folder: good + b"x",
    "random": lambda good, folder: bytes(range(256)) * 9,
    "sealed nothing": lambda good, folder: sealed(b""),
    "sealed noise": lambda good, folder: sealed(b"\x80\x05" + bytes(range(256))),
    "sealed half": lambda good, folder: sealed(good.partition(b"\n")[2][:999]),
    "hostile pickle": lambda good, folder: sealed(pickle.dumps({"state": Hostile(folder / "owned")})),
    "old hostile pickle": lambda good, folder: sealed(pickle.dumps(Hostile(folder / "owned"), protocol=0)),
    "a list": lambda good, folder: sealed_list(),
}


def sealed_list() -> bytes:
    buffer = io.BytesIO()
    torch.save([1, 2], buffer)
    return sealed(buffer.getvalue())


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_the_one_before_it_used(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, 1, state(1))
    newest = save_checkpoint(folder, 2, state(2))
    newest.write_bytes(DAMAGE[kind](newest.read_bytes(), tmp_path))
    with pytest.raises(CheckpointError, match=str(newest)) as caught:
        read_checkpoint(newest)
    assert len(caught.value.lines) == 1
    warned: list[str] = []
    monkeypatch.setattr("diffnas.runtime.checkpoint.log.warning", lambda text, *values: warned.append(text % values))
    found = load_checkpoint(folder)
    assert found is not None and found["step"] == 1
    assert warned == [f"{caught.value}; going back to 000000000001.pt"]
    (folder / "000000000001.pt").write_bytes(b"")
    with pytest.raises(CheckpointError) as both:
        load_checkpoint(folder)
    assert len(both.value.lines) == 3 and "start anew in another folder" in both.value.lines[-1]
    assert not (tmp_path / "owned").exists()


def test_a_saved_torch_pickle_of_code_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state": Hostile(tmp_path / "owned")}, buffer)
    path = tmp_path / "1.pt"
    path.write_bytes(sealed(buffer.getvalue()))
    with pytest.raises(CheckpointError, match="refused: it holds more than plain data and tensors"):
        read_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "1.pt").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_checkpoint(tmp_path / "1.pt")
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_checkpoint(tmp_path / "2.pt")


def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path, 1, state(1))

    def full(*given: Any, **named: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(MemoryError):
        read_checkpoint(path)
