"""Image files of every kind, written by the tests, against what a viewer shows."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffnas.data import decode
from diffnas.data.decode import Range, Scale, read_image, read_images
from diffnas.data.images import load_images
from diffnas.data.pixels import rgb_image
from diffnas.errors import DataError

ROW, COLUMN = np.mgrid[:16, :16]
GREY = (COLUMN * 15).astype(np.uint8)
COLOUR = np.stack([COLUMN * 15, ROW * 15, 255 - COLUMN * 15], axis=2).astype(np.uint8)
ON_WHITE = np.rint(COLOUR * (GREY / 255)[..., None] + 255 - GREY[..., None]).astype(int)  # GREY being the alpha


def png16(path: Path, values: np.ndarray, transparent: tuple[int, ...] = ()) -> Path:
    """A PNG of 16 bits; Pillow writes none in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = values if values.ndim == 3 else values[..., None]
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    clear = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    body = chunk(b"IHDR", head) + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def tiff(path: Path, values: np.ndarray, photometric: int, order: str = "<", sample: int = 1) -> Path:
    """An uncompressed TIFF of 16 or 32 bits in either byte order; `sample` is 1 for unsigned numbers, 2 for signed."""
    height, width, *rest = values.shape
    channels, bits = (rest or [1])[0], values.dtype.itemsize * 8
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 512, 277: channels, 278: height}
    tags |= {279: values.nbytes, 339: sample} | ({338: 2} if channels == 4 else {})
    place, extra, entries = 400, b"", b""
    for tag, value in sorted(tags.items()):
        count = channels if tag in (258, 339) else 1
        content = struct.pack(f"{order}{count}H", *[value] * count)
        if len(content) > 4:
            content, extra = struct.pack(f"{order}I", place + len(extra)), extra + content
        entries += struct.pack(f"{order}HHI", tag, 3, count) + content.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags)) + entries + bytes(4)
    content = head.ljust(place, b"\0") + extra
    path.write_bytes(content.ljust(512, b"\0") + values.astype(values.dtype.newbyteorder(order)).tobytes())
    return path


def shown(file: Path, scale: Scale | None = None, side: int = 16) -> np.ndarray:
    return read_image(file, side, scale).permute(1, 2, 0).numpy().astype(int)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def require_close(found: np.ndarray, expected: np.ndarray, levels: int = 0) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected.astype(int)).max() <= levels


@pytest.mark.parametrize(
    ("mode", "suffix", "levels"),
    [
        ("L", "png", 0), ("1", "png", 0), ("1", "tif", 0), ("RGB", "png", 0), ("RGB", "bmp", 0), ("RGB", "ppm", 0),
        ("P", "gif", 0), ("CMYK", "tif", 0), ("CMYK", "jpg", 8), ("YCbCr", "tif", 4), ("LAB", "tif", 40),
    ],
)  # fmt: skip
def test_modes_of_8_bits(tmp_path: Path, mode: str, suffix: str, levels: int) -> None:
    image = Image.fromarray(COLOUR if mode in ("RGB", "CMYK", "YCbCr", "LAB") else GREY)
    if mode == "LAB":
        image = lab(image)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    image.save(tmp_path / f"one.{suffix}")
    expected = np.asarray(image.convert("RGB") if mode in ("1", "P") else Image.fromarray(COLOUR))
    require_close(shown(tmp_path / f"one.{suffix}"), grey(GREY) if mode == "L" else expected, levels)


def lab(image: Image.Image) -> Image.Image:
    cms = pytest.importorskip("PIL.ImageCms")
    profiles = cms.createProfile("sRGB"), cms.createProfile("LAB")
    converted: Image.Image = cms.profileToProfile(image, *profiles, outputMode="LAB")
    return converted


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([COLOUR, GREY])).save(tmp_path / "rgba.png")
    require_close(shown(tmp_path / "rgba.png"), ON_WHITE, 1)
    Image.fromarray(np.dstack([0 * COLOUR, GREY])).save(tmp_path / "shape.png")  # black, its shape in alpha alone
    require_close(shown(tmp_path / "shape.png"), grey(255 - GREY))
    Image.fromarray(np.dstack([0 * GREY, GREY])).save(tmp_path / "la.png")
    require_close(shown(tmp_path / "la.png"), grey(255 - GREY))
    Image.fromarray(GREY).save(tmp_path / "value.png", transparency=30)
    require_close(shown(tmp_path / "value.png"), grey(np.where(GREY == 30, 255, GREY)))
    palette = Image.fromarray(GREY).quantize(16)
    clear = np.asarray(palette) == 3
    expected = np.where(clear[..., None], 255, np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "palette.png", transparency=3)
    require_close(shown(tmp_path / "palette.png"), expected)
    for mode in ("La", "RGBa", "PA"):
        assert rgb_image(Image.new(mode, (2, 2))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("factor", [1, 16, 257], ids=["8 bits", "12 bits", "16 bits"])
def test_integers_are_scaled_by_the_bits_in_use(tmp_path: Path, factor: int) -> None:
    wide = GREY.astype(np.uint16) * np.uint16(factor)
    top = {1: 255, 16: 4095, 257: 65535}[factor]
    expected = np.rint(255 * wide.astype(float) / top).astype(int)
    Image.fromarray(wide).save(tmp_path / "grey.png")
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "int32.tif")
    files = [tmp_path / "grey.png", tmp_path / "int32.tif", tiff(tmp_path / "big.tif", wide, 1, ">")]
    for file in files:
        require_close(shown(file), grey(expected))
    require_close(shown(tiff(tmp_path / "inverted.tif", wide, 0)), grey(255 - expected))
    colour = COLOUR.astype(np.uint16) * np.uint16(factor)
    expected = np.rint(255 * colour.astype(float) / {1: 255, 16: 4095, 257: 65535}[factor]).astype(int)
    for file in (
        png16(tmp_path / "rgb.png", colour),
        tiff(tmp_path / "little.tif", colour, 2),
        tiff(tmp_path / "big.tif", colour, 2, ">"),
    ):
        require_close(shown(file), expected)


@pytest.mark.parametrize("factor", [1, 257])
def test_alpha_of_16_bits(tmp_path: Path, factor: int) -> None:
    whole = np.dstack([COLOUR, GREY]).astype(np.uint16) * np.uint16(factor)
    require_close(shown(png16(tmp_path / "rgba.png", whole)), ON_WHITE, 1)
    require_close(shown(tiff(tmp_path / "rgba.tif", whole, 2)), ON_WHITE, 1)
    wide = GREY.astype(np.uint16) * np.uint16(factor)
    file = png16(tmp_path / "value.png", wide, transparent=(30 * factor,))
    require_close(shown(file), grey(np.where(GREY == 30, 255, GREY)))


def test_integers_of_32_bits_and_below_zero(tmp_path: Path) -> None:
    file = tiff(tmp_path / "unsigned.tif", GREY.astype(np.uint32) * np.uint32(2**32 // 255), 1)
    require_close(shown(file), grey(GREY), 1)
    below = GREY.astype(np.int16) - np.int16(100)
    require_close(shown(tiff(tmp_path / "signed.tif", below, 1, sample=2)), grey(np.rint(GREY / 225 * 255)))


@pytest.mark.parametrize(
    ("factor", "shift", "top"),
    [(1 / 255, 0, 255), (1.0, 0, 255), (257.0, 0, 255), (0.01, -1, 225), (1e-3, 0, 225), (1.2 / 255, 0, 225)],
)
def test_floats_are_scaled_by_their_range(tmp_path: Path, factor: float, shift: float, top: int) -> None:
    Image.fromarray((GREY * factor + shift).astype(np.float32)).save(tmp_path / "one.tif")
    require_close(shown(tmp_path / "one.tif"), grey(np.rint(GREY / top * 255)), 1)


def test_a_set_has_one_scale(tmp_path: Path) -> None:
    wide = GREY.astype(np.uint16)
    for name, factor in (("dark", 1), ("bright", 16)):
        Image.fromarray(wide * np.uint16(factor)).save(tmp_path / f"{name}.png")
    Image.fromarray(GREY).save(tmp_path / "plain.png")
    files = [tmp_path / f"{name}.png" for name in ("dark", "bright", "plain")]
    pixels, scale, beyond = read_images(files, 16, Scale())
    assert scale == Scale(integers=(0.0, 4095.0)) and beyond == 0
    for found, factor in zip(pixels, (255 / 4095, 16 * 255 / 4095, 1), strict=True):
        assert np.array_equal(found[0].numpy(), np.rint(GREY * factor))
    again, same, beyond = read_images(files[:1], 16, scale)  # as a later test or prediction has it
    assert same == scale and np.array_equal(again[0], pixels[0])
    assert read_images(files, 16, Scale(integers=(0.0, 255.0)))[2] == 1
    assert not np.array_equal(read_image(files[0], 16), pixels[0])


def test_the_scale_is_that_of_the_training_images(tmp_path: Path) -> None:
    for split, factor in (("train", 1), ("test", 16)):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(GREY.astype(np.uint16) * np.uint16(factor)).save(tmp_path / split / name / "one.png")
    data = load_images("folder", tmp_path, side=16)
    assert data.scale == Scale(integers=(0.0, 255.0))
    said = "all test images are scaled as in the training; 2 of them hold values beyond, and are cut off"
    assert data.warnings[1] == f"{tmp_path / 'test'}: {said}"
    given = load_images("folder", tmp_path, side=16, scale=Scale(integers=(0.0, 65535.0)))
    assert int(given.train.pixels.max()) == 1 and given.scale.integers == (0.0, 65535.0)


def test_scales_of_ranges() -> None:
    def scale(kind: str, low: float, high: float) -> tuple[float, float] | None:
        found: tuple[float, float] | None = getattr(Scale().holding([Range(kind, low, high)]), kind)
        return found

    for high, top in ((0, 1), (1, 1), (2, 3), (255, 255), (256, 511), (4095, 4095), (65535, 65535)):
        assert scale("integers", 0, high) == (0, top)
    assert scale("integers", -5, 5) == (-5, 5)
    assert scale("floats", 0, 0.6) == (0, 1) and scale("floats", 0.2, 0.4) == (0.2, 0.4)
    assert scale("floats", 0, 200) == (0, 255) and scale("floats", 270, 310) == (270, 310)
    assert scale("floats", 3, 3) == (3, 4)  # a constant is black, not a division by zero
    held = Scale(floats=(0, 1)).holding([Range("floats", 0, 9), Range("integers", 0, 9), Range("integers", 0, 90)])
    assert held == Scale(integers=(0, 127), floats=(0, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused_by_name(tmp_path: Path, value: float) -> None:
    values = (GREY / 255).astype(np.float32)
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match=r"nan\.tif: holds values that are no numbers \(NaN or infinite\)$"):
        read_image(tmp_path / "nan.tif", 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "tiff_lzw", "I;16"])
def test_the_orientation_in_exif_is_obeyed(tmp_path: Path, kind: str, orientation: int) -> None:
    image = Image.fromarray(GREY.astype(np.uint16) * np.uint16(257) if kind == "I;16" else COLOUR)
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, Any] = {"jpg": {"quality": 100}, "tiff_lzw": {"compression": "tiff_lzw"}}.get(kind, {})
    file = tmp_path / f"one.{ {'tiff_lzw': 'tif', 'I;16': 'png'}.get(kind, kind) }"
    image.save(file, exif=exif, **options)
    plain = Image.fromarray(grey(GREY) if kind == "I;16" else COLOUR)
    plain.getexif()[274] = orientation
    require_close(shown(file), np.asarray(ImageOps.exif_transpose(plain)), 40 if kind == "jpg" else 0)


def test_a_turned_photograph_is_cut_in_its_middle(tmp_path: Path) -> None:
    photograph = np.zeros((600, 1000, 3), np.uint8)
    photograph[:, 200:800] = COLOUR.repeat(38, 0)[:600].repeat(38, 1)[:, :600]
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(photograph).save(tmp_path / "large.jpg", exif=exif, quality=95, subsampling=0)
    middle = Image.fromarray(photograph[:, 200:800]).resize((16, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(middle.transpose(Image.Transpose.ROTATE_270))
    inner = slice(1, -1)  # a border mixes with what is beside it
    require_close(shown(tmp_path / "large.jpg")[inner, inner], expected[inner, inner], 8)


def test_an_image_in_memory_is_read_like_a_file(tmp_path: Path) -> None:
    file = png16(tmp_path / "rgb.png", COLOUR.astype(np.uint16))
    assert np.array_equal(read_image(io.BytesIO(file.read_bytes()), 16), read_image(file, 16))
    with pytest.raises(DataError, match=r"^picture: is not a readable image \(UnidentifiedImageError\)$"):
        read_image(io.BytesIO(b"none"), 16, name="picture")


def test_damaged_exif_is_passed_over(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "one.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    require_close(shown(tmp_path / "one.png"), COLOUR)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "none.png", "."):
        with pytest.raises(DataError, match="is not there, or is no regular file"):
            read_image(tmp_path / name, 16)


def test_a_huge_image_and_too_many_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (2000, 2000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(DataError, match=r"bomb\.png: has more than 2 million pixels; make the image smaller"):
        read_image(tmp_path / "bomb.png", 16)

    def full(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode, "rgb_image", full)
    Image.fromarray(COLOUR).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"one\.png: there is not enough memory to decode it; make the image smaller"):
        read_image(tmp_path / "one.png", 16)
    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(
        DataError, match="2 images of 1024 x 1024 need 0.0 GiB of memory; set data.stream=true, or lower data.side"
    ):
        read_images([tmp_path / "one.png"] * 2, 1024, Scale())


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3)])
def test_pillow_is_the_reference_for_resizing_in_16_bits(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    file = png16(tmp_path / "one.png", values.astype(np.uint16) * np.uint16(257))
    plain = Image.fromarray(values).convert("RGB").resize((5, 5), Image.Resampling.BILINEAR)
    require_close(shown(file, side=5), np.asarray(plain), 1)
