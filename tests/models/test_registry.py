"""Networks by name: what a checkpoint holds builds the network again, and nothing else."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.composed import composed
from omegaconf import OmegaConf

from fer_voting.config import CONF_DIR
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo, rebuild_network
from fer_voting.models.registry import (
    architectures,
    build_network,
    check_options,
    digest_of_fetched,
    options_of,
    read_node,
)
from fer_voting.runs.identity import resolve
from fer_voting.system.conf_folders import USER_CONF_VARIABLE

CLASSES = ("happy", "sad", "anger")


def node(*words: str) -> dict:
    return resolve(composed(list(words)))["model"]


def test_the_networks_are_the_files() -> None:
    assert set(architectures()) == {path.stem for path in (CONF_DIR / "model").iterdir()} >= {"resnet18", "timm"}


def test_what_a_training_alone_needs_is_left_out() -> None:
    assert options_of("resnet18", node("model.width=4", "model.memory=lean", "model.dropout=0.2")) == {"width": 4}
    words = ("model=timm", "model.name=resnet18", "model.pretrained=true")
    assert options_of("timm", node(*words)) == {"name": "resnet18", "crop_after": None}


def test_what_is_called_stands_in_the_file() -> None:
    with pytest.raises(ValueError, match=r"model\._target_ .*not that of conf/model/resnet18\.yaml"):
        options_of("resnet18", node("model._target_=torch.nn.Identity"))
    with pytest.raises(ValueError, match=r"conf/model/resnet18\.yaml has no stages"):
        options_of("resnet18", node("+model.stages={m1: layer2}"))
    with pytest.raises(ValueError, match=r"resnet18\.yaml has no dropuot, but width, dropout, memory: write a file"):
        options_of("resnet18", node("+model.dropuot=0.2"))


def test_a_network_is_built_again_from_its_metadata() -> None:
    info = NetworkInfo("m2", {"width": 4}, CLASSES, 24, "faces")
    again = NetworkInfo.from_values(info.to_values())
    assert again == info
    net = rebuild_network(again)
    assert isinstance(net, VotingResNet18)
    assert (net.split, net.width, net.num_classes, net.crop_after) == ("m2", 4, 3, "layer2")
    with pytest.raises(ValueError, match=r"`split` \(='m9'\) must be one of baseline, input, m1, m2, m3"):
        rebuild_network(replace(info, split="m9"))


@pytest.mark.parametrize(
    ("architecture", "options", "reason"),
    [
        ("resnet50", {}, "must be one of"),
        ("../split/m1", {}, "must be one of"),
        ("resnet18", {"_target_": "os.system"}, "has '_target_'"),
        ("resnet18", {"memory": "lean"}, "has 'memory'"),
        ("resnet18", {"width": 1025}, "from -1024 to 1024"),
        ("resnet18", {"width": "4"}, "value like 64"),
        ("resnet18", {"width": None}, "value like 64"),
        ("timm", {"pretrained": True}, "has 'pretrained'"),
        ("timm", {"name": "hf-hub:somebody/network"}, "must be a word"),
        ("timm", {"name": "${oc.env:HOME}"}, "must be a word"),
        ("timm", {"name": {"_target_": "os.system"}}, "plain value"),
        ("timm", {"name": ["resnet18"]}, "plain value"),
    ],
    ids=str,
)
def test_a_strangers_values_are_checked(architecture: str, options: dict, reason: str | None) -> None:
    with pytest.raises(ValueError, match=reason):
        check_options(architecture, options)


def test_a_strangers_value_of_another_type_is_an_error_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"must name a module|do not make a timm") as error:
        rebuild_network(NetworkInfo("m1", {"crop_after": 5, "name": "resnet18"}, CLASSES, 96, "faces", "timm"))
    assert "\n" not in str(error.value)


def test_values_that_do_not_fit_are_the_networks_own_error() -> None:
    with pytest.raises(ValueError, match=r"^`width` \(=0\) must be at least 1"):
        build_network(node("model.width=0"), "m1", 7, 48)
    with pytest.raises(ValueError, match="a map of 2 pixels is too small"):
        build_network(node("model.width=4"), "m3", 7, 8)


def test_any_importable_network_takes_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    file = {
        "_target_": "fer_voting.models.voting.vote_in",
        "backbone": {"_target_": "torchvision.models.squeezenet1_1", "_partial_": True},
        "stages": {"m1": "features.2", "m2": "features.5"},
        "crop_after": None,
    }
    OmegaConf.save(OmegaConf.create(file), tmp_path / "model" / "squeezenet.yaml")
    monkeypatch.setenv(USER_CONF_VARIABLE, str(tmp_path))
    info = NetworkInfo("m2", options_of("squeezenet", file), CLASSES, 48, "faces", "squeezenet")
    net = rebuild_network(NetworkInfo.from_values(info.to_values())).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 48, 48)).shape == (2, 10, 3)
    moved = rebuild_network(replace(info, options={"crop_after": "features.3"}))
    assert (net.crop_after, moved.crop_after) == ("features.5", "features.3")


def test_a_training_starts_with_the_values_that_its_checkpoint_can_be_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = {"_target_": "mine.network", "drop": 0.5, "steps": 4096, "title": "a b"}
    (tmp_path / "model").mkdir()
    OmegaConf.save(OmegaConf.create(file), tmp_path / "model" / "mine.yaml")
    monkeypatch.setenv(USER_CONF_VARIABLE, str(tmp_path))
    check_options("mine", options_of("mine", file | {"drop": 0.0}))
    for wrong, reason in (({"drop": 1}, "value like 0.5"), ({"steps": 8192}, "from -1024 to 1024")):
        with pytest.raises(ValueError, match=reason):
            options_of("mine", file | wrong)


def test_digest_of_fetched_weights_is_that_of_the_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer is random, and the rest is what was fetched: here, from a file."""
    trunk = VotingResNet18("m1", 7, width=4)
    monkeypatch.setenv("FETCHED", str(tmp_path / "weights.pt"))
    model = {"_target_": f"{__name__}.fetched_network"}
    digests = []
    for change in (0.0, 0.0, 1.0):
        state = {key: value for key, value in trunk.state_dict().items() if "fc" not in key}
        key = next(iter(state))
        state[key] = state[key] + change
        torch.save(state, tmp_path / "weights.pt")
        digests.append(digest_of_fetched(model, "m1", 24))
        torch.rand(3)
    assert digests[0] == digests[1] != digests[2]
    assert digest_of_fetched(model, "m3", 24) == digests[2]  # the split changes no weight


def fetched_network(split: str, num_classes: int, image_size: int) -> VotingResNet18:
    network = VotingResNet18(split, num_classes, width=4)
    network.load_state_dict(torch.load(os.environ["FETCHED"], weights_only=True), strict=False)
    return network


def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("- resnet18\n")
    monkeypatch.setenv(USER_CONF_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"model/mine\.yaml must be a mapping"):
        read_node("mine")
