"""Networks of timm: cut after their stages, with their own images' statistics, or refused in one line."""

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor

from fer_voting.models.cost import count_gmacs, count_torch_gmacs
from fer_voting.models.crops import ten_crops
from fer_voting.models.images import normalise
from fer_voting.models.last_layer import find_last_layer
from fer_voting.models.timm_network import timm_network
from fer_voting.models.voting import VotingNetwork

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm")

SIDE = 64
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def network(split: str, name: str = "resnet18", size: int = SIDE, **arguments: Any) -> VotingNetwork:
    torch.manual_seed(0)
    return timm_network(split, 7, size, name, **arguments).eval()


def pixels(side: int = SIDE) -> Tensor:
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_crops_of_a_resnet_by_its_own_parts() -> None:
    net = network("m2")
    plain = timm.create_model("resnet18", num_classes=7).eval()
    plain.load_state_dict(net.state_dict())  # the same names
    x = (pixels() / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    x = plain.layer2(plain.layer1(plain.maxpool(plain.act1(plain.bn1(plain.conv1(x))))))
    x = plain.layer4(plain.layer3(ten_crops(x).flatten(0, 1)))
    expected = plain.forward_head(x).unflatten(0, (2, 10))
    torch.testing.assert_close(net(normalise(pixels())), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("resnet18", ["layer1", "layer2", "layer3"]),
        ("convnext_atto", ["stages.0", "stages.1", "stages.2"]),
        ("mobilenetv4_conv_small", ["blocks.0", "blocks.1", "blocks.2"]),
        ("efficientnet_b0", ["blocks.1", "blocks.2", "blocks.4"]),
        ("edgenext_xx_small", ["stages.0", "stages.1", "stages.2"]),
    ],
)
@torch.no_grad()
def test_stages_are_those_of_a_quarter_an_eighth_a_sixteenth(name: str, modules: list[str]) -> None:
    for split, module, reduction in zip(("m1", "m2", "m3"), modules, (4, 8, 16), strict=True):
        net = network(split, name, 96)
        assert net.crop_after == module
        images = normalise(pixels(96))
        maps = net.trunk(images)
        assert maps.shape[-1] == 96 // reduction
        logits = net(images)
        assert logits.shape == (2, 10, 7)
        assert torch.equal(net.head(net.crop(maps)).unflatten(0, (2, 10)), logits)
        assert find_last_layer(net, 7) in ("fc", "head.fc", "classifier")


@torch.no_grad()
def test_a_vision_transformer_keeps_the_tokens_of_no_place() -> None:
    net = network("m1", "vit_tiny_patch16_224", 96, crop_after="blocks.5")
    tokens = net.trunk(normalise(pixels(96)))
    assert tokens.shape == (2, 1 + 6 * 6, 192)
    crops = net.crop(tokens).unflatten(0, (2, 10))
    assert crops.shape == (2, 10, 1 + 5 * 5, 192)
    grid = tokens[0, 1:].view(6, 6, 192)
    assert torch.equal(crops[0, 3, 1:].view(5, 5, 192), grid[1:, 1:])  # bottom right
    assert torch.equal(crops[0, 5, 1:].view(5, 5, 192), grid.flip(1)[:5, :5])  # mirrored, top left
    assert torch.equal(crops[1, :, 0], tokens[1, :1].expand(10, -1))
    assert net(normalise(pixels(96))).shape == (2, 10, 7)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("vit_tiny_patch16_224", {}, r"no stage for split=m2 \(it has none\): set model\.crop_after=NAME"),
        ("efficientformerv2_s0", {"size": 96}, r"EfficientFormerV2 does not work on images of 96 .*after stages\.1"),
        ("swin_tiny_patch4_window7_224", {}, r"SwinTransformer .*\[B, h, w, C\].*takes no crops"),
        ("resnet18", {"crop_after": "layer9"}, "must name a module of the ResNet"),
        ("resnet18", {"size": 16}, r"ResNet does not work on images of 16 .*too small.*work after m1 \(layer1\)$"),
        ("resnett18", {}, r"model\.name=resnett18 must be a network of timm .*resnet18"),
        ("resnet18.a9_in1k", {}, r"model\.name=resnet18\.a9_in1k must be a network of timm .*resnet18\.a1_in1k"),
        (None, {}, "must be a network of timm"),
        (18, {}, "must be a network of timm"),
    ],
)
def test_what_takes_no_crops_is_refused_in_one_line(name: str, arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        network("m2", name, **arguments)
    assert "\n" not in str(error.value)


def test_gradient_checkpointing_is_refused() -> None:
    net = network("m1")
    net.backbone.set_grad_checkpointing()
    with pytest.raises(ValueError, match="gradient checkpointing passes it by"):
        net(normalise(pixels()))


def test_crop_after_takes_the_place_of_every_stage() -> None:
    cuts = [network(split, crop_after="layer1.0").crop_after for split in ("baseline", "input", "m1", "m3")]
    assert cuts == [None, "input", "layer1.0", "layer1.0"]


def test_torchs_count_has_what_the_papers_leaves_out() -> None:
    net = network("baseline")
    norms = sum(m.num_features * (SIDE // s) ** 2 for m, s in _norms(net))
    # The paper's: the same products, and four operations an element of BatchNorm.
    assert count_gmacs(net, SIDE) - count_torch_gmacs(net, SIDE) == pytest.approx(4 * norms / 1e9)
    vit = network("baseline", "vit_tiny_patch16_224", 32)
    tokens, blocks, channels = 1 + 2 * 2, 12, 192
    attention = blocks * 2 * tokens**2 * channels  # queries with keys, and the weights with the values
    assert count_torch_gmacs(vit, 32) - count_gmacs(vit, 32) == pytest.approx(attention / 1e9)


def _norms(net: VotingNetwork) -> list[tuple[Any, int]]:
    stride = {"bn1": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
    named = [(n, m) for n, m in net.backbone.named_modules() if hasattr(m, "running_mean")]
    return [(module, stride[name.split(".")[0]]) for name, module in named]


def test_weights_that_cannot_be_fetched_are_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"model\.pretrained=true: the weights of resnet18 .*cannot be fetched"
    ) as error:
        network("m1", pretrained=True)
    assert "\n" not in str(error.value)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'fer_voting\[timm\]'"):
        network("m1")


@pytest.mark.parametrize("name", ["tf_efficientnet_b0_ap", "vit_base_patch16_224_in21k", "gluon_resnet18_v1b"])
def test_a_network_is_known_by_its_former_name(name: str) -> None:
    today = timm.models.get_deprecated_models()[name]
    with torch.device("meta"):
        former, current = network("baseline", name, 96), network("baseline", today, 96)
    assert {key: value.shape for key, value in former.state_dict().items()} == {
        key: value.shape for key, value in current.state_dict().items()
    }
