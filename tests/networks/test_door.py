"""The one door to trained networks: every form, the same words, the same errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from helpers.networks import SEVEN, small_info, small_network, write_checkpoint
from omegaconf import OmegaConf

from fer_voting.networks import (
    SHIPPED,
    Network,
    OnnxNetwork,
    copy_weights,
    find,
    load,
    load_network,
    match_classes,
)
from fer_voting.networks.onnx import ExportInfo
from fer_voting.runs.run import Run
from fer_voting.system.machine import usable_cores
from fer_voting.votes import SoftVote, hard_vote, soft_vote

HARD = {"val": {"accuracy": 0.25}, "test": {"accuracy": 0.5}}
SOFT = {"val": {"accuracy": 0.75}, "temperature": 1.5}


def write_run(output_dir: Path, name: str = "mine", votes: tuple[str, ...] = ("soft", "hard"), **result: object) -> Run:
    """A finished run of split m3 whose votes have their best epochs in different weights; its own vote is the last."""
    run = Run(output_dir, name)
    run.best_checkpoint("soft").parent.mkdir(parents=True)
    for seed, vote in enumerate(votes):
        write_checkpoint(run.best_checkpoint(vote), seed=seed)
    OmegaConf.save({"dataset": {"name": "faces"}, "voting": {"name": votes[-1]}}, run.dir / "config.yaml")
    metrics = {"soft": SOFT, "hard": HARD}
    run.write_result(
        {"status": "finished", "votes": {vote: metrics[vote] for vote in votes}, "split": "m3", "counts": {},
         "epochs": 1, "seed": 0, "data_fingerprint": "0a", **result}
    )  # fmt: skip
    return run


def same_weights(network: Network, seed: int) -> bool:
    expected = small_network(seed=seed).state_dict()
    return all(torch.equal(tensor, expected[key]) for key, tensor in network.net.state_dict().items())


def test_a_run_by_its_name_and_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = write_run(tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    for source in ("mine", run.dir, str(run.dir), "outputs/runs/mine"):
        network = load(source)
        assert same_weights(network, seed=1)
        assert (network.vote, network.accuracy) == (hard_vote, {"val": 0.25, "test": 0.5})
        assert (network.path, network.run.name) == (run.best_checkpoint("hard"), "mine")
        soft = load(source, vote="soft")
        assert same_weights(soft, seed=0)
        assert (soft.vote, soft.accuracy) == (SoftVote("soft", 1.5), {"val": 0.75})
        # Evaluation, initial weights and teachers take the soft vote's, whatever the run was configured for.
        assert same_weights(load_network(source), seed=0)
        assert find(source).weights_file() == run.best_checkpoint("soft")


def test_a_refit_has_the_weights_of_one_vote(tmp_path: Path):
    run = write_run(tmp_path, votes=("hard",))
    assert find("mine", tmp_path).weights_file() == run.best_checkpoint("hard")
    assert load_network("mine", tmp_path).path == run.best_checkpoint("hard")


def test_a_checkpoint_knows_the_run_in_whose_folder_it_lies(tmp_path: Path):
    run = write_run(tmp_path)
    inside, outside = load(run.best_checkpoint("hard")), load(write_checkpoint(tmp_path / "net.ckpt", seed=1))
    assert inside.run is not None
    assert (inside.run.dir, outside.run) == (run.dir, None)
    renamed = (tmp_path / "net.ckpt").rename(tmp_path / "weights.pt")
    for network in (inside, outside, load_network(renamed)):
        assert same_weights(network, seed=1)
        assert (network.vote, network.accuracy) == (soft_vote, {})
    assert load(renamed, vote="hard").vote == hard_vote


def test_an_exported_folder_and_the_network_that_ships(tmp_path: Path):
    exported = Network(small_network(), small_info(), hard_vote, accuracy={"val": 0.5})
    exported.save_pretrained(tmp_path / "net")
    network = load(tmp_path / "net")
    assert same_weights(network, seed=0)
    assert (network.vote.name, network.accuracy, network.path) == (
        "hard",
        {"val": 0.5},
        tmp_path / "net/model.safetensors",
    )
    assert network.checksum == exported.checksum
    other = load(tmp_path / "net", vote="softprob")
    assert (other.vote.name, other.accuracy) == ("softprob", {})
    for source in (None, "fer_voting"):
        assert load(source, runtime="torch").path == load_network(source).path == SHIPPED / "model.safetensors"
        assert load(source, device="cpu").path == SHIPPED / "model.onnx"


def test_the_network_that_ships_runs_in_onnx_runtime_where_its_file_is_what_was_asked_for():
    shipped = load_network()
    for words in ({}, {"vote": "soft"}, {"split": "m1"}, {"runtime": "onnx", "threads": 2}):
        network = load(device="cpu", **words)
        assert isinstance(network, OnnxNetwork)
        assert (network.info.checksum, network.fitted) == (shipped.checksum, shipped.vote.to_values())
        assert network.threads == words.get("threads", usable_cores())
    for words in ({"vote": "hard"}, {"split": "m2"}, {"precision": "bf16"}, {"device": "cuda"}, {"runtime": "torch"}):
        network = load(**{"device": "cpu", **words})
        assert isinstance(network, Network)
        assert network.checksum == shipped.checksum


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"runtime": "onnx", "vote": "hard"}, r"`vote` \(='hard'\): .*model\.onnx holds the soft vote"),
        ({"runtime": "onnx", "device": "cuda"}, r"`device` \(='cuda'\) needs ONNX Runtime's CUDA"),
        ({"runtime": "jax"}, r"`runtime` \(='jax'\) must be auto, onnx, openvino or torch"),
        ({"threads": 0}, r"`threads` \(=0\) must be at least 1"),
    ],
)
def test_what_the_onnx_file_cannot_do_is_refused(words: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=reason):
        load(**{"device": "cpu", **words})


def test_only_an_onnx_file_runs_in_onnx_runtime(tmp_path: Path):
    with pytest.raises(ValueError, match=r"`runtime` \(='onnx'\) needs an ONNX file: .*export --to onnx"):
        load(write_checkpoint(tmp_path / "net.ckpt"), runtime="onnx")


def test_a_folder_with_the_onnx_file_of_other_weights_is_refused(tmp_path: Path):
    Network(small_network(), small_info()).save_pretrained(tmp_path)
    (tmp_path / "model.onnx").symlink_to(SHIPPED / "model.onnx")
    with pytest.raises(
        ValueError, match=r"model\.onnx has another checksum, .*image_size, .* than config\.json: export it again"
    ):
        load(tmp_path, device="cpu")


def test_a_run_comes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = write_run(tmp_path / "outputs", "net")
    Network(small_network(seed=5), small_info()).save_pretrained(tmp_path / "net")
    monkeypatch.chdir(tmp_path)
    assert load("net").run.dir == run.dir
    assert same_weights(load("./net"), seed=5)


def test_an_onnx_file_is_ready_to_run(tmp_path: Path):
    (tmp_path / "net.onnx").symlink_to(SHIPPED / "model.onnx")
    network, shipped = load(tmp_path / "net.onnx"), load_network()
    assert isinstance(network, OnnxNetwork)
    assert (network.class_names, network.split, network.vote) == (shipped.info.class_names, "m1", "soft")
    for wrong in ({"vote": "hard"}, {"split": "m3"}):
        with pytest.raises(ValueError, match=r"net\.onnx holds the (soft vote|m1 split)"):
            load(tmp_path / "net.onnx", **wrong)
    with pytest.raises(ValueError, match="is an exported ONNX file: give the run"):
        load_network(tmp_path / "net.onnx")


def test_a_file_of_one_form_has_this_form_and_no_other(tmp_path: Path):
    model = onnx.load(SHIPPED / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, metadata | {"vote": "whole", "forms": "{}"})
    onnx.save(model, tmp_path / "whole.onnx")
    for form in ("full", "whole"):
        assert load(tmp_path / "whole.onnx", form=form).vote == "whole"
    with pytest.raises(ValueError, match=r"`form` \(='adaptive'\): the network holds no parameters of this form"):
        load(tmp_path / "whole.onnx", form="adaptive")
    with pytest.raises(ValueError, match=r"`form` \(='soft'\) must be one of full, adaptive, whole"):
        load(SHIPPED / "model.onnx", form="soft")


@pytest.mark.parametrize("names", ["abcdefg", ["happy", "happy"], ["two\nlines", "sad"], ["one"], []])
def test_the_names_of_an_onnx_file_are_checked_as_those_of_a_folder(names: object):
    metadata = ExportInfo(("a", "b"), 24, "m1", "soft", "faces", "ab" * 32).to_metadata()
    assert ExportInfo.from_metadata(metadata, Path("net.onnx")).class_names == ("a", "b")
    with pytest.raises(ValueError, match=r"net\.onnx: its metadata is damaged \(ValueError: (`class_names`|a name) "):
        ExportInfo.from_metadata(metadata | {"class_names": json.dumps(names)}, Path("net.onnx"))


def test_another_split_has_the_same_weights_and_no_accuracy(tmp_path: Path):
    run = write_run(tmp_path)
    for source in (run.dir, run.best_checkpoint("hard")):
        network = load(source, split="m1", vote="soft")
        assert network.net.split == network.info.split == "m1"
        assert same_weights(network, seed=0 if source == run.dir else 1)
        assert (network.vote, network.accuracy) == (soft_vote, {})


def test_loading_leaves_torchs_random_state_as_it_is(tmp_path: Path):
    """A training that starts from another network draws the same numbers as one that does not."""
    path = write_checkpoint(tmp_path / "net.ckpt")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    match_classes(load_network(path), SEVEN[::-1], "mine", "m1")
    load()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "nobody",
            r"run 'nobody': .*outputs/runs/nobody is missing, not finished; a network is a run's name or",
        ),
        ("broken", "run 'broken': .*broken is failed, not finished$"),
        ("nothing.ckpt", r"nothing\.ckpt does not exist$"),
        ("nothing.onnx", r"nothing\.onnx does not exist$"),
        ("some/deep/folder", "some/deep/folder does not exist; a network is"),
        ("folder/gone", "folder/gone does not exist; a network is"),  # the Hub is not asked for a path
        ("folder", r"^folder is neither a run's folder, .* nor an exported network: it lacks config\.json$"),
        ("outputs/runs/broken", "broken is failed, not finished$"),
        ("outputs/runs/empty", r"outputs/runs/empty holds no run: it has no result\.json$"),
        ("outputs/runs/empty/", r"outputs/runs/empty holds no run: it has no result\.json$"),
        ("empty", r"outputs/runs/empty holds no run: it has no result\.json$"),
        ("elsewhere/runs/begun", "begun is interrupted, not finished$"),
        ("outputs/runs/broken/checkpoints", r"checkpoints is neither a run's folder, .* nor an exported network"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str):
    write_run(tmp_path / "outputs", "broken", status="failed")
    begun = tmp_path / "elsewhere" / "runs" / "begun"
    for folder in (begun, tmp_path / "folder", tmp_path / "outputs" / "runs" / "empty"):
        folder.mkdir(parents=True)
    (begun / "result.json").write_text('{"status": "running"}')  # killed before its first checkpoint
    monkeypatch.chdir(tmp_path)
    for open_door in (load, load_network):
        with pytest.raises(FileNotFoundError, match=reason):
            open_door(source)


def test_a_folder_that_is_no_run_of_ours_is_refused(tmp_path: Path):
    run = write_run(tmp_path)
    result = json.loads((run.dir / "result.json").read_text())
    del result["counts"]
    run.write_result(result)
    with pytest.raises(ValueError, match=r"is not a run's folder as training writes it: it lacks result\.json: counts"):
        load("mine", tmp_path)


# Classes by name ---------------------------------------------------------------------------------------------------


def test_rows_of_the_last_layer_are_matched_by_class_name(tmp_path: Path):
    trained = load_network(write_checkpoint(tmp_path / "net.ckpt", classes=("happy", "sad", "fear")))
    weight, bias = (trained.net.state_dict()[f"fc.{name}"].clone() for name in ("weight", "bias"))
    net = small_network("m1", seed=9, classes=("Fear", "contempt", "Happiness"))
    before = net.state_dict()["fc.weight"].clone()
    with pytest.raises(ValueError, match=r"net\.ckpt knows the classes happy, sad, fear, not contempt; init_missing"):
        copy_weights(trained, net, ("Fear", "contempt", "Happiness"))
    matched = copy_weights(trained, net, ("Fear", "contempt", "Happiness"), "random")
    assert matched == {"Fear": "fear", "Happiness": "happy"}
    after = net.state_dict()
    assert torch.equal(after["fc.weight"], torch.stack([weight[2], before[1], weight[0]]))
    assert torch.equal(after["fc.bias"][[0, 2]], bias[[2, 0]])
    assert torch.equal(after["layer2.0.conv1.weight"], trained.net.state_dict()["layer2.0.conv1.weight"])
    assert torch.equal(trained.net.state_dict()["fc.weight"], weight)  # the source stays as it is


def test_a_network_with_the_classes_of_a_data_set(tmp_path: Path):
    trained = load_network(write_checkpoint(tmp_path / "net.ckpt"))
    network, left_out = match_classes(trained, ("sad", "happy"), "mine", "m1")
    assert (network.info.class_names, network.info.dataset, network.info.split) == (("sad", "happy"), "mine", "m1")
    assert left_out == [name for name in SEVEN if name not in ("sad", "happy")]
    images = torch.randn(2, 3, 24, 24)
    rows = [SEVEN.index(name) for name in ("sad", "happy")]
    with torch.inference_mode():
        expected = load(tmp_path / "net.ckpt", split="m1").net(images)[:, :, rows]
        torch.testing.assert_close(network.net(images), expected)
    with pytest.raises(ValueError, match=r"knows the classes .*, not bored: it cannot be evaluated on mine$"):
        match_classes(trained, ("sad", "bored"), "mine")


def test_numbers_are_matched_by_name_and_kept_beside_a_data_sets_classes():
    outputs = replace(small_info("m1", ("happy", "sad", "fear")), number_names=("valence", "arousal"))
    trained = Network(small_network("m1", classes=outputs.outputs), outputs)
    network, left_out = match_classes(trained, ("fear", "happy"), "mine")
    assert network.info.outputs == ("fear", "happy", "valence", "arousal")
    assert left_out == ["sad"]
    weight = trained.net.state_dict()["fc.weight"]
    assert torch.equal(network.net.state_dict()["fc.weight"], weight[[2, 0, 3, 4]])
    only_numbers = small_network("m1", seed=9, classes=("arousal", "valence"))
    assert copy_weights(trained, only_numbers, ("arousal", "valence")).keys() == {"arousal", "valence"}
    assert torch.equal(only_numbers.state_dict()["fc.weight"], weight[[4, 3]])
    with pytest.raises(
        ValueError, match="knows the classes happy, sad, fear and the numbers valence, arousal, not age"
    ):
        copy_weights(trained, only_numbers, ("arousal", "age"))


def test_other_sizes_are_named(tmp_path: Path):
    trained = load_network(write_checkpoint(tmp_path / "net.ckpt"))
    wide = load_network(write_checkpoint(tmp_path / "two.ckpt", classes=SEVEN[:2])).net
    with pytest.raises(ValueError, match=r"`init_missing_classes` \(='maybe'\) must be error or random"):
        copy_weights(trained, wide, SEVEN[:2], "maybe")
    thin = replace(small_info(), options={"width": 16})
    from fer_voting.models.checkpoint import rebuild_network

    with pytest.raises(ValueError, match=r"does not fit the network: .*; it is model=resnet18 model\.width=8$"):
        copy_weights(trained, rebuild_network(thin), SEVEN)


def test_a_checkpoint_comes_back_as_its_network(tmp_path: Path):
    network = load_network(write_checkpoint(tmp_path / "net.ckpt", "m1", seed=3))
    net, info = network.net, network.info
    assert (info.split, info.class_names, info.image_size) == ("m1", SEVEN, 24)
    images = torch.randn(2, 3, 24, 24)
    with torch.inference_mode():
        assert torch.equal(net(images), small_network("m1", seed=3)(images))


def test_weights_that_do_not_fit_their_description_are_named(tmp_path: Path):
    path = write_checkpoint(tmp_path / "net.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["fer_voting"]["options"]["width"] = 16
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"net\.ckpt does not fit its own description: .*conv1\.weight"):
        load_network(path)
