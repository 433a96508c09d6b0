"""Training in less memory than Table 2: of what is cheap to make again, autograd keeps the recipe.

A residual network's memory is its maps: each convolution's output, and what BatchNorm, the shortcut's sum, ReLU and
the crops make of it, which the next convolution keeps for its gradient. Only the convolutions' outputs are dear to
compute. `Recipes` puts a recipe in the place of the others, through autograd's hooks for saved tensors; the backward
pass makes each again when it first needs it. Every operation of the forward pass runs once (BatchNorm's statistics
too), and the numbers are the same to the last bit as long as the operations are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["Recipes"]


class Recipe:
    """One tensor that is not kept. Once made again, it stays until the last of its readers has had it."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make = make
        self._value: Tensor | None = None
        self._readers = 0

    def __call__(self) -> Tensor:
        if self._value is not None:
            return self._value
        with torch.no_grad():
            value = self._make()
        if self._readers > 0:
            self._value = value
        return value

    def pack(self) -> Recipe:
        self._readers += 1
        return self

    def unpack(self) -> Tensor:
        value = self()
        self._readers -= 1
        if self._readers <= 0:
            self._value = None
        return value


class Recipes:
    """The recipes of one forward pass; use it as a context around the pass.

    Within it, `instead_of` names a tensor that autograd shall not keep, and `again` says how to get a tensor in the
    backward pass. Outside of it, or without gradients, both leave everything as it is; also under `torch.compile`,
    which decides by itself what to make again.
    """

    def __init__(self) -> None:
        self._hooks: Any = None
        # By storage, which an operation's input, its output and their views share. An address can be taken by the
        # next tensor once the first is gone: the weak reference tells.
        self._by_address: dict[int, tuple[StorageWeakRef, Recipe]] = {}

    def __enter__(self) -> Recipes:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
            self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._hooks is not None:
            self._hooks.__exit__(*error)
            self._hooks = None
        self._by_address.clear()  # from here on, the graph alone holds the recipes

    def instead_of(self, tensor: Tensor, make: Callable[[], Tensor]) -> None:
        """From now on, autograd keeps `make` in the place of `tensor`'s storage.

        `make` must give, in the backward pass, what the storage holds when an operation saves it. It may hold
        the recipes and tensors that `again` gives.
        """
        if self._hooks is not None:
            storage = tensor.untyped_storage()
            self._by_address[storage.data_ptr()] = (StorageWeakRef(storage), Recipe(make))

    def again(self, tensor: Tensor) -> Callable[[], Tensor]:
        """How to get `tensor` in the backward pass: its recipe, or the tensor itself, kept."""
        recipe = None if self._hooks is None else self._find(tensor)
        if recipe is not None:
            return recipe
        kept = tensor.detach()
        return lambda: kept

    def _find(self, tensor: Tensor) -> Recipe | None:
        reference, recipe = self._by_address.get(tensor.untyped_storage().data_ptr(), (None, None))
        return recipe if reference is not None and not reference.expired() else None

    def _pack(self, tensor: Tensor) -> Tensor | Recipe:
        recipe = self._find(tensor)
        return tensor if recipe is None else recipe.pack()

    @staticmethod
    def _unpack(kept: Tensor | Recipe) -> Tensor:
        return kept.unpack() if isinstance(kept, Recipe) else kept
