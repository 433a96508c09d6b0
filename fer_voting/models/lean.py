"""Recomputation of cheap activations in the backward pass, so that training needs less memory than Table 2.

The memory of a residual network is its activations: the output of each convolution, and what BatchNorm, the shortcut
sum, ReLU and the crops make of it, which the next convolution saves for its gradient. Only the convolutions' outputs
are expensive to compute. `Recomputations` saves these and replaces the others by functions that compute them again
when the backward pass first needs them, by autograd's hooks for saved tensors. No operation of the forward pass runs
twice in the forward pass (so BatchNorm's running statistics are updated once), and losses and gradients are equal bit
for bit where the operations are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


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


class Recomputations:
    """The discarded tensors of one forward pass; a context manager around that pass.

    Within it, `discard` marks a tensor that autograd shall not save, and `getter` returns a function for the backward
    pass that returns a tensor. Outside of it, without gradients, and under `torch.compile`, which chooses itself what
    to recompute, both have no effect.
    """

    def __init__(self) -> None:
        self._hooks: Any = None
        # Keyed by the address of the storage, which an operation's input, its in-place output and their views share.
        # The weak reference detects an address that was freed and then allocated to another tensor.
        self._by_address: dict[int, tuple[StorageWeakRef, Recomputation]] = {}

    def __enter__(self) -> Recomputations:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
            self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._hooks is not None:
            self._hooks.__exit__(*error)
            self._hooks = None
        self._by_address.clear()  # from here on, only the autograd graph refers to the recomputations

    def discard(self, tensor: Tensor, compute: Callable[[], Tensor]) -> None:
        """Make autograd save `compute` instead of the storage of `tensor`, from now on.

        Args:
            compute: returns, in the backward pass, what the storage holds when an operation saves it. Everything that
                it reads must come from `getter`.
        """
        if self._hooks is not None:
            storage = tensor.untyped_storage()
            self._by_address[storage.data_ptr()] = (StorageWeakRef(storage), Recomputation(compute))

    def getter(self, tensor: Tensor) -> Callable[[], Tensor]:
        """A function that returns `tensor` in the backward pass: its recomputation, or the tensor itself, kept."""
        recomputation = None if self._hooks is None else self._find(tensor)
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
