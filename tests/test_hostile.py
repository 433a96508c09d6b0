"""Files and names that a stranger made to do harm: each is refused in one line, or does nothing.

Pickles in checkpoints, targets in a shared model's configuration and a photo that is a decompression bomb are in
tests/inference (test_pretrained.py, test_frames.py), targets in a run that is exported in tests/commands.
"""

import csv
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from helpers.datasets import SEVEN, affectnet_release2, class_image, rafdb_official, save
from helpers.networks import small_info, small_network, write_checkpoint
from helpers.runs import CLASSES, make_run
from helpers.train import REPO
from omegaconf import OmegaConf

import fer_voting.sweep
from experiments.contact_sheet import main as contact_sheet
from experiments.resolution import main as resolution
from fer_voting.config import CONF_DIR, explain, refuse_foreign_code
from fer_voting.data.images import decode
from fer_voting.data.index import Index, Problem, Sample
from fer_voting.data.manifest import read_manifest, write_manifest
from fer_voting.data.quality import format_report
from fer_voting.data.sets.affectnet import AffectNetDataModule
from fer_voting.data.sets.folder import FolderDataModule
from fer_voting.data.sets.rafdb import RAFDBDataModule
from fer_voting.models.checkpoint import load_weights, read_checkpoint
from fer_voting.networks import load_network
from fer_voting.results.evaluation import write_predictions
from fer_voting.results.load import load_runs, read_predictions
from fer_voting.results.missing import missing_runs
from fer_voting.results.page import build_page
from fer_voting.results.plots import draw_confusion
from fer_voting.results.table import Table
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.arrays import read_npz
from fer_voting.system.messages import log as messages_log
from fer_voting.votes import CropOutputs, soft_vote

LABELS = [0, 1, 2, 3, 4, 5, 6]
RIGHT = {"val": LABELS, "test": LABELS}
SCRIPT = "<script>alert(1)</script>"


class Payload:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.mark, "run")


def touch(mark: Path) -> dict[str, Any]:
    """A node that Hydra would turn into a call."""
    return {"_target_": "pathlib.Path.touch", "_args_": [str(mark)]}


def one_line(error: pytest.ExceptionInfo[Any]) -> bool:
    return "\n" not in str(error.value)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "outputs", ["dataset=faces", "split=m1", "seed=0"], RIGHT, LABELS)


# --- code in files ------------------------------------------------------------------------------------------------


def test_a_label_file_with_a_pickle_is_a_problem_and_is_not_run(tmp_path: Path) -> None:
    counts = dict.fromkeys(SEVEN, 2)
    affectnet_release2(tmp_path / "data", {"train": counts, "val": counts})
    annotations, mark = tmp_path / "data" / "train_set" / "annotations", tmp_path / "mark"
    np.save(annotations / "0_exp.npy", np.array([Payload(mark)], object))
    (annotations / "1_exp.npy").write_bytes(pickle.dumps(Payload(mark)))
    np.savez(annotations / "archive.npz", label=3)
    (annotations / "archive.npz").rename(annotations / "2_exp.npy")
    with (annotations / "3_exp.npy").open("wb") as file:  # a header that claims 8 TB
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    os.truncate(annotations / "4_exp.npy", 10**11)
    (annotations / "5_exp.npy").unlink()
    os.mkfifo(annotations / "5_exp.npy")
    data = AffectNetDataModule(
        name="affectnet", root=tmp_path / "data", cache_dir=tmp_path / "packs", val_per_class=1, max_bad_fraction=1
    )
    problems = {Path(problem.path).name: problem for problem in data.make_pack().problems}
    assert set(problems) == {f"{number}_exp.npy" for number in range(6)}
    assert {problem.kind for problem in problems.values()} == {"label"}
    assert not mark.exists()


@pytest.mark.slow
def test_an_interrupted_run_with_a_pickle_for_a_checkpoint_is_not_continued(run_train, tmp_path: Path) -> None:
    outputs = run_train("name=mine")
    folder, mark = outputs / "runs" / "mine", tmp_path / "mark"
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"status": "running"}))
    torch.save({"state_dict": {}, "callbacks": Payload(mark)}, folder / "checkpoints" / "last.ckpt")
    with pytest.raises(SystemExit, match=r"last\.ckpt cannot be read as a checkpoint: it holds other objects") as end:
        run_train("name=mine")
    assert "weights_only" not in str(end.value)
    assert not mark.exists()


def test_a_checkpoint_takes_no_more_memory_than_its_file(tmp_path: Path) -> None:
    """Zeros compressed to a thousandth, one number as a tensor of terabytes, and the claim of a huge network."""
    write_checkpoint(tmp_path / "plain.ckpt")
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as plain, zipfile.ZipFile(tmp_path / "zeros.ckpt", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry, plain.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"zeros\.ckpt cannot be read as a checkpoint: .*it is compressed"):
        read_checkpoint(tmp_path / "zeros.ckpt")

    content: dict[str, Any] = {"state_dict": {"net.fc.weight": torch.zeros(1).expand(10**12)}}
    small_info().write(content)
    torch.save(content, tmp_path / "one.ckpt")
    with pytest.raises(ValueError, match="state_dict"):
        load_weights(tmp_path / "one.ckpt")

    content = {"state_dict": {f"net.{k}": v for k, v in small_network().state_dict().items()}}
    small_info().write(content)
    content["fer_voting"]["options"]["width"] = 1024  # 11 GB of weights
    torch.save(content, tmp_path / "wide.ckpt")
    with pytest.raises(ValueError, match=r"wide\.ckpt does not fit") as error:
        load_network(tmp_path / "wide.ckpt")
    assert one_line(error)


def test_an_archive_of_arrays_runs_nothing_and_writes_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    np.savez(tmp_path / "pickled.npz", logits=np.array([Payload(mark)], object), labels=[0], allow_pickle=True)
    with pytest.raises(ValueError, match=r"pickled\.npz is damaged"):
        read_npz(tmp_path / "pickled.npz")
    np.savez_compressed(tmp_path / "zeros.npz", logits=np.zeros(2**26, np.uint8))
    with zipfile.ZipFile(tmp_path / "zeros.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(2**20))
    with pytest.raises(ValueError, match="unpacks to 68,157,"):
        read_npz(tmp_path / "zeros.npz")
    with zipfile.ZipFile(tmp_path / "names.npz", "w") as archive:
        np.save(tmp_path / "labels.npy", [1])
        for name in ("../out.npy", str(tmp_path / "absolute.npy"), "labels.npy"):
            archive.write(tmp_path / "labels.npy", name)
    before = sorted(tmp_path.rglob("*"))
    assert read_npz(tmp_path / "names.npz", "labels")["labels"].tolist() == [1]
    with pytest.raises(ValueError, match=r"names\.npz is damaged"):
        read_predictions(tmp_path / "names.npz")
    assert sorted(tmp_path.rglob("*")) == before
    assert not mark.exists()


@pytest.mark.parametrize("place", ["dataset", "dataset.balance", "dataset.root", "dataset.manifest"])
@pytest.mark.parametrize("command", [contact_sheet, resolution])
def test_a_run_from_a_stranger_runs_no_code(run: Run, tmp_path: Path, command: Callable, place: str) -> None:
    """These commands build the data set of a run's config.yaml; `export --precision int8` has its own test."""
    mark = tmp_path / "mark"
    config = OmegaConf.load(run.dir / "config.yaml")
    OmegaConf.update(config, place, touch(mark), force_add=True)
    OmegaConf.save(config, run.dir / "config.yaml")
    with pytest.raises(SystemExit, match=r"config\.yaml: `_target_` \(='pathlib\.Path\.touch'\)") as end:
        command([run.name, "--output-dir", str(tmp_path / "outputs")])
    assert one_line(end)
    assert not mark.exists()


@pytest.mark.slow
def test_a_report_of_a_stranger_s_runs_runs_no_code(run: Run, tmp_path: Path) -> None:
    """The cost of missing runs is counted on a network that a run folder's configuration describes."""
    mark, output_dir = tmp_path / "mark", tmp_path / "outputs"
    overrides = ["dataset=faces", "model._target_=pathlib.Path.touch", f"+model._args_=['{mark}']", "split=m1"]
    Sweep(output_dir / "sweeps" / "theirs").write([], [{"overrides": overrides, "run": run.name, "voting": "soft"}])
    config = run.config()
    for place in ("model", "trainer", "logger", "dataset"):
        config[place] = config[place] | touch(mark)
    (run.dir / "config.yaml").write_text(OmegaConf.to_yaml(config))
    runs = load_runs(output_dir)
    assert "model._target_" in build_page(runs)  # as a difference from the defaults
    gap = missing_runs(runs, runs.group("faces", run.config()["composition"]["variant"]), ["m1", "m2"])
    assert gap is not None
    assert "_target_" not in gap.command

    theirs = tmp_path / "theirs.yaml"  # a data set whose name is the path of a configuration
    theirs.write_text(f"# @package _global_\nmodel: {json.dumps(touch(mark))}\n")
    config["dataset"]["name"] = os.path.relpath(theirs.with_suffix(""), CONF_DIR / "dataset")
    (run.dir / "config.yaml").write_text(OmegaConf.to_yaml(config))
    assert load_runs(output_dir).unreadable == {run.name: "damaged: config.yaml can't be read"}
    assert not mark.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["+callbacks.mine._target_=os.system"],
        ["--config-dir=/tmp/theirs"],
        ["hydra.searchpath=[file:///tmp/theirs]"],
        ["hydra/launcher=slurm", "hydra.launcher.setup=[rm]"],
        ["hydra/launcher=ray", "hydra.launcher.ray.init.runtime_env.py_executable=x"],
        ["hydra/launcher=slurm", "hydra.launcher.partition='a\nb'"],
        ["hydra.job_logging.handlers.x.class=os.system"],
    ],
)
def test_a_sweep_from_a_stranger_is_not_started_where_it_names_code(tmp_path: Path, words: list[str], capsys) -> None:
    sweep = Sweep(tmp_path / "outputs" / "sweeps" / "theirs")
    sweep.write([*words, "split=m1"], [{"overrides": ["split=m1"], "run": "theirs", "voting": "soft"}], tmp_path)
    with pytest.raises(SystemExit) as end:
        fer_voting.sweep.main(["retry", str(sweep.dir)])
    assert end.value.code == 2
    assert "names code to run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_s_own_folder_is_no_place_for_code(tmp_path: Path, capfd) -> None:
    """Python would import from the folder in which the command was typed."""
    mark = tmp_path / "mark"
    (tmp_path / "fer_voting").mkdir()
    for module in ("__init__", "train"):
        (tmp_path / "fer_voting" / f"{module}.py").write_text(f"open({str(mark)!r}, 'w')")
    sweep = Sweep(tmp_path / "outputs" / "sweeps" / "theirs")
    words = ["split=m1", "hydra/launcher=basic", "there_is_no_such_key=1"]
    sweep.write(words, [{"overrides": ["split=m1"], "run": "theirs", "voting": "soft"}], tmp_path)
    with pytest.raises(SystemExit) as end:
        fer_voting.sweep.main(["retry", str(sweep.dir)])
    assert end.value.code == 1
    assert "there is no key 'there_is_no_such_key'" in capfd.readouterr().err
    assert not mark.exists()


def test_what_conf_names_may_be_called() -> None:
    refuse_foreign_code({"_target_": "fer_voting.data.sets.folder.FolderDataModule", "a": [{"b": 1}]}, "dataset", "x")
    with pytest.raises(ValueError, match=r"x: `_target_` \(='os\.system'\)"):
        refuse_foreign_code({"a": [{"b": {"_target_": "os.system"}}]}, "dataset", "x")


def test_a_configuration_of_aliases_takes_no_memory(run: Run) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]  # 9^12 words
    (run.dir / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: it uses aliases"):
        run.config()
    assert load_runs(run.dir.parent.parent).unreadable[run.name].startswith("damaged")
    (run.dir / "result.json").write_text("[" * 10**5)
    assert run.status() == "damaged"


# --- images and folders -------------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG file of a kilobyte that claims 30,000 x 30,000 pixels."""
    import io
    import struct
    import zlib

    file = io.BytesIO()
    PIL.Image.new("L", (8, 8)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_images_that_are_no_images_are_problems(tmp_path: Path) -> None:
    """A decompression bomb, PostScript, a device, a pipe, gigabytes of nothing, a link to nowhere."""
    (tmp_path / "bomb.png").write_bytes(bomb())
    (tmp_path / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    os.symlink("/dev/zero", tmp_path / "endless.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "sparse.jpg").touch()
    os.truncate(tmp_path / "sparse.jpg", 10**12)
    os.symlink("nowhere", tmp_path / "gone.jpg")
    kinds = {}
    for path in tmp_path.iterdir():
        problem = decode(Sample(path.name, "happy", "train", path), 24)
        assert isinstance(problem, Problem), path
        kinds[path.name] = problem.kind
    assert kinds == {"gone.jpg": "missing"} | dict.fromkeys(
        ("bomb.png", "script.jpg", "endless.jpg", "pipe.jpg", "sparse.jpg"), "unreadable"
    )


def folder(root: Path, **arguments: Any) -> FolderDataModule:
    return FolderDataModule(name="mine", root=root, cache_dir=root.parent / "packs", classes=None, **arguments)


def test_links_in_a_data_set(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    """Each folder is read once, wherever links lead back to it; links that lead out are named."""
    root = tmp_path / "faces"
    for number in range(10):
        for label in ("happy", "sad"):
            save(root / label / "deep" / f"{number}.png", class_image(label, number))
    for name in ("a", "b"):  # followed blindly, two loops double at each of forty levels
        os.symlink(root / "happy", root / "happy" / "deep" / name)
    save(tmp_path / "private" / "me.png", class_image("sad", 99))
    os.symlink(tmp_path / "private" / "me.png", root / "sad" / "me.png")
    os.symlink(tmp_path / "private", root / "sad" / "more")
    os.symlink("nowhere.png", root / "sad" / "gone.png")
    data = folder(root, max_bad_fraction=0.1, val_fraction=0.2, test_fraction=0.2)
    data.setup()
    assert sum(sum(counts.values()) for counts in data.counts().values()) == 20 + 2
    assert "2 images lie outside of" in messages.text
    assert [problem.kind for problem in data.pack.problems] == ["missing"]


@pytest.mark.parametrize("name", ["../secret.png", "{absolute}", "a/../../secret.png", "train_1/../../../secret.png"])
def test_a_list_names_no_file_outside(tmp_path: Path, name: str) -> None:
    """AffectNet's lists have such a test of their own."""
    root = tmp_path / "data"
    counts = dict.fromkeys(SEVEN, 3)
    labels = rafdb_official(root, {"train": counts, "test": counts})
    save(tmp_path / "secret.png", class_image("happy", 1))
    with labels.open("a") as file:
        file.write(f"{name.format(absolute=tmp_path / 'secret.png')} 4\n")
    data = RAFDBDataModule(name="rafdb", root=root, cache_dir=tmp_path / "packs", max_bad_fraction=1)
    (problem,) = data.make_pack().problems
    assert problem.kind == "outside"
    assert len(data.pack.good) == 6 * len(SEVEN)


def test_a_data_set_s_name_is_no_path(tmp_path: Path) -> None:
    for name in ("../mine", "/tmp/mine", "a/b", "", "a\nb"):
        with pytest.raises(ValueError, match=r"dataset\.name"):
            FolderDataModule(name=name, root=tmp_path, cache_dir=tmp_path, classes=None)


# --- names --------------------------------------------------------------------------------------------------------

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "＝1")
ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202e"


@pytest.mark.parametrize("name", [b"not \xff text.png", f"x{ESCAPES}.png".encode(), b"two\nlines.png"])
def test_a_file_name_that_is_no_text_leaves_the_image_out(tmp_path: Path, name: bytes) -> None:
    root = tmp_path / "faces"
    for label in ("happy", "sad"):
        for number in range(10):
            save(root / label / f"{number}.png", class_image(label, number))
    shutil.copyfile(root / "sad" / "1.png", os.path.join(os.fsencode(root), b"sad", name))
    data = folder(root, max_bad_fraction=0.1, val_fraction=0.2, test_fraction=0.2)
    data.setup()
    (problem,) = data.pack.problems
    assert problem.kind == "unreadable"
    assert str(problem).isprintable()
    assert sum(sum(counts.values()) for counts in data.counts().values()) == 20


@pytest.mark.parametrize("name", [f"x{ESCAPES}", "a" * 201])
def test_a_class_name_that_no_checkpoint_could_hold_is_refused_before_training(tmp_path: Path, name: str) -> None:
    root = tmp_path / "faces"
    for label in ("happy", name):
        save(root / label / "0.png", class_image("happy", 0))
    with pytest.raises(ValueError, match=r"mine: .*(a line of 1 to 200 letters|there is only one class)") as error:
        folder(root).setup()
    assert explain(error.value).isprintable()


def test_nothing_printed_steers_a_terminal(capfd, messages) -> None:
    assert explain(ValueError(f"{ESCAPES} is no file")).isprintable()
    messages_log.info("reading %s", ESCAPES)
    report = {
        "dataset": "x", "layout": "flat", "root": ESCAPES, "parts": {"train": {"happy": 1}}, "expected": {},
        "left_out": {}, "problems": [{"kind": "missing", "path": ESCAPES, "reason": ESCAPES}], "duplicates": {},
        "conflicts": {}, "near_duplicates": None, "notes": [ESCAPES], "refused": ESCAPES,
        "groups": {"train-val": [ESCAPES]},
    }  # fmt: skip
    printed = capfd.readouterr().err + format_report(report) + Table([ESCAPES], [[ESCAPES]]).markdown()
    assert r"\x1b[2J" in printed
    assert all(line.isprintable() for line in printed.split("\n"))


@pytest.mark.parametrize("name", FORMULAS)
def test_no_file_for_a_spreadsheet_has_a_formula(tmp_path: Path, name: str) -> None:
    """`predict`'s has a test of its own."""
    logits = torch.eye(2)[:, None].repeat(1, 3, 1)
    write_predictions(
        tmp_path / "rows.csv", [name, name], np.array([0, 1]), CropOutputs(logits), [name, "sad"], soft_vote
    )
    root = tmp_path / "faces"
    for label in (name, "sad"):
        for number in range(20):
            save(root / label / f"{name}{number}.png", class_image("happy", number + 50 * (label == "sad")))
    data = folder(root, val_fraction=0.2, test_fraction=0.2)
    data.setup()
    again = tmp_path / "manifest.csv"
    write_manifest(again, data.pack, {part: data.positions(part) for part in data.counts()})
    for path in (tmp_path / "rows.csv", again, data.manifest_file):
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert f"./{name}" in {cell.partition("/0")[0][: len(name) + 2] for cell in cells}
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "＝"))]
    found = read_manifest(again, data.pack, data.pack.good)  # and the division comes back, by content and name
    assert {part: rows.tolist() for part, rows in found.items()} == {
        part: sorted(data.positions(part).tolist()) for part in data.counts()
    }


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


@pytest.mark.slow
def test_names_are_text_in_the_report(tmp_path: Path) -> None:
    """Names of classes, data sets, settings, devices, versions and errors; also where they are an attribute."""
    hostile = [f'{SCRIPT}" onmouseover="alert(1)" x="{number}' for number in range(len(CLASSES))]
    counts = {part: dict.fromkeys(hostile, 1) for part in ("train", "val", "test")}
    run = make_run(
        tmp_path, ["dataset=faces", "split=m1", "seed=0"], RIGHT, LABELS,
        class_names=hostile, counts=counts, device=SCRIPT, precision=SCRIPT, git_commit=SCRIPT, started=SCRIPT,
        versions={SCRIPT: SCRIPT}, data_fingerprint=SCRIPT,
    )  # fmt: skip
    result = json.loads((run.dir / "result.json").read_text())
    for metrics in (
        of_part for vote in result["votes"].values() for of_part in vote.values() if isinstance(of_part, dict)
    ):
        metrics["recall"] = dict(zip(hostile, metrics["recall"].values(), strict=True))
    run.write_result(result)
    config = run.config()
    config["model"]["memory"] = config["optimizer"]["lr"] = SCRIPT
    (run.dir / "config.yaml").write_text(OmegaConf.to_yaml(config))
    failed = make_run(tmp_path, ["dataset=faces", "split=m2", "seed=0"], RIGHT, LABELS)
    failed.write_result(json.loads((failed.dir / "result.json").read_text()) | {"status": "failed", "error": SCRIPT})
    (tmp_path / "runs" / SCRIPT.replace("/", "-")).mkdir()
    page = build_page(load_runs(tmp_path))
    read = Tags(page)
    assert "script" not in read.tags
    assert not [name for name in read.attributes if name.startswith("on")]
    assert page.count("&lt;script&gt;") > 5


def test_names_are_text_in_the_page_for_the_browser() -> None:
    """It shows class names and files' names as text: its scripts have no way to make HTML of them."""
    scripts = sorted((REPO / "fer_voting" / "inference" / "web").glob("*.js"))
    assert len(scripts) >= 4
    for script in scripts:
        ways = r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|createContext"
        assert not re.search(ways, script.read_text()), script.name


def test_names_are_text_in_markdown_tables() -> None:
    text = Table(["class", "n"], [[SCRIPT, "1"], ["a | b", "2"], ["p < 0.05", "<3"]]).markdown()
    assert re.findall(r"(?<!\\)<(?=[A-Za-z/!?])", text) == []
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()] == [3] * 5
    assert "p < 0.05" in text


def test_a_plot_takes_no_name_for_a_formula(tmp_path: Path) -> None:
    draw_confusion(tmp_path / "x.png", np.eye(2, dtype=int), [r"$\frac$", "$"], r"$\undefined{$")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_an_index_keeps_names_that_can_be_printed() -> None:
    index = Index()
    for name in ("ümläut 😀.png", "a\0b", "x\ud800"):
        index.add(Sample(name, "happy", "train"))
    assert [sample.name for sample in index.samples] == ["ümläut 😀.png"]
    assert len(index.problems) == 2
