"""The image files that are read: what the installed Pillow and its plugins open, less what is no photograph."""

import contextlib
import functools
import importlib
import os
from pathlib import Path

import PIL.Image

NO_PHOTOGRAPHS = ("EPS", "WMF", "FLI", "MPEG", "BUFR", "FITS", "GRIB", "HDF5", "MCIDAS", "SPIDER", "IPTC")
"""Formats that Pillow opens and that are not read: drawings, which another program renders, videos, measurements, and
descriptions of images."""
HEIF_PLUGINS = ("pi_heif", "pillow_heif")
"""Packages that teach Pillow HEIF, the first that is installed. Both bring libheif, under the LGPL; pillow_heif also an
encoder under the GPL."""
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
HEIC_ADVICE = "convert them (heif-convert PHOTO.heic PHOTO.jpg), or pip install pi-heif"
HIDDEN = ("__macosx", ".ds_store")
"""Names in lower case that an archive of macOS leaves beside the data; as hidden as those with a leading dot."""


@functools.cache
def image_formats() -> tuple[str, ...]:
    """The names of the formats that are read, whatever a file's name. HEIF is one where a plugin is installed."""
    for plugin in HEIF_PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(plugin).register_heif_opener()
            break
    PIL.Image.init()
    return tuple(name for name in PIL.Image.OPEN if name not in NO_PHOTOGRAPHS)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of these formats in lower case, e.g. ".jfif"."""
    formats = image_formats()
    return frozenset(suffix for suffix, name in PIL.Image.registered_extensions().items() if name in formats)


def suffix_of(name: str) -> str:
    """The suffix in lower case: `suffix_of("a.JPG") == ".jpg"`."""
    return os.path.splitext(name)[1].lower()


def is_image(path: str | Path) -> bool:
    """Whether a file is read as an image: by its suffix; without a suffix of an image, by its first bytes."""
    if suffix_of(os.fspath(path)) in image_suffixes():
        return True
    if not os.path.isfile(path):  # reading a pipe would never end
        return False
    # Formats that have no signature would take any file for theirs.
    formats = [name for name in image_formats() if PIL.Image.OPEN[name][1] is not None]
    try:
        with PIL.Image.open(path, formats=formats):
            return True
    except Exception:  # decoders raise many types for what is none of theirs
        return False


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: `._face.jpg`, `.DS_Store`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in HIDDEN
