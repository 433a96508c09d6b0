"""Photos, videos and cameras as frames."""

import os
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
from helpers.videos import grey_frames, write_video

from fer_voting.inference.frames import (
    Frame,
    Input,
    Unreadable,
    camera_frames,
    count_frames,
    find_inputs,
    photo,
    read_frames,
)

NEITHER = "it is neither a photo nor a video that can be read"


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
    assert [one.output for one in inputs] == ["a.png", "c.gif", "b/a.mp4", "b/z.JPG", "b/c/x.webm"]
    assert [one.name for one in inputs] == [str(tmp_path / one.output) for one in inputs]
    assert others == 2


def test_files_are_taken_as_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one/x.jpg", "two/x.jpg", "two/.y", "clip.MOV"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    inputs, others = find_inputs([Path(p) for p in ("two/x.jpg", "one", "two/.y", "clip.MOV")])
    assert inputs == [
        Input("two/x.jpg", "x.jpg"),
        Input("one/x.jpg", "x-2.jpg"),
        Input("two/.y", ".y"),
        Input("clip.MOV", "clip.MOV"),
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


def test_a_file_is_what_its_content_is(tmp_path: Path):
    """Suffixes that no list has, none, or another kind's; what is neither is counted."""
    image = PIL.Image.fromarray(colours())
    for name in ("a.jfif", "b.JPE", "c", "d.mp4", "e.dat"):
        image.save(tmp_path / name, "JPEG")
    image.save(tmp_path / "f.avif")
    for suffix, name in ((".mp4", "g.divx"), (".mkv", "h"), (".ts", "i.mpe"), (".mp4", "j.jpg"), (".h264", "k.264")):
        write_video(tmp_path / f"clip{suffix}", noise(6), TIMES_MS).rename(tmp_path / name)
    (tmp_path / "l.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "m").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    for name, content in (
        ("n.txt", b"notes"),
        ("o.json", b"{}"),
        ("p", bytes(10_000)),
        ("q.m3u8", b"#EXTM3U\nj.jpg\n"),
    ):
        (tmp_path / name).write_bytes(content)
    inputs, others = find_inputs([tmp_path])
    assert others == 4
    kinds = {}
    for one in inputs:
        first = next(iter(read_frames(one)))
        kinds[one.output] = ("photo" if first.time_s is None else "video") if isinstance(first, Frame) else first.reason
    assert [kinds.pop(name) for name in ("a.jfif", "b.JPE", "c", "d.mp4", "e.dat", "f.avif")] == ["photo"] * 6
    assert [kinds.pop(name) for name in ("g.divx", "h", "i.mpe", "j.jpg", "k.264")] == ["video"] * 5
    assert all("HEIC photo: convert it" in reason for reason in kinds.values())
    assert set(kinds) == {"l.heic", "m"}


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
    assert the_reason(tmp_path / "empty.jpg") == NEITHER
    (tmp_path / "page.html").write_text("<html>")
    assert the_reason(tmp_path / "page.html") == NEITHER
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
    assert the_reason(tmp_path / "a.jpg") == NEITHER


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


def turned_video(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A video 64 x 48, dark but for a white quarter at the upper left, with a display matrix [a b; c d]."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255
    write_video(path, [frame, frame], [0, 40])
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    assert struct.unpack_from(">i", content, place)[0] == 1 << 16
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", content, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (-1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, 1, 0),
        (0, 1, -1, 0),
        (0, -1, -1, 0),
    ],
)
def test_a_phones_video_is_turned_and_mirrored_as_a_player_does(tmp_path: Path, matrix: tuple[int, int, int, int]):
    """All eight: QuickTime's matrix takes (x, y) to (a x + c y, b x + d y), here relative to the frame's middle."""
    image = frames(turned_video(tmp_path / "clip.mp4", matrix))[0].image
    a, b, c, d = matrix
    assert image.shape == ((48, 64, 3) if a else (64, 48, 3))
    x, y = a * -1 + c * -1, b * -1 + d * -1  # where the upper left quarter goes
    height, width = image.shape[0] // 2, image.shape[1] // 2
    for row in (0, 1):
        for column in (0, 1):
            quarter = image[row * height :, column * width :][4 : height - 4, 4 : width - 4]
            assert (quarter.min() > 240) if (2 * column - 1, 2 * row - 1) == (x, y) else (quarter.max() < 15)


@pytest.mark.parametrize(
    ("aspect", "shape"), [("64/45", (48, 91)), ("8/9", (54, 64)), ("1/1", (48, 64)), ("0/1", (48, 64))]
)
def test_pixels_that_are_not_square_become_so(tmp_path: Path, aspect: str, shape: tuple[int, int]):
    """DVDs, DV tapes and broadcasts: the side that is too short is stretched."""
    path = write_video(tmp_path / "clip.mp4", grey_frames([60, 90]), [0, 40], pixel_aspect=aspect)
    found = frames(path)
    assert [frame.image.shape for frame in found] == [(*shape, 3)] * 2
    assert np.abs(found[0].image.astype(int) - 60).max() < 8


def test_pixels_of_an_absurd_shape_have_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fer_voting.inference.frames.MAX_VIDEO_PIXELS", 10_000)
    path = write_video(tmp_path / "clip.mp4", grey_frames([60, 90]), [0, 40], pixel_aspect="10/1")
    assert the_reason(path) == "with square pixels it would be 640x48, more than 10,000 pixels"


def test_transparent_pixels_of_a_video_are_white(tmp_path: Path):
    pixels = np.full((48, 64, 4), 90, np.uint8)
    pixels[:, :32, 3], pixels[:, 32:, 3] = 0, 255
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode())
    image = frames(tmp_path / "clip.mov")[0].image
    assert (image[:, :32] == 255).all()
    assert (image[:, 32:] == 90).all()


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
    assert the_reason(path) == NEITHER
    (tmp_path / "empty.mp4").touch()
    assert the_reason(tmp_path / "empty.mp4") == NEITHER


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\nclip.ts\n", "ffconcat version 1.0\nfile clip.ts\n"])
def test_a_playlist_opens_no_other_file(tmp_path: Path, text: str):
    write_video(tmp_path / "clip.ts", grey_frames(LEVELS), TIMES_MS)
    for name in ("list.mp4", "list.m3u8"):
        (tmp_path / name).write_text(text)
        assert the_reason(tmp_path / name) == NEITHER


def test_a_file_with_sound_alone_is_no_video(tmp_path: Path):
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


def test_frames_are_counted_before_they_are_read(tmp_path: Path):
    write_video(tmp_path / "a.mp4", grey_frames([50] * 7), range(0, 280, 40))
    write_video(tmp_path / "b.h264", grey_frames([50] * 7), range(0, 280, 40))  # which says neither number nor length
    write_video(tmp_path / "c.mkv", grey_frames([50] * 7), range(0, 280, 40))
    PIL.Image.new("RGB", (9, 9)).save(tmp_path / "d.png")
    (tmp_path / "e.mp4").write_text("no video")
    inputs, _ = find_inputs([tmp_path])
    assert [count_frames([one], every) for one in inputs for every in (1, 3)] == [7, 3, 1, 1, 7, 3, 1, 1, 1, 1]
    assert [frame.time_s for frame in read_frames(inputs[1])] == pytest.approx([0.04 * i for i in range(7)])


def test_an_address_is_no_path():
    with pytest.raises(
        ValueError, match=r"https:/example\.org/a\.jpg is an address, and only files are read: download"
    ):
        find_inputs([Path("https://example.org/a.jpg")])
