"""Annotated photos and videos."""

from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from helpers.networks import found_faces, small_info, small_network
from helpers.videos import grey_frames, write_video

from fer_voting.inference.draw import BOX_COLOR, Drawings, annotate
from fer_voting.inference.frames import Frame, find_inputs, photo, read_frames
from fer_voting.inference.pipeline import Pipeline, RecognizedFrame
from fer_voting.inference.recognizer import Face, Recognizer
from fer_voting.inference.runtime import TorchRuntime


def face(left: float, top: float, width: float, height: float) -> Face:
    return Face((left, top, width, height), 0.0, 0.9, "happy", 0.93, 1.0, {"happy": 0.93}, np.full((5, 2), np.nan))


def is_box(image: np.ndarray) -> np.ndarray:
    return (image == BOX_COLOR).all(-1)


def test_boxes_lie_around_the_faces_and_nothing_else_changes():
    frame = np.full((300, 400, 3), 90, np.uint8)
    before = frame.copy()
    image = annotate(frame, [face(100, 120, 60, 80)])
    assert np.array_equal(frame, before)
    yellow = is_box(image)
    assert yellow[120, 100:161].all()
    assert yellow[200, 100:161].all()
    assert yellow[120:201, 100].all()
    assert yellow[120:201, 160].all()
    assert (image[125:195, 105:155] == 90).all()  # the face itself stays visible
    label = image[90:120, 100:160]
    assert (label < 60).all(-1).any()  # letters
    image[90:203, 98:260] = 90
    assert (image == 90).all()


@pytest.mark.parametrize("box", [(0, 0, 60, 80), (350, 0, 60, 80), (-20, 250, 60, 80), (0, 0, 400, 300)])
def test_labels_stay_in_the_frame(box: tuple[float, float, float, float]):
    image = annotate(np.full((300, 400, 3), 90, np.uint8), [face(*box)])
    assert ((image < 60).all(-1)).sum() > 100  # letters


def test_a_number_is_part_of_the_label():
    frame = np.full((300, 400, 3), 90, np.uint8)
    without, with_number = annotate(frame, [face(100, 120, 60, 80)]), annotate(frame, [face(100, 120, 60, 80)], [7])
    assert is_box(with_number).sum() > is_box(without).sum()


@pytest.fixture
def pipeline() -> Pipeline:
    recognizer = Recognizer(TorchRuntime(small_network(), small_info()))
    return Pipeline(recognizer, lambda frame: found_faces([(10, 30, 20, 14)]), keep_pixels=True, track=True)


def draw(paths: list[Path], pipeline: Pipeline, folder: Path) -> None:
    inputs, _ = find_inputs(paths)
    with Drawings(folder, tracked=True) as drawings:
        for item in pipeline(frame for one in inputs for frame in read_frames(one)):
            assert isinstance(item, RecognizedFrame)
            drawings.add(item)


def test_photos_keep_their_names(tmp_path: Path, pipeline: Pipeline):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    grey = PIL.Image.fromarray(grey_frames([90])[0])
    for name in ("a.jpg", "a.png", "sub/a.png", "a.bmp", "b.JPEG"):
        grey.save(tmp_path / "in" / name)
    draw([tmp_path / "in"], pipeline, tmp_path / "out")
    drawn = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert drawn == ["a.bmp.png", "a.jpg", "a.png", "b.JPEG", "sub/a.png"]
    for name in drawn:
        image = photo(tmp_path / "out" / name)
        assert image.shape == (48, 64, 3)
        assert np.abs(image[30, 10:31].astype(int) - BOX_COLOR).mean() < 60
    assert is_box(photo(tmp_path / "out" / "a.png"))[30, 10:31].all()


def test_videos_keep_their_times_and_sides(tmp_path: Path, pipeline: Pipeline):
    times_ms = [0, 40, 140, 160, 400]
    write_video(tmp_path / "a.mkv", grey_frames([90] * 5), times_ms)
    write_video(tmp_path / "b.mp4", grey_frames([90] * 2), [0, 500])
    draw([tmp_path / "a.mkv", tmp_path / "b.mp4"], pipeline, tmp_path / "out")
    (first, second), _ = find_inputs([tmp_path / "out"])
    assert (first.output, second.output) == ("a.mkv.mp4", "b.mp4")
    frames = list(read_frames(first))
    assert [
        round(1000 * frame.time_s) for frame in frames if isinstance(frame, Frame) and frame.time_s is not None
    ] == (times_ms)
    assert len(list(read_frames(second))) == 2
    for frame in frames:
        assert isinstance(frame, Frame)
        assert frame.image.shape == (48, 64, 3)
        line, inside = frame.image[30:32, 12:30].astype(int), frame.image[36:40, 14:26].astype(int)
        assert line[..., 0].mean() > 180 > line[..., 2].mean() + 60  # yellow
        assert np.abs(inside - 90).mean() < 12


def test_a_video_says_its_colours_and_starts_at_once(tmp_path: Path, pipeline: Pipeline):
    """The index (moov) stands before the pictures (mdat), and players need not guess the matrix by the size."""
    red = np.zeros((720, 1280, 3), np.uint8) + np.uint8([200, 40, 30])
    with Drawings(tmp_path) as drawings:
        for item in pipeline([Frame("a", 0, 0.0, red, "a"), Frame("a", 1, 0.1, red, "a")]):
            assert isinstance(item, RecognizedFrame)
            drawings.add(item)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        luma = frame.to_ndarray(format="yuv420p")[600, 1000]
        assert luma == pytest.approx(16 + 219 / 255 * (0.2126 * 200 + 0.7152 * 40 + 0.0722 * 30), abs=2)


def test_the_same_file_twice_is_drawn_twice_and_photos_keep_their_colour_profile(tmp_path: Path, pipeline: Pipeline):
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    PIL.Image.fromarray(grey_frames([90])[0]).save(tmp_path / "a.jpg", icc_profile=profile)
    PIL.Image.fromarray(grey_frames([90])[0]).convert("CMYK").save(tmp_path / "b.jpg", icc_profile=b"of four inks")
    video = write_video(tmp_path / "a.mp4", grey_frames([90] * 2), [0, 40])
    draw([tmp_path / "a.jpg", video, video, tmp_path / "a.jpg", tmp_path / "b.jpg"], pipeline, tmp_path / "out")
    drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert drawn == ["a-2.jpg", "a-2.mp4", "a.jpg", "a.mp4", "b.jpg"]
    assert len(list(read_frames(find_inputs([tmp_path / "out" / "a-2.mp4"])[0][0]))) == 2
    profiles = []
    for name in ("a.jpg", "a-2.jpg", "b.jpg"):
        with PIL.Image.open(tmp_path / "out" / name) as image:
            profiles.append(image.info.get("icc_profile"))
    assert profiles == [profile, profile, None]  # the last one is RGB now


def test_numbers_are_drawn_only_where_they_are_identities(tmp_path: Path, pipeline: Pipeline):
    frame = Frame("a", 0, 0.0, grey_frames([90], 480, 640)[0], "a")
    widths = []
    for tracked in (False, True):
        with Drawings(tmp_path / str(tracked), tracked) as drawings:
            item = next(pipeline([frame]))
            assert isinstance(item, RecognizedFrame)
            drawings.add(item)
        (shown,) = read_frames(find_inputs([tmp_path / str(tracked)])[0][0])
        assert isinstance(shown, Frame)
        yellow = (shown.image[..., 0] > 180) & (shown.image[..., 2] < 120)
        widths.append(int(yellow.any(axis=0).sum()))
    assert widths[1] > widths[0] + 5


def test_odd_sides_and_a_change_of_size(tmp_path: Path, pipeline: Pipeline):
    """H.264 wants even sides, and one size."""
    frames = [
        Frame("x", 0, 0.0, np.full((49, 65, 3), 90, np.uint8), "camera-0"),
        Frame("x", 1, 0.1, np.full((60, 80, 3), 90, np.uint8), "camera-0"),
    ]
    with Drawings(tmp_path) as drawings:
        for item in pipeline(frames):
            assert isinstance(item, RecognizedFrame)
            drawings.add(item)
    (found,), _ = find_inputs([tmp_path])
    assert found.output == "camera-0.mp4"
    shapes = [frame.image.shape for frame in read_frames(found) if isinstance(frame, Frame)]
    assert shapes == [(50, 66, 3)] * 2


def test_a_video_that_is_stopped_is_whole(tmp_path: Path, pipeline: Pipeline):
    frames = [Frame("x", index, index / 10, picture, "x") for index, picture in enumerate(grey_frames([90] * 9))]

    def stopped() -> None:
        with Drawings(tmp_path) as drawings:
            for item in pipeline(frames):
                assert isinstance(item, RecognizedFrame)
                drawings.add(item)
                if item.frame.index == 4:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    (found,), _ = find_inputs([tmp_path])
    assert len(list(read_frames(found))) == 5
