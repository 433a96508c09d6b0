"""Which files are images, and which pixels they have: by content, of any depth, with or without transparency."""

import io
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest

from fer_voting.data.formats import image_formats
from fer_voting.data.images import BACKGROUND, content_hash, decode, open_image, prepare_image, square, to_rgb
from fer_voting.data.index import Problem, Sample

COLOURS = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
GREY = np.arange(72, dtype=np.uint8).reshape(8, 9) * 3


def stored(image: PIL.Image.Image, form: str, **options: object) -> PIL.Image.Image:
    """The image after a file of this format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    with open_image(file) as again:
        again.load()
        return again


@pytest.mark.parametrize(
    "form",
    sorted({"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP"} & set(image_formats())),
)
def test_every_format_is_read_by_content(form: str, tmp_path: Path):
    """An image has any name: `.jfif`, `.jpe`, none."""
    path = tmp_path / "without a suffix"
    PIL.Image.fromarray(COLOURS).save(path, form)
    with open_image(path) as image:
        assert image.format == form
        found = np.asarray(to_rgb(image)).astype(int)
    lossy = form in ("AVIF", "GIF", "JPEG", "WEBP")  # noise of 8 pixels is the worst that they meet
    assert np.abs(found - COLOURS).mean() < (60 if lossy else 0.01)


def test_no_image(tmp_path: Path):
    for content in (b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=r"^it is no photo$"):
            open_image(tmp_path / "x.jpg")
        with pytest.raises(ValueError, match=r"^it is no photo$"):
            open_image(io.BytesIO(content))


def test_a_heic_photo_without_a_plugin_says_how_to_convert(tmp_path: Path):
    """A reader that is asked for a photo of a phone names the two ways out; so does training's decoder."""
    if "HEIF" in PIL.Image.OPEN:
        pytest.skip("a plugin for HEIC is installed")
    for brand in (b"heic", b"mif1"):
        (tmp_path / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic")
        with pytest.raises(ValueError, match=r"it is a HEIC photo: convert it \(heif-convert .*pip install pi-heif"):
            open_image(tmp_path / "IMG_0001.HEIC")
    problem = decode(Sample("a", "sad", "train", tmp_path / "IMG_0001.HEIC"), 8)
    assert isinstance(problem, Problem)
    assert "heif-convert" in problem.reason


def test_an_installed_plugin_for_heic_is_used(monkeypatch: pytest.MonkeyPatch):
    """A package by the plugin's name and with its one function: its reader sees the file."""

    class Reader(PIL.ImageFile.ImageFile):
        def _open(self) -> None:
            self._size, self._mode = (9, 8), "RGB"
            self.tile = []
            self.im = PIL.Image.fromarray(COLOURS).im

    plugin = ModuleType("pi_heif")
    register = lambda: PIL.Image.register_open("HEIF", Reader, lambda start: start[4:8] == b"ftyp")  # noqa: E731
    monkeypatch.setattr(plugin, "register_heif_opener", register, raising=False)
    monkeypatch.setitem(sys.modules, "pi_heif", plugin)
    monkeypatch.setattr(PIL.Image, "OPEN", dict(PIL.Image.OPEN))
    image_formats.cache_clear()
    try:
        with open_image(io.BytesIO(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")) as image:
            np.testing.assert_array_equal(np.asarray(to_rgb(image)), COLOURS)
    finally:
        image_formats.cache_clear()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_keeps_its_upper_8(form: str):
    values = np.linspace(0, 65535, 72).astype(np.uint16).reshape(8, 9)
    found = np.asarray(to_rgb(stored(PIL.Image.fromarray(values), form)))
    np.testing.assert_array_equal(found, np.repeat((values // 256)[..., None], 3, axis=2))
    assert found.max() == 255
    assert prepare_image(PIL.Image.fromarray(values), 8)[..., 0].min() < 20


@pytest.mark.parametrize(
    ("pixels", "match"),
    [(np.zeros((4, 4), np.float32), "mode F"), (np.full((4, 4), 70000, np.int32), "mode I ")],
)
def test_deeper_pixels_are_refused_rather_than_clipped(pixels: np.ndarray, match: str):
    with pytest.raises(ValueError, match=f"{match}.*not supported"):
        to_rgb(PIL.Image.fromarray(pixels))


def test_transparent_pixels_have_the_backgrounds_colour_whatever_is_stored_for_them():
    alpha = np.zeros((8, 9), np.uint8)
    alpha[:, 3:] = 255
    alpha[0, 5] = 128
    colour, grey = PIL.Image.fromarray(COLOURS), PIL.Image.fromarray(GREY)
    shown = COLOURS.copy()
    shown[:, :3] = BACKGROUND
    shown[0, 5] = (COLOURS[0, 5] * (128 / 255) + np.array(BACKGROUND) * (127 / 255)).round()
    colour.putalpha(PIL.Image.fromarray(alpha))
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = np.asarray(to_rgb(stored(colour, form, **options))).astype(int)
        assert np.abs(found - shown).max() <= 1, form
    assert np.abs(prepare_image(colour.resize((8, 8)), 8)[:, :2].astype(int) - BACKGROUND).max() <= 1
    grey.putalpha(PIL.Image.fromarray(alpha))
    found = np.asarray(to_rgb(stored(grey, "PNG")))[..., 0]
    assert (found[:, :3] == 255).all()
    assert (found[1:, 3:] == GREY[1:, 3:]).all()


def test_a_colour_that_is_declared_transparent():
    """The older way of PNG and GIF: one colour, or an entry of the palette."""
    for image, value in (
        (PIL.Image.fromarray(GREY), 3),
        (PIL.Image.fromarray(GREY.astype(np.uint16) * 256), 3 * 256),
        (PIL.Image.fromarray(COLOURS), tuple(COLOURS[0, 1].tolist())),
    ):
        found = np.asarray(to_rgb(stored(image, "PNG", transparency=value)))
        assert found[0, 1].tolist() == [255, 255, 255]
        assert found[0, 2].tolist() == np.asarray(to_rgb(image))[0, 2].tolist()
    palette = PIL.Image.fromarray(GREY).convert("P")
    found = np.asarray(to_rgb(stored(palette, "GIF", transparency=palette.getpixel((1, 0)))))
    assert found[0, 1].tolist() == [255, 255, 255]
    assert found[0, 2].tolist() == [6, 6, 6]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA", "PA", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str):
    image = to_rgb(
        PIL.Image.fromarray(np.full((8, 9, 3), 255, np.uint8)).convert("P" if mode == "PA" else mode).convert(mode)
    )
    assert (image.mode, image.size) == ("RGB", (9, 8))
    assert np.asarray(image).min() > 250


def test_the_hash_tells_images_that_are_seen_through(tmp_path: Path):
    """Their pixels changed when transparency was made white; all others have the hash of their bytes."""
    for alpha in (255, 254):
        PIL.Image.fromarray(np.dstack([COLOURS, np.full((8, 9), alpha, np.uint8)])).save(tmp_path / "a.png")
        result = decode(Sample("a", "sad", "train", tmp_path / "a.png"), 8)
        assert not isinstance(result, Problem)
        assert (result[1] == content_hash((tmp_path / "a.png").read_bytes())) == (alpha == 255)


def test_what_a_box_leaves_is_black_and_nothing_is_stretched(tmp_path: Path):
    """A white image; the box 10 x 20 becomes the square 20 x 20, half of which is beyond the left edge."""
    path = tmp_path / "white.png"
    PIL.Image.new("RGB", (40, 40), (255, 255, 255)).save(path)
    result = decode(Sample("a", "sad", "train", path, box=(-5, 10, 5, 30)), 20)
    assert not isinstance(result, Problem)
    assert (result[0][:, :9] == 0).all()
    assert (result[0][:, 11:] == 255).all()
    assert square((2, 3, 12, 8)) == (2, 0.5, 12, 10.5)


@pytest.mark.parametrize(
    "box", [(0, 0, math.inf, 9), (0, 0, math.nan, 9), (-1e9, -1e9, 1e9, 1e9), (5, 5, 5, 9), (-math.inf, 0, 5, 5)]
)
def test_a_box_without_a_size_or_of_a_huge_one_is_refused(box: tuple[float, float, float, float]):
    with pytest.raises(ValueError, match="the face box"):
        prepare_image(PIL.Image.new("L", (20, 20)), 8, box)
