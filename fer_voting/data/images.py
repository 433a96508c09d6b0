"""From an image file to the pixels that a network sees: uint8 [S, S, 3], with a hash of the file's content."""

import contextlib
import errno
import functools
import hashlib
import io
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from fer_voting.data.formats import HEIC_ADVICE, image_formats
from fer_voting.data.index import Box, Problem, Sample

PREPARATION_VERSION = 1
"""Part of every data set's fingerprint: raise it when the same content gives other pixels. Where only some images
change, e.g. those with a face box, `decode` gives these another hash instead."""
READER_VERSION = 5
"""Raise it when a reader, `prepare_image` or `decode` gives other samples, pixels or hashes: packs are then rebuilt."""
HASH_BYTES = 16
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
BACKGROUND = (255, 255, 255)
"""The colour behind transparent pixels: white, on which most viewers and pages show a picture."""
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


class NotAnImage(ValueError):
    """A file whose content is none of `image_formats`."""


def is_heic(start: bytes) -> bool:
    """Whether a file that starts so (12 bytes) is a phone's HEIC photo."""
    return start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS


def open_image(file: Path | IO[bytes]) -> PIL.Image.Image:
    """An image of one of `image_formats`, not decoded yet; to be used in a `with` statement.

    Raises NotAnImage, ValueError if it is a HEIC photo and no plugin for it is installed, OSError if it cannot be read,
    PIL.Image.DecompressionBombError if it claims more than twice `PIL.Image.MAX_IMAGE_PIXELS` pixels.
    """
    try:
        return PIL.Image.open(file, formats=image_formats())
    except PIL.UnidentifiedImageError as error:
        with file.open("rb") if isinstance(file, Path) else contextlib.nullcontext(file) as stream:
            stream.seek(0)
            start = stream.read(12)
        if is_heic(start):
            raise ValueError(f"it is a HEIC photo: {HEIC_ADVICE.replace('them', 'it')}") from error
        raise NotAnImage("it is no photo") from error


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The pixels as a viewer shows them, RGB, 8 bits a channel; the orientation of the metadata is not applied.

    Grey becomes three equal channels; of 16 bits, the 8 upper ones stay. Transparent pixels become BACKGROUND as far as
    they are transparent, whatever colour is stored for them.

    Raises ValueError for pixels with more than 16 bits.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):  # PGM and old Pillows store 16 bits in "I"
        values = np.asarray(image.convert("I"))
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError(f"pixels of mode {image.mode} (more than 16 bits) are not supported")
        grey = PIL.Image.fromarray((values >> 8).astype(np.uint8))
        if (transparent := image.info.get("transparency")) is not None:
            grey.putalpha(PIL.Image.fromarray((values != transparent).astype(np.uint8) * 255))
        image = grey
    if image.mode == "F":
        raise ValueError("pixels of mode F (floating point) are not supported")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")


def is_seen_through(image: PIL.Image.Image) -> bool:
    """Whether a pixel is transparent, so that `to_rgb` shows BACKGROUND."""
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def square(box: Box) -> Box:
    """The square with the box's centre and its longer side: a face is not stretched."""
    left, top, right, bottom = box
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    return x - half, y - half, x + half, y + half


def prepare_image(image: PIL.Image.Image, size: int, box: Box | None = None) -> NDArray[np.uint8]:
    """The image as the network sees it: uint8 [size, size, 3], RGB (`to_rgb`).

    Each side is scaled to `size`, as in the paper. Pillow's bilinear resize widens its filter by the scale, so
    shrinking is antialiased. Without a `box` (left, top, right, bottom) the EXIF orientation is applied; with one it
    is not, because boxes refer to the pixels as stored. Where a box leaves the image, the missing part is black.

    Raises ValueError if the box lies outside the image or is huge, or as `to_rgb`.
    """
    if box is None:
        image = PIL.ImageOps.exif_transpose(image)
    else:
        left, top, right, bottom = box
        width, height = image.size
        if not (left < min(right, width) and top < min(bottom, height) and right > 0 and bottom > 0):
            raise ValueError(f"the face box {left, top, right, bottom} lies outside {width}x{height}")
        if left < 0 or top < 0 or right > width or bottom > height:
            if (right - left) * (bottom - top) > (PIL.Image.MAX_IMAGE_PIXELS or math.inf):
                raise ValueError(f"the face box {left, top, right, bottom} has more pixels than a photo")
            x, y = math.floor(left), math.floor(top)
            image = to_rgb(image).crop((x, y, math.ceil(right), math.ceil(bottom)))
            box = (left - x, top - y, right - x, bottom - y)
    return np.asarray(to_rgb(image).resize((size, size), PIL.Image.Resampling.BILINEAR, box))


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

    The hash covers the file's bytes, the square about the face box, and whether BACKGROUND is seen through the image,
    so it does not depend on the decoder.

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
    box = sample.box and square(sample.box)
    try:
        with open_image(io.BytesIO(data)) as image:
            marks = (f"square {box}".encode() if box else b"", b"on white" if is_seen_through(image) else b"")
            return prepare_image(image, size, box), content_hash(data, *marks)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        reason = str(error) if type(error) in (ValueError, NotAnImage) else f"{type(error).__name__}: {error}"
        return Problem(kind, str(sample.path), reason)
