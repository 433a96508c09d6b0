"""The network as it is used: BatchNorm folded into the convolutions, in float32, bfloat16 or int8.

On the CPU each convolution is one call of oneDNN that also adds the bias and the shortcut and applies ReLU, with its
weights laid out beforehand. That is what `torch.compile` makes of a frozen network too, without a compiler and the
wait for it.

Shapes: B images of S x S pixels, V crops an image, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer_voting.models import SPLITS, VotingResNet18
from fer_voting.models.crops import ten_crops
from fer_voting.models.resnet import STAGES

__all__ = ["PRECISIONS", "fold", "prepare"]

PRECISIONS = ("float32", "bf16", "int8")

CALIBRATION_BATCH = 32
"""Images at once, for the memory's sake."""


def fold(net: VotingResNet18) -> VotingResNet18:
    """A copy of `net` for inference with every BatchNorm in its convolution, computed in float64; channels_last."""
    net = copy.deepcopy(net).eval()
    _fold(net, "conv1", "bn1")
    for block in (block for stage in STAGES for block in getattr(net, stage)):
        _fold(block, "conv1", "bn1")
        _fold(block, "conv2", "bn2")
        if block.downsample is not None:
            _fold(block.downsample, "0", "1")
    return net.requires_grad_(False).to(memory_format=torch.channels_last)


def _fold(parent: Any, convolution: str, batch_norm: str) -> None:
    first, second = parent.get_submodule(convolution), parent.get_submodule(batch_norm)
    dtype = first.weight.dtype
    parent.add_module(convolution, fuse_conv_bn_eval(first.double(), second.double()).to(dtype))
    parent.add_module(batch_norm, nn.Identity())


def prepare(
    net: VotingResNet18, precision: str = "float32", calibration: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """The fastest form of `net` where it is: a function of images `[B, 3, S, S]` to crop logits `[B, V, K]`, float32.

    Args:
        net: trained, float32. What is done to it afterwards doesn't reach the function.
        precision: `float32`; `bf16`, where the processor has it; or `int8`, on x86 processors: weights in 8 bits for
            each channel, maps in 8 bits, the first and the last layer in float32.
        calibration: for `int8`, normalised images `[N, 3, S, S]` of the kind that will come, a hundred or more. The
            largest numbers that they give rise to are the largest that can be represented.

    Raises ValueError if `precision` is unknown, is not for this device, or lacks its `calibration`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` (={precision!r}) must be one of {', '.join(PRECISIONS)}")
    folded = fold(net)
    device = folded.fc.weight.device
    if precision == "int8":
        if device.type != "cpu" or "onednn" not in torch.backends.quantized.supported_engines:
            raise ValueError(f"`precision` (='int8') is for x86 processors, and the network is on {device}")
        if calibration is None:
            raise ValueError("`precision` (='int8') needs `calibration`: normalised images [N, 3, S, S]")
        return _quantise(folded, calibration)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        return _Network(folded, lambda name, convolution: _Float(convolution, dtype))
    return _Plain(folded.to(dtype), dtype)


class _Plain:
    """The folded network as torch runs it, on a GPU for one."""

    def __init__(self, folded: VotingResNet18, dtype: torch.dtype) -> None:
        self._folded, self._dtype = folded, dtype

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self._folded(images.to(self._dtype, memory_format=torch.channels_last)).float()


class _Network:
    """The folded network with its convolutions replaced; between them is whatever they understand."""

    def __init__(self, folded: VotingResNet18, replaced: Callable[[str, nn.Conv2d], _Convolution]) -> None:
        made = {name: replaced(name, m) for name, m in folded.named_modules() if isinstance(m, nn.Conv2d)}
        self._stem = made["conv1"]
        self._stages = [
            [
                (made[f"{stage}.{i}.conv1"], made[f"{stage}.{i}.conv2"], made.get(f"{stage}.{i}.downsample.0"))
                for i in range(len(getattr(folded, stage)))
            ]
            for stage in STAGES
        ]
        self._crops_after = SPLITS[folded.split]
        self._fc = folded.fc

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        x: Any = images.contiguous(memory_format=torch.channels_last)
        if self._crops_after == 0:
            x = _crop(x)
        x = self._stem(x, relu=True)
        for stages_done, blocks in enumerate(self._stages, start=1):
            for first, second, shortcut in blocks:
                y = first(x, relu=True)
                x = second.add(y, x if shortcut is None else shortcut(x, relu=False))
            if stages_done == self._crops_after:
                x = _crop(x)
        features = (x.dequantised() if isinstance(x, _Map8) else x).mean((2, 3), dtype=torch.float32)
        return self._fc(features).unflatten(0, (len(images), -1))


_Arguments = tuple[Any, ...]


def _crop(x: Any) -> Any:
    return replace(x, levels=_crop(x.levels)) if isinstance(x, _Map8) else ten_crops(x).flatten(0, 1)


class _Convolution(Protocol):
    """What `_Network` needs of a convolution."""

    def __call__(self, x: Any, relu: bool) -> Any:
        """The convolution with its bias, and with ReLU or without."""

    def add(self, x: Any, shortcut: Any) -> Any:
        """ReLU of the convolution plus the shortcut, whose memory it may take."""


# float32 and bfloat16 ---------------------------------------------------------------------------------------------


class _Float:
    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        assert convolution.bias is not None  # BatchNorm's
        self._weight, self._bias = convolution.weight.to(dtype), convolution.bias.to(dtype)
        self._where = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self._packed: Tensor | None = None

    def __call__(self, x: Tensor, relu: bool) -> Tensor:
        x = x.to(self._weight.dtype)
        after: _Arguments = ("relu" if relu else "none", [], "")
        return torch.ops.mkldnn._convolution_pointwise(x, self._pack(x), self._bias, *self._where, *after)

    def add(self, x: Tensor, shortcut: Tensor) -> Tensor:
        after: _Arguments = ("add", None, "relu", [], None)
        convolve_into = torch.ops.mkldnn._convolution_pointwise_.binary
        return convolve_into(shortcut, x, self._pack(x), self._bias, *self._where, *after)

    def _pack(self, x: Tensor) -> Tensor:
        """The weights in the order that suits the first batch best, and any other well."""
        if self._packed is None:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = reorder(self._weight, *self._where, list(x.shape))
        return self._packed


# int8 -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Map8:
    """A map in 8 bits: a number is `scale * (level - zero)`."""

    levels: Tensor
    """uint8"""
    scale: float
    zero: int

    def dequantised(self) -> Tensor:
        return (self.levels.float() - self.zero) * self.scale


class _Int8:
    """Weights as whole numbers -127 to 127 with a scale for each output channel, maps as `_Map8`."""

    def __init__(self, convolution: nn.Conv2d, peak: float) -> None:
        self._scales = convolution.weight.abs().amax((1, 2, 3)).clamp_(min=torch.finfo(torch.float32).tiny) / 127
        self._weight = (convolution.weight / self._scales[:, None, None, None]).round().to(torch.int8)
        self._zeros = torch.zeros(len(self._scales), dtype=torch.int32)
        self._bias, self._peak = convolution.bias, peak
        self._where = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
        self._packed: Tensor | None = None

    def __call__(self, x: _Map8, relu: bool) -> _Map8:
        scale, zero = (self._peak / 255, 0) if relu else (self._peak / 127, 128)
        after: _Arguments = (scale, zero, torch.uint8, "relu" if relu else "none", [], "")
        convolve = torch.ops.onednn.qconv_pointwise
        return _Map8(convolve(*self._operands(x), self._bias, *self._where, *after), scale, zero)

    def add(self, x: _Map8, shortcut: _Map8) -> _Map8:
        scale = self._peak / 255
        after: _Arguments = (scale, 0, torch.uint8, shortcut.scale, shortcut.zero, "sum", 1.0, "relu", [], "")
        convolve_into = torch.ops.onednn.qconv2d_pointwise.binary
        levels = convolve_into(*self._operands(x), shortcut.levels, self._bias, *self._where, *after)
        return _Map8(levels, scale, 0)

    def _operands(self, x: _Map8) -> _Arguments:
        if self._packed is None:
            prepack = torch.ops.onednn.qconv_prepack
            self._packed = prepack(self._weight, self._scales, x.scale, x.zero, *self._where, list(x.levels.shape))
        return x.levels, x.scale, x.zero, self._packed, self._scales, self._zeros


class _Stem8(_Float):
    """The first convolution in float32, its output in 8 bits: with three channels it costs next to nothing."""

    def __init__(self, convolution: nn.Conv2d, peak: float) -> None:
        super().__init__(convolution, torch.float32)
        self._scale = peak / 255

    def __call__(self, x: Tensor, relu: bool) -> Any:
        levels = super().__call__(x, relu).mul_(1 / self._scale).round_().clamp_(max=255)
        return _Map8(levels.to(torch.uint8), self._scale, 0)


class _Observed(_Float):
    """Remembers the largest magnitude that it gave."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution, torch.float32)
        self.peak = 1e-6  # so that there is a scale even where all is 0

    def __call__(self, x: Tensor, relu: bool) -> Tensor:
        return self._observe(super().__call__(x, relu))

    def add(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return self._observe(super().add(x, shortcut))

    def _observe(self, y: Tensor) -> Tensor:
        self.peak = max(self.peak, y.abs().amax().item())
        return y


def _quantise(folded: VotingResNet18, calibration: Tensor) -> _Network:
    observed = {name: _Observed(m) for name, m in folded.named_modules() if isinstance(m, nn.Conv2d)}
    watched = _Network(folded, lambda name, convolution: observed[name])
    for images in calibration.split(CALIBRATION_BATCH):
        watched(images)

    def quantised(name: str, convolution: nn.Conv2d) -> _Convolution:
        peak = observed[name].peak
        return _Stem8(convolution, peak) if name == "conv1" else _Int8(convolution, peak)

    return _Network(folded, quantised)
