"""MATLAB's MAT-files of version 5, as far as published data sets need them; nothing in them is run.

https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

MATRIX, COMPRESSED = 14, 15
NUMBERS = {
    1: "<i1",
    2: "<u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}
TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
DAMAGED = (ArithmeticError, LookupError, MemoryError, ValueError, struct.error, zlib.error)
"""What reading a damaged file raises."""
MAX_BYTES = 2**28  # the largest variable of SVHN has 225 MB
_VERSION = b"\x00\x01IM"

Element = tuple[int, memoryview]


def matrices(content: bytes) -> Iterator[list[Element]]:
    """The elements of each variable: flags, shape, name, and its values; raises one of `DAMAGED`."""
    # not by scipy.io.loadmat: damaged files can end the process there
    if content[124:128] != _VERSION:
        raise ValueError("not version 5, little-endian")
    for kind, data in elements(memoryview(content)[128:]):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(data, MAX_BYTES)
            if not unpacker.eof:
                raise ValueError("cut short, or larger than any original")
            ((kind, data),) = elements(memoryview(unpacked))
        if kind == MATRIX:
            yield list(elements(data))


def elements(data: memoryview) -> Iterator[Element]:
    """(type, content) of each element: a tag of two uint32, the content, and padding to 8 bytes."""
    start = 0
    while start + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, start)
        small = kind >> 16  # the size of content that lies within the tag
        if small:
            kind, size, begin, after = kind & 0xFFFF, small, start + 4, start + 8
        else:
            begin = start + 8
            after = begin + size + (0 if kind == COMPRESSED else -size % 8)
        if begin + size > len(data) or small > 4:
            raise ValueError("an element ends behind the file")
        yield kind, data[begin : begin + size]
        start = after


def structs(parts: list[Element]) -> list[dict[str, list[Element]]]:
    """The values of an array of structures, by field, each as the elements of a variable."""
    _, _, _, (_, width), (_, joined), *values = parts
    (length,) = struct.unpack("<i", width)
    names = [bytes(joined[at : at + length]).split(b"\0")[0].decode("latin1") for at in range(0, len(joined), length)]
    fields = [list(elements(data)) for _, data in values]
    return [dict(zip(names, fields[at : at + len(names)], strict=True)) for at in range(0, len(fields), len(names))]


def number_of(parts: list[Element]) -> float:
    """The first number of a variable."""
    kind, values = parts[3]
    return float(np.frombuffer(values, NUMBERS[kind])[0])


def text_of(parts: list[Element]) -> str:
    """The text of a variable."""
    kind, values = parts[3]
    return bytes(values).decode(TEXTS[kind])
