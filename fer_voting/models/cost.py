"""What a network costs: multiply-accumulates, and the memory of a forward pass (paper, Table 2)."""

import copy

import torch
from torch import Tensor, nn

__all__ = ["MIB", "count_gmacs", "count_parameters", "forward_mib_per_image"]

MIB = 2**20

BATCHNORM_OPERATIONS = 4
"""Operations an element that the paper's count gives BatchNorm; ReLU, sums and pooling are not counted."""


def count_parameters(net: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def count_gmacs(net: nn.Module, image_size: int) -> float:
    """Giga multiply-accumulates of one image `[3, image_size, image_size]`, counted as the paper's "GFLOPs".

    Multiply-accumulates of the convolutions and the last layer, plus four operations per BatchNorm element.
    Runs on the meta device: nothing is computed, and `net` is left as it is.
    """
    net = copy.deepcopy(net).to("meta").eval()
    operations = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal operations
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()  # channels in (of the group) x kernel
            operations += output.numel() * fan_in
        elif isinstance(module, nn.Linear):
            operations += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d):
            operations += output.numel() * BATCHNORM_OPERATIONS

    for module in net.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.empty(1, 3, image_size, image_size, device="meta"))
    return operations / 1e9


def forward_mib_per_image(net: nn.Module, images: Tensor) -> float:
    """MiB an image that a training-mode forward pass of `images` `[B, 3, H, W]` leaves allocated.

    On CUDA the difference of `torch.cuda.memory_allocated` after and before the pass (the paper's measure, which
    counts the input too); elsewhere the storages that autograd keeps for the backward pass, and the input, each
    counted once and the parameters not at all. Under the caller's autocast, if there is one.

    Works on a copy: `net`'s BatchNorm statistics, gradients and mode stay as they are. Random numbers are drawn
    under a fork of the generator.
    """
    net = copy.deepcopy(net).train()
    with torch.random.fork_rng(), torch.enable_grad():
        total = _cuda_bytes(net, images) if images.is_cuda else _autograd_bytes(net, images)
    return total / MIB / len(images)


def _cuda_bytes(net: nn.Module, images: Tensor) -> int:
    # The first pass of a process allocates workspaces of cuBLAS and cuDNN, which are no part of the network's.
    net(images)
    torch.cuda.synchronize(images.device)
    before = torch.cuda.memory_allocated(images.device)
    copy_of_images = images.clone()
    logits = net(copy_of_images)
    torch.cuda.synchronize(images.device)
    total = torch.cuda.memory_allocated(images.device) - before
    del logits
    return total


def _autograd_bytes(net: nn.Module, images: Tensor) -> int:
    parameters = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, tuple[Tensor, int]] = {}  # storage address -> the tensor, held so that no address recurs

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    keep(images)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        keep(net(images))
    return sum(nbytes for _, nbytes in kept.values())
