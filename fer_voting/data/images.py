"""From an image file to the pixels that a network sees: uint8 [S, S, 3], with a hash of the file's content."""

import errno
import functools
import hashlib
import io
import stat
from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from fer_voting.data.index import Box, Problem, Sample

PREPARATION_VERSION = 1
"""Raise it when a reader, `prepare_image` or `decode` gives other samples, pixels or hashes: packs are then rebuilt."""
HASH_BYTES = 16
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read, whatever a file's name. Not EPS and the like, which Pillow hands to other programs."""
MAX_IMAGE_BYTES = 2**28
"""Limit of an image file's size: an archive of a few kilobytes can hold a file of gigabytes of zeros."""

_FILE_ERRORS: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP), "missing"),
    **dict.fromkeys((errno.EISDIR, errno.EACCES, errno.EPERM), "unreadable"),
}
"""Errors of reading that are a property of the file -> kind of Problem."""

PreparedImage = tuple[NDArray[np.uint8], bytes]
"""An image [S, S, 3] and the hash of its content."""
Decoder = Callable[[Sample, int], PreparedImage | Problem]
"""(sample, size) -> its image, or why it has none."""


def content_hash(*parts: bytes) -> bytes:
    """BLAKE2b of the parts' concatenation: HASH_BYTES bytes."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def prepare_image(image: PIL.Image.Image, size: int, box: Box | None = None) -> NDArray[np.uint8]:
    """The image as the network sees it: uint8 [size, size, 3], RGB; grey becomes three equal channels.

    Each side is scaled to `size`, as in the paper. Pillow's bilinear resize widens its filter by the scale, so
    shrinking is antialiased. Without a `box` (left, top, right, bottom) the EXIF orientation is applied; with one it
    is not, because boxes refer to the pixels as stored.

    Raises ValueError if the box lies outside the image or the pixels have more than 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of mode {image.mode} (more than 8 bits) are not supported")
    if box is None:
        image = PIL.ImageOps.exif_transpose(image)
    else:
        left, top, right, bottom = box
        box = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise ValueError(f"the face box {left, top, right, bottom} lies outside {image.width}x{image.height}")
    return np.asarray(image.convert("RGB").resize((size, size), PIL.Image.Resampling.BILINEAR, box))


@functools.cache
def decoder_digest() -> str:
    """Hex digest of the pixels that the installed decoder and resize make of a fixed photograph-like JPEG.

    Another release of Pillow or libjpeg may give other pixels; a pack with another digest is rebuilt.
    """
    y, x, channel = np.indices((75, 93, 3))
    pixels = (x * x // 9 + y * (channel + 1) + 20 * ((x // 8 + y // 8) % 2)) % 256
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
    with PIL.Image.open(file) as image:
        return content_hash(prepare_image(image, 48).tobytes()).hex()


def decode(sample: Sample, size: int) -> PreparedImage | Problem:
    """The sample's image, decoded completely (only that detects truncated files), or what is wrong with it.

    The hash covers the file's bytes and the face box, so it does not depend on the decoder.

    Raises OSError if the system cannot read the file (an I/O error, too many open files), and MemoryError: an image
    must not be left out because of a temporary failure.
    """
    if sample.pixels is not None:
        side = round(len(sample.pixels) ** 0.5)
        return prepare_image(PIL.Image.frombytes("L", (side, side), sample.pixels), size), content_hash(sample.pixels)
    assert sample.path is not None
    try:
        status = sample.path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device never ends
            return Problem("unreadable", str(sample.path), "it is not a file")
        if status.st_size > MAX_IMAGE_BYTES:
            return Problem("unreadable", str(sample.path), f"it has more than {MAX_IMAGE_BYTES:,} bytes")
        data = sample.path.read_bytes()
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise OSError(error.errno, f"can't read an image: {error.strerror}", str(sample.path)) from error
        return Problem(_FILE_ERRORS[error.errno], str(sample.path), str(error.strerror))
    content = content_hash(data, repr(sample.box).encode() if sample.box else b"")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            return prepare_image(image, size, sample.box), content
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        return Problem(kind, str(sample.path), f"{type(error).__name__}: {error}")
