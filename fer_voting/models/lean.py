"""Recomputation of cheap activations in the backward pass, so that training needs less memory than Table 2.

The memory of a residual network is its activations: the output of each convolution, and what BatchNorm, the shortcut
sum, ReLU and the crops make of it, which the next convolution saves for its gradient. Only the convolutions' outputs
are expensive to compute. Around a forward pass, `Recomputations` watches the functions that the network calls. It
replaces the outputs of the cheap ones by functions that compute them again when the backward pass first needs them, by
autograd's hooks for saved tensors. No function runs twice in the forward pass (so BatchNorm's running statistics are
updated once), and losses and gradients are equal bit for bit where the operations are deterministic.

`torch.utils.checkpoint` recomputes blocks: it keeps each block's input besides the convolutions' outputs, which is
nearly twice the memory, and updates running statistics twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

LEAN_AND_SYNC_BATCHNORM = (
    "model.memory=lean cannot be trained with trainer.sync_batchnorm=true: the backward pass would recompute with the "
    "statistics of one process what the forward pass normalised with those of all; choose model.memory=paper or "
    "trainer.sync_batchnorm=false"
)
"""The message with which `VotingResNet18` and the training refuse both."""


class Recomputation:
    """Returns one discarded tensor when called. It is computed once and kept until its last reader has read it."""

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._compute = compute
        self._value: Tensor | None = None
        self._readers = 0

    def __call__(self) -> Tensor:
        if self._value is not None:
            return self._value
        with torch.no_grad():
            value = self._compute()
        if self._readers > 0:
            self._value = value
        return value

    def pack(self) -> Recomputation:
        """Itself, with one reader more: what autograd saves instead of the tensor."""
        self._readers += 1
        return self

    def unpack(self) -> Tensor:
        """The tensor, with one reader less."""
        value = self()
        self._readers -= 1
        if self._readers <= 0:
            self._value = None
        return value


class Recomputations(TorchFunctionMode):
    """The discarded tensors of one forward pass; a context manager around that pass.

    Discards the outputs of BatchNorm, of in-place sums and ReLUs that follow, and of 1x1 convolutions with a stride.
    """

    def __init__(self) -> None:
        super().__init__()
        # Keyed by the address of the storage, which an operation's input, its in-place output and their views share.
        # The weak reference detects an address that was freed and then allocated to another tensor.
        self._by_address: dict[int, tuple[StorageWeakRef, Recomputation]] = {}
        self._hooks: Any = None

    def __enter__(self) -> Recomputations:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        self._hooks.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        self._hooks = None
        self._by_address.clear()  # from here on, only the autograd graph refers to the recomputations

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.batch_norm:
            get_input = self.getter(args[0])
            output = function(*args, **kwargs)
            # In training mode without the running statistics, which are updated once.
            statistics = (None, None) if kwargs["training"] else args[1:3]
            self.discard(output, lambda: function(get_input(), *statistics, **kwargs))
            return output
        if function is torch.conv2d and args[1].shape[2:] == (1, 1) and args[3] != (1, 1):
            # On every fourth pixel: 1.5 % of the network's arithmetic, but a fifth of the outputs' memory.
            get_input, weight, *others = self.getter(args[0]), *args[1:]
            output = function(*args, **kwargs)
            dtype = output.dtype  # autocast, which casts the weight, is off in the backward pass
            self.discard(output, lambda: function(get_input(), weight.to(dtype), *others))
            return output
        in_place = function is Tensor.add_ or (function is F.relu and kwargs.get("inplace"))
        if in_place:
            before = self._find(args[0])
            if before is not None:  # marked before the call, which itself may save its output
                getters: Any = [self.getter(operand) for operand in args[1:]]
                self.discard(args[0], lambda: function(before(), *(get() for get in getters), **kwargs))
        return function(*args, **kwargs)

    def run(self, function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
        """`function(tensor)`; within the context it is discarded, and computed again in the backward pass."""
        if self._hooks is None:
            return function(tensor)
        get_tensor = self.getter(tensor)
        output = function(tensor)
        self.discard(output, lambda: function(get_tensor()))
        return output

    def discard(self, tensor: Tensor, compute: Callable[[], Tensor]) -> None:
        """Make autograd save `compute` instead of the storage of `tensor`, from now on.

        Args:
            compute: returns, in the backward pass, what the storage holds when an operation saves it. Everything that
                it reads must come from `getter`.
        """
        storage = tensor.untyped_storage()
        self._by_address[storage.data_ptr()] = (StorageWeakRef(storage), Recomputation(compute))

    def getter(self, tensor: Tensor) -> Callable[[], Tensor]:
        """A function that returns `tensor` in the backward pass: its recomputation, or the tensor itself, kept."""
        recomputation = self._find(tensor)
        if recomputation is not None:
            return recomputation
        kept = tensor.detach()
        return lambda: kept

    def _find(self, tensor: Tensor) -> Recomputation | None:
        reference, recomputation = self._by_address.get(tensor.untyped_storage().data_ptr(), (None, None))
        return recomputation if reference is not None and not reference.expired() else None

    def _pack(self, tensor: Tensor) -> Tensor | Recomputation:
        recomputation = self._find(tensor)
        return tensor if recomputation is None else recomputation.pack()

    @staticmethod
    def _unpack(saved: Tensor | Recomputation) -> Tensor:
        return saved.unpack() if isinstance(saved, Recomputation) else saved
