"""`python -m fer_voting.export` on a run of a second's training."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.hub_server import serve_hub
from helpers.networks import noise
from helpers.train import REPO, TINY
from omegaconf import OmegaConf

from fer_voting.config import make
from fer_voting.export import main
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.runtime import TorchRuntime
from fer_voting.networks import SHIPPED, load, load_network, weights_checksum
from fer_voting.networks.onnx import OnnxRuntime
from fer_voting.runs.run import Run
from fer_voting.train import main as train_main
from fer_voting.votes import AdaptiveVote, SoftVote, find_vote

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    output_dir = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        words = [*TINY, f"output_dir={output_dir}", "split=m3", "name=mine", "dataset.size=24"]
        patch.setattr(sys, "argv", ["fer_voting.train", *words])
        train_main()
    return Run(output_dir, "mine")


def export(run: Run, *words: str) -> None:
    main(["--run", run.name, "--output-dir", str(run.dir.parent.parent), *words])


def exports(run: Run) -> Path:
    return run.dir.parent.parent / "exports"


def faces(run: Run, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that the training evaluated, read from its pack."""

    datamodule = make(OmegaConf.to_container(OmegaConf.load(run.dir / "config.yaml"))["dataset"])
    datamodule.setup()
    positions = datamodule.positions(part)
    return datamodule.pack.images[positions], datamodule.class_ids(datamodule.pack)[positions]


def test_onnx(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    export(run, "--to", "onnx")
    path = exports(run) / "mine-float32.onnx"
    assert str(path) in capsys.readouterr().out
    runtime = OnnxRuntime(path)
    result = run.result()
    assert result is not None
    accuracy = {part: result["votes"]["soft"][part]["accuracy"] for part in ("val", "test")}
    assert runtime.info.accuracy == accuracy
    assert (runtime.split, runtime.vote, runtime.info.dataset, runtime.image_size) == ("m3", "soft", "faces", 24)
    trained = load_network(run.best_checkpoint("soft"))
    net, info = trained.net, trained.info
    assert runtime.info.checksum == weights_checksum(net.state_dict())
    images, labels = faces(run, "test")
    scores, logits = runtime(images)
    assert (scores.argmax(axis=1) == labels).mean() == pytest.approx(accuracy["test"])
    temperature = result["votes"]["soft"]["temperature"]  # fitted by the training
    assert runtime.fitted == {"temperature": temperature}
    assert temperature != 1
    in_torch = TorchRuntime(net, info, SoftVote("soft", temperature))(images)
    for ours, theirs in zip((scores, logits), in_torch, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_without_a_run_it_is_the_network_that_ships(tmp_path: Path) -> None:
    words = ["--output-dir", str(tmp_path), "--to"]
    main([*words, "onnx", "--form", "all"])
    (path,) = (tmp_path / "exports").glob("*.onnx")
    runtime = OnnxRuntime(path)
    shipped = load_network("fer_voting")
    assert (runtime.class_names, runtime.fitted) == (shipped.info.class_names, shipped.vote.to_values())
    assert runtime.info.checksum == weights_checksum(shipped.net.state_dict())
    # The file that ships is what this command writes. Its bytes are those of the torch that wrote it.
    in_wheel = OnnxRuntime(SHIPPED / "model.onnx")
    assert in_wheel.info == runtime.info
    for ours, theirs in zip(in_wheel(noise(5, size=48)), runtime(noise(5, size=48)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    for refused in (["folder"], ["onnx", "--precision", "int8"], ["onnx", "--vote", "hard"], ["page", "--split", "m1"]):
        with pytest.raises(SystemExit, match="is for the network of a training: give --run RUN"):
            main([*words, *refused])
    with pytest.raises(SystemExit, match=r"\.onnx is exported already"):
        main([*words, "page", "--run", str(path)])


def test_another_split_and_vote_into_a_file_of_its_own(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a folder" / "net.onnx"
    main(["--run", str(run.dir), "--to", "onnx", "--split", "m1", "--vote", "hard", "--out", str(out)])
    runtime = OnnxRuntime(out)
    assert (runtime.split, runtime.vote) == ("m1", "hard")
    assert runtime.info.accuracy == {}  # known for m3 alone
    assert [path.name for path in out.parent.iterdir()] == ["net.onnx"]


def test_int8_is_calibrated_on_training_faces_and_measured_on_validation(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer_voting.inference import onnx_export

    seen = []
    quantise = onnx_export._quantise
    monkeypatch.setattr(onnx_export, "_quantise", lambda *words: (seen.append(words[2]), quantise(*words)))
    export(run, "--to", "onnx", "--precision", "int8")
    training = {image.tobytes() for image in faces(run, "train")[0]}
    assert {image.tobytes() for image in seen[0]} == training
    runtime = OnnxRuntime(exports(run) / "mine-int8.onnx")
    images, labels = faces(run, "val")
    accuracy = (runtime(images)[0].argmax(axis=1) == labels).mean()
    assert runtime.info.accuracy["val_int8"] == accuracy
    assert runtime.info.accuracy["val_float32"] == pytest.approx(runtime.info.accuracy["val"])
    assert f"accuracy {accuracy:.2%}" in capsys.readouterr().out


def test_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    export(run, "--to", "folder")
    folder = exports(run) / "mine"
    assert str(folder) in capsys.readouterr().out
    found = load(folder)
    trained = load_network(run.best_checkpoint("soft"))
    net, info = trained.net, trained.info
    assert found.info == info
    torch.testing.assert_close(found.net.state_dict(), net.state_dict(), rtol=0, atol=0)
    card = (folder / "README.md").read_text()
    result = run.result()
    assert result is not None
    for name, recall in result["votes"]["soft"]["test"]["recall"].items():
        assert f"{name} | " in card
        assert f"{100 * recall:.2f}" in card
    assert "_target_" not in (folder / "config.json").read_text()


def test_a_folder_with_all_that_prediction_computes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder that ships is made so: weights in half precision, and ONNX files of these weights in every form."""
    folder = tmp_path / "mine"
    words = ["--to", "folder", "--precision", "float16", "--onnx", "int8", "--out", str(folder)]
    export(run, *words)
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "model-int8.onnx", "model.onnx", "model.safetensors",
    }  # fmt: skip
    images, labels = faces(run, "val")
    for form in ("full", "adaptive", "whole"):
        ours, theirs = load(folder, form=form), load(folder, form=form, runtime="torch")
        assert isinstance(ours, OnnxRuntime)
        in_torch = TorchRuntime(theirs.net, theirs.info, theirs.vote)
        for own, other in zip(ours(images), in_torch(images), strict=True):
            np.testing.assert_allclose(own, other, rtol=0, atol=1e-5)
        np.testing.assert_allclose(ours.embed(images), in_torch.embed(images), rtol=0, atol=1e-4)
        assert load(folder, form=form, precision="int8")(images)[0].shape == (len(labels), 7)
    trained = load_network(run.best_checkpoint("soft")).net.state_dict()
    rounded = {name: each.half().float() if each.is_floating_point() else each for name, each in trained.items()}
    torch.testing.assert_close(load_network(folder).net.state_dict(), rounded, rtol=0, atol=0)
    said = capsys.readouterr().out
    assert f"{folder / 'model-int8.onnx'}: " in said
    assert "calibrated on" in said
    with pytest.raises(SystemExit, match="--onnx is for --to folder"):
        export(run, "--to", "onnx", "--onnx", "float32")


PUSH = """
import os, sys
from fer_voting.export import main
from fer_voting.networks import load, weights_checksum
words = sys.argv[1:]
main(words)
print("pushing")
main([*words, "--push", "me/net"])
print(weights_checksum(load("me/net").net.state_dict()))
try:
    load("me/other")
except FileNotFoundError as error:
    print(error)
os.environ["HF_TOKEN"] = "hf_wrong"
main([*words, "--push", "me/net"])
"""


def test_a_folder_says_how_prediction_cuts_out_faces(run: Run, tmp_path: Path) -> None:
    export(run, "--to", "folder", "--out", str(tmp_path / "mine"), "--margin", "0.2", "--no-align")
    faces = json.loads((tmp_path / "mine" / "config.json").read_text())["faces"]
    assert faces == {"colour": "rgb", "margin": 0.2, "align": False, "detector": "centerface"}
    recognizer = Recognizer.load(tmp_path / "mine")
    assert (recognizer.margin, recognizer.align) == (0.2, False)


def test_the_card_holds_what_was_measured_of_these_weights(run: Run, tmp_path: Path) -> None:
    output_dir = tmp_path / "outputs"
    shutil.copytree(run.dir, output_dir / "runs" / "mine")
    (output_dir / "evaluations").mkdir()
    metrics = {"accuracy": 0.125, "mean_recall": 0.25, "calibration": {"error": 0.0625}, "calibrated": None}
    checksum = load_network(run.dir).checksum
    for number, (digest, split) in enumerate([(checksum, "m3"), (checksum, "m1"), ("other weights", "m3")]):
        measured = {"checksum": digest, "split": split, "dataset": f"set{number}", "part": "test", "images": 9}
        (output_dir / "evaluations" / f"{number}.json").write_text(json.dumps(measured | {"votes": {"soft": metrics}}))
    rows = [
        {"checksum": checksum, "split": split, "vote": vote, "dataset": f"{split}{vote}", "part": "test", "images": 9,
         "resolution": 8, "accuracy": 0.5, "low": 0.4, "high": 0.6, "mean_recall": 0.3}
        for split, vote in (("m3", "soft"), ("m1", "soft"), ("m3", "hard"))
    ]  # fmt: skip
    (output_dir / "tables").mkdir()
    (output_dir / "tables" / "resolution.json").write_text(json.dumps(rows))
    words = ["--run", "mine", "--output-dir", str(output_dir), "--to", "folder", "--precision", "float16"]
    main([*words, "--out", str(tmp_path / "net")])
    card = (tmp_path / "net" / "README.md").read_text()
    shown = {name: card.count(f"| {name} |") for name in ("set0", "set1", "set2", "m3soft", "m1soft", "m3hard")}
    assert shown == {"set0": 2, "set1": 0, "set2": 0, "m3soft": 1, "m1soft": 0, "m3hard": 0}


def test_pushed_only_when_asked(run: Run, tmp_path: Path) -> None:
    """The real client of the Hub against a small server here, whose address it reads when it is imported."""
    words = ["--run", str(run.dir), "--to", "folder", "--out", str(tmp_path / "net")]
    with serve_hub() as hub:
        here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", PUSH, *words], cwd=REPO, env=os.environ | here, capture_output=True, text=True
        )
    *before, pushing, _, pushed, checksum, missing, _ = done.stdout.splitlines()
    assert pushing == "pushing"
    assert not any(hub.url in line for line in before)
    assert f"{hub.url}/me/net" in pushed
    assert hub.private == {"me/net": True}
    assert sorted(hub.files["me/net"]) == ["README.md", "config.json", "model.safetensors"]
    assert b"# me/net" in hub.files["me/net"]["README.md"]
    assert len([request for request in hub.requests if "/commit/" in request]) == 1
    assert checksum == weights_checksum(load_network(run.best_checkpoint("soft")).net.state_dict())
    assert missing.startswith("me/other is neither here nor on the Hub: is it spelt right?")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: me/net was not uploaded")


def test_mistakes_end_with_one_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--to", "onnx", "--out", str(tmp_path / "net.txt")], "must end in .onnx"),
        (["--to", "onnx", "--push", "me/net"], "--push"),
        (["--to", "folder", "--precision", "int8"], "--precision int8 is for --to onnx"),
        (["--to", "folder", "--push", "net"], "owner/model"),
        (["--to", "onnx", "dataset.root=x"], "--precision int8"),
        (["--to", "onnx", "--precision", "int8", "dataset.colour=red"], "'dataset.colour=red'"),
        (["--to", "onnx", "--precision", "int8", "root=x"], "'root=x'"),
        (["--to", "onnx", "--precision", "int8", "dataset.size=48"], "at 48 pixels here"),
    ):
        with pytest.raises(SystemExit) as end:
            export(run, *words, *([] if "--out" in words else ["--out", str(tmp_path / "net.onnx")]))
        assert told in str(end.value)
        assert "\n" not in str(end.value)
    with pytest.raises(SystemExit, match="is not what the run was trained on"):
        export(run, "--to", "onnx", "--precision", "int8", "dataset.data_seed=5")
    with pytest.raises(SystemExit, match="nobody is missing, not finished"):
        main(["--run", "nobody", "--to", "onnx", "--output-dir", str(tmp_path)])
    assert not (tmp_path / "net.onnx").exists()


def test_a_run_from_a_stranger_runs_no_code(run: Run, tmp_path: Path) -> None:
    """Hydra would call what `_target_` names; int8 is what reads the data set of the run's configuration."""
    mark = tmp_path / "mark"
    for place in ("dataset", "dataset.balance", "dataset.root"):
        folder = tmp_path / place / "runs" / "theirs"
        shutil.copytree(run.dir, folder)
        config = OmegaConf.load(folder / "config.yaml")
        OmegaConf.update(config, place, {"_target_": "pathlib.Path.touch", "_args_": [str(mark)]}, force_add=True)
        OmegaConf.save(config, folder / "config.yaml")
        with pytest.raises(SystemExit, match="_target_"):
            main(["--run", str(folder), "--to", "onnx", "--precision", "int8", "--out", str(tmp_path / "net.onnx")])
    assert not mark.exists()


def test_a_folder_that_is_no_run_gets_one_line(run: Run, tmp_path: Path) -> None:
    for name, content in (("config.yaml", "{"), ("config.yaml", "- 1"), ("config.yaml", "a: 1"), ("result.json", "{}")):
        folder = tmp_path / f"{name}-{len(content)}" / "runs" / "theirs"
        shutil.copytree(run.dir, folder)
        if name == "result.json":
            content = '{"status": "finished"}'
        (folder / name).write_text(content)
        with pytest.raises(SystemExit, match=name.replace(".", r"\.")) as end:
            main(["--run", str(folder), "--to", "folder", "--out", str(tmp_path / "net")])
        assert "\n" not in str(end.value)


def test_help_comes_without_torch() -> None:
    code = "import sys, fer_voting.export as e; e.parser(); print(*(m in sys.modules for m in ('torch', 'numpy')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_metadata_is_plain_json(run: Run) -> None:
    export(run, "--to", "folder")
    config = json.loads((exports(run) / "mine" / "config.json").read_text())
    assert config["architecture"] == "resnet18"
    assert config["class_names"][1] == "happy"


def test_votes_that_validation_fitted(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exported files decide as the training recorded, and say what they took from validation images."""
    votes = run.result()["votes"]
    images, labels = faces(run, "test")
    for vote in ("weighted", "adaptive"):
        export(run, "--to", "onnx", "--vote", vote, "--out", str(tmp_path / f"{vote}.onnx"))
        runtime = OnnxRuntime(tmp_path / f"{vote}.onnx")
        assert (runtime.vote, runtime.fitted) == (vote, find_vote(vote).from_values(votes[vote]).to_values())
        accuracy = (runtime(images)[0].argmax(axis=1) == labels).mean()
        assert accuracy == pytest.approx(votes[vote]["test"]["accuracy"])
        export(run, "--to", "folder", "--vote", vote, "--out", str(tmp_path / vote))
        found = load(tmp_path / vote)
        assert (found.vote.name, found.vote.to_values()) == (vote, runtime.fitted)
    with np.load(run.predictions_file("soft", "val")) as stored:
        whole = stored["whole"]
    wished = votes["adaptive"]["mean_gmacs"]
    export(run, "--to", "folder", "--vote", "adaptive", "--mean-gmacs", "1e3", "--out", str(tmp_path / "all"))
    fitted = load(tmp_path / "all").vote
    assert isinstance(fitted, AdaptiveVote)
    assert fitted.threshold == 1.0
    assert fitted.mean_gmacs > wished
    assert len(whole) == sum(run.result()["counts"]["val"].values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--vote", "weighted", "--split", "m1"], "was fitted under split m3: it has none under m1"),
        (["--vote", "adaptive", "--split", "baseline"], "a baseline has nothing to adapt"),
        (["--vote", "adaptive", "--mean-gmacs", "1e-9"], "must be at least"),
        (["--mean-gmacs", "1"], "a mean cost is of the adaptive vote, not of the soft vote"),
    ],
)
def test_votes_that_do_not_fit_are_refused_in_one_line(run: Run, words: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as end:
        export(run, "--to", "onnx", *words)
    assert told in str(end.value)
    assert "\n" not in str(end.value)


def test_a_run_without_the_votes_parameters_is_refused(run: Run, tmp_path: Path) -> None:
    """A result.json with three votes."""
    outputs = tmp_path / "outputs"
    shutil.copytree(run.dir, outputs / "runs" / "mine")
    path = outputs / "runs" / "mine" / "result.json"
    result = json.loads(path.read_text())
    result["votes"] = {vote: result["votes"][vote] for vote in ("soft", "softprob", "hard")}
    path.write_text(json.dumps(result))
    for vote, what in (("weighted", "a weight"), ("adaptive", "a threshold")):
        with pytest.raises(SystemExit, match=f"needs {what} fitted on validation images"):
            main(["--run", "mine", "--output-dir", str(outputs), "--to", "onnx", "--vote", vote])
