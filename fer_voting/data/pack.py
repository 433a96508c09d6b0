"""A data set decoded once: a memory-mapped uint8 array and an index of its rows.

    <folder>/images.npy   uint8 [N, S, S, 3], RGB; the rows of unusable images are zero
    <folder>/index.npz    names, labels, parts, hashes, good and the further columns, one entry per row
    <folder>/pack.json    format, key, label names, problems and left-out counts

A pack is used only if its key (source files, preparation, size, …) is the requested one and its files are complete;
otherwise it is rebuilt. While it is built, `<folder>.lock` is locked and rows are appended in order to
`<folder>.partial`, so that a killed build continues after its last commit.
"""

import copy
import fcntl
import json
import logging
import os
import shutil
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.images import HASH_BYTES, Decoder, PreparedImage, content_hash, decode
from fer_voting.data.index import PARTS, Counts, Index, Problem, Sample
from fer_voting.system.arrays import read_npz
from fer_voting.system.atomic import read_json, write_json
from fer_voting.system.machine import usable_cores
from fer_voting.system.messages import progress_bar

log = logging.getLogger(__name__)

FORMAT = 4
"""Version of a pack's files. A pack of another version is rebuilt."""
_COLUMN = "column "
"""Prefix of the further columns' names in the index."""
_CHUNK = 256  # images per task: large enough to hide the overhead, small enough for a smooth progress bar
_COMMIT_SECONDS = 5.0

PackKey = Mapping[str, Any]
"""Plain values that determine a pack's content; "size" (the images' side in pixels) is one of them."""


@dataclass(frozen=True)
class Source:
    """The source of a pack.

    Attributes:
        place: the part of the pack's key that selects its folder: packs that differ in it lie side by side.
        state: the rest of the key: a pack that differs in it is out of date.
        read: lists the samples.
        decoder: makes an image of each.
        expected: published numbers of images by official part and class.
        base: the folder that holds the data set; None if it has no files.
    """

    place: PackKey
    state: PackKey
    read: Callable[[], Index]
    decoder: Decoder = decode
    expected: Counts = field(default_factory=dict)
    base: Path | None = None


class Pack:
    """An opened pack. Pickled as its folder's name and a digest of its key.

    Attributes:
        key: what it was built from.
        labels: the names that `label_ids` refer to, sorted.
        label_ids: int64 [N].
        part_ids: uint8 [N], positions in PARTS of the official part; a run may divide the data set differently.
        hashes: bytes [N] (dtype V16), of the content.
        good: bool [N]; rows that hold an image.
        columns: int64 or float64 [N] or [N, n] by name: the samples' further annotations (`Sample.columns`).
        problems, left_out: what the reader and the decoder could not or must not use.
        notes: what the reader assumed, and what contradicts it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = read_json(folder / "pack.json")
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            version = meta.get("format") if isinstance(meta, dict) else None
            raise ValueError(f"pack.json has format {version}, this version of fer_voting uses {FORMAT}")
        index = read_npz(folder / "index.npz", "names", "labels", "parts", "hashes", "good")
        try:
            self.key: PackKey = meta["key"]
            self.labels: tuple[str, ...] = tuple(meta["labels"])
            self.problems = [Problem(**problem) for problem in meta["problems"]]
            self.left_out: Counter[str] = Counter(meta["left_out"])
            self.notes = [str(note) for note in meta["notes"]]
            self._names: NDArray[np.bytes_] = index["names"]
            self.label_ids: NDArray[np.int64] = index["labels"].astype(np.int64)
            self.part_ids: NDArray[np.uint8] = index["parts"]
            self.hashes: NDArray[np.void] = index["hashes"]
            self.good: NDArray[np.bool_] = index["good"]
            self.columns = {n.removeprefix(_COLUMN): array for n, array in index.items() if n.startswith(_COLUMN)}
            self._check(int(self.key["size"]))
        except Exception as error:  # NumPy raises a type for each kind of damage
            raise ValueError(f"{folder} is damaged: {type(error).__name__}: {error}") from error

    def _check(self, size: int) -> None:
        rows = len(self)
        if self.images.shape != (rows, size, size, 3) or self.images.dtype != np.uint8:
            raise ValueError(f"images of shape {self.images.shape} do not fit an index of {rows}")
        kinds = {"S": self._names, "i": self.label_ids, "u": self.part_ids, "V": self.hashes, "b": self.good}
        if any(a.ndim not in (1, 2) or len(a) != rows or a.dtype.kind not in "if" for a in self.columns.values()):
            raise ValueError("the columns do not fit the index")
        if any(a.shape != (rows,) or a.dtype.kind != kind for kind, a in kinds.items()) or not rows:
            raise ValueError("the arrays of the index do not fit each other")
        if self.label_ids.min() < 0 or self.label_ids.max() >= len(self.labels) or self.part_ids.max() >= len(PARTS):
            raise ValueError("the index has labels or parts that there are not")

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [N, S, S, 3], memory-mapped; np.load refuses a file that is shorter than its header says."""
        self._opened = os.stat(self.folder / "images.npy")
        return np.load(self.folder / "images.npy", mmap_mode="r")

    @cached_property
    def is_grey(self) -> bool:
        """Whether every image is grey: three equal channels. Read until the first that is not."""
        return all(
            (some[..., :1] == some[..., 1:]).all()
            for some in (self.images[first : first + _CHUNK] for first in range(0, len(self), _CHUNK))
        )

    def was_changed_in_place(self) -> bool:
        """Whether another program modified the mapped file. (A rebuilt pack is a new file.)"""
        try:
            now = os.stat(self.folder / "images.npy")
        except OSError:
            return False
        then = self._opened
        return now.st_ino == then.st_ino and (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns)

    def __len__(self) -> int:
        return len(self._names)

    def __reduce__(self) -> "tuple[Callable[[Path, bytes], Pack], tuple[Path, bytes]]":
        return _reopen, (self.folder, _digest(self.key))

    def names(self, positions: NDArray[np.int64] | Sequence[int] | slice = slice(None)) -> list[str]:
        """The samples' names at these positions."""
        return [name.decode() for name in self._names[positions]]

    def class_ids(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """Each row's label as a position in `class_names`, -1 for other labels: int64 [N]."""
        ids = [class_names.index(label) if label in class_names else -1 for label in self.labels]
        return np.array(ids, np.int64)[self.label_ids]

    def renamed(self, names: Mapping[str, str | None]) -> "Pack":
        """This pack with other names of its labels; images whose label has none are left out, and counted.

        Args:
            names: label -> its name, or None; other labels stay.
        """
        pack = copy.copy(self)
        mapped = [names.get(label, label) for label in self.labels]
        pack.labels = tuple(sorted({name for name in mapped if name is not None}))
        without = np.array([name is None for name in mapped])[self.label_ids]
        pack.good = self.good & ~without
        ids = np.array([-1 if name is None else pack.labels.index(name) for name in mapped], np.int64)
        pack.label_ids = np.maximum(ids[self.label_ids], 0)
        counts = np.bincount(self.label_ids[without & self.good], minlength=len(self.labels))
        pack.left_out = self.left_out + Counter(
            {f"class {label}": int(n) for label, n in zip(self.labels, counts, strict=True) if n}
        )
        return pack

    def column(self, name: str) -> NDArray[Any]:
        """A further column: int64 or float64 [N] or [N, n]; the values of unusable images (`good`) count too.

        Raises ValueError if the data set has no such column.
        """
        if name not in self.columns:
            raise ValueError(
                f"{self.folder.name} has no column {name}; its columns are {', '.join(self.columns) or 'label only'}"
            )
        return self.columns[name]


def _reopen(folder: Path, digest: bytes) -> Pack:
    """The pack in another process, which must not read other rows than the process that has divided it."""
    pack = Pack(folder)
    if _digest(pack.key) != digest:
        raise RuntimeError(f"{folder} was rebuilt from other data while it was in use: start again")
    return pack


def open_pack(folder: Path, key: PackKey) -> Pack | str:
    """The pack in `folder` if it is complete and has this key, otherwise why it cannot be used."""
    if not folder.exists():
        return "does not exist"
    try:
        pack = Pack(folder)
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    if pack.key != _plain(key):
        changed = [name for name, value in _plain(key).items() if pack.key.get(name) != value]
        return f"is out of date ({', '.join(changed)} changed)"
    return pack


def build_pack(
    folder: Path,
    key: PackKey,
    read: Callable[[], Index],
    decoder: Decoder = decode,
    *,
    stop_at_first_problem: bool = False,
) -> Pack:
    """The pack with this key in `folder`: opened if it is there and up to date, otherwise built.

    A second process that wants the same pack waits for the first and opens its result.

    Args:
        folder: the pack's folder.
        key: see PackKey.
        read: lists the samples, in an order that depends only on `key`.
        decoder: makes the images, in threads on all cores: decoding, resizing and hashing release Python's lock.
        stop_at_first_problem: raise a ValueError at the first unusable image.
    """
    if isinstance(pack := open_pack(folder, key), Pack):
        return pack  # without a lock, because a shared cache may be read-only
    with _locked(folder):
        if isinstance(pack := open_pack(folder, key), Pack):
            return pack
        if folder.exists():
            log.warning(f"{folder} {pack}: it is rebuilt")
        index = read()
        if stop_at_first_problem and index.problems:
            raise ValueError(f"{index.problems[0]} (dataset.on_error=raise)")
        if not index.samples:
            first = f": {len(index.problems):,} problems, first {index.problems[0]}" if index.problems else ""
            raise ValueError(f"there is no labelled image to pack for {folder.name}{first}")
        try:
            partial = _PartialPack(folder.with_name(folder.name + ".partial"), key, index.samples)
            for problem in partial.fill(decoder):
                if stop_at_first_problem:
                    raise ValueError(f"{problem} (dataset.on_error=raise)")
            partial.finish(index)
            shutil.rmtree(folder, ignore_errors=True)
            partial.folder.replace(folder)
        except OSError as error:
            if error.filename is not None:
                raise
            # A full disk is reported by a write, which does not know the file's name.
            raise OSError(error.errno, f"can't write the pack: {error.strerror}", str(folder)) from error
        return Pack(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of building `folder`; the empty lock file stays, because removing it is a race."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info(f"{folder} is being built by another process: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            reason = f"dataset.cache_dir must be on a file system with flock: {error.strerror}"
            raise OSError(error.errno, reason, lock.name) from error
        yield


class _PartialPack:
    """An unfinished pack. Rows are appended in order; progress.json counts those on disk, and lists their problems."""

    def __init__(self, folder: Path, key: PackKey, samples: Sequence[Sample]) -> None:
        self.folder, self.samples, self.size = folder, samples, int(key["size"])
        names = "\n".join(f"{sample.name}\0{sample.path}" for sample in samples)
        self.plan = {
            "format": FORMAT,
            "key": _plain(key),
            "samples": content_hash(names.encode(errors="surrogateescape")).hex(),
        }
        try:
            progress = read_json(folder / "progress.json")
        except FileNotFoundError:
            progress = {}
        if progress.get("plan") != self.plan:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with (folder / "images.npy").open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(samples), self.size, self.size, 3)}
                np.lib.format.write_array_header_1_0(file, header)
                progress = {"done": 0, "problems": [], "header_bytes": file.tell()}
            (folder / "hashes.bin").touch()
        self.done, self.problems, self.header_bytes = (progress[k] for k in ("done", "problems", "header_bytes"))

    def fill(self, decoder: Decoder) -> Iterator[Problem]:
        """Append the missing rows; yields each problem when it occurs."""
        files = ExitStack()
        images = files.enter_context((self.folder / "images.npy").open("r+b"))
        hashes = files.enter_context((self.folder / "hashes.bin").open("r+b"))
        places = ((images, self.header_bytes, self.size**2 * 3), (hashes, 0, HASH_BYTES))
        # After a kill a file may hold more than was counted, after a power failure less.
        rows = [(file.seek(0, os.SEEK_END) - start) // row_bytes for file, start, row_bytes in places]
        self.done = min(self.done, *rows)
        for file, start, row_bytes in places:
            file.truncate(file.seek(start + self.done * row_bytes))
        self.problems = [[row, problem] for row, problem in self.problems if row < self.done]
        if self.done:
            log.info(f"{self.folder}: continues after {self.done:,} of {len(self.samples):,} images")

        def commit() -> None:
            for file in (images, hashes):
                file.flush()
                os.fsync(file.fileno())
            progress = {"done": self.done, "problems": self.problems, "header_bytes": self.header_bytes}
            write_json(self.folder / "progress.json", {"plan": self.plan, **progress})

        def decode_chunk(start: int) -> list[PreparedImage | Problem]:
            return [decoder(sample, self.size) for sample in self.samples[start : start + _CHUNK]]

        empty = np.zeros((self.size, self.size, 3), np.uint8), bytes(HASH_BYTES)
        committed, workers = time.monotonic(), usable_cores()
        bar = progress_bar(total=len(self.samples), initial=self.done, unit="image", desc="packing")
        with files, bar, ThreadPoolExecutor(workers) as pool, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # one per image with unusual metadata
            try:
                starts = range(self.done, len(self.samples), _CHUNK)
                for results in _map_ahead(pool, decode_chunk, starts, 4 * workers):
                    for result in results:
                        if isinstance(result, Problem):
                            self.problems.append([self.done, asdict(result)])
                            yield result
                        image, content = empty if isinstance(result, Problem) else result
                        images.write(image.tobytes())
                        hashes.write(content)
                        self.done += 1
                    bar.update(len(results))
                    if time.monotonic() - committed > _COMMIT_SECONDS:
                        commit()
                        committed = time.monotonic()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                commit()

    def finish(self, index: Index) -> None:
        """Write the index and the description; remove the files that only building needs."""
        good = np.ones(len(self.samples), bool)
        good[[row for row, _ in self.problems]] = False
        labels = sorted({sample.label for sample in self.samples})
        label_ids = {label: position for position, label in enumerate(labels)}
        arrays: dict[str, NDArray[Any]] = {
            "names": np.array([sample.name.encode() for sample in self.samples], dtype=bytes),
            "labels": np.array([label_ids[sample.label] for sample in self.samples], np.int16),
            "parts": np.array([PARTS.index(sample.part) for sample in self.samples], np.uint8),
            "hashes": np.fromfile(self.folder / "hashes.bin", f"V{HASH_BYTES}"),
            "good": good,
        }
        for name in self.samples[0].columns:
            arrays[_COLUMN + name] = np.array([sample.columns[name] for sample in self.samples])
        np.savez(self.folder / "index.npz", allow_pickle=False, **arrays)
        meta = {
            "format": FORMAT,
            "key": self.plan["key"],
            "labels": labels,
            "problems": [*map(asdict, index.problems), *(problem for _, problem in self.problems)],
            "left_out": dict(index.left_out),
            "notes": index.notes,
        }
        write_json(self.folder / "pack.json", meta)
        for path in self.folder.iterdir():
            if path.name not in ("images.npy", "index.npz", "pack.json"):
                path.unlink()


def _map_ahead(pool: Executor, function: Callable[[int], Any], numbers: Iterable[int], ahead: int) -> Iterator[Any]:
    """`pool.map`, but only `ahead` results before the one that is taken: a disk may be slower than the decoders."""
    waiting: deque[Future[Any]] = deque()
    for number in numbers:
        waiting.append(pool.submit(function, number))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _digest(key: PackKey) -> bytes:
    return content_hash(json.dumps(_plain(key), sort_keys=True).encode())


def _plain(key: PackKey) -> dict[str, Any]:
    """The key as JSON returns it, so that tuples compare equal to lists."""
    return json.loads(json.dumps(dict(key)))
