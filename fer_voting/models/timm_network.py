"""The vote in the networks of timm (Wightman 2019, github.com/huggingface/pytorch-image-models)."""

import difflib
import functools
from typing import Any

from torch import nn

from fer_voting.models.last_layer import compute_logits_in_float32
from fer_voting.models.voting import VotingNetwork, vote_in

STAGE_REDUCTIONS = {"m1": 4, "m2": 8, "m3": 16}
"""Split -> how many times smaller than the image the map is that is cropped, on each side."""


def timm_network(
    split: str,
    num_classes: int,
    image_size: int | None = None,
    name: str | None = None,
    crop_after: str | None = None,
    pretrained: bool = False,
) -> VotingNetwork:
    """A network of timm's whose map is cropped ten times, with images normalised as it was made for.

    `m1`, `m2`, `m3` cut after the first, second and third stage: the last module, of those at which timm says that a
    stage ends, whose map has a quarter, an eighth, a sixteenth of the image's side.

    Args:
        split: `baseline`, `input`, `m1`, `m2` or `m3`.
        num_classes: K.
        image_size: in pixels; vision transformers are built for it.
        name: of the network; `timm.list_models()` has them. One that timm has renamed is known by both names.
        crop_after: name of a module that takes the place of the stages.
        pretrained: start from timm's weights, all but the last layer.

    Raises ValueError if timm or the network is not there, weights cannot be fetched, or the network takes no crops.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            "model=timm needs one more package: pip install 'fer_voting[timm]', in a checkout pip install -e '.[timm]'"
        ) from error
    current = timm.models.get_deprecated_models().get(name, name)
    try:
        made_for = timm.get_pretrained_cfg(str(current), allow_unregistered=False)
    except RuntimeError as error:  # no such network, or no such weights of it
        known = [*timm.list_models(), *timm.list_models(f"{str(name).partition('.')[0]}.*", include_tags=True)]
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        raise ValueError(
            f"model.name={name} must be a network of timm {timm.__version__}: "
            f"{', '.join(close or ['resnet18', 'convnext_atto', 'mobilenetv4_conv_small'])}, …"
        ) from error
    arguments: dict[str, Any] = {"pretrained": pretrained}
    if made_for.fixed_input_size and image_size is not None:
        arguments["img_size"] = image_size
    if pretrained and not made_for.has_weights:
        raise ValueError(f"model.pretrained=true: timm has no weights of {name}; set model.pretrained=false")
    try:
        backbone = timm.create_model(current, num_classes=num_classes, **arguments)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        if not pretrained:
            raise ValueError(
                f"model.name={name} cannot be built for images of {image_size} pixels: {reason}"
            ) from error
        raise ValueError(
            f"model.pretrained=true: the weights of {name} are not on this machine and cannot be fetched from "
            f"huggingface.co ({reason}); fetch them where there is a network, or set model.pretrained=false"
        ) from error
    compute_logits_in_float32(backbone, num_classes, timm.layers.Linear)  # timm's differs from torch's in TorchScript
    stages = _stages(backbone)
    if split in STAGE_REDUCTIONS and crop_after is None and split not in stages:
        raise ValueError(
            f"{name} has no stage for split={split} (it has {', '.join(stages) or 'none'}): set "
            "model.crop_after=NAME to a module of it (a vision transformer's are blocks.0, blocks.1, …)"
        )
    made = functools.partial(_given, backbone)
    return vote_in(made, split, num_classes, image_size, stages, crop_after, made_for.mean, made_for.std)


def _given(backbone: nn.Module, num_classes: int) -> nn.Module:
    return backbone


def _stages(backbone: nn.Module) -> dict[str, str]:
    """Split -> name of the module; none of a network whose map has one size throughout."""
    stages: Any = getattr(backbone, "feature_info", ())
    modules = {stage["reduction"]: stage["module"] for stage in stages}  # the last of each reduction
    if len(modules) == 1:
        return {}
    return {split: modules[reduction] for split, reduction in STAGE_REDUCTIONS.items() if reduction in modules}
