"""`python -m fer_voting.predict`."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from helpers.doc_pages import blocks
from helpers.networks import SEVEN, write_checkpoint
from helpers.processes import start
from helpers.train import REPO
from helpers.videos import grey_frames, write_video

from fer_voting import Recognizer
from fer_voting.inference.frames import photo
from fer_voting.inference.onnx_export import export_float32
from fer_voting.inference.rows import columns
from fer_voting.inference.runtime import FaceNetwork
from fer_voting.networks import Network, load_network
from fer_voting.networks.onnx import ExportInfo
from fer_voting.predict import main
from fer_voting.votes import softprob_vote

pytestmark = pytest.mark.slow


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "net.ckpt")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_faces(folder: Path, count: int = 3) -> list[Path]:
    """Images of noise that stand for faces."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(count):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 30 + seed, 3), dtype=np.uint8)
        paths.append(folder / f"face{seed}.png")
        PIL.Image.fromarray(pixels).save(paths[-1])
    return paths


def test_photos_of_people(shared_data: Path, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    out = tmp_path / "faces.csv"
    words = ["--out", str(out), "--draw", str(tmp_path / "drawn")]
    main([str(shared_data / "photos"), "--checkpoint", str(checkpoint), *words])
    rows = read_csv(out)
    assert list(rows[0]) == columns(SEVEN)
    people = {"group.jpeg": 5}
    names = sorted(path.name for path in (shared_data / "photos").iterdir())
    expected = [str(shared_data / "photos" / name) for name in names for _ in range(people.get(name, 1))]
    assert [row["input"] for row in rows] == expected
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["time_s"] for row in rows} == {""}
    for row in rows:
        probabilities = [float(row[name]) for name in SEVEN]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert float(row["confidence"]) == max(probabilities)
        assert row["class"] == SEVEN[int(np.argmax(probabilities))]
    # The same from Python.
    recognizer = Recognizer.from_checkpoint(checkpoint)
    found = recognizer.detect(photo(shared_data / "photos" / "group.jpeg"))
    of_group = [row for row in rows if row["input"].endswith("group.jpeg")]
    assert [row["face_id"] for row in of_group] == list("01234")
    for row, face, probabilities in zip(of_group, found, found.probabilities, strict=True):
        assert [float(row[side]) for side in ("left", "top", "width", "height")] == pytest.approx(face.box, abs=0.006)
        assert [float(row[name]) for name in SEVEN] == pytest.approx(probabilities.tolist(), abs=1e-5)
        assert float(row["vote_agreement"]) == pytest.approx(face.agreement)
    drawn = {path.name: photo(path) for path in (tmp_path / "drawn").iterdir()}
    assert sorted(drawn) == names
    assert (drawn["astronaut.png"] != photo(shared_data / "photos" / "astronaut.png")).any()


def test_without_a_network_it_is_the_one_that_ships(shared_data: Path, tmp_path: Path):
    main([str(shared_data / "photos" / "astronaut.png"), "--out", str(tmp_path / "faces.csv")])
    (row,) = read_csv(tmp_path / "faces.csv")
    assert row["class"] == "happy"  # she laughs
    assert float(row["confidence"]) > 0.9


def test_a_video_is_tracked_and_its_boxes_are_read_back(shared_data: Path, checkpoint: Path, tmp_path: Path):
    group = PIL.Image.fromarray(photo(shared_data / "photos" / "group.jpeg")).resize((640, 426))
    pan = [np.asarray(group.crop((x, 0, x + 400, 426))) for x in (0, 10, 20, 30)]
    times_ms = [0, 100, 130, 500]
    clip = write_video(tmp_path / "clip.mp4", [*pan, np.full_like(pan[0], 90)], [*times_ms, 600])
    out = tmp_path / "faces.jsonl"
    main([str(clip), "--checkpoint", str(checkpoint), "--out", str(out), "--track"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[-1] == dict.fromkeys(columns(SEVEN)) | {
        "input": str(clip), "frame": 4, "time_s": 0.6, "status": "no_face",
    }  # fmt: skip
    by_frame = {index: [row for row in rows[:-1] if row["frame"] == index] for index in range(4)}
    assert [one[0]["time_s"] for one in by_frame.values()] == [0, 0.1, 0.13, 0.5]
    first = {row["face_id"]: row for row in by_frame[0]}
    assert len(first) >= 3
    for row in by_frame[3]:
        if row["face_id"] in first:  # the same person, 30 pixels further left
            assert row["left"] == pytest.approx(first[row["face_id"]]["left"] - 30, abs=8)
            assert row["top"] == pytest.approx(first[row["face_id"]]["top"], abs=8)
    assert len(first.keys() & {row["face_id"] for row in by_frame[3]}) >= 3

    again = tmp_path / "again.csv"
    main([str(clip), "--checkpoint", str(checkpoint), "--out", str(again), "--every", "3"])
    assert {row["frame"] for row in read_csv(again)} == {"0", "3"}

    third = tmp_path / "third.csv"
    main([str(clip), "--checkpoint", str(checkpoint), "--out", str(third), "--boxes", str(again)])
    ok = [row for row in read_csv(third) if row["status"] == "ok"]
    assert [(row["frame"], row["left"], row["face_score"], row["class"]) for row in ok] == [
        (row["frame"], row["left"], row["face_score"], row["class"]) for row in read_csv(again)
    ]
    assert [row["frame"] for row in read_csv(third) if row["status"] == "no_face"] == ["1", "2", "4"]


NAMES = ("a" * 251 + ".png", "笑" * 80 + ".png", "12:30 clip", "x = 1, 'é' #2", "العربية\u200f", "=a.png", "b\x1b.png")


def test_outputs_for_any_name(checkpoint: Path, tmp_path: Path):
    """Annotated copies and explanations of photos and videos; the boxes are read back from the command's own file."""
    (face,) = draw_faces(tmp_path / "drawn by hand")[:1]
    (tmp_path / "in").mkdir()
    clip = write_video(tmp_path / "clip.mp4", grey_frames([50]), [0])
    for name in NAMES:
        shutil.copy(face, tmp_path / "in" / name)
        shutil.copy(clip, tmp_path / "in" / f"v{name[1:]}")
    words = [str(tmp_path / "in"), "--checkpoint", str(checkpoint)]
    outputs = ["--draw", str(tmp_path / "drawn"), "--explain", str(tmp_path / "explained")]
    main([*words, "--aligned", "--out", str(tmp_path / "rows.csv"), *outputs])
    rows = read_csv(tmp_path / "rows.csv")
    assert [row["status"] for row in rows] == ["ok"] * 2 * len(NAMES)
    drawn = sorted(path.suffix for path in (tmp_path / "drawn").iterdir())
    assert drawn == [".mp4"] * len(NAMES) + [".png"] * len(NAMES)
    assert len(list((tmp_path / "explained").iterdir())) == 2 * len(NAMES)
    main([*words, "--boxes", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "again.csv")])
    again = read_csv(tmp_path / "again.csv")
    assert [(row["input"], row["left"], row["width"]) for row in again] == [
        (row["input"], row["left"], row["width"]) for row in rows
    ]


def test_a_copy_that_cannot_be_written_is_a_row_and_the_others_go_on(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    draw_faces(tmp_path / "in")
    write_video(tmp_path / "in" / "clip.mp4", grey_frames([50, 100, 150]), [0, 40, 80])
    for name in ("face0.png", "clip.mp4"):
        (tmp_path / "drawn" / name).mkdir(parents=True)  # in the way
    words = [str(tmp_path / "in"), "--aligned", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "rows.csv")]
    main([*words, "--draw", str(tmp_path / "drawn")])
    rows = [(Path(row["input"]).name, row["status"].partition(":")[0]) for row in read_csv(tmp_path / "rows.csv")]
    assert rows == [
        ("clip.mp4", "ok"), ("clip.mp4", "not_written"), ("clip.mp4", "ok"), ("clip.mp4", "ok"),
        ("face0.png", "ok"), ("face0.png", "not_written"), ("face1.png", "ok"), ("face2.png", "ok"),
    ]  # fmt: skip
    assert "0 unreadable, 2 drawings not written" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir() if path.is_file()) == ["face1.png", "face2.png"]


def test_aligned_faces_and_files_that_cannot_be_read(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    faces = draw_faces(tmp_path / "in")
    (tmp_path / "in" / "face0a.png").write_text("no photo")
    (tmp_path / "in" / "clip.mp4").write_bytes(b"no video")
    write_video(tmp_path / "in" / "face9.mkv", grey_frames([50, 100]), [0, 40])
    monkeypatch.chdir(tmp_path)
    main(["in", "--aligned", "--checkpoint", str(checkpoint), "--batch-size", "2"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["input"], row["status"].split(":")[0]) for row in rows] == [
        ("in/clip.mp4", "unreadable"),
        ("in/face0.png", "ok"),
        ("in/face0a.png", "unreadable"),
        ("in/face1.png", "ok"),
        ("in/face2.png", "ok"),
        ("in/face9.mkv", "ok"),
        ("in/face9.mkv", "ok"),
    ]
    expected = Recognizer.from_checkpoint(checkpoint)([np.asarray(PIL.Image.open(face)) for face in faces])
    of_photos = [row for row in rows if row["status"] == "ok"][:3]
    assert [row["class"] for row in of_photos] == expected.classes
    assert [float(row["confidence"]) for row in of_photos] == pytest.approx(expected.confidences.tolist(), abs=1e-5)


def test_every_face_is_explained(checkpoint: Path, tmp_path: Path):
    (face,) = draw_faces(tmp_path / "in", 1)
    clip = write_video(tmp_path / "in" / "clip.mp4", grey_frames([50, 100]), [0, 40])
    words = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "faces.csv"), "--aligned"]
    main([str(face), str(clip), *words, "--explain", str(tmp_path / "why")])
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == [
        "clip.mp4-000000-0.png",
        "clip.mp4-000001-0.png",
        "face0.png-0.png",
    ]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_results_that_are_there_are_replaced_only_when_told_to(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_faces(tmp_path / "in" / "deep")
    write_video(tmp_path / "in" / "clip.mp4", grey_frames([50, 100]), [0, 40])
    folders = ["--draw", "drawn", "--explain", "why", "--summary", "sums", "--track"]
    words = ["in", "--aligned", "--checkpoint", str(checkpoint), "--out", "faces.csv", *folders]
    main(words)
    results = {str(path): path.read_bytes() for folder in ("drawn", "why", "sums") for path in files_in(Path(folder))}
    results["faces.csv"] = Path("faces.csv").read_bytes()
    kinds = {"faces.csv", "drawn/clip.mp4", "drawn/deep/face1.png", "why/clip.mp4-000001-0.png"}
    kinds |= {"why/deep/face0.png-0.png", "sums/clip.mp4-seconds.csv", "sums/clip.mp4-person0.png"}
    assert kinds < results.keys()
    for kind in sorted(kinds):  # each stops the command, before anything is written
        for name in results:
            Path(name).unlink(missing_ok=True)
        Path(kind).write_bytes(results[kind])
        with pytest.raises(SystemExit, match=f"^error: {re.escape(kind)} is there already.*--overwrite$"):
            main(words)
        assert [name for name in results if Path(name).exists()] == [kind]
    (tmp_path / "drawn").mkdir(exist_ok=True)
    (tmp_path / "drawn" / "another.png").write_text("a user's own")
    (tmp_path / "faces.csv").write_text("of before")
    main([*words, "--overwrite"])
    assert (tmp_path / "faces.csv").read_bytes() == results["faces.csv"]
    assert (tmp_path / "drawn" / "another.png").read_text() == "a user's own"


@pytest.mark.parametrize("vote", ["softprob", "hard"])
def test_the_vote_is_chosen(checkpoint: Path, tmp_path: Path, vote: str):
    faces = draw_faces(tmp_path / "in")
    out = tmp_path / "faces.csv"
    main([*map(str, faces), "--aligned", "--checkpoint", str(checkpoint), "--out", str(out), "--vote", vote])
    expected = Recognizer.from_checkpoint(checkpoint, vote=vote)([np.asarray(PIL.Image.open(face)) for face in faces])
    assert [float(row["confidence"]) for row in read_csv(out)] == pytest.approx(expected.confidences.tolist(), abs=1e-5)


def test_a_camera_ends_with_its_last_frame(checkpoint: Path, tmp_path: Path):
    clip = write_video(tmp_path / "clip.mp4", grey_frames([50, 100, 150]), [0, 40, 80])
    out = tmp_path / "faces.csv"
    words = ["--checkpoint", str(checkpoint), "--out", str(out), "--draw", str(tmp_path / "drawn"), "--aligned"]
    main(["--camera", str(clip), *words])
    rows = read_csv(out)
    assert [row["frame"] for row in rows] == ["0", "1", "2"]
    assert {row["input"] for row in rows} == {f"camera:{clip}"}
    (drawn,) = (tmp_path / "drawn").iterdir()
    assert drawn.name.startswith("camera-")
    assert drawn.suffix == ".mp4"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "give photos, videos or folders, or --camera"),
        (["IN", "--camera", "0"], "give photos, videos or folders, or --camera"),
        (["nothing.jpg"], "nothing.jpg does not exist"),
        (["EMPTY"], "there is no photo or video in"),
        (["IN", "--run", "nobody"], "run 'nobody': .* is missing, not finished"),
        (["IN", "--checkpoint", "IN/face0.png"], "cannot be read as a checkpoint"),
        (["IN", "--checkpoint", "CKPT", "--out", "faces.xlsx"], "must end in .csv or .jsonl"),
        (["IN", "--checkpoint", "CKPT", "--every", "0"], "`every` (=0) must be at least 1"),
        (["IN", "--checkpoint", "CKPT", "--batch-size", "0"], "`batch_size` (=0) must be at least 1"),
        (["IN", "--checkpoint", "CKPT", "--margin", "-2"], "`margin` (=-2.0)"),
        (["IN", "--checkpoint", "CKPT", "--face-score", "2"], "`face_score` (=2.0)"),
        (
            ["IN", "--checkpoint", "CKPT", "--detector", "retina"],
            "`detector` (='retina') must be centerface or",
        ),
        (["IN", "--checkpoint", "CKPT", "--vote", "loud"], "`vote` (='loud') must be one of soft, softprob, hard"),
        (["IN", "--checkpoint", "CKPT", "--device", "cuda:77"], "`device` (='cuda:77') is not here"),
        (["IN", "--checkpoint", "CKPT", "--boxes", "nothing.csv"], "No such file"),
        (["IN", "--checkpoint", "CKPT", "--aligned", "--draw", "IN"], "would replace .*face0.png"),
        (["--camera", "CKPT", "--checkpoint", "CKPT"], "cannot be opened"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], match: str
):
    monkeypatch.chdir(tmp_path)
    draw_faces(tmp_path / "IN")
    before = [path.read_bytes() for path in sorted((tmp_path / "IN").iterdir())]
    (tmp_path / "faces.csv").write_text("of before")
    (tmp_path / "EMPTY").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *(["--out", "faces.csv"] if "--out" not in words else []),
                "--overwrite",
                *(w.replace("CKPT", str(checkpoint)) for w in words),
            ]
        )
    message = str(ended.value)
    assert message.startswith("error: ")
    assert "\n" not in message
    assert all(part in message for part in match.split(".*")), message
    assert [path.read_bytes() for path in sorted((tmp_path / "IN").iterdir())] == before
    assert (tmp_path / "faces.csv").read_text() == "of before"
    assert not (tmp_path / "faces.xlsx").exists()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_when_it_is_stopped_rows_and_video_are_whole(checkpoint: Path, tmp_path: Path, which: signal.Signals):
    clip = write_video(tmp_path / "clip.mp4", grey_frames([50, 100] * 2000), range(0, 40 * 4000, 40))
    out = tmp_path / "faces.csv"
    words = ["--checkpoint", str(checkpoint), "--aligned", "--out", str(out), "--draw", str(tmp_path / "drawn")]
    words += ["--batch-size", "1"]  # slow enough to be stopped before its end
    process = start("fer_voting.predict", str(clip), *words, printed=tmp_path / "printed")
    deadline = time.monotonic() + 120
    while not out.exists() or out.stat().st_size < 10_000:
        assert process.is_alive(), (tmp_path / "printed").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, which)
    process.join(60)
    messages = (tmp_path / "printed").read_text()
    assert process.exitcode == 128 + which, messages
    assert "Traceback" not in messages
    assert "interrupted" in messages
    assert f"): {out}" in messages
    rows = read_csv(out)
    assert 10 < len(rows) < 4000
    assert out.read_bytes().endswith(b",ok\n")
    assert [row["frame"] for row in rows] == [str(index) for index in range(len(rows))]
    main([str(tmp_path / "drawn"), "--checkpoint", str(checkpoint), "--aligned", "--out", str(tmp_path / "again.csv")])
    assert abs(len(read_csv(tmp_path / "again.csv")) - len(rows)) <= 1


def test_a_reader_that_has_seen_enough_ends_it_quietly(checkpoint: Path, tmp_path: Path):
    clip = write_video(tmp_path / "clip.mp4", grey_frames([50, 100] * 1000), range(0, 40 * 2000, 40))
    pipe, errors = tmp_path / "pipe", tmp_path / "errors"
    os.mkfifo(pipe)
    words = [str(clip), "--checkpoint", str(checkpoint), "--aligned"]
    process = start("fer_voting.predict", *words, printed=pipe, errors=errors)
    with pipe.open() as read:
        assert read.readline().startswith("input,")
    process.join(60)
    assert process.exitcode is not None
    messages = errors.read_text()
    assert "Traceback" not in messages
    assert "BrokenPipe" not in messages


def test_each_stage_names_its_device_and_the_end_says_how_much(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    draw_faces(tmp_path / "in")
    (tmp_path / "in" / "x\x1b[2J.png").write_text("no photo")
    main([str(tmp_path / "in"), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "faces.csv")])
    printed, messages = capfd.readouterr()
    assert printed == ""
    assert "detection: CenterFace by OpenCV on cpu (" in messages
    assert "recognition: neutral, happy, sad, surprise, fear, disgust, anger, split m3, soft vote, 24x24" in messages
    assert "by PyTorch on cpu (" in messages
    assert "0 faces, 3 frames without one, 1 unreadable in " in messages
    assert "faces/s" in messages
    assert "\x1b" not in messages


def test_help_needs_no_torch():
    """Importing it takes seconds."""
    words = ["-X", "importtime", "-m", "fer_voting.predict", "--help"]
    done = subprocess.run([sys.executable, *words], cwd=REPO, check=True, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "lightning", "cv2", "onnxruntime"}
    printed = done.stdout
    for option in ("--run", "--checkpoint", "--model", "--camera", "--track", "--ray", "--explain", "--draw"):
        assert option in printed


def test_the_webcam_loop_of_the_documentation(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """The example as it is printed, except for the camera and the network."""
    group = PIL.Image.fromarray(photo(shared_data / "photos" / "group.jpeg")).resize((640, 426))
    clip = write_video(tmp_path / "clip.mp4", [np.asarray(group)] * 2, [0, 40])
    (text,) = [block.text for block in blocks(REPO / "docs" / "predict.md") if block.caption == "webcam.py"]
    text = text.replace("VideoCapture(0)", f"VideoCapture({str(clip)!r})")
    checkpoint = write_checkpoint(tmp_path / "net.ckpt")
    text = text.replace('from_run("faces-m3-demo-seed0")', f"from_checkpoint({str(checkpoint)!r})")
    exec(compile(text, "webcam.py", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2 * 5


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of `checkpoint` with the softprob vote, for every runtime that reads it: an export takes seconds."""
    folder = tmp_path_factory.mktemp("exported")
    trained = load_network(write_checkpoint(folder / "net.ckpt"))
    net, info = trained.net, trained.info
    about = ExportInfo(info.class_names, info.image_size, info.split, "softprob", info.dataset, checksum="")
    export_float32(FaceNetwork(net, softprob_vote), about, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("form", ["folder", "onnx", "openvino"])
def test_an_exported_network_gives_the_rows_of_its_checkpoint(
    checkpoint: Path, onnx_file: Path, tmp_path: Path, form: str
):
    if form == "folder":
        trained = load_network(checkpoint)
        net, info = trained.net, trained.info
        Network(net, info, softprob_vote.from_values({"temperature": 2.0})).save_pretrained(tmp_path / "model")
        words = ["--model", str(tmp_path / "model")]
    else:
        words = ["--model", str(onnx_file), "--runtime", form]
    faces = draw_faces(tmp_path / "in")
    out = tmp_path / "faces.csv"
    main([*map(str, faces), "--aligned", *words, "--out", str(out)])  # the vote is the model's own
    expected = Recognizer.from_checkpoint(checkpoint, vote="softprob")(
        [np.asarray(PIL.Image.open(face)) for face in faces]
    )
    for row, probabilities in zip(read_csv(out), expected.probabilities, strict=True):
        assert [float(row[name]) for name in SEVEN] == pytest.approx(probabilities.tolist(), abs=1e-5)
    if form != "folder":
        for more, match in (
            (["--vote", "hard"], "holds the softprob vote"),
            (["--device", "cuda"], "needs ONNX Runtime's CUDA provider|must be cpu in OpenVINO"),
            (["--explain", str(tmp_path / "why")], "an exported file cannot be explained"),
        ):
            with pytest.raises(SystemExit, match=match):
                main([str(faces[0]), "--aligned", *words, *more])
