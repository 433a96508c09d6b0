import os
from pathlib import Path

import PIL.Image
import pytest
from helpers.datasets import class_image

from fer_voting.data.formats import image_formats, image_suffixes, is_hidden, is_image


def test_every_suffix_of_a_photo_that_pillow_knows_is_read() -> None:
    assert {".jpg", ".jfif", ".jpe", ".png", ".webp", ".tiff", ".pgm", ".jp2", ".qoi"} <= image_suffixes()
    assert not {".eps", ".pdf", ".mpg", ".h5", ".wmf", ".fits", ".txt", ".npy", ".csv"} & image_suffixes()
    assert (".avif" in image_suffixes()) == ("AVIF" in PIL.Image.OPEN)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "QOI"])
@pytest.mark.parametrize("name", ["noext", "a.jpg_large", "img.0012"])
def test_a_file_without_a_suffix_is_known_by_its_content(tmp_path: Path, kind: str, name: str) -> None:
    class_image("sad", 1).save(tmp_path / name, kind)
    assert is_image(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"notes\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.4", b"\0" * 100])
def test_what_is_no_image_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README").write_bytes(content)
    assert not is_image(tmp_path / "README")
    os.mkfifo(tmp_path / "pipe")
    assert not is_image(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["._a.jpg", ".DS_Store", "__MACOSX", ".cache"])
def test_what_an_archive_leaves_is_hidden(name: str) -> None:
    assert is_hidden(name)
    assert not is_hidden(f"a{name}")


def test_no_format_starts_another_program() -> None:
    assert not {"EPS", "WMF", "PDF"} & set(image_formats())
