"""The last layer of a network: which one it is, and its logits in float32 whatever the precision of the rest.

bfloat16 has 8 significant bits: the two highest logits would be equal in one or two of a thousand images, and the first
class would win. The layer is a thousandth of the arithmetic.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def find_last_layer(net: nn.Module, num_classes: int) -> str:
    """Name, as in the state_dict, of the last layer: the last linear one, or convolution, with K outputs.

    Raises ValueError if there is none.
    """
    backbone = getattr(net, "backbone", net)  # a state_dict of a `VotingNetwork` is its backbone's
    if not (heads := _heads(backbone, num_classes)):
        raise ValueError(f"the {type(backbone).__name__} has no linear layer or convolution with {num_classes} outputs")
    return heads[-1]


def _heads(net: nn.Module, num_classes: int) -> list[str]:
    return [
        name
        for name, module in net.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == num_classes)
        or (isinstance(module, nn.Conv2d) and module.out_channels == num_classes)
    ]


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 from inputs and weights of half precision too, also under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with _without_autocast(x):
            return F.linear(*_at_least_float32(x, self.weight, self.bias))


class Float32Conv2d(nn.Conv2d):
    """The same for a convolution, with zeros as its padding."""

    def forward(self, x: Tensor) -> Tensor:
        with _without_autocast(x):
            tensors = _at_least_float32(x, self.weight, self.bias)
            return F.conv2d(*tensors, self.stride, self.padding, self.dilation, self.groups)


def compute_logits_in_float32(net: nn.Module, num_classes: int, linear: type[nn.Linear] = nn.Linear) -> None:
    """Replace the last layer of `net` by one that computes in float32, with the same parameters under their names.

    A layer of another class than `linear` and `Conv2d`, which may compute something else, stays as it is.
    """
    for name in _heads(net, num_classes)[-1:]:
        layer = net.get_submodule(name)
        new: nn.Linear | nn.Conv2d
        if type(layer) is linear:
            new = Float32Linear(layer.in_features, layer.out_features, device="meta")
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
            new = Float32Conv2d(**{each: getattr(layer, each) for each in names}, device="meta")
        else:
            continue
        new.weight, new.bias = layer.weight, layer.bias
        net.set_submodule(name, new.train(layer.training))


def _without_autocast(x: Tensor) -> contextlib.AbstractContextManager[None]:
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):  # exports never see the context
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def _at_least_float32(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
