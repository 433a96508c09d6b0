import fcntl
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import class_image, save, save_broken, save_truncated, shown_class
from PIL import Image

from fer_voting.data import pack as pack_module
from fer_voting.data.files import stamp
from fer_voting.data.images import PreparedImage, content_hash, decode, prepare_image
from fer_voting.data.index import Index, Problem, Sample
from fer_voting.data.pack import Pack, build_pack, open_pack

KEY = {"size": 16, "source": "a", "preparation": 1}


def samples(folder: Path, count: int = 5) -> list[Sample]:
    for number in range(count):
        save(folder / f"{number}.png", class_image("happy" if number % 2 else "sad", number))
    return [
        Sample(f"{number}", "happy" if number % 2 else "sad", "train", folder / f"{number}.png")
        for number in range(count)
    ]


# --- preparing one image ------------------------------------------------------------------------------------


def test_resizing_is_antialiased() -> None:
    """Equal to PyTorch's bilinear resize with its antialiasing on; far from it with antialiasing off."""
    pixels = np.random.default_rng(0).integers(0, 256, (224, 200, 3), np.uint8)
    ours = prepare_image(Image.fromarray(pixels), 48).astype(float)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    smooth, rough = (
        torch.nn.functional.interpolate(x, (48, 48), mode="bilinear", antialias=antialias)[0].permute(1, 2, 0).numpy()
        for antialias in (True, False)
    )
    assert np.abs(ours - smooth).max() <= 1
    assert np.abs(ours - rough).mean() > 20


def test_a_box_is_cropped() -> None:
    whole = Image.new("RGB", (80, 60), (255, 255, 255))
    whole.paste(class_image("anger", 3), (40, 20))
    assert (prepare_image(whole, 32, (40, 20, 72, 52)) == np.asarray(class_image("anger", 3))).all()
    assert prepare_image(whole, 8, (-10, -10, 1000, 1000)).shape == (8, 8, 3)
    with pytest.raises(ValueError, match=r"the face box \(90, 0, 99, 10\) lies outside 80x60"):
        prepare_image(whole, 8, (90, 0, 99, 10))


def test_the_cameras_orientation_is_applied_where_there_is_no_box(tmp_path: Path) -> None:
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    path = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    with Image.open(path) as image:
        assert (prepare_image(image, 8) == np.asarray(upright)).all()
        assert not (prepare_image(image, 8, (0, 0, 8, 8)) == np.asarray(upright)).all()


def test_decoding_tells_missing_truncated_and_unreadable_files(tmp_path: Path) -> None:
    save_broken(tmp_path / "broken.jpg")
    save_truncated(tmp_path / "short.jpg", "sad", 1)
    (tmp_path / "empty.png").touch()
    with Image.open(tmp_path / "short.jpg") as image:
        image.verify()  # finds nothing amiss
    for name, kind in {
        "broken.jpg": "unreadable",
        "short.jpg": "truncated",
        "empty.png": "unreadable",
        "none.jpg": "missing",
    }.items():
        problem = decode(Sample(name, "sad", "train", tmp_path / name), 8)
        assert isinstance(problem, Problem)
        assert (problem.kind, problem.path) == (kind, str(tmp_path / name))


def test_a_failure_of_the_system_is_an_error_not_a_missing_image(tmp_path: Path) -> None:
    """Left out, the image would stay left out: the pack is up to date."""
    memory = Path("/proc/self/mem")  # can be opened, but not read at its beginning: EIO
    with pytest.raises(OSError, match="can't read an image: Input/output error: '/proc/self/mem'"):
        decode(Sample("x", "sad", "train", memory), 8)
    with pytest.raises(OSError, match="can't read an image"):
        build_pack(tmp_path / "pack", KEY, lambda: Index([Sample("x", "sad", "train", memory)]))
    assert not (tmp_path / "pack").exists()
    for path in (tmp_path, tmp_path / ("x" * 300)):  # these are properties of the path
        assert isinstance(decode(Sample("x", "sad", "train", path), 8), Problem)


def test_the_hash_is_of_the_files_bytes_and_the_box(tmp_path: Path) -> None:
    save(tmp_path / "a.png", class_image("sad", 1))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    a, b, boxed = (
        decode(Sample("x", "sad", "train", tmp_path / name, box=box), 8)
        for name, box in (("a.png", None), ("b.png", None), ("b.png", (0.0, 0.0, 9.0, 9.0)))
    )
    assert not isinstance(a, Problem)
    assert not isinstance(b, Problem)
    assert not isinstance(boxed, Problem)
    assert a[1] == b[1] == content_hash((tmp_path / "a.png").read_bytes())
    assert boxed[1] != a[1]


# --- the pack -------------------------------------------------------------------------------------------------


def test_a_pack_holds_images_labels_hashes_and_problems(tmp_path: Path) -> None:
    listed = samples(tmp_path / "in put")
    save_broken(tmp_path / "in put" / "2.png")
    index = Index(listed, [Problem("row", "list.csv, line 7", "too few columns")])
    index.left_out["non-face"] = 3
    pack = build_pack(tmp_path / "pack", KEY, lambda: index)
    assert len(pack) == 5
    assert pack.good.tolist() == [True, True, False, True, True]
    assert pack.names() == ["0", "1", "2", "3", "4"]
    assert [pack.labels[i] for i in pack.label_ids] == ["sad", "happy", "sad", "happy", "sad"]
    for row in np.flatnonzero(pack.good):
        assert shown_class(pack.images[row]) == pack.labels[pack.label_ids[row]]
        assert pack.hashes[row].tobytes() == content_hash((tmp_path / "in put" / f"{row}.png").read_bytes())
    assert [problem.kind for problem in pack.problems] == ["row", "unreadable"]
    assert pack.left_out == {"non-face": 3}
    assert pack.images.dtype == np.uint8
    assert isinstance(pack.images, np.memmap)
    assert sorted(path.name for path in pack.folder.iterdir()) == ["images.npy", "index.npz", "pack.json"]


def test_a_pack_holds_further_columns_by_name(tmp_path: Path) -> None:
    numbers = [{"valence": number / 4, "raters": (number, 9)} for number in range(5)]
    listed = [replace(s, columns=columns) for s, columns in zip(samples(tmp_path), numbers, strict=True)]
    pack = build_pack(tmp_path / "pack", KEY, lambda: Index(listed))
    assert pack.column("valence").tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert pack.column("valence").dtype == np.float64
    assert pack.column("raters").tolist() == [[0, 9], [1, 9], [2, 9], [3, 9], [4, 9]]
    assert pack.class_ids(("happy", "fear")).tolist() == [-1, 0, -1, 0, -1]
    with pytest.raises(ValueError, match="pack has no column arousal; its columns are valence, raters"):
        pack.column("arousal")
    np.savez(pack.folder / "index.npz", **{**np.load(pack.folder / "index.npz"), "column valence": np.zeros(4)})
    assert "the columns do not fit the index" in str(open_pack(pack.folder, KEY))


def test_a_fresh_pack_is_opened_not_made(tmp_path: Path) -> None:
    listed = samples(tmp_path)
    build_pack(tmp_path / "pack", KEY, lambda: Index(listed))

    def never() -> Index:
        raise AssertionError("read again")

    assert len(build_pack(tmp_path / "pack", KEY, never)) == 5


def _truncate_images(folder: Path) -> None:
    with (folder / "images.npy").open("r+b") as file:
        file.truncate(os.path.getsize(folder / "images.npy") - 1)


def _truncate_index(folder: Path) -> None:
    with (folder / "index.npz").open("r+b") as file:
        file.truncate(os.path.getsize(folder / "index.npz") // 2)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_truncate_images, "cannot be read"),
        (_truncate_index, "cannot be read"),
        (lambda folder: (folder / "pack.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "index.npz").unlink(), "cannot be read"),
        (lambda folder: np.save(folder / "images.npy", np.zeros((4, 16, 16, 3), np.uint8)), "cannot be read"),
    ],
)
def test_a_damaged_pack_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], told: str
) -> None:
    listed = samples(tmp_path)
    whole = np.array(build_pack(tmp_path / "pack", KEY, lambda: Index(listed)).images)
    damage(tmp_path / "pack")
    reason = open_pack(tmp_path / "pack", KEY)
    assert isinstance(reason, str)
    assert told in reason
    assert (build_pack(tmp_path / "pack", KEY, lambda: Index(listed)).images == whole).all()


@pytest.mark.parametrize("changed", [{"source": "b"}, {"preparation": 2}, {"size": 8}])
def test_a_stale_pack_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, object]
) -> None:
    listed = samples(tmp_path)
    build_pack(tmp_path / "pack", KEY, lambda: Index(listed))
    pack = build_pack(tmp_path / "pack", KEY | changed, lambda: Index(listed[:2]))
    assert f"is out of date ({next(iter(changed))} changed)" in caplog.text
    assert len(pack) == 2


def test_a_pack_of_an_earlier_format_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = samples(tmp_path)
    whole = np.array(build_pack(tmp_path / "pack", KEY, lambda: Index(listed)).images)
    meta = json.loads((tmp_path / "pack" / "pack.json").read_text())
    meta["format"] = 2
    (tmp_path / "pack" / "pack.json").write_text(json.dumps(meta))
    assert (build_pack(tmp_path / "pack", KEY, lambda: Index(listed)).images == whole).all()
    assert "pack.json has format 2, this version of fer_voting uses 4): it is rebuilt" in caplog.text


def test_a_fresh_pack_is_opened_without_the_lock_and_a_second_process_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    listed = samples(tmp_path)
    build_pack(tmp_path / "pack", KEY, lambda: Index(listed))
    with (tmp_path / "pack.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = pool.submit(build_pack, tmp_path / "pack", KEY, lambda: Index(listed))
        assert len(fresh.result(timeout=30)) == 5
        stale = pool.submit(build_pack, tmp_path / "pack", KEY | {"source": "b"}, lambda: Index(listed[:2]))
        deadline = time.monotonic() + 30
        while "is being built by another process: waiting for it" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not stale.done()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert len(stale.result(timeout=30)) == 2


def test_the_stamp_sees_added_removed_and_changed_files(tmp_path: Path) -> None:
    samples(tmp_path / "images")
    labels = tmp_path / "labels.csv"
    labels.write_text("1")
    seen = {stamp([tmp_path / "images", labels], tmp_path)}
    save(tmp_path / "images" / "sub" / "9.png", class_image("sad", 9))
    seen.add(stamp([tmp_path / "images", labels], tmp_path))
    (tmp_path / "images" / "0.png").unlink()
    seen.add(stamp([tmp_path / "images", labels], tmp_path))
    os.utime(tmp_path / "images" / "1.png", ns=(0, 0))
    seen.add(stamp([tmp_path / "images", labels], tmp_path))
    labels.write_text("12")
    seen.add(stamp([tmp_path / "images", labels], tmp_path))
    # Edited in place, with the size and the modification time of before.
    for path in (labels, tmp_path / "images" / "2.png"):
        before = path.stat()
        path.write_bytes(path.read_bytes()[::-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        seen.add(stamp([tmp_path / "images", labels], tmp_path))
    assert len(seen) == 7
    (tmp_path / "images" / "labels.csv").write_text("file,label")
    assert stamp([tmp_path / "images", labels], tmp_path) not in seen
    seen.add(stamp([tmp_path / "images", labels], tmp_path))
    (tmp_path / "images" / "note.md").write_text("counted as no image")
    assert stamp([tmp_path / "images", labels], tmp_path) not in seen
    seen.add(stamp([tmp_path / "images", labels], tmp_path))
    (tmp_path / "elsewhere.csv").touch()
    assert stamp([tmp_path / "images", labels], tmp_path) in seen


def test_the_first_problem_can_stop(tmp_path: Path) -> None:
    listed = samples(tmp_path)
    (tmp_path / "3.png").unlink()
    with pytest.raises(ValueError, match=r"missing: .*3\.png: No such file or directory \(dataset.on_error=raise\)"):
        build_pack(tmp_path / "pack", KEY, lambda: Index(listed), stop_at_first_problem=True)
    index = Index(listed[:1], [Problem("row", "list.csv", "too few columns")])
    with pytest.raises(ValueError, match=r"row: list\.csv: too few columns"):
        build_pack(tmp_path / "pack", KEY, lambda: index, stop_at_first_problem=True)


def test_nothing_to_pack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no labelled image to pack for pack$"):
        build_pack(tmp_path / "pack", KEY, Index)
    index = Index([], [Problem("row", "list.csv", "too few columns")])
    with pytest.raises(ValueError, match=r"to pack for pack: 1 problems, first row: list\.csv: too few columns"):
        build_pack(tmp_path / "pack", KEY, lambda: index)


def test_building_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_CHUNK", 2)
    listed = samples(tmp_path, 9)
    (tmp_path / "1.png").unlink()
    seen: list[str] = []

    def stops(sample: Sample, size: int) -> PreparedImage | Problem:
        if sample.name == "6":
            raise KeyboardInterrupt
        return decode(sample, size)

    def notes(sample: Sample, size: int) -> PreparedImage | Problem:
        seen.append(sample.name)
        return decode(sample, size)

    with pytest.raises(KeyboardInterrupt):
        build_pack(tmp_path / "pack", KEY, lambda: Index(listed), stops)
    assert not (tmp_path / "pack").exists()
    pack = build_pack(tmp_path / "pack", KEY, lambda: Index(listed), notes)
    assert sorted(seen) == ["6", "7", "8"]
    assert not (tmp_path / "pack.partial").exists()
    whole = build_pack(tmp_path / "other", KEY, lambda: Index(listed))
    assert (pack.images == whole.images).all()
    assert (pack.hashes == whole.hashes).all()
    assert [problem.path for problem in pack.problems] == [str(tmp_path / "1.png")]
    assert pack.good.tolist() == whole.good.tolist()


def test_images_do_not_gather_in_memory_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_CHUNK", 1)
    monkeypatch.setattr(pack_module, "usable_cores", lambda: 2)
    decoded: list[str] = []

    def notes(sample: Sample, size: int) -> Problem:
        decoded.append(sample.name)
        return Problem("missing", sample.name, "")

    listed = [Sample(str(number), "sad", "train") for number in range(40)]
    rows = pack_module._PartialPack(tmp_path / "partial", KEY, listed).fill(notes)
    next(rows)  # it is not written before the next is asked for
    time.sleep(0.2)
    assert len(decoded) == 8
    assert len(list(rows)) == 39
    assert sorted(decoded, key=int) == [sample.name for sample in listed]


def test_half_written_rows_of_a_killed_build_are_not_used(tmp_path: Path) -> None:
    """SIGKILL while packing, images written and a problem found beyond the rows that were counted."""
    samples(tmp_path / "images", 40)
    script = f"""
import time
from pathlib import Path
from fer_voting.data import pack
from fer_voting.data.images import decode
from fer_voting.data.index import Index, Sample
pack._CHUNK, pack._COMMIT_SECONDS = 4, 0.0
folder = Path({str(tmp_path)!r})
listed = [Sample(str(i), "sad", "train", folder / "images" / f"{{i}}.png") for i in range(40)]
def slow(sample, size):
    time.sleep(0.01)
    return decode(sample, size)
pack.build_pack(folder / "pack", {KEY!r}, lambda: Index(listed), slow)
"""
    progress = tmp_path / "pack.partial" / "progress.json"

    def done() -> int:
        return json.loads(progress.read_text())["done"] if progress.exists() else 0

    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and done() < 8:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 8 <= done() < 40
    left = 40 - done()
    with (tmp_path / "pack.partial" / "images.npy").open("ab") as file:
        file.write(b"\xff" * 1000)
    record = json.loads(progress.read_text())
    record["problems"].append([39, {"kind": "missing", "path": "x", "reason": "y"}])
    progress.write_text(json.dumps(record))
    listed = [Sample(str(i), "sad", "train", tmp_path / "images" / f"{i}.png") for i in range(40)]
    again: list[str] = []

    def notes(sample: Sample, size: int) -> PreparedImage | Problem:
        again.append(sample.name)
        return decode(sample, size)

    pack = build_pack(tmp_path / "pack", KEY, lambda: Index(listed), notes)
    assert len(again) == left
    assert pack.problems == []
    assert (pack.images == build_pack(tmp_path / "other", KEY, lambda: Index(listed)).images).all()


def interrupt(folder: Path, listed: Sequence[Sample]) -> None:
    """Build the pack of `listed` in `folder` up to its last sample."""

    def stops(sample: Sample, size: int) -> PreparedImage | Problem:
        if sample == listed[-1]:
            raise KeyboardInterrupt
        return decode(sample, size)

    with pytest.raises(KeyboardInterrupt):
        build_pack(folder, KEY, lambda: Index(list(listed)), stops)


def test_an_unfinished_pack_of_other_samples_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader that was changed in between lists as many samples under the same key."""
    caplog.set_level("INFO")
    monkeypatch.setattr(pack_module, "_CHUNK", 1)
    listed = samples(tmp_path)
    interrupt(tmp_path / "pack", listed)
    pack = build_pack(tmp_path / "pack", KEY, lambda: Index(listed[::-1]))
    assert "continues after" not in caplog.text
    assert (pack.images[0] == decode(listed[-1], 16)[0]).all()


def test_rows_whose_images_were_lost_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power failure, a file may be shorter than what was written before it says."""
    monkeypatch.setattr(pack_module, "_CHUNK", 1)
    listed = samples(tmp_path)
    interrupt(tmp_path / "pack", listed)
    assert (tmp_path / "pack.partial" / "hashes.bin").stat().st_size == 4 * 16
    with (tmp_path / "pack.partial" / "images.npy").open("r+b") as file:
        file.truncate(128 + 16 * 16 * 3 * 2)
    pack = build_pack(tmp_path / "pack", KEY, lambda: Index(listed))
    for row, sample in enumerate(listed):
        assert (pack.images[row] == decode(sample, 16)[0]).all()


def test_an_unfinished_pack_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    listed = samples(tmp_path)

    def stops(sample: Sample, size: int) -> PreparedImage | Problem:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pack(tmp_path / "pack", KEY, lambda: Index(listed), stops)
    pack = build_pack(tmp_path / "pack", KEY | {"size": 8}, lambda: Index(listed))
    assert pack.images.shape == (5, 8, 8, 3)


def test_a_full_disk_is_told_with_the_packs_folder(tmp_path: Path) -> None:
    listed = samples(tmp_path)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, usual[1]))
        with pytest.raises(OSError, match=rf"can't write the pack: File too large: '{tmp_path}/pack'"):
            build_pack(tmp_path / "pack", KEY, lambda: Index(listed))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(build_pack(tmp_path / "pack", KEY, lambda: Index(listed))) == 5


def test_another_process_opens_the_pack_itself(tmp_path: Path) -> None:
    listed = samples(tmp_path)
    pack = build_pack(tmp_path / "pack", KEY, lambda: Index(listed))
    sent = pickle.dumps(pack)
    assert len(sent) < 500
    received = pickle.loads(sent)
    assert isinstance(received, Pack)
    assert (received.images == pack.images).all()


def test_another_process_does_not_open_a_pack_that_was_rebuilt_meanwhile(tmp_path: Path) -> None:
    listed = samples(tmp_path)
    sent = pickle.dumps(build_pack(tmp_path / "pack", KEY, lambda: Index(listed)))
    build_pack(tmp_path / "pack", KEY | {"source": "b"}, lambda: Index(listed[::-1]))
    with pytest.raises(RuntimeError, match="was rebuilt from other data while it was in use"):
        pickle.loads(sent)


def test_opening_and_reading_do_not_depend_on_the_number_of_images(tmp_path: Path) -> None:
    """No Python call is made for each image of a pack as large as AffectNet's, and its images stay in the file."""
    count = 287_401
    folder = tmp_path / "pack"
    build_pack(folder, KEY, lambda: Index(samples(tmp_path, 1)))
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 16, 16, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * 16 * 16 * 3)
    np.savez(
        folder / "index.npz",
        names=np.array([f"train/Manually_Annotated_Images/{i:06d}/{i:040d}.jpg" for i in range(count)], dtype=bytes),
        labels=np.zeros(count, np.int16),
        parts=np.zeros(count, np.uint8),
        hashes=np.zeros(count, "V16"),
        good=np.ones(count, bool),
    )
    calls: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        pack = open_pack(folder, KEY)
        assert isinstance(pack, Pack)
        assert pack.images[[0, count - 1]].shape == (2, 16, 16, 3)
    finally:
        sys.setprofile(None)
    assert 0 < calls.total() < count / 10
    assert isinstance(pack.images, np.memmap)
    assert len(pack) == count


@pytest.mark.parametrize("colour", [False, True])
def test_a_pack_is_grey_if_every_image_is(tmp_path: Path, colour: bool) -> None:
    index = Index(samples(tmp_path / "images"))
    for sample in index.samples:
        Image.open(sample.path).convert("L").save(sample.path)
    if colour:  # the last one, by one pixel
        image = Image.open(sample.path).convert("RGB")
        image.putpixel((0, 0), (10, 10, 11))
        image.save(sample.path)
    size = image.width if colour else 16
    pack = build_pack(tmp_path / "pack", {**KEY, "size": size}, lambda: index)
    assert pack.is_grey == (not colour)
