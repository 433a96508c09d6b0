"""Weights travel by name: between splits, data sets with other classes, and to and from disk."""

from pathlib import Path

import pytest
import torch

from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo, load_weights
from fer_voting.networks import copy_weights, load_network

SEVEN = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")


def save(path: Path, net: VotingResNet18, class_names: tuple[str, ...]) -> Path:
    checkpoint = {"state_dict": {f"net.{k}": v for k, v in net.state_dict().items()}}
    NetworkInfo(net.split, {"width": net.width}, class_names, 48, "affectnet").write(checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def trained(tmp_path: Path) -> tuple[VotingResNet18, Path]:
    net = VotingResNet18("m1", width=4)
    torch.nn.init.normal_(net.backbone.fc.bias)
    return net, save(tmp_path / "best.ckpt", net, SEVEN)


def test_weights_come_back_with_their_record(trained):
    net, path = trained
    state, record = load_weights(path)
    assert record == NetworkInfo("m1", {"width": 4}, SEVEN, 48, "affectnet")
    assert state.keys() == net.state_dict().keys()


def test_rows_of_the_last_layer_follow_their_names_into_another_order_and_split(trained):
    net, path = trained
    other = VotingResNet18("m3", width=4)
    names = ("surprised", "fear", "disgust", "happiness", "sadness", "angry", "neutral")  # RAF-DB's order
    matched = copy_weights(load_network(path), other, names)
    rows = [SEVEN.index(n) for n in ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")]
    assert torch.equal(other.backbone.fc.weight, net.backbone.fc.weight[rows])
    assert torch.equal(other.backbone.fc.bias, net.backbone.fc.bias[rows])
    assert torch.equal(other.backbone.layer4[1].conv2.weight, net.backbone.layer4[1].conv2.weight)
    assert matched["angry"] == "anger"


def test_a_class_that_the_weights_lack_is_an_error_unless_told(trained):
    net, path = trained
    eight = VotingResNet18("m1", num_classes=8, width=4)
    fresh = eight.backbone.fc.weight[7].clone()
    with pytest.raises(ValueError, match="not contempt; init_missing_classes=random starts these from scratch"):
        copy_weights(load_network(path), eight, (*SEVEN, "contempt"))
    copy_weights(load_network(path), eight, (*SEVEN, "contempt"), "random")
    assert torch.equal(eight.backbone.fc.weight[7], fresh)
    assert torch.equal(eight.backbone.fc.weight[:7], net.backbone.fc.weight)


def test_classes_of_a_users_own_are_matched_by_their_names(tmp_path: Path):
    net = VotingResNet18("baseline", num_classes=2, width=4)
    path = save(tmp_path / "own.ckpt", net, ("awake", "drowsy"))
    other = VotingResNet18("baseline", num_classes=2, width=4)
    copy_weights(load_network(path), other, ("drowsy", "awake"))
    assert torch.equal(other.backbone.fc.weight, net.backbone.fc.weight[[1, 0]])


def test_weights_that_do_not_fit_say_why(trained, tmp_path: Path):
    net, path = trained
    with pytest.raises(
        ValueError, match=r"conv1.weight \(4, 3, 3, 3\) for \(8, 3, 3, 3\).*it is model=resnet18 model.width=4"
    ):
        copy_weights(load_network(path), VotingResNet18("m1", width=8), SEVEN)
    with pytest.raises(ValueError, match="must be error or random"):
        copy_weights(load_network(path), net, SEVEN, "guess")
    cut = torch.load(path, weights_only=True)
    cut["state_dict"].pop("net.bn1.weight")
    cut["state_dict"]["net.head.weight"] = torch.zeros(1)
    torch.save(cut, tmp_path / "cut.ckpt")
    with pytest.raises(ValueError, match=r"its own description: bn1.weight is missing; head.weight is unknown"):
        copy_weights(load_network(tmp_path / "cut.ckpt"), net, SEVEN)


def test_files_that_are_no_checkpoint(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"missing\.ckpt"):
        load_weights(tmp_path / "missing.ckpt")
    (tmp_path / "noise.ckpt").write_bytes(b"noise")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_weights(tmp_path / "noise.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")  # torch's own message is "101"
    with pytest.raises(
        ValueError, match=r"text\.ckpt cannot be read as a checkpoint: damaged, or a file of another kind"
    ):
        load_weights(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="it lacks the entry 'fer_voting'"):
        load_weights(tmp_path / "foreign.ckpt")
