"""Photos, videos and cameras as frames."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from helpers.videos import grey_frames, write_video

from fer_voting.inference.frames import Frame, Input, Unreadable, camera_frames, find_inputs, photo, read_frames


def read(path: Path, every: int = 1) -> list[Frame | Unreadable]:
    (found,), _ = find_inputs([path])
    return list(read_frames(found, every))


def frames(path: Path, every: int = 1) -> list[Frame]:
    found = read(path, every)
    assert all(isinstance(one, Frame) for one in found), found
    return found  # type: ignore[return-value]


def the_reason(path: Path) -> str:
    (found,) = read(path)
    assert isinstance(found, Unreadable), found
    assert found.input == str(path)
    return found.reason


# Which files ------------------------------------------------------------------------------------------------------


def test_folders_in_depth_in_the_order_of_names(tmp_path: Path):
    for name in ("b/z.JPG", "b/a.mp4", "a.png", "b/c/x.webm", "c.gif", ".hidden.png", ".git/y.png", "notes.txt", "b/w"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    inputs, others = find_inputs([tmp_path])
    assert [(one.output, one.kind) for one in inputs] == [
        ("a.png", "photo"),
        ("c.gif", "photo"),
        ("b/a.mp4", "video"),
        ("b/z.JPG", "photo"),
        ("b/c/x.webm", "video"),
    ]
    assert [one.name for one in inputs] == [str(tmp_path / one.output) for one in inputs]
    assert others == 2


def test_files_are_taken_as_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one/x.jpg", "two/x.jpg", "two/.y", "clip.MOV"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    inputs, others = find_inputs([Path(p) for p in ("two/x.jpg", "one", "two/.y", "clip.MOV")])
    assert inputs == [
        Input("two/x.jpg", "photo", "x.jpg"),
        Input("one/x.jpg", "photo", "x-2.jpg"),
        Input("two/.y", "photo", ".y"),
        Input("clip.MOV", "video", "clip.MOV"),
    ]
    assert others == 0
    with pytest.raises(FileNotFoundError, match="nothing does not exist"):
        find_inputs([Path("nothing")])


def test_what_would_block_or_cannot_be_listed_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "closed").mkdir()
    os.symlink(tmp_path / "gone.jpg", tmp_path / "link.jpg")
    really_scan = os.scandir

    def scan(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return really_scan(path)

    monkeypatch.setattr(os, "scandir", scan)
    inputs, others = find_inputs([tmp_path])
    assert ([one.output for one in inputs], others) == (["link.jpg", "closed"], 1)
    items = [item for one in inputs for item in read_frames(one)]
    assert [type(item) for item in items] == [Unreadable, Unreadable]


# Photos -----------------------------------------------------------------------------------------------------------


def colours(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_photo_is_one_frame_without_a_time(tmp_path: Path):
    PIL.Image.fromarray(colours()).save(tmp_path / "a.png")
    (frame,) = frames(tmp_path / "a.png")
    assert (frame.input, frame.index, frame.time_s) == (str(tmp_path / "a.png"), 0, None)
    assert np.array_equal(frame.image, colours())


def test_the_cameras_orientation_is_applied(tmp_path: Path):
    image = PIL.Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (0, 0, 20, 20))  # the left half is white
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = photo(tmp_path / "a.jpg")
    assert upright.shape == (40, 20, 3)
    assert upright[:18].min() > 240
    assert upright[22:].max() < 15


def test_broken_photos_have_a_reason(tmp_path: Path):
    PIL.Image.fromarray(colours(200, 300)).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    assert "truncated" in the_reason(tmp_path / "cut.jpg")
    (tmp_path / "empty.jpg").touch()
    assert the_reason(tmp_path / "empty.jpg") == "it is no photo"
    (tmp_path / "page.html").write_text("<html>")
    assert the_reason(tmp_path / "page.html") == "it is no photo"
    PIL.Image.fromarray(np.zeros((5, 5), np.float32)).save(tmp_path / "deep.tif")
    assert "floating point" in the_reason(tmp_path / "deep.tif")
    (tmp_path / "gone.jpg").touch()
    (found,), _ = find_inputs([tmp_path / "gone.jpg"])
    (tmp_path / "gone.jpg").unlink()
    (item,) = read_frames(found)
    assert isinstance(item, Unreadable)
    assert item.reason == "FileNotFoundError: No such file or directory"


def test_postscript_is_not_handed_to_an_interpreter(tmp_path: Path):
    """Pillow runs Ghostscript on EPS, whatever the file is called."""
    PIL.Image.fromarray(colours()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with PIL.Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "EPS"
    assert the_reason(tmp_path / "a.jpg") == "it is no photo"


def test_a_small_file_that_claims_to_be_huge_is_not_decoded(tmp_path: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    assert "900000000 pixels" in the_reason(tmp_path / "bomb.png")


# Videos -----------------------------------------------------------------------------------------------------------


def noise(count: int) -> list[np.ndarray]:
    """Frames that compress badly."""
    return list(np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8))


LEVELS = [20, 60, 100, 140, 180, 220]
TIMES_MS = [0, 40, 140, 160, 400, 1000]


def test_a_stream_without_times_is_timed_by_its_rate(tmp_path: Path):
    path = write_video(tmp_path / "bare.h264", grey_frames(LEVELS), range(0, 240, 40))
    path = path.rename(tmp_path / "bare.mpg")
    assert [frame.time_s for frame in frames(path)] == pytest.approx([index / 25 for index in range(6)])


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".webm", "libvpx")])
def test_times_are_the_containers_at_a_variable_frame_rate(tmp_path: Path, suffix: str, codec: str):
    path = write_video(tmp_path / f"clip{suffix}", grey_frames(LEVELS), TIMES_MS, codec)
    found = frames(path)
    assert [frame.index for frame in found] == list(range(6))
    assert [round(1000 * (frame.time_s or 0)) for frame in found] == TIMES_MS
    for frame, level in zip(found, LEVELS, strict=True):
        assert frame.image.shape == (48, 64, 3)
        assert np.abs(frame.image.astype(int) - level).max() < 8


def test_time_counts_from_the_videos_start(tmp_path: Path):
    """An MPEG transport stream begins at any time, a recording of a broadcast at hours."""
    path = write_video(tmp_path / "clip.ts", grey_frames(LEVELS), [7_000 + ms for ms in TIMES_MS])
    assert [round(1000 * frame.time_s) for frame in frames(path) if frame.time_s is not None] == TIMES_MS


def test_colours_are_in_the_order_red_green_blue(tmp_path: Path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    path = write_video(tmp_path / "clip.mp4", [red, red], [0, 40])
    mean = frames(path)[0].image.mean((0, 1))
    assert mean[0] > 150
    assert mean[1:].max() < 60


def test_every_second_frame_keeps_its_number_and_time(tmp_path: Path):
    path = write_video(tmp_path / "clip.mp4", grey_frames(LEVELS), TIMES_MS)
    assert [(frame.index, frame.time_s) for frame in frames(path, every=2)] == [(0, 0.0), (2, 0.14), (4, 0.4)]


def test_a_phones_video_is_turned_upright(tmp_path: Path):
    white_left = np.zeros((48, 64, 3), np.uint8)
    white_left[:, :32] = 255
    path = write_video(tmp_path / "clip.mp4", [white_left, white_left], [0, 40])
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    assert struct.unpack_from(">i", content, matrix)[0] == 1 << 16
    # QuickTime's matrix [a b; c d] takes (x, y) to (a x + c y, b x + d y): here to (-y, x), so the left comes on top.
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    image = frames(path)[0].image
    assert image.shape == (64, 48, 3)
    assert image[:28].min() > 240
    assert image[36:].max() < 15


def test_a_cut_off_video_gives_its_frames_and_then_says_so(tmp_path: Path):
    path = write_video(tmp_path / "clip.mkv", noise(60), range(0, 60 * 100, 100))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    *found, end = read(path)
    assert 10 < len(found) < 50
    assert isinstance(end, Unreadable)
    assert end.index == len(found)
    assert "cut off or damaged" in end.reason


def test_broken_videos_have_a_reason(tmp_path: Path):
    path = write_video(tmp_path / "clip.mp4", noise(6), TIMES_MS)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # MP4's index is at its end
    assert the_reason(path).startswith("InvalidDataError")
    (tmp_path / "empty.mp4").touch()
    assert the_reason(tmp_path / "empty.mp4")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nclip.mp4\n")
    assert the_reason(tmp_path / "list.mp4")


def test_a_file_with_sound_alone_is_no_video(tmp_path: Path):
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate, sound.pts = 44_100, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "no video stream" in the_reason(tmp_path / "sound.mp4")


# Cameras ----------------------------------------------------------------------------------------------------------


def test_a_camera(tmp_path: Path):
    """OpenCV takes a file for a camera that ends."""
    path = write_video(tmp_path / "clip.mp4", grey_frames(LEVELS), TIMES_MS)
    found = list(camera_frames(str(path), every=2))
    assert [frame.index for frame in found] == [0, 2, 4]
    assert found[0].input == f"camera:{path}"
    times = [frame.time_s for frame in found if frame.time_s is not None]
    assert times == sorted(times)
    assert 0 <= times[0] < 60
    assert np.abs(found[1].image.astype(int) - LEVELS[2]).max() < 8


def test_a_camera_that_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match=r"`camera` \(='.*nothing.mp4'\) cannot be opened"):
        next(camera_frames(str(tmp_path / "nothing.mp4")))
