"""Digests of the images that a network was trained on, so that a test can leave them out.

A digest is made of the pixels as the network gets them, before augmentation: so an image is found again under another name,
in another folder, in another file format that loses nothing, and in data sets that are no files.  (Two images that are the
same at the network's size are one.)  `digests.bin` in the folder of a training is a line `diffnas-digests 1 SHA256`, the
sum of what follows: the first 8 bytes of BLAKE2b of each image, sorted.
"""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from diffnas.errors import RunError
from diffnas.runtime.files import read_bytes, write_bytes
from diffnas.runtime.run_folder import Part

MAGIC = b"diffnas-digests 1 "
SIZE = 8  # of 1.3 million training and 100,000 test images some two are taken for one with a chance of 1e-8


def digests_of(pixels: Tensor) -> np.ndarray:
    """The digests of images uint8 [M, C, H, W]: uint64 [M]."""
    rows = pixels.flatten(1).contiguous().cpu().numpy()
    return np.frombuffer(b"".join(hashlib.blake2b(row, digest_size=SIZE).digest() for row in rows), "<u8")


def keep_digests(part: Part, pixels: Tensor) -> None:
    """Adds images uint8 [M, C, H, W] to those that the training `part` has been trained on."""
    earlier, new = read_digests(part), digests_of(pixels)
    content = (np.unique(new) if earlier is None else np.union1d(new, earlier)).tobytes()
    write_bytes(part.digests, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_digests(part: Part) -> np.ndarray | None:
    """The digests of the images that `part` has been trained on, uint64 [M]; None where an earlier version kept none.

    Raises `RunError` where they are damaged.
    """
    try:
        header, _, content = read_bytes(part.digests).partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{part.digests}: cannot be read: {error.strerror}") from None
    if header != MAGIC + hashlib.sha256(content).hexdigest().encode() or len(content) % SIZE:
        remedy = "restore a copy, or remove it to test without knowing which images were trained on"
        raise RunError(f"{part.digests}: damaged, or of a newer version; {remedy}")
    return np.frombuffer(content, "<u8")
