"""`python -m fer_voting.evaluate`: a run's own metrics again, at the checkpoint's size, classes matched by name."""

import contextlib
import csv
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.composed import composed

from fer_voting import evaluate as evaluating
from fer_voting.config import command, explain, make
from fer_voting.data.corruptions import CORRUPTIONS, corrupt
from fer_voting.evaluate import fit_votes, job
from fer_voting.experiment import train
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import load_weights
from fer_voting.models.images import normalise
from fer_voting.runs.run import Run
from fer_voting.votes import CropOutputs, SoftVote, fit_temperature, hard_vote

pytestmark = pytest.mark.slow

NAME = "mine"
SIZE = 24
"""Not the data sets' default."""
FACES = ["dataset=faces", "dataset.train_size=280", "dataset.val_size=40", "dataset.test_size=60"]
TRAINING = [
    "dataset.batch_size=10",
    "trainer.max_epochs=4",
    "model.width=8",
    "optimizer.lr=4e-3",
    "logger=none",
    "plots=false",
    "augment=none",
]
"""Long enough for a network that decides for several classes, so that metrics tell networks apart."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with split m3, trained once for this file."""
    outputs = tmp_path_factory.mktemp("evaluate") / "outputs"
    words = [*FACES, *TRAINING, "split=m3", f"dataset.size={SIZE}", f"name={NAME}", f"output_dir={outputs}"]
    train(composed(words))
    return Run(outputs, NAME)


@pytest.fixture
def run_evaluate(trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The command with `words` on the tiny data set; returns the folder of its files. Hydra's own entry, which `plain`
    and sweeps take, composes the configuration twice."""

    def run(*words: str) -> Path:
        folders = [f"output_dir={trained.dir.parent.parent}", f"out={tmp_path}"]
        if words[:1] == ("-m",):
            monkeypatch.setattr(sys, "argv", ["evaluate", "-m", *folders, *FACES, "plots=false", *words[1:]])
            command("fer_voting.evaluate:job", "evaluate")
            return tmp_path
        try:
            job(composed([*folders, *FACES, "plots=false", *words], "evaluate"))
        except Exception as error:
            sys.exit(f"error: {explain(error)}")
        return tmp_path

    return run


@pytest.fixture(scope="module")
def plain(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the command without further words writes, and what it prints."""
    out, printed = tmp_path_factory.mktemp("plain"), io.StringIO()
    words = [f"output_dir={trained.dir.parent.parent}", f"out={out}", *FACES, "plots=false", f"checkpoint={NAME}"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["evaluate", *words])
        command("fer_voting.evaluate:job", "evaluate")
    return out, printed.getvalue()


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def metrics(run: Run, part: str, vote: str = "soft") -> dict[str, Any]:
    result = run.result()
    assert result is not None
    return result["votes"][vote][part]


def manifest_of(run: Run) -> str:
    """The list of the images of a run's data set."""
    fingerprint = run.result()["data_fingerprint"]
    return (run.dir.parent.parent / "packs" / "manifests" / f"faces-{fingerprint[:12]}.csv").read_text()


def same_metrics(found: dict[str, Any], recorded: dict[str, Any]) -> bool:
    """Whether an evaluation's metrics of a vote are those that a training recorded, and more."""
    return {key: found[key] for key in recorded} == recorded


@pytest.mark.parametrize("stage", ["val", "test"])
def test_it_finds_the_metrics_that_the_training_wrote(trained: Run, run_evaluate, stage: str, capsys):
    out = run_evaluate(f"checkpoint={NAME}", f"stage={stage}", f"plots={str(stage == 'test').lower()}")
    found = read(out / f"{NAME}-on-faces-{stage}.json")
    assert same_metrics(found["votes"]["soft"], metrics(trained, stage))
    assert found["images"] == {"val": 40, "test": 60}[stage]
    plots = [out / f"{NAME}-on-faces-{stage}{what}.png" for what in ("", "-reliability", "-adaptive")]
    if stage == "test":
        assert all(path.stat().st_size > 10_000 for path in plots)
    else:  # plots=false
        assert not any(path.exists() for path in plots)
    printed = capsys.readouterr().out
    assert "soft vote: accuracy" in printed
    assert "In brackets: 95 % bootstrap intervals over images; " in printed
    by_vote, by_class = (
        list(csv.DictReader((out / f"{NAME}-on-faces-{stage}-table{number}.csv").read_text().splitlines()))
        for number in ("", "-2")
    )
    assert by_vote[0]["accuracy (%)"].startswith(f"{100 * found['votes']['soft']['accuracy']:.2f} (")
    assert sum(int(row["images"]) for row in by_class) == found["images"]
    assert (out / f"{NAME}-on-faces-{stage}-table.tex").read_text().count(r"\num{") > len(by_vote)


def test_images_have_the_size_that_the_network_was_trained_at(trained: Run, run_evaluate, plain):
    for out in (plain[0], run_evaluate(f"checkpoint={NAME}", f"dataset.size={SIZE}")):
        found = read(out / f"{NAME}-on-faces-test.json")
        assert found["image_size"] == SIZE
        assert found["data_fingerprint"] == trained.result()["data_fingerprint"]
    with pytest.raises(SystemExit, match=rf"dataset\.size=48 must be {SIZE}"):
        run_evaluate(f"checkpoint={NAME}", "dataset.size=48")


def test_classes_meet_by_name(trained: Run, run_evaluate, tmp_path: Path, capsys):
    """The same network with its outputs in another order, and with one class more, gives the same metrics."""
    checkpoint = torch.load(trained.best_checkpoint("soft"), weights_only=True)
    order = [6, 2, 0, 5, 1, 4, 3]
    names = checkpoint["fer_voting"]["class_names"]
    checkpoint["fer_voting"]["class_names"] = [*(names[i] for i in order), "contempt"]
    for key in ("net.fc.weight", "net.fc.bias"):
        rows = checkpoint["state_dict"][key]
        checkpoint["state_dict"][key] = torch.cat([rows[order], rows[:1] + 100])
    torch.save(checkpoint, tmp_path / "shuffled.ckpt")
    out = run_evaluate(f"checkpoint={tmp_path / 'shuffled.ckpt'}")
    found = read(out / "shuffled-on-faces-test.json")
    assert same_metrics(found["votes"]["soft"], metrics(trained, "test"))
    assert found["classes_left_out"] == ["contempt"]
    assert "contempt" in capsys.readouterr().out


def test_mistakes(trained: Run, run_evaluate, tmp_path: Path):
    checkpoint = torch.load(trained.best_checkpoint("soft"), weights_only=True)
    checkpoint["fer_voting"]["class_names"][6] = "contempt"
    torch.save(checkpoint, tmp_path / "lacking.ckpt")
    for words, told in (
        ([], "checkpoint is not set"),
        (["checkpoint=nobody"], "is missing, not finished"),
        (["checkpoint=no.ckpt"], "no.ckpt"),
        ([f"checkpoint={NAME}", "stage=train"], "stage=train must be val or test"),
        ([f"checkpoint={NAME}", "temperature=0"], "temperature=0 must be"),
        ([f"checkpoint={NAME}", "temperature=warm"], "temperature=warm must be"),
        ([f"checkpoint={NAME}", "temperature=true"], "temperature=True must be"),
        ([f"checkpoint={NAME}", "mean_gmacs=true"], "mean_gmacs=True must be"),
        ([f"checkpoint={NAME}", "robustness=no"], "robustness=no must be true or false"),
        (
            [f"checkpoint={NAME}", "+trainer.limit_test_batches=0"],
            "no image was evaluated: trainer.limit_val_batches and limit_test",
        ),
        ([f"checkpoint={NAME}", "+trainer.limit_predict_batches=1"], "limit_predict_batches=1 is not for runs"),
        ([f"checkpoint={tmp_path / 'lacking.ckpt'}"], "not anger: it cannot be evaluated on faces"),
    ):
        with pytest.raises(SystemExit, match=told):
            run_evaluate(*words)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_are_those_of_the_training(trained: Run, plain):
    """Row by row against the arrays that the training stored, at the temperature of its validation predictions."""
    out, _ = plain
    names = trained.result()["class_names"]
    found = read(out / f"{NAME}-on-faces-test.json")["votes"]
    with np.load(trained.predictions_file("soft", "val")) as validation:
        temperature = fit_temperature(validation["logits"].astype(np.float64).mean(axis=1), validation["labels"])
    assert found["soft"]["temperature"] == temperature != 1
    assert (found["hard"]["temperature"], found["softprob"]["calibrated"]) == (None, None)
    with np.load(trained.predictions_file("soft", "test")) as stored:
        logits, labels, images = stored["logits"], stored["labels"], stored["names"]
    rows = rows_of(out / f"{NAME}-on-faces-test-soft.csv")
    assert list(rows[0]) == ["name", "label", "predicted", "confidence", *names, "agreement"]
    assert [row["name"] for row in rows] == images.tolist()
    assert [row["label"] for row in rows] == [names[label] for label in labels]
    scores = logits.mean(axis=1)
    assert [row["predicted"] for row in rows] == [names[i] for i in scores.argmax(axis=1)]
    powers = np.exp(scores / temperature)
    probabilities = np.array([[float(row[name]) for name in names] for row in rows])
    assert probabilities == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-5)
    assert [float(row["confidence"]) for row in rows] == pytest.approx(probabilities.max(axis=1), abs=1e-6)
    agreement = [np.mean(crops.argmax(axis=1) == s.argmax()) for crops, s in zip(logits, scores, strict=True)]
    assert [float(row["agreement"]) for row in rows] == pytest.approx(agreement, abs=1e-6)
    assert len(rows_of(out / f"{NAME}-on-faces-test-hard.csv")) == len(rows) == 60


def test_a_temperature_can_be_given_or_fitted_here(trained: Run, run_evaluate, tmp_path: Path):
    """`temperature=val` on the data set of the training is the run's own; outside of a run's folder none is known."""
    with np.load(trained.predictions_file("soft", "val")) as validation:
        own = fit_temperature(validation["logits"].astype(np.float64).mean(axis=1), validation["labels"])
    copy = shutil.copy(trained.best_checkpoint("soft"), tmp_path / "copy.ckpt")
    for words, temperature in ((["temperature=val"], own), (["temperature=2.5"], 2.5), ([], None)):
        found = read(run_evaluate(f"checkpoint={copy}", *words) / "copy-on-faces-test.json")
        ours = found["votes"]["soft"]["temperature"]
        assert ours == (temperature and pytest.approx(temperature, rel=1e-4))
        assert (found["votes"]["soft"]["calibrated"] is None) is (temperature is None)


def test_the_temperature_of_a_vote_of_ones_own_is_fitted_too(monkeypatch: pytest.MonkeyPatch):
    class MedianVote(SoftVote):
        def scores(self, outputs: CropOutputs) -> torch.Tensor:
            return outputs.crops.median(dim=1).values

    own = {"median": MedianVote("median"), "hard": hard_vote}
    monkeypatch.setattr(evaluating, "known_votes", lambda: own)
    validation = CropOutputs(torch.randn(50, 10, 7)), torch.arange(50) % 7
    (fitted,) = fit_votes(*validation, None).items()
    assert fitted == ("median", own["median"].fit(*validation))


def test_a_network_is_evaluated_under_any_split(trained: Run, run_evaluate, capsys):
    """Against the weights in a network of that split, image by image."""
    out = run_evaluate("-m", f"checkpoint={NAME}", "split=baseline,m1")
    state, info = load_weights(trained.best_checkpoint("soft"))
    node = composed([*FACES, f"dataset.size={SIZE}", f"output_dir={out}"]).dataset
    datamodule = make({**node, "seed": 0, "augment": None, "cache_dir": str(out)})
    datamodule.setup()
    positions = datamodule.positions("test")
    images = (torch.tensor(datamodule.pack.images[positions]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    for split in ("baseline", "m1"):
        name = f"{NAME}-as-{split}"
        net = VotingResNet18(split, 7, info.options["width"]).eval()
        net.load_state_dict(state)
        with torch.no_grad():
            decided = net(images).mean(dim=1).argmax(dim=1).tolist()
        rows = rows_of(out / f"{name}-on-faces-test-soft.csv")
        assert [info.class_names.index(row["predicted"]) for row in rows] == decided
        found = read(out / f"{name}-on-faces-test.json")
        assert (found["split"], found["trained_split"]) == (split, "m3")
        assert found["votes"]["soft"]["temperature"] is None  # it was fitted under m3
    assert "split m1, trained with m3" in capsys.readouterr().out


def test_accuracy_on_worse_images(trained: Run, run_evaluate, capsys):
    out = run_evaluate(f"checkpoint={NAME}", "robustness=true", "plots=true")
    found = read(out / f"{NAME}-on-faces-test.json")
    first, *rows = found["robustness"]
    assert [(row["corruption"], row["strength"]) for row in rows] == [
        (name, strength) for name, one in CORRUPTIONS.items() for strength in one.strengths
    ]
    assert (first["corruption"], first["votes"].keys()) == (None, {*found["votes"], "whole map"})
    for vote, metrics_of_vote in found["votes"].items():
        assert first["votes"][vote]["accuracy"] == pytest.approx(metrics_of_vote["accuracy"])
        assert first["votes"][vote]["interval"] == metrics_of_vote["intervals"]["accuracy"]
    # Independently of the command: one network, one corruption, image by image.
    data = make(composed([*FACES, f"output_dir={trained.dir.parent.parent}"]).dataset, size=SIZE)
    data.setup()
    positions = data.positions("test")
    faces = torch.from_numpy(corrupt(data.pack.images[positions], "contrast", 0.1)).permute(0, 3, 1, 2)
    net = VotingResNet18("m3", 7, width=8).eval()
    net.load_state_dict(load_weights(trained.best_checkpoint("soft"))[0])
    with torch.inference_mode():
        decisions = net(normalise(faces)).mean(dim=1).argmax(dim=1).numpy()
    right = float((decisions == data.class_ids(data.pack)[positions]).mean())
    (row,) = (row for row in rows if (row["corruption"], row["strength"]) == ("contrast", 0.1))
    assert row["votes"]["soft"]["accuracy"] == pytest.approx(right)
    assert right != first["votes"]["soft"]["accuracy"]
    assert "| contrast (times the contrast)" in capsys.readouterr().out
    assert (out / f"{NAME}-on-faces-test-robustness.png").stat().st_size > 10_000
    run_evaluate(f"checkpoint={NAME}")  # without them: they stay
    assert read(out / f"{NAME}-on-faces-test.json")["robustness"] == found["robustness"]
    for words, there in (
        ("trainer.precision=bf16-mixed", "precision 32-true"),
        ("temperature=2", "temperature_option auto"),
        ("mean_gmacs=1", "mean_gmacs None"),
        ("+trainer.limit_test_batches=1", "limit_batches 1.0"),
    ):
        with pytest.raises(SystemExit, match=f"accuracies on worse images, of {there}: choose"):
            run_evaluate(f"checkpoint={NAME}", words)
    assert len((out / f"{NAME}-on-faces-test-table-3.csv").read_text().splitlines()) == 1 + len(found["robustness"])


def test_images_that_it_was_trained_on_are_counted(trained: Run, run_evaluate, plain, tmp_path: Path, capsys):
    out, _ = plain
    none = {"images": {"test": 0}, "by_run": {NAME: {"test": 0}}, "unknown": []}
    assert read(out / f"{NAME}-on-faces-test.json")["images_trained_on"] == none
    swapped = manifest_of(trained).replace("\ntrain,", "\nTEST,").replace("\ntest,", "\ntrain,")
    (tmp_path / "swapped.csv").write_text(swapped.replace("\nTEST,", "\ntest,"))
    out = run_evaluate(f"checkpoint={NAME}", f"dataset.manifest={tmp_path / 'swapped.csv'}", f"out={tmp_path / 'x'}")
    found = read(tmp_path / "x" / f"{NAME}-on-faces-test.json")
    assert (found["images"], found["images_trained_on"]["images"]) == (280, {"test": 280})
    assert f"280 test images are among those that {NAME} was trained on." in capsys.readouterr().out


def test_what_was_trained_on_is_not_fitted_on_and_is_called_in_sample(run_evaluate, tmp_path: Path, capsys):
    """A refit has trained on the validation images: they fit no temperature, and their figures say so."""
    selection = ["split=m3", f"dataset.size={SIZE}", "trainer.max_epochs=1", f"output_dir={tmp_path / 'outputs'}"]
    few = "dataset.train_size=40"
    words = [*FACES, *[word for word in TRAINING if "epochs" not in word], *selection, few]
    train(composed(words))
    refit = train(composed([*words, "refit=true"]))["name"]
    where = [f"checkpoint={refit}", f"output_dir={tmp_path / 'outputs'}", few]
    for stage in ("val", "test"):
        with pytest.raises(SystemExit, match=f"of 40, 40 val images are among those that {refit} was trained on"):
            run_evaluate(*where, f"stage={stage}", "temperature=val")
    capsys.readouterr()
    out = run_evaluate(*where, "stage=val")
    (file,) = out.glob("*-on-faces-val.json")
    assert (read(file)["in_sample"], read(file)["fitted_on_these_images"]) == (True, False)
    assert "In-sample: accuracy and calibration error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "fitted_here"),
    [((), True), (("temperature=2",), True), (("split=m2",), False), (("split=m2", "temperature=val"), True)],
)
def test_votes_that_were_fitted_on_the_evaluated_images_are_named(run_evaluate, capsys, words, fitted_here):
    out = run_evaluate(f"checkpoint={NAME}", "stage=val", *words)
    (file,) = out.glob("*-on-faces-val.json")
    found = read(file)
    assert (found["in_sample"], found["fitted_on_these_images"]) == (False, fitted_here)
    assert ("were fitted on these very images" in capsys.readouterr().out) is fitted_here


def test_votes_are_fitted_on_these_images_also_where_other_images_were_trained_on(trained: Run, run_evaluate, tmp_path):
    header, first, *rows = manifest_of(trained).splitlines()
    assert first.startswith("train,")
    (tmp_path / "fewer.csv").write_text("\n".join([header, *rows, ""]))
    words = [f"checkpoint={NAME}", "stage=val", f"dataset.manifest={tmp_path / 'fewer.csv'}", f"out={tmp_path / 'x'}"]
    run_evaluate(*words)
    found = read(tmp_path / "x" / f"{NAME}-on-faces-val.json")
    assert found["data_fingerprint"] != trained.result()["data_fingerprint"]
    assert found["fitted_on_these_images"]


def test_an_evaluation_of_something_else_is_not_overwritten(trained: Run, run_evaluate, tmp_path: Path):
    run_evaluate(f"checkpoint={NAME}")
    with pytest.raises(SystemExit, match="on other data"):
        run_evaluate(f"checkpoint={NAME}", "dataset.data_seed=1")
    elsewhere = tmp_path / "elsewhere" / "runs" / NAME
    shutil.copytree(trained.dir, elsewhere)
    run_evaluate(f"checkpoint={elsewhere}")  # the same weights, whatever their place
    checkpoint = torch.load(elsewhere / "checkpoints" / "best-soft.ckpt", weights_only=True)
    next(iter(checkpoint["state_dict"].values())).add_(1)
    torch.save(checkpoint, elsewhere / "checkpoints" / "best-soft.ckpt")
    with pytest.raises(SystemExit, match="of other weights"):
        run_evaluate(f"checkpoint={elsewhere}")
    run_evaluate(f"checkpoint={NAME}")  # the same once more is no other
    out = run_evaluate(f"checkpoint={trained.best_checkpoint('hard')}")
    assert (out / f"{NAME}-best-hard-on-faces-test.json").exists()


def test_only_the_images_that_were_evaluated_are_counted(run_evaluate):
    out = run_evaluate(f"checkpoint={NAME}", "+trainer.limit_test_batches=2", "dataset.batch_size=10")
    found = read(out / f"{NAME}-on-faces-test.json")
    assert found["images"] == len(rows_of(out / f"{NAME}-on-faces-test-soft.csv")) == 20


def test_a_run_that_kept_one_vote_is_evaluated_at_that_one(trained: Run, run_evaluate, tmp_path: Path):
    """A run folder as a refit by the hard vote leaves it: one checkpoint, no validation."""
    run = Run(tmp_path / "outputs", "refit")
    shutil.copytree(trained.dir, run.dir)
    for vote in ("soft", "softprob"):
        run.best_checkpoint(vote).unlink()
    result = run.result()
    run.write_result({**result, "votes": {"hard": result["votes"]["hard"]}})
    run.predictions_file("hard", "val").unlink()
    out = run_evaluate("checkpoint=refit", f"output_dir={tmp_path / 'outputs'}")
    found = read(out / "refit-best-hard-on-faces-test.json")
    assert same_metrics(found["votes"]["hard"], metrics(trained, "test", "hard"))
    assert found["votes"]["soft"]["temperature"] is None


def test_weighted_and_adaptive_votes_are_the_runs_own(trained: Run, plain):
    """The evaluation repeats the recorded values: parameters from validation, metrics of each part."""
    out, shown = plain
    found = read(out / f"{NAME}-on-faces-test.json")
    recorded = trained.result()["votes"]
    assert len(recorded["weighted"]["weights"]) == 10
    assert found["votes"]["weighted"]["weights"] == recorded["weighted"]["weights"]
    assert found["votes"]["adaptive"]["threshold"] == recorded["adaptive"]["threshold"]
    for vote in ("weighted", "adaptive"):
        assert recorded[vote]["checkpoint"] == recorded["soft"]["checkpoint"]
        assert same_metrics(found["votes"][vote], recorded[vote]["test"])
    assert found["votes_left_out"] == []
    adaptive = found["adaptive"]
    with np.load(trained.predictions_file("soft", "test")) as stored:
        whole, crops, labels = stored["whole"], stored["logits"], stored["labels"]
    odds = np.exp(whole)
    unsure = (odds / odds.sum(axis=1, keepdims=True)).max(axis=1) <= recorded["adaptive"]["threshold"]
    decided = np.where(unsure, crops.mean(axis=1).argmax(axis=1), whole.argmax(axis=1))
    assert adaptive["chosen"]["accuracy"] == pytest.approx((decided == labels).mean())
    assert adaptive["chosen"]["accuracy"] == pytest.approx(recorded["adaptive"]["test"]["accuracy"])
    assert adaptive["chosen"]["share"] == unsure.mean()
    assert adaptive["curve"][0]["accuracy"] == pytest.approx((whole.argmax(axis=1) == labels).mean())
    assert adaptive["curve"][-1]["accuracy"] == pytest.approx(recorded["soft"]["test"]["accuracy"])
    assert adaptive["vote"]["gmacs"] == pytest.approx(trained.result()["gmacs"])
    rows = rows_of(out / f"{NAME}-on-faces-test-adaptive.csv")
    assert [row["predicted"] for row in rows] == [found["class_names"][k] for k in decided]
    assert f"adaptive vote       {adaptive['chosen']['accuracy']:.2%} at" in shown


def test_the_adaptive_vote_at_a_wished_cost(trained: Run, run_evaluate, plain, tmp_path: Path):
    full = read(plain[0] / f"{NAME}-on-faces-test.json")["adaptive"]
    least, most = full["curve"][0]["gmacs"], full["curve"][-1]["gmacs"]
    wished = least + 0.25 * (most - least)
    copy = shutil.copy(trained.best_checkpoint("soft"), tmp_path / "copy.ckpt")
    fitted = []
    # From what the run kept of its validation images, and by a pass over them.
    for words in ([f"checkpoint={NAME}"], [f"checkpoint={copy}", "temperature=val"]):
        out = run_evaluate(*words, f"mean_gmacs={wished}")
        found = read(out / f"{Path(words[0].partition('=')[2]).stem}-on-faces-test.json")
        assert found["votes"]["adaptive"]["mean_gmacs"] == pytest.approx(wished, rel=1e-6)  # 10 of 40 images
        fitted.append(found["votes"]["adaptive"]["threshold"])
    assert fitted[0] == pytest.approx(fitted[1], abs=1e-5)
    for words, told in (
        ([f"mean_gmacs={least / 2}"], "must be at least"),
        (["mean_gmacs=none"], "mean_gmacs=none must be a number"),
        (["mean_gmacs=1", "split=baseline"], "split baseline has nothing to adapt"),
    ):
        with pytest.raises(SystemExit, match=told):
            run_evaluate(f"checkpoint={NAME}", *words)


def test_votes_without_validation_images_are_left_out_and_named(trained: Run, run_evaluate, tmp_path: Path, capsys):
    copy = shutil.copy(trained.best_checkpoint("soft"), tmp_path / "copy.ckpt")
    found = read(run_evaluate(f"checkpoint={copy}") / "copy-on-faces-test.json")
    assert found["votes_left_out"] == ["weighted", "adaptive"]
    assert found["adaptive"]["chosen"] is None  # the curve needs no threshold
    assert "Votes left out: weighted, adaptive." in capsys.readouterr().out
