"""Views of encoded images beside torchvision's, and beside those of images in memory."""

from __future__ import annotations

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnas.data import views
from diffnas.data.decode import read_image
from diffnas.data.views import NUMBERS, TRIES, View, centre, draw_numbers, random_box, read_view
from diffnas.errors import DataError

PICTURES = runpy.run_path(str(Path(__file__).parents[1] / "pictures.py"))
picture, save = PICTURES["picture"], PICTURES["save"]

GOLDENS = Path(__file__).parents[1] / "goldens" / "torchvision.npz"


@pytest.fixture
def goldens() -> dict[str, np.ndarray]:
    with np.load(GOLDENS) as stored:
        return dict(stored)


def numbers(*first: float) -> np.ndarray:
    return np.array([*first, *[0.5] * (NUMBERS - len(first))])


@pytest.mark.parametrize("number", range(5))
def test_the_test_transform_is_that_of_torchvision(number: int, goldens: dict[str, np.ndarray], tmp_path: Path) -> None:
    width, height, side, resize = goldens[f"centre_{number}_sizes"].tolist()
    expected = goldens[f"centre_{number}"].astype(int)
    path = save(tmp_path / "a.png", width, height)
    seen = read_view(str(path), View(side, resize))
    assert np.abs(seen.astype(int) - expected).max() <= 1  # of 255
    assert np.abs(seen - expected).mean() < 0.01


def test_a_very_long_image_is_not_resized_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(picture(300, 260))
    usual = centre(image, 112, 128).astype(int)
    monkeypatch.setattr(views, "LARGEST", 0)
    assert np.abs(centre(image, 112, 128) - usual).max() <= 2


@pytest.mark.parametrize("number", range(3))
def test_a_share_is_resized_as_by_torchvision(number: int, goldens: dict[str, np.ndarray], tmp_path: Path) -> None:
    width, height, left, top, w, h, side = goldens[f"share_{number}_sizes"].tolist()
    path, view = save(tmp_path / "a.png", width, height), View(side, side, (1.0, 1.0))
    content = path.read_bytes()
    box = pytest.MonkeyPatch()
    with box.context() as patch:
        patch.setattr(views, "random_box", lambda *_: (left, top, w, h))
        seen = views._random_view(views._Encoded(content, view.scale), view, numbers())
    assert np.abs(seen.astype(int) - goldens[f"share_{number}"]).max() <= 2  # of 255


def test_where_no_box_fits_the_centre_is_taken_as_by_torchvision(goldens: dict[str, np.ndarray]) -> None:
    for width, height, *expected in goldens["fallback_boxes"].tolist():
        assert list(random_box(width, height, [0.5] * (4 * TRIES), (4.0, 4.0))) == expected


def test_random_boxes_have_the_areas_and_shapes_that_are_asked_for() -> None:
    draws = draw_numbers(2000, torch.Generator().manual_seed(0))
    boxes = np.array([random_box(500, 400, row[:-1], (0.2, 0.6)) for row in draws])
    left, top, w, h = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (left + w <= 500).all() and (top + h <= 400).all()
    area, ratio = w * h / 200_000, w / h
    assert 0.19 < area.min() < 0.22 and 0.58 < area.max() < 0.61 and 0.38 < area.mean() < 0.42
    assert 0.74 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.35
    assert (left + w == 500).any() and (left == 0).any()  # the borders are reached


def test_the_numbers_decide_the_flip(tmp_path: Path) -> None:
    path, view = str(save(tmp_path / "a.png")), View(16, 18, (0.3, 0.9), flip=True)
    plain, flipped = (read_view(path, view, np.append(numbers()[:-1], last)) for last in (0.6, 0.4))
    assert (plain[:, ::-1] == flipped).all() and not (plain == flipped).all()
    assert (read_view(path, View(16, 18, (0.3, 0.9)), np.append(numbers()[:-1], 0.4)) == plain).all()


def test_without_a_resize_images_are_as_in_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", 90, 60)
    assert (read_view(str(path), View(16)) == read_image(path, 16).permute(1, 2, 0).numpy()).all()


def encoded(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", **options)
    return content.getvalue()


def test_both_decoders_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    image = Image.fromarray(picture(211, 157))
    kinds = {
        "plain": encoded(image),
        "grey": encoded(image.convert("L")),
        "progressive": encoded(image, progressive=True, subsampling=0),
        "cmyk": encoded(image.convert("CMYK")),
    }
    for kind, content in kinds.items():
        for factor in (1, 2, 4, 8):
            fast = views._Encoded(content, View(8).scale).pixels(factor)
            with monkeypatch.context() as patch:
                patch.setattr(views, "_jpeg", None)
                usual = views._Encoded(content, View(8).scale).pixels(factor)
            assert np.array_equal(fast, usual), (kind, factor)


def test_images_lie_upright_and_of_all_modes(tmp_path: Path) -> None:
    image, exif = Image.fromarray(picture(60, 30)), Image.Exif()
    exif[274] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    view = View(16, 16, (1.0, 1.0))
    assert views._Encoded((tmp_path / "turned.jpg").read_bytes(), view.scale).size == (30, 60)
    (tmp_path / "cmyk.jpg").write_bytes(encoded(image.convert("CMYK")))
    image.convert("P").save(tmp_path / "palette.png")
    Image.fromarray((picture(60, 30)[..., 0].astype(np.uint16)) << 8).save(tmp_path / "deep.png")
    for name in ("turned.jpg", "cmyk.jpg", "palette.png", "deep.png"):
        for draws in (None, numbers()):
            seen = read_view(str(tmp_path / name), view, draws)
            assert seen.shape == (16, 16, 3) and seen.dtype == np.uint8 and seen.std() > 1, name


def test_a_large_share_is_decoded_at_a_fraction_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "large.jpg", 640, 480)
    factors: list[int] = []
    plain = views._Encoded.pixels

    def pixels(self: object, factor: int) -> np.ndarray:
        factors.append(factor)
        return plain(self, factor)  # type: ignore[arg-type]

    monkeypatch.setattr(views._Encoded, "pixels", pixels)
    for side in (32, 100, 200, 400):
        assert read_view(str(path), View(side, side, (1.0, 1.0)), numbers()).shape == (side, side, 3)
    assert factors == [8, 4, 2, 1]


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_what_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(encoded(Image.fromarray(picture(64, 64)))[:700] if content is None else content)
    for view, draws in ((View(8), None), (View(8, 9), None), (View(8, 9, (0.1, 1.0)), numbers())):
        with pytest.raises(DataError, match=r"broken\.jpg: is not a readable image"):
            read_view(str(path), view, draws)
    with pytest.raises(DataError, match=r"gone\.jpg: is not there"):
        read_view(str(tmp_path / "gone.jpg"), View(8))
