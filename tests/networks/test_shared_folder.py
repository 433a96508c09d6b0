"""A shared folder: the same network again, nothing half loaded, and nothing run as code."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks import SEVEN, info, noise, settled
from safetensors.torch import load_file, save_file

from fer_voting.inference.runtime import TorchRuntime
from fer_voting.models import VotingResNet18
from fer_voting.networks import SHIPPED, Network, load, load_network, weights_checksum
from fer_voting.networks.exported import INT8_FILE, ONNX_FILE
from fer_voting.networks.onnx import OnnxRuntime
from fer_voting.votes import HardVote


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Network(settled("m2"), info("m2"), HardVote("hard", 1.25), {"val": 0.5}).save_pretrained(
        tmp_path / "net", "# A card"
    )
    return tmp_path / "net"


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_same_network_comes_back(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "README.md").read_text() == "# A card"
    found = load(folder)
    assert (found.info, found.vote, found.accuracy) == (info("m2"), HardVote("hard", 1.25), {"val": 0.5})
    assert not found.net.training
    faces = noise(3)
    for ours, theirs in zip(
        TorchRuntime(found.net, found.info)(faces), TorchRuntime(settled("m2"), info("m2"))(faces), strict=True
    ):
        assert (ours == theirs).all()
    again = load(str(folder))
    assert again.info == info("m2")
    torch.testing.assert_close(again.net.state_dict(), settled("m2").state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("classes", [(), ("happy", "sad")])
def test_a_network_with_numbers_comes_back_with_their_names(classes: tuple[str, ...], tmp_path: Path) -> None:
    outputs = replace(info("m2"), class_names=classes, number_names=("valence", "arousal"))
    net = VotingResNet18("m2", len(classes) + 2, width=4).eval()
    Network(net, outputs, HardVote("hard")).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.info == outputs
    assert loaded.info.outputs == (*classes, "valence", "arousal")
    torch.testing.assert_close(loaded.net.state_dict(), net.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"`vote` \(='adaptive'\) is not for a network of .*valence, arousal: soft is"):
        loaded.by_vote("adaptive")


def test_in_half_precision_the_file_is_half_and_the_network_float32(folder: Path) -> None:
    size = (folder / "model.safetensors").stat().st_size
    net = settled("m2")
    Network(net, info("m2")).save_pretrained(folder, precision="float16")
    assert (folder / "model.safetensors").stat().st_size < 0.55 * size
    rounded = {k: t.half().float() if t.is_floating_point() else t for k, t in net.state_dict().items()}
    found = load(folder)
    torch.testing.assert_close(found.net.state_dict(), rounded, rtol=0, atol=0)
    with torch.no_grad():
        net.state_dict()["fc.weight"].fill_(1e5)
    with pytest.raises(ValueError, match=r"fc\.weight are not finite in float16"):
        Network(net, info("m2")).save_pretrained(folder, precision="float16")
    with pytest.raises(ValueError, match=r"`precision` \(='int8'\) must be float32 or float16"):
        Network(settled("m2"), info("m2")).save_pretrained(folder, precision="int8")


def test_the_packages_own_name_is_the_network_that_ships() -> None:
    found = load_network("fer_voting")
    assert found.info.class_names == SEVEN[:7]
    assert found.info.image_size == 48
    assert found.info.dataset == "ferplus"
    assert found.info.faces.colour == "grey"  # as every image of that data set
    assert {OnnxRuntime(SHIPPED / name).info.faces for name in (ONNX_FILE, INT8_FILE)} == {found.info.faces}
    assert found.vote.temperature > 0
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 17_000_000
    card = (SHIPPED / "README.md").read_text()
    for what in ("Intended use", "not cleared", "FER2013's PublicTest", "Confusion", "brightness", "pixels a side"):
        assert what in card


def test_the_checksum_is_of_names_shapes_and_values() -> None:
    state = settled().state_dict()
    checksum = weights_checksum(state)
    assert weights_checksum(dict(reversed(state.items()))) == checksum
    others = [
        {**state, "fc.bias": state["fc.bias"] + 1e-6},
        {**state, "fc.weight": state["fc.weight"].reshape(-1)},
        {("fc.bios" if name == "fc.bias" else name): tensor for name, tensor in state.items()},
    ]
    assert len({checksum, *map(weights_checksum, others)}) == 4


# --- nothing half loaded ------------------------------------------------------------------------------------------


def without(name: str) -> Callable[[dict], dict]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("layer2.0.bn1.running_mean"), "layer2.0.bn1.running_mean is missing"),
        (lambda state: {**state, "layer9.weight": torch.zeros(1)}, "layer9.weight is unknown"),
        (lambda state: {**state, "fc.bias": torch.zeros(8)}, r"fc.bias is \(8,\), not \(7,\)"),
        (lambda state: {**state, "fc.bias": state["fc.bias"].double()}, "fc.bias is torch.float64"),
        (lambda state: {**state, "fc.bias": state["fc.bias"] + 1}, "checksum"),
    ],
    ids=["missing", "unknown", "shape", "dtype", "values"],
)
def test_weights_that_do_not_fit_are_refused(folder: Path, change: Callable, reason: str) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(ValueError, match=reason) as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "resnet50"},
        {"architecture": ["resnet18"]},
        {"split": "m9"},
        {"split": ["m1"]},
        {"width": 4},
        {"options": {"width": 0}},
        {"options": {"width": 4.0}},
        {"options": {"width": True}},
        {"options": {"width": 10**9}},
        {"options": {"width": "${oc.env:HOME}"}},
        {"options": {"width": {"_target_": "os.system"}}},
        {"options": {"depth": 4}},
        {"options": {"_target_": "os.system"}},
        {"options": ["width"]},
        {"architecture": "../split/m1"},
        {"image_size": "24"},
        {"class_names": "neutral"},
        {"class_names": [*SEVEN[:6], 7]},
        {"class_names": [*SEVEN[:6], "two\nlines"]},
        {"class_names": [*SEVEN[:6], "happy"]},
        {"class_names": [*SEVEN[:6], "x" * 1000]},
        {"class_names": ["one"]},
        {"class_names": []},
        {"number_names": "valence"},
        {"number_names": ["valence"]},
        {"number_names": ["happy"]},
        {"number_names": [0.5]},
        {"class_names": ["one"], "number_names": ["valence"]},
        {"dataset": None},
        {"vote": "loud"},
        {"vote": {}},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"temperature": "1"},
        {"vote": "weighted"},
        {"vote": "weighted", "weights": [0.5, 0.6]},
        {"weights": "10"},
        {"weights": [0.5, "0.5"]},
        {"threshold": 1.5},
        {"accuracy": {"val": "good"}},
        {"checksum": 5},
        {"fer_voting": 3},
        {"fer_voting": "1"},
        {"_target_": "os.system"},
        {"extra": 1},
    ],
    ids=str,
)
def test_values_of_the_configuration_are_checked(folder: Path, values: dict[str, Any]) -> None:
    change_config(folder, **values)
    with pytest.raises(ValueError, match=r"config\.json") as error:
        load(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "5", "[" * 100_000, "{}", '{"fer_voting": 1}', " " * 1_000_001, "\xff"], ids=range(9)
)
def test_a_file_that_is_no_configuration_gets_one_line(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for source in (tmp_path / "gone", str(tmp_path / "gone"), "gone", "./gone/net", "../gone"):
        with pytest.raises(FileNotFoundError, match=r"(does not exist|is missing, not finished); a network is"):
            load(source)


# --- nothing run as code ------------------------------------------------------------------------------------------


class Payload:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.write_text, (self.path, "run")


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").read_text() == "run"


@pytest.mark.parametrize("written_by", ["pickle", "torch"])
def test_no_pickle_of_a_folder_is_loaded(folder: Path, tmp_path: Path, written_by: str) -> None:
    mark = tmp_path / "mark"
    for name in ("model.safetensors", "pytorch_model.bin", "model.pt", "config.pkl"):
        write_payload(folder / name, mark, written_by)
    with pytest.raises(ValueError, match="cannot be read as safetensors") as error:
        load(folder)
    assert "\n" not in str(error.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):  # no other file takes its place
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("written_by", ["pickle", "torch"])
def test_no_pickle_of_a_checkpoint_is_loaded(tmp_path: Path, written_by: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "best.ckpt"
    write_payload(path, mark, written_by)
    with pytest.raises(ValueError, match=r"best\.ckpt") as error:
        load_network(path)
    assert "\n" not in str(error.value)
    assert not mark.exists()


def write_payload(path: Path, mark: Path, written_by: str) -> None:
    with path.open("wb") as file:
        if written_by == "pickle":
            pickle.dump({"state_dict": Payload(mark)}, file)
        else:
            torch.save({"state_dict": {}, "fer_voting": Payload(mark)}, file)


def test_a_target_in_the_configuration_is_not_called(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    call = {"_target_": "pathlib.Path.touch", "_args_": [str(mark)]}
    for values in (call, {"architecture": call}, {"split": call}, {"accuracy": call}):
        change_config(folder, **values)
        with pytest.raises(ValueError, match=r"config\.json"):
            load(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"fer_voting": 5, "state_dict": {}},
        {"fer_voting": {}, "state_dict": {}},
        {"fer_voting": {**vars(info()), "options": {"width": -4}}, "state_dict": {}},
        {"fer_voting": {**vars(info()), "extra": 1}, "state_dict": {}},
        {"fer_voting": vars(info())},
        {"fer_voting": vars(info()), "state_dict": {"net.fc.bias": "no tensor"}},
        {"fer_voting": vars(info()), "state_dict": {}},
        torch.zeros(3),
    ],
    ids=range(9),
)
def test_a_checkpoint_that_is_not_ours_gets_one_line(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "their.ckpt")
    with pytest.raises(ValueError, match=r"their\.ckpt") as error:
        load_network(tmp_path / "their.ckpt")
    assert "\n" not in str(error.value)


def test_a_network_of_another_split_is_the_same_weights(tmp_path: Path) -> None:
    Network(settled("m1"), replace(info("m1"), split="m3")).save_pretrained(tmp_path / "net")
    again = load(tmp_path / "net")
    assert again.net.split == again.info.split == "m3"
