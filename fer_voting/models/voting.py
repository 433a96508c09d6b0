"""The vote in any network: a forward hook on one of its modules replaces that module's map by ten crops of it.

Shapes: B batch, V crops an image (10, or 1 without a cut), K classes; images `[B, 3, H, W]`, maps `[B, C, h, w]`.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fer_voting.models.cost import BatchNormShapes
from fer_voting.models.crops import CROPS, ten_crops
from fer_voting.models.images import InputNormalisation
from fer_voting.models.last_layer import compute_logits_in_float32

SPLITS = ("baseline", "input", "m1", "m2", "m3")
"""The splits of the paper, in the order of tables. A network may have further stages (`m4`)."""

INPUT = "input"
"""`crop_after` of a network that sees crops of the images."""


class VotingNetwork(nn.Module):
    """A backbone that classifies ten crops of one of its own maps.

    The backbone's forward pass runs as it is, on B images up to the module `crop_after` and on 10 B crops behind it.
    Its parameters keep their own names: a state_dict has no prefix, so that weights travel between splits, and to and
    from the plain backbone.

    Args:
        backbone: maps images `[B, 3, H, W]` to logits `[B, K]`.
        crop_after: name of the module whose output is cropped: `[B, C, h, w]`, or the tokens `[B, N, C]` of a timm
            vision transformer; `input`: the images; None: no crops.
        image_size: H and W in pixels; if given, the network is tried with such images, without computing anything.
        stages: split -> `crop_after`, for a network that cannot be cropped where it was asked for: the error names
            those that work.
        mean, std: per channel, of pixels 0 to 1, if the backbone wants other images than `normalise` makes.

    Raises ValueError if there is no such module, or if the network fails at `image_size`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        crop_after: str | None,
        image_size: int | None = None,
        stages: Mapping[str, str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.crop_after = crop_after
        self.image_size = image_size
        self.input_normalisation = None if mean is None or std is None else InputNormalisation(mean, std)
        self._at_cut: Callable[[Tensor], Tensor] | None = None  # what the hook does with the map, if not cropping it
        self._dummy_images = 0  # the number with which `head` runs the backbone up to the cut
        cut = None if crop_after in (None, INPUT) else _submodule(backbone, str(crop_after))
        if image_size is not None:
            self._dummy_images = _count_dummy_images(backbone, crop_after, image_size, stages or {})
        if cut is not None:
            cut.register_forward_hook(self._hook)  # a method, not a closure: it follows a deep copy
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    @property
    def votes(self) -> int:
        """V"""
        return 1 if self.crop_after is None else CROPS

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` (float) -> crop logits `[B, V, K]`.

        Raises ValueError if the map to be cropped is too small, or if the backbone does not come by the cut once.
        """
        batch = images.shape[0]
        images = self._prepare(images)
        logits = self.backbone(self.crop(images) if self.crop_after == INPUT else images)
        if logits.shape[0] != batch * self.votes:
            raise ValueError(
                f"the {type(self.backbone).__name__} does not run `{self.crop_after}` once as a module, so that its "
                "map cannot be cropped (gradient checkpointing passes it by)"
            )
        return logits.unflatten(0, (batch, self.votes))

    def crop(self, maps: Tensor) -> Tensor:
        """Maps `[B, C, h, w]` -> their ten crops, image by image, `[B * 10, C, h', w']`.

        Tokens `[B, P + h * w, C]` -> `[B * 10, P + h' * w', C]`: the P that belong to no place go with every crop.
        """
        if maps.ndim == 3:
            return _crop_tokens(maps, getattr(self.backbone, "num_prefix_tokens", 0))
        return ten_crops(maps).flatten(0, 1)

    def trunk(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` -> the maps `[B, C, h, w]` that `forward` crops. Nothing behind the cut runs.

        Raises ValueError if the network has no cut.
        """
        if self.crop_after == INPUT:
            return self._prepare(images)
        try:
            self._run(self._prepare(images), _stop_forward)
        except _StopForward as stop:
            return stop.maps
        raise ValueError(f"the {type(self.backbone).__name__} does not run `{self.crop_after}` as a module")

    def head(self, maps: Tensor) -> Tensor:
        """Full maps or crops of them `[N, C, h', w']`, of any size -> logits `[N, K]`, by the layers behind the cut.

        `head(crop(trunk(images)))` is `forward(images)`, crop by crop. Only for evaluation: in training mode, BatchNorm
        before the cut would see other images. The backbone's own forward pass runs, on an empty batch up to the cut,
        which costs nothing and is not in an exported graph. A backbone that fails on an empty batch, which the trial
        with `image_size` finds out, runs on one blank image.

        Raises ValueError if the network has no cut.
        """
        if self.crop_after == INPUT:
            return self.backbone(maps)
        side = self.image_size or 64
        memory_format = torch.channels_last if maps.ndim == 4 else torch.contiguous_format
        dummies = torch.zeros(self._dummy_images, 3, side, side, dtype=maps.dtype, device=maps.device)
        return self._run(dummies.contiguous(memory_format=memory_format), lambda _: maps)

    def trunk_and_full_map(self, images: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images `[B, 3, H, W]` -> `trunk(images)` and the logits of the full maps `[B, K]`, by one pass.

        Args:
            rows: `[R]`, the images whose full maps are classified: logits `[R, K]`. None: all.

        Raises ValueError if the network has no cut.
        """
        images = self._prepare(images)
        if self.crop_after == INPUT:
            return images, self.backbone(images if rows is None else images[rows])
        kept: list[Tensor] = []

        def keep(maps: Tensor) -> Tensor:
            kept.append(maps)
            return maps.clone() if rows is None else maps[rows]  # the backbone may go on in place

        logits = self._run(images, keep)
        return kept[0], logits

    def _prepare(self, images: Tensor) -> Tensor:
        return images if self.input_normalisation is None else self.input_normalisation(images)

    def _run(self, images: Tensor, at_cut: Callable[[Tensor], Tensor]) -> Tensor:
        if self.crop_after is None:
            raise ValueError("the network has no cut: it is a baseline")
        self._at_cut = at_cut
        try:
            return self.backbone(images)
        finally:
            self._at_cut = None

    def _hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return self.crop(output) if self._at_cut is None else self._at_cut(output)


def vote_in(
    backbone: Callable[..., nn.Module],
    split: str,
    num_classes: int,
    image_size: int | None = None,
    stages: Mapping[str, str] | None = None,
    crop_after: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> VotingNetwork:
    """Let any network vote; a file of conf/model can call this.

    Args:
        backbone: called with `num_classes`, returns a module that maps images `[B, 3, H, W]` to logits `[B, K]`.
        split: `baseline`, `input`, or a key of `stages`.
        stages: split -> name of the module after which the map is cropped.
        crop_after: name of a module that takes the place of every stage's; `baseline` and `input` stay what they are.
        num_classes, image_size, mean, std: as in `VotingNetwork`.

    Raises ValueError if a name is unknown, or the network cannot take images, or crops, of this size.
    """
    stages = dict(stages or {})
    if crop_after is not None:
        stages = dict.fromkeys(stages or ("m1",), crop_after)
    net = backbone(num_classes=num_classes)
    compute_logits_in_float32(net, num_classes)
    return VotingNetwork(net, find_cut(split, stages), image_size, stages, mean, std)


def find_cut(split: str, stages: Mapping[str, str]) -> str | None:
    """The `crop_after` of a split: `baseline` and `input`, or the module after which a stage ends.

    Args:
        stages: split -> name of the module.

    Raises ValueError that names the splits there are.
    """
    always = {"baseline": None, "input": INPUT}
    if split not in always and split not in stages:
        raise ValueError(f"`split` (={split!r}) must be one of {', '.join([*always, *stages])}")
    return {**always, **stages}[split]


# At the cut -----------------------------------------------------------------------------------------------------------


class _StopForward(Exception):
    """Ends a forward pass of the backbone at the cut."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps


def _stop_forward(maps: Tensor) -> Tensor:
    raise _StopForward(maps)


def _crop_tokens(tokens: Tensor, prefix: int) -> Tensor:
    side = math.isqrt(tokens.shape[1] - prefix)  # of the grid, whose rows follow each other
    crops = ten_crops(tokens[:, prefix:].transpose(1, 2).unflatten(2, (side, -1)))
    grids = crops.flatten(0, 1).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :prefix].repeat_interleave(CROPS, dim=0), grids], dim=1)


def _submodule(backbone: nn.Module, name: str) -> nn.Module:
    try:
        return backbone.get_submodule(name)
    except AttributeError as error:
        children = ", ".join(child for child, _ in backbone.named_children())
        raise ValueError(
            f"`crop_after` (={name!r}) must name a module of the {type(backbone).__name__}: {children}, or one inside "
            "of these"
        ) from error


# The trial: forward passes on the meta device -------------------------------------------------------------------------


def _count_dummy_images(backbone: nn.Module, crop_after: str | None, image_size: int, stages: Mapping[str, str]) -> int:
    """Try a network on the meta device. Returns the images with which `head` must run it up to the cut: 0, or 1.

    Raises ValueError if it cannot take such images, or not their crops: with the stages after which it can.
    """
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    try:
        net = _try(_on_meta(backbone), crop_after, images)
    except Exception as error:  # a backbone may raise anything
        fresh = _on_meta(backbone)
        working = [f"{split} ({name})" for split, name in stages.items() if _works(fresh, name, images)]
        where = "" if crop_after is None else f", with crops after {crop_after}"
        hint = "" if crop_after is None else f"; crops work after {', '.join(working) or 'no stage'}"
        what = f"the {type(backbone).__name__} does not work on images of {image_size} pixels{where}"
        raise ValueError(f"{what}: {_short(error)}{hint}") from error
    if crop_after in (None, INPUT):
        return 0
    net.image_size = image_size
    try:
        with torch.no_grad(), BatchNormShapes():
            net.head(net.trunk(images))
    except Exception:
        return 1
    return 0


@torch.no_grad()
def _try(backbone: nn.Module, crop_after: str | None, images: Tensor) -> VotingNetwork:
    """The voting network of a backbone, after a forward pass. The backbone keeps its hook."""
    if crop_after not in (None, INPUT) and getattr(backbone, "output_fmt", "NCHW") != "NCHW":
        raise ValueError("its maps are [B, h, w, C] and go through windows of a fixed size, so that it takes no crops")
    net = VotingNetwork(backbone, crop_after)
    with BatchNormShapes():
        logits = net(images)
    if logits.ndim != 3:
        raise ValueError(f"its output for an image has the shape {list(logits.shape[2:])}, not that of K logits")
    return net


def _on_meta(backbone: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and no values."""
    return copy.deepcopy(backbone).to("meta").eval()


def _works(backbone: nn.Module, crop_after: str, images: Tensor) -> bool:
    try:
        _try(copy.deepcopy(backbone), crop_after, images)
    except Exception:
        return False
    return True


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())[:160]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


# The names of a state_dict --------------------------------------------------------------------------------------------

_PREFIX = "backbone."


def _without_prefix(net: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    """Rename `backbone.conv1.weight` to `conv1.weight`."""
    for key in [key for key in state if key.startswith(prefix + _PREFIX)]:
        state[prefix + key.removeprefix(prefix + _PREFIX)] = state.pop(key)


def _with_prefix(
    net: nn.Module,
    state: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_messages: list[str],
) -> None:
    """The inverse of `_without_prefix`."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + _PREFIX + key.removeprefix(prefix)] = state.pop(key)
