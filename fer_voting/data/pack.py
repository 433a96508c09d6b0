"""A data set decoded once: one memory-mapped uint8 array and an index beside it.

    <folder>/images.npy   uint8 [N, S, S, 3], RGB; the rows of pictures that can't be used are zero
    <folder>/index.npz    names, labels, splits, hashes, good (and votes), one entry a row
    <folder>/pack.json    what the pack was made of, its label names, problems and left-out counts

While it is built, rows are appended in order to `<folder>.partial`, so a killed build goes on from its last commit.
A pack is used only if its `identity` (source files, preparation, size, …) is the one asked for and its files are
whole; else it is made again.
"""

import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray
from tqdm import tqdm

from fer_voting.data.index import IMAGE_SUFFIXES, Box, Index, Problem, Sample
from fer_voting.system.atomic import read_json, write_json

__all__ = [
    "HASH_BYTES",
    "PREPARATION",
    "SPLITS",
    "Decoder",
    "Identity",
    "Pack",
    "Prepared",
    "build_pack",
    "content_hash",
    "cores",
    "decode",
    "decode_all",
    "open_pack",
    "prepare",
    "stamp",
]

log = logging.getLogger(__name__)

# Raise it whenever `prepare` or `decode` gives other pixels or hashes: old packs are then made again.
PREPARATION = 1
SPLITS = ("train", "val", "test")
HASH_BYTES = 16
_CHUNK = 256  # pictures a task: large enough that hand-over costs nothing, small enough for a smooth progress bar
_COMMIT_SECONDS = 5.0

Identity = Mapping[str, Any]
Prepared = tuple[NDArray[np.uint8], bytes]
"""A picture [S, S, 3] and the hash of its content."""
Decoder = Callable[[Sequence[Sample], int], Sequence[Prepared | Problem]]
"""(samples, size) -> a picture or a problem for each."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --------------------------------------------------------------------------------------------------------------
# From a picture to a row
# --------------------------------------------------------------------------------------------------------------


def prepare(image: PIL.Image.Image, size: int, box: Box | None = None) -> NDArray[np.uint8]:
    """A picture as the network sees it: uint8 [size, size, 3], RGB; grey becomes three equal channels.

    Pillow's bilinear resize widens its filter by the scale, so shrinking is antialiased. The sides are scaled each
    to `size`, as the paper does. Without a `box` (left, top, right, bottom) the camera's orientation is applied;
    with one it is not, because boxes count the pixels as they are stored.

    Raises:
        ValueError: the box lies outside the picture, or its pixels have more than 8 bits.
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


def decode(sample: Sample, size: int) -> Prepared | Problem:
    """Decode one sample fully: only that tells a truncated file from a whole one.

    The hash is of the file's bytes (and the face box): any two labs that have the same files agree on it, whatever
    their decoder.
    """
    try:
        if sample.pixels is not None:
            side = round(len(sample.pixels) ** 0.5)
            image = PIL.Image.frombytes("L", (side, side), sample.pixels)
            return prepare(image, size), content_hash(sample.pixels)
        assert sample.path is not None
        data = sample.path.read_bytes()
        content = content_hash(data, repr(sample.box).encode() if sample.box else b"")
        with PIL.Image.open(io.BytesIO(data)) as image:
            return prepare(image, size, sample.box), content
    except FileNotFoundError:
        return Problem("missing", str(sample.path), "no such file")
    except Exception as error:  # a decoder raises whatever its file makes it stumble over
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        return Problem(kind, str(sample.path or sample.name), f"{type(error).__name__}: {error}")


def decode_all(samples: Sequence[Sample], size: int) -> list[Prepared | Problem]:
    """`decode` for a chunk of samples."""
    return [decode(sample, size) for sample in samples]


def content_hash(*parts: bytes) -> bytes:
    """BLAKE2b of the parts' concatenation: HASH_BYTES bytes."""
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def stamp(parts: Iterable[Path]) -> str:
    """A hex digest of what could change a pack: names, sizes and times of these files, and of the images and
    annotations in these folders.

    One `stat` a file: 3 s for the 583,300 files of AffectNet's second release on a local disk.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)

    def visit(folder: str) -> None:
        lines, subfolders = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    subfolders.append(entry.path)
                elif _matters(entry.name):
                    lines.append(_stamp_line(entry.name, entry.stat()))
        digest.update("".join([folder, *sorted(lines)]).encode())
        for subfolder in sorted(subfolders):
            visit(subfolder)

    for part in parts:
        if part.is_dir():
            visit(str(part))
        else:
            digest.update(_stamp_line(str(part), part.stat()).encode())
    return digest.hexdigest()


def _stamp_line(name: str, status: os.stat_result) -> str:
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"


def _matters(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    # AffectNet's second release keeps four label files an image; only the expression is read.
    return suffix in IMAGE_SUFFIXES or suffix == ".json" or name.endswith("_exp.npy")


# --------------------------------------------------------------------------------------------------------------
# The pack
# --------------------------------------------------------------------------------------------------------------


class Pack:
    """An opened pack. Cheap to send to another process: only the folder's name travels.

    Attributes:
        labels: the names that `label_ids` counts, sorted.
        label_ids: int64 [N].
        split_ids: uint8 [N], positions in SPLITS; the official part, not the run's.
        hashes: bytes [N] (dtype V16), of the content.
        good: bool [N]; rows that hold a picture.
        votes: uint8 [N, columns], or None.
        problems, left_out: what the reader and the decoder could not or would not use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = read_json(folder / "pack.json")
        self.identity: Identity = meta["identity"]
        self.labels: tuple[str, ...] = tuple(meta["labels"])
        self.problems = [Problem(**problem) for problem in meta["problems"]]
        self.left_out: Counter[str] = Counter(meta["left_out"])
        with (folder / "index.npz").open("rb") as file, np.load(file) as index:
            self._names: NDArray[np.bytes_] = index["names"]
            self.label_ids: NDArray[np.int64] = index["labels"].astype(np.int64)
            self.split_ids: NDArray[np.uint8] = index["splits"]
            self.hashes: NDArray[np.void] = index["hashes"]
            self.good: NDArray[np.bool_] = index["good"]
            self.votes: NDArray[np.uint8] | None = index.get("votes")
        size = int(self.identity["size"])
        if self.images.shape != (len(self), size, size, 3) or len(self.good) != len(self):
            raise ValueError(f"images of shape {self.images.shape} do not fit an index of {len(self)}")

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [N, S, S, 3], memory-mapped; np.load refuses a file that is shorter than its header says."""
        return np.load(self.folder / "images.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._names)

    def __reduce__(self) -> "tuple[type[Pack], tuple[Path]]":
        return Pack, (self.folder,)

    def names(self, positions: NDArray[np.int64] | slice = slice(None)) -> list[str]:
        """The samples' names at these positions."""
        return [name.decode() for name in self._names[positions]]


def open_pack(folder: Path, identity: Identity) -> Pack | None:
    """The pack in `folder` if it is whole and made of exactly `identity`, else None; the log says why."""
    if not folder.exists():
        return None
    try:
        pack = Pack(folder)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning(f"{folder} is damaged ({error}): it is made again")
        return None
    if pack.identity != _plain(identity):
        changed = [key for key, value in _plain(identity).items() if pack.identity.get(key) != value]
        log.warning(f"{folder} is out of date ({', '.join(changed)} changed): it is made again")
        return None
    return pack


def build_pack(
    folder: Path,
    identity: Identity,
    read: Callable[[], Index],
    decoder: Decoder = decode_all,
    *,
    stop_at_first_problem: bool = False,
) -> Pack:
    """The pack of `identity` in `folder`: opened if it is there and fresh, made if not.

    Two processes that want the same pack take turns: the second finds it made.

    Args:
        folder: where the pack shall lie; a sibling `.partial` holds an unfinished one.
        identity: plain values that decide about the content, "size" (the images' side) among them.
        read: lists the samples, in an order that depends on `identity` alone.
        decoder: makes the pictures, in threads on all cores: decoding, resizing and hashing release Python's lock.
        stop_at_first_problem: raise a ValueError at the first picture that can't be used.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (pack := open_pack(folder, identity)) is not None:
            return pack
        index = read()
        if stop_at_first_problem and index.problems:
            raise ValueError(f"{index.problems[0]} (dataset.on_error=raise)")
        if not index.samples:
            first = f": {len(index.problems):,} problems, first {index.problems[0]}" if index.problems else ""
            raise ValueError(f"there is no labelled image to pack for {folder.name}{first}")
        try:
            with _Partial(folder.with_name(folder.name + ".partial"), identity, len(index.samples)) as partial:
                for problem in partial.fill(index.samples, decoder):
                    if stop_at_first_problem:
                        raise ValueError(f"{problem} (dataset.on_error=raise)")
            partial.finish(index)
            shutil.rmtree(folder, ignore_errors=True)
            partial.folder.replace(folder)
        except OSError as error:
            # A full disk shows while writing, which doesn't name the file.
            raise OSError(error.errno, f"can't write the pack: {error.strerror}", str(folder)) from error
        return Pack(folder)


class _Partial:
    """An unfinished pack, to which rows are appended in order.

    A row counts as done once its hash is on disk, and hashes are written after the images they belong to.
    """

    def __init__(self, folder: Path, identity: Identity, count: int) -> None:
        self.folder, self.identity, self.count = folder, identity, count
        self.size = int(identity["size"])
        plan = {"identity": _plain(identity), "count": count}
        plan_file = folder / "plan.json"
        if not plan_file.exists() or read_json(plan_file) != plan:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with open(folder / "images.npy", "wb") as file:
                shape = (count, self.size, self.size, 3)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            (folder / "hashes.bin").touch()
            (folder / "problems.jsonl").touch()
            write_json(plan_file, plan)
        with open(folder / "images.npy", "rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            self._header_bytes = file.tell()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._images = opened.enter_context((self.folder / "images.npy").open("r+b"))
            self._hashes = opened.enter_context((self.folder / "hashes.bin").open("r+b"))
            self._problems = opened.enter_context((self.folder / "problems.jsonl").open("r+"))
            self._close = opened.pop_all().close
        self.done = os.fstat(self._hashes.fileno()).st_size // HASH_BYTES
        self._images.truncate(self._header_bytes + self.done * self.size**2 * 3)
        self._hashes.truncate(self.done * HASH_BYTES)
        lines = [line for line in self._problems.read().splitlines() if line.endswith("}")]
        self._problems.seek(0)
        self._problems.truncate()
        self._problems.writelines(line + "\n" for line in lines if json.loads(line)["row"] < self.done)
        self._images.seek(0, os.SEEK_END)
        self._hashes.seek(0, os.SEEK_END)
        self._pending = b""
        if self.done:
            log.info(f"{self.folder}: goes on after {self.done:,} of {self.count:,} pictures")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._commit()
        finally:
            self._close()

    def fill(self, samples: Sequence[Sample], decoder: Decoder) -> Iterator[Problem]:
        """Append every row that is missing; yields the problems as they come."""
        chunks = [samples[start : start + _CHUNK] for start in range(self.done, len(samples), _CHUNK)]
        empty = np.zeros((self.size, self.size, 3), np.uint8), bytes(HASH_BYTES)
        committed = time.monotonic()
        progress = tqdm(total=len(samples), initial=self.done, unit="image", desc="packing")
        with progress, ThreadPoolExecutor(cores()) as pool, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata is no reason to speak up 287,401 times
            for results in pool.map(decoder, chunks, [self.size] * len(chunks)):
                for result in results:
                    if isinstance(result, Problem):
                        self._problems.write(json.dumps({"row": self.done, **asdict(result)}) + "\n")
                        yield result
                    image, content = empty if isinstance(result, Problem) else result
                    self._images.write(image.tobytes())
                    self._pending += content
                    self.done += 1
                progress.update(len(results))
                if time.monotonic() - committed > _COMMIT_SECONDS:
                    self._commit()
                    committed = time.monotonic()

    def _commit(self) -> None:
        for file in (self._problems, self._images):
            file.flush()
            os.fsync(file.fileno())
        self._hashes.write(self._pending)
        self._hashes.flush()
        os.fsync(self._hashes.fileno())
        self._pending = b""

    def finish(self, index: Index) -> None:
        """Write the index and the description, and remove what only building needs."""
        rows = [json.loads(line) for line in (self.folder / "problems.jsonl").read_text().splitlines()]
        good = np.ones(self.count, bool)
        good[[row.pop("row") for row in rows]] = False
        labels = sorted({sample.label for sample in index.samples})
        label_ids = {label: position for position, label in enumerate(labels)}
        arrays: dict[str, NDArray[Any]] = {
            "names": np.array([sample.name.encode() for sample in index.samples], dtype=bytes),
            "labels": np.array([label_ids[sample.label] for sample in index.samples], np.int16),
            "splits": np.array([SPLITS.index(sample.split) for sample in index.samples], np.uint8),
            "hashes": np.fromfile(self.folder / "hashes.bin", f"V{HASH_BYTES}"),
            "good": good,
        }
        if index.samples and index.samples[0].votes is not None:
            arrays["votes"] = np.array([sample.votes for sample in index.samples], np.uint8)
        np.savez(self.folder / "index.npz", allow_pickle=False, **arrays)
        meta = {
            "identity": _plain(self.identity),
            "labels": labels,
            "problems": [*map(asdict, index.problems), *rows],
            "left_out": dict(index.left_out),
        }
        write_json(self.folder / "pack.json", meta)
        for name in ("plan.json", "hashes.bin", "problems.jsonl"):
            (self.folder / name).unlink()


def _plain(identity: Identity) -> dict[str, Any]:
    """As JSON gives it back, so that tuples compare equal to lists."""
    return json.loads(json.dumps(dict(identity)))
