"""The readers of files from others, as a table: name, share of the inputs, seeds, reader, tokens.

A seed function writes what is needed once into a folder and returns the real files that are changed. A reader reads the
folder. Tokens are what the changes insert.
"""

import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from omegaconf import OmegaConf

from fer_voting.config import compose, explain, make
from fer_voting.data.images import decode
from fer_voting.data.index import Index, Problem, Sample
from fer_voting.data.manifest import read_manifest, write_manifest
from fer_voting.data.pack import Pack, build_pack, open_pack
from fer_voting.data.sets.affectnet import AffectNetDataModule, read_release1
from fer_voting.data.sets.expw import read_list
from fer_voting.data.sets.fer2013 import read_csv
from fer_voting.data.sets.ferplus import read_votes
from fer_voting.data.sets.folder import FOLDERS
from fer_voting.data.sets.rafdb import read_folders, read_official
from fer_voting.inference.frames import Frame, Input, photo, read_frames
from fer_voting.inference.rows import read_boxes
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.networks import Network, load, load_network
from fer_voting.networks.onnx import ExportInfo, OnnxRuntime
from fer_voting.results.load import load_runs, read_predictions
from fer_voting.results.sweep_table import sweep_status
from fer_voting.runs.identity import resolve
from fer_voting.runs.naming import settle
from fer_voting.runs.run import read_history
from fer_voting.runs.sweeps import Sweep

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
NUMBERS = (b"0", b"-1", b"1e999", b"nan", b"4294967296", b"9" * 400, b"1.5", b"0x10")
TEXT = tuple(
    token.encode("latin-1")
    for token in (",", '"', "\n", "\r", "\0", "\xff", "\xef\xbb\xbf", "../", "/etc/passwd", ";", " ", "\xc3\xbc", "=")
)
JSON = (b"{", b"}", b"[", b"]", b":", b"null", b"true", b'""', b'"_target_"', b"[" * 2000, b"{" * 2000)
YAML = (*JSON, b"- ", b"&a ", b"*a", b"!!python/object/apply:os.system", b"\t", b"<<: ", b"|\n", b"? ")
BINARY = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80")

Files = dict[str, list[bytes]]
"""Name of a file, relative to the folder that is read -> forms that it has in reality; the first of each is there when
another file is the one that is changed."""


@dataclass(frozen=True)
class Target:
    """A row of the table.

    Attributes:
        share: of all inputs, in thousandths.
    """

    name: str
    share: int
    seeds: Callable[[Path], Files]
    read: Callable[[Path], Any]
    tokens: tuple[bytes, ...]


def _png(side: int = 12, mode: str = "RGB") -> PIL.Image.Image:
    return PIL.Image.effect_noise((side, side), 60).convert(mode)


def _encoded(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _image_forms() -> list[bytes]:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = _png()
    return [
        _encoded(image, "PNG"),
        _encoded(image, "JPEG", exif=exif),
        _encoded(image, "GIF", save_all=True, append_images=[_png()]),
        _encoded(image, "BMP"),
        _encoded(image, "TIFF", compression="tiff_lzw"),
        _encoded(image, "WEBP"),
        _encoded(image, "PPM"),
        _encoded(_png(mode="P"), "PNG"),
        _encoded(_png(mode="L"), "JPEG", progressive=True),
    ]


def _pixels(level: int) -> str:
    return " ".join(str((level + 7 * i) % 256) for i in range(48 * 48))


def _fer2013(folder: Path) -> Files:
    rows = ["emotion,pixels,Usage", f"0,{_pixels(3)},Training", f"6,{_pixels(9)},PublicTest"]
    other = ["emotion, Usage, pixels", f"3,PrivateTest,{_pixels(5)}", f"7,PrivateTest,{_pixels(6)}"]
    return {"fer2013.csv": ["\n".join(lines).encode() for lines in (rows, other)]}


def _read_fer2013(folder: Path) -> None:
    read_csv(folder / "fer2013.csv", (*CLASSES, "contempt"))  # as ckextended.csv
    for sample in read_csv(folder / "fer2013.csv").samples:
        decode(sample, 24)


def _ferplus(folder: Path) -> Files:
    names = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = f"{names}\nTraining,fer1.png,4,0,0,1,3,2,0,0,0,0\nPublicTest,,0,0,0,0,0,0,0,0,0,10\n"
    return {"fer2013new.csv": [votes.encode()], "fer2013.csv": _fer2013(folder)["fer2013.csv"][:1]}


def _read_ferplus(folder: Path) -> None:
    read_votes(folder)


def _affectnet1(folder: Path) -> Files:
    (folder / "Manually_Annotated_Images" / "1").mkdir(parents=True)
    (folder / "Manually_Annotated_Images" / "1" / "a.png").write_bytes(_encoded(_png(), "PNG"))
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    row = "1/a.png,1,2,8,8,1.5;1.5,1,-0.1,0.3"
    return {
        "training.csv": [f"{head}\n{row}\n{row}\n".encode(), f"{row}\n".encode()],
        "validation.csv": [head.encode()],
    }


def _read_affectnet1(folder: Path) -> None:
    for sample in read_release1(folder).samples:
        decode(sample, 24)


def _npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def _annotated(ending: str, forms: list[bytes]) -> Callable[[Path], Files]:
    def make(folder: Path) -> Files:
        (folder / "train_set" / "images").mkdir(parents=True)
        (folder / "train_set" / "images" / "1.png").write_bytes(_encoded(_png(), "PNG"))
        return {f"train_set/annotations/1{ending}": forms}

    return make


def _read_annotated(layout: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        (found,) = (each for each in AffectNetDataModule.layouts if each.name == layout)
        index = found.read(folder, None)
        assert len(index.samples) + len(index.problems) + sum(index.left_out.values()) == 1

    return read


def _rafdb(folder: Path) -> Files:
    (folder / "Image" / "aligned").mkdir(parents=True)
    (folder / "Image" / "aligned" / "train_00001_aligned.png").write_bytes(_encoded(_png(), "PNG"))
    (folder / "train" / "1").mkdir(parents=True)
    (folder / "train" / "1" / "train_00001.png").write_bytes(_encoded(_png(), "PNG"))
    return {
        "EmoLabel/list_patition_label.txt": [b"train_00001.jpg 5\ntest_0001.jpg 7\n"],
        "train_labels.csv": [b"image,label\ntrain_00001.png,1\n"],
    }


def _read_rafdb(folder: Path) -> None:
    read_official(folder, "aligned")
    read_folders(folder)


def _ckplus(folder: Path) -> Files:
    images = folder / "cohn-kanade-images" / "S005" / "001"
    images.mkdir(parents=True)
    for frame in range(1, 5):
        (images / f"S005_001_{frame:08d}.png").write_bytes(_encoded(_png(), "PNG"))
    return {"Emotion/S005/001/S005_001_00000004_emotion.txt": [b"   3.0000000e+00\n", b"7", b"0.0"]}


@functools.cache
def _ckplus_options() -> dict[str, Any]:
    """The values of conf/dataset/ckplus.yaml, which take longer to compose than a folder takes to read."""
    return resolve(compose(["dataset=ckplus"]))["dataset"]


def _read_ckplus(folder: Path) -> None:
    index = make(_ckplus_options(), root=str(folder)).read(folder)
    assert len(index.samples) + len(index.problems) + sum(index.left_out.values()) == 4


def _expw(folder: Path) -> Files:
    (folder / "image" / "origin").mkdir(parents=True)
    (folder / "image" / "origin" / "a.png").write_bytes(_encoded(_png(), "PNG"))
    return {"label/label.lst": [b"a.png 0 1 2 9 8 27.19 3\na.png 1 2 2 9 8 5.1 0\n", b"b.png 0 1 2 9 8 1 6\n"]}


def _read_expw(folder: Path) -> None:
    for sample in read_list(folder).samples:
        if sample.path is not None and sample.path.is_file():
            decode(sample, 24)


def _beside_class_folders(folder: Path) -> Files:
    for name in "012":
        (folder / name).mkdir()
        (folder / name / "a.png").write_bytes(_encoded(_png(), "PNG"))
    return {
        "data.yaml": [
            b"nc: 3\nnames: ['Anger', 'Fear', 'Happy']\n",
            b"names:\n  0: sad\n  1: fear\n  2: x y\n",
            b"a: 1",
        ],
        "classes.txt": [b"anger\nfear\nhappy\n", b"0 anger\r\n1: fear\r\n2,happy\r\n"],
        "labels.csv": [b",pth,label\n0,0/a.png,anger\n1,1/a.png,sad\n", b"id,name\n0,anger\n1,fear\n2,happy\n"],
    }


def _read_beside_class_folders(folder: Path) -> None:
    index = FOLDERS.read(folder, {"train": folder})
    assert len(index.samples) + len(index.problems) == 3


def _rafdb_boxes(folder: Path) -> Files:
    (folder / "Image" / "original").mkdir(parents=True)
    (folder / "Image" / "original" / "train_00001.png").write_bytes(_encoded(_png(), "PNG"))
    (folder / "EmoLabel").mkdir()
    (folder / "EmoLabel" / "list_patition_label.txt").write_bytes(b"train_00001.jpg 5\n")
    return {"Annotation/boundingbox/train_00001_boundingbox.txt": [b"1.0 2.0 9.0 8.0 \n", b"1,2,9,8"]}


def _read_rafdb_boxes(folder: Path) -> None:
    index = read_official(folder, "original")
    assert len(index.samples) + len(index.problems) == 1
    for sample in index.samples:
        decode(sample, 24)


def _boxes(folder: Path) -> Files:
    head = b"input,frame,time_s,face_id,left,top,width,height,face_score,class,status\n"
    return {
        "boxes.csv": [
            head + b"a.png,0,,0,1,2,8,8,0.9,happy,ok\nb.png,1,,,,,,,,,no_face\n",
            b"input,left,top,width,height\na,1,2,3,4\n",
        ]
    }


def _read_boxes(folder: Path) -> None:
    name = str(folder / "a.png")
    read_boxes(folder / "boxes.csv", [name])(Frame(name, 0, None, np.zeros((9, 9, 3), np.uint8)))


def _pack(folder: Path) -> Files:
    samples = [Sample(f"image {n}", CLASSES[n % 3], "train", pixels=bytes([n] * 64)) for n in range(6)]
    index = Index(samples, [Problem("row", "x", "y")])
    pack = build_pack(folder / "pack", {"size": 8, "layout": "x"}, lambda: index)
    write_manifest(folder / "manifest.csv", pack, {"train": np.arange(4), "val": np.arange(4, 6)})
    return {
        f"pack/{name}": [(folder / "pack" / name).read_bytes()] for name in ("pack.json", "index.npz", "images.npy")
    }


def _read_pack(folder: Path) -> None:
    pack = open_pack(folder / "pack", {"size": 8, "layout": "x"})
    if isinstance(pack, Pack):
        pack.names()
        assert len(pack.images.sum(axis=(1, 2, 3))) == len(pack) == len(pack.hashes)
        assert all(pack.labels[label] is not None for label in pack.label_ids)


def _manifest(folder: Path) -> Files:
    _pack(folder)
    content = (folder / "manifest.csv").read_bytes()
    return {"manifest.csv": [content]}


def _read_manifest(folder: Path) -> None:
    pack = Pack(folder / "pack")
    read_manifest(folder / "manifest.csv", pack, pack.good)


def _run(folder: Path) -> Files:

    words = ["dataset=faces", "split=m1", f"output_dir={folder}"]
    config = settle(compose(words))
    run = folder / "runs" / config["name"]
    Sweep(folder / "sweeps" / "mine").write(words, [{"overrides": words, "run": config["name"], "voting": "soft"}])
    progress = {"epochs": 5, "epochs_before": 0, "images_per_epoch": 9, "since_unix_seconds": 1.5}
    results = [
        {"status": "finished", "error": None, "seconds": 1.5, "epochs": 2, "votes": {}},
        {"status": "running", "error": None, "seconds": 1.5, "progress": progress},
        {"status": "failed", "error": "OSError: disk full", "seconds": 1.5},
    ]
    return {
        f"runs/{run.name}/config.yaml": [OmegaConf.to_yaml(OmegaConf.create(config)).encode()],
        f"runs/{run.name}/result.json": [json.dumps(result, indent=1).encode() for result in results],
        f"runs/{run.name}/metrics.csv": [b"epoch,learning_rate,train/loss\r\n0,0.001,1.9\r\n1,0.001,\r\n"],
        "sweeps/mine/sweep.json": [(folder / "sweeps" / "mine" / "sweep.json").read_bytes()],
    }


def _read_run(folder: Path) -> None:
    load_runs(folder).groups()
    for metrics in folder.glob("runs/*/metrics.csv"):
        read_history(metrics)
    sweep_status(Sweep(folder / "sweeps" / "mine"))


def _predictions(folder: Path) -> Files:
    arrays: dict[str, Any] = {
        "logits": np.ones((4, 3, 7), np.float32),
        "labels": np.arange(4),
        "names": np.array(list("abcd")),
    }
    stored, compressed = io.BytesIO(), io.BytesIO()
    np.savez(stored, allow_pickle=False, **arrays)
    np.savez_compressed(compressed, allow_pickle=False, **arrays)
    return {"soft-test.npz": [stored.getvalue(), compressed.getvalue()]}


def _read_predictions(folder: Path) -> None:
    read_predictions(folder / "soft-test.npz")


def _network() -> Any:
    import torch

    torch.manual_seed(0)
    return VotingResNet18("m3", 7, width=1).eval(), NetworkInfo("m3", {"width": 1}, CLASSES, 24, "faces")


def _checkpoint(folder: Path) -> Files:
    net, info = _network()
    content: dict[str, Any] = {"epoch": 1, "state_dict": {f"net.{k}": v for k, v in net.state_dict().items()}}
    info.write(content)
    file = io.BytesIO()
    torch.save(content, file)
    return {"best-soft.ckpt": [file.getvalue()]}


def _read_checkpoint(folder: Path) -> None:
    load_network(folder / "best-soft.ckpt")


def _shared(folder: Path) -> Files:
    net, info = _network()
    Network(net, info, accuracy={"val": 0.5}).save_pretrained(folder / "net")
    return {f"net/{name}": [(folder / "net" / name).read_bytes()] for name in ("config.json", "model.safetensors")}


def _read_shared(folder: Path) -> None:
    load(folder / "net")


def _onnx(folder: Path) -> Files:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    constants = {"w": weights, "axes": np.array([1, 2]), "one": np.array([1])}
    nodes = [
        helper.make_node("Cast", ["faces"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        helper.make_node("Unsqueeze", ["logits", "one"], ["crop_logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["batch", 24, 24, 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 7]),
            helper.make_tensor_value_info("crop_logits", TensorProto.FLOAT, ["batch", 1, 7]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, ExportInfo(CLASSES, 24, "baseline", "soft", "faces", "0" * 64).to_metadata())
    onnx.checker.check_model(model)
    return {"net.onnx": [model.SerializeToString()]}


def _read_onnx(folder: Path) -> None:
    OnnxRuntime(folder / "net.onnx", threads=1)


def _overrides(folder: Path) -> Files:
    return {
        "words.txt": [
            b"split=m2\nmodel.width=16\nseed=3",
            b"dataset=folder\ndataset.root=/tmp/x y\n+dataset.note='a, b'\n~callbacks.throughput",
            b"experiment=demo\nvoting=hard\nrefit=true\ntrainer.max_epochs=2\nname=mine",
            b"dataset.balance={target: min}\noptimizer.lr=1e-3\nlogger=none\n++augment.rotation.degrees=[1,2]",
            b"output_dir=${oc.env:HOME}\nsweep=${sweep_name:}",
        ]
    }


def _read_overrides(folder: Path) -> None:
    words = (folder / "words.txt").read_bytes().decode("utf-8", "replace").split("\n")
    try:
        resolve(compose(words))
    except Exception as error:  # the command says what `explain` does
        raise ValueError(explain(error)) from None


def _images(folder: Path) -> Files:
    return {"face.png": _image_forms()}


def _read_images(folder: Path) -> None:
    decode(Sample("face.png", "happy", "train", folder / "face.png"), 24)
    decode(Sample("face.png", "happy", "train", folder / "face.png", box=(2, 2, 9, 9)), 24)
    try:
        photo(folder / "face.png")
    except Exception as error:  # `read_frames` makes a row of it, whatever the decoder raised
        raise ValueError(" ".join(str(error).split())) from None


def _videos(folder: Path) -> Files:
    import av

    forms = []
    for name, codec, pixels in (
        ("a.mp4", "libx264", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
    ):
        with av.open(str(folder / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width = stream.height = 32
            stream.pix_fmt = pixels
            for level in range(4):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60 * level, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        forms.append((folder / name).read_bytes())
        (folder / name).unlink()
    return {"clip.mp4": forms}


def _read_videos(folder: Path) -> None:
    frames = list(read_frames(Input(str(folder / "clip.mp4"), "clip.mp4")))
    if not any(isinstance(frame, Frame) for frame in frames):
        raise ValueError("no frame could be read")


TARGETS = (
    Target("FER2013's csv", 80, _fer2013, _read_fer2013, TEXT),
    Target("FER+'s csv", 80, _ferplus, _read_ferplus, TEXT),
    Target("AffectNet's csv", 100, _affectnet1, _read_affectnet1, (*TEXT, *NUMBERS)),
    Target(
        "AffectNet's npy",
        100,
        _annotated("_exp.npy", [_npy(3), _npy("5"), _npy(np.float32(1))]),
        _read_annotated("release2"),
        (*BINARY, b"|O", b"<f8", b"(9999999999,)", b"{"),
    ),
    Target(
        "AffectNet's json",
        60,
        _annotated(".json", [b'{"human-label": 3}', b'{"human-label": "Happy", "x": [1]}']),
        _read_annotated("release3"),
        (*JSON, *NUMBERS),
    ),
    Target("RAF-DB's list and csv", 100, _rafdb, _read_rafdb, TEXT),
    Target(
        "files beside class folders", 60, _beside_class_folders, _read_beside_class_folders, (*TEXT, *YAML, *NUMBERS)
    ),
    Target("CK+'s labels", 40, _ckplus, _read_ckplus, (*TEXT, *NUMBERS)),
    Target("ExpW's list", 60, _expw, _read_expw, (*TEXT, *NUMBERS)),
    Target("RAF-DB's boxes", 40, _rafdb_boxes, _read_rafdb_boxes, (*TEXT, *NUMBERS)),
    Target("boxes", 80, _boxes, _read_boxes, (*TEXT, *NUMBERS)),
    Target("manifest", 60, _manifest, _read_manifest, (*TEXT, b"train", b"image 1")),
    Target("pack", 60, _pack, _read_pack, (*BINARY, *JSON, b"|u1", b"(6, 8, 8, 3)")),
    Target("a run's and a sweep's files", 50, _run, _read_run, (*YAML, *NUMBERS)),
    Target("predictions", 50, _predictions, _read_predictions, (*BINARY, b"|O", b"<f8", b"(9999999999,)")),
    Target(
        "checkpoint",
        40,
        _checkpoint,
        _read_checkpoint,
        (*BINARY, b"cos\nsystem\n", b"\x81", b"R", b"\x8a\xff", b"X\xff\xff\xff\x7f"),
    ),
    Target("shared folder", 50, _shared, _read_shared, (*BINARY, *JSON, *NUMBERS)),
    Target(
        "ONNX file", 20, _onnx, _read_onnx, (*BINARY, b"If", b"Loop", b"\x08\xff\xff\xff\xff\x0f", b"external_data")
    ),
    Target(
        "overrides",
        10,
        _overrides,
        _read_overrides,
        (*YAML, *NUMBERS, b"${", b"}", b"choice(", b"=", b"~", b"+", b"_target_", b"\\", b"'"),
    ),
    Target("images", 60, _images, _read_images, (*BINARY, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.4", b"IHDR", b"iTXt")),
    Target(
        "videos",
        20,
        _videos,
        _read_videos,
        (*BINARY, b"moov", b"mdat", b"#EXTM3U\nfile:/etc/passwd\n", b"ffconcat version 1.0\n"),
    ),
)
