"""The cost of a network: multiply-accumulates, and the memory of a forward pass (paper, Table 2)."""

import copy
import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode  # the path that PyTorch's notes on extending it give
from torch.utils.flop_counter import FlopCounterMode

MIB = 2**20

BATCHNORM_OPERATIONS = 4
"""Operations an element that the paper's count gives BatchNorm; ReLU, sums and pooling are not counted."""


def count_parameters(net: nn.Module) -> int:
    """Number of scalars in the parameters, whether a training changes them or not."""
    return sum(p.numel() for p in net.parameters())


def count_gmacs(net: nn.Module, image_size: int) -> float:
    """Giga multiply-accumulates of one image `[3, image_size, image_size]`, counted as the paper's "GFLOPs".

    Multiply-accumulates of the convolutions and linear layers, plus four operations per BatchNorm element: by the
    functions that run, whatever class a layer has (`trainer.sync_batchnorm` leaves another than it found).
    `count_torch_gmacs` also has the products of attention, which the paper's network does not have.
    Runs on the meta device: nothing is computed, and `net` is left as it is.
    """
    net = copy.deepcopy(net).to("meta").eval()
    with torch.no_grad(), BatchNormShapes(), _Operations() as operations:
        net(torch.empty(1, 3, image_size, image_size, device="meta"))
    return operations.count / 1e9


class BatchNormShapes(TorchFunctionMode):
    """Within this context BatchNorm on the meta device only gives an output of its input's shape.

    torch's own takes a millisecond, most of the time of a pass there. An input of other channels than the layer's is
    left to torch, which refuses it.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.batch_norm:
            images, mean = args[:2]
            if images.is_meta and mean is not None and mean.shape == images.shape[1:2]:
                return torch.empty_like(images)
        return function(*args, **(kwargs or {}))


class _Operations(TorchFunctionMode):
    """Counts the operations of the functions that are called within this context, as `count_gmacs` says."""

    count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if function in (torch.conv2d, F.linear):
            weight = args[1]
            self.count += output.numel() * weight[0].numel()  # channels in (of the group) x kernel
        elif function is F.batch_norm:
            self.count += output.numel() * BATCHNORM_OPERATIONS
        return output


def count_torch_gmacs(net: nn.Module, image_size: int) -> float:
    """Giga multiply-accumulates of one image, by torch's own counter: of convolutions, matrix products and attention,
    whatever module they are in; nothing else. On the meta device, as `count_gmacs`."""
    net = copy.deepcopy(net).to("meta").eval()
    with torch.no_grad(), BatchNormShapes(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, image_size, image_size, device="meta"))
    return counter.get_total_flops() / 2 / 1e9


def forward_mib_per_image(net: nn.Module, images: Tensor) -> float:
    """MiB an image that a training-mode forward pass of `images` `[B, 3, H, W]` leaves allocated, input included.

    The paper's measure: `torch.cuda.memory_allocated` after and before the pass. Elsewhere the same, counted by hand:
    the tensors made during the pass that still live after it, because autograd keeps them or they are the result.
    Under the caller's autocast, if there is one.

    Works on a copy: `net`'s BatchNorm statistics, gradients and mode stay as they are. Random numbers are drawn
    under a fork of the generator.
    """
    net = copy.deepcopy(net).train()
    with torch.random.fork_rng(), torch.enable_grad():
        total = _cuda_bytes(net, images) if images.is_cuda else _living_bytes(net, images)
    return total / MIB / len(images)


def _cuda_bytes(net: nn.Module, images: Tensor) -> int:
    # The first pass of a process allocates workspaces of cuBLAS and cuDNN, which are no part of the network's.
    net(images)
    torch.cuda.synchronize(images.device)
    before = torch.cuda.memory_allocated(images.device)
    logits = net(images.clone())
    torch.cuda.synchronize(images.device)
    total = torch.cuda.memory_allocated(images.device) - before
    del logits
    return total


def _living_bytes(net: nn.Module, images: Tensor) -> int:
    # Not `saved_tensors_hooks`, which would name what autograd keeps: only the innermost hooks see a tensor, and a
    # lean network has its own.
    with _Allocations() as allocations:
        logits = net(images.clone())
    parameters = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    total = sum(nbytes for address, nbytes in allocations.living() if address not in parameters)
    del logits
    return total


class _Allocations(TorchDispatchMode):
    """The storages of all tensors that operations within this context return."""

    def __init__(self) -> None:
        super().__init__()
        self._by_address: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                # Whatever was at this address before is gone.
                self._by_address[storage.data_ptr()] = (weakref.ref(storage), storage.nbytes())
        return result

    def living(self) -> list[tuple[int, int]]:
        """(address, bytes) of those that are still there."""
        return [(at, nbytes) for at, (storage, nbytes) in self._by_address.items() if storage() is not None]
