"""Sets of tensors by the memory that they lie in, so that a view is the same as what it shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class Storages:
    """A set of memories, which goes without those that have been freed.

    What has no memory of its own in one piece, a sparse or nested tensor, is never in it.
    """

    def __init__(self) -> None:
        # By the address of a storage, which its weak reference keeps from being taken by another one.
        self._storages: dict[int, StorageWeakRef] = {}

    def __contains__(self, x: Tensor) -> bool:
        storage = self._storages.get(x.untyped_storage()._cdata) if plain(x) else None
        return storage is not None and not storage.expired()

    def add(self, x: Tensor) -> None:
        """Add the memory of a tensor."""
        if plain(x):
            storage = x.untyped_storage()
            self._storages[storage._cdata] = StorageWeakRef(storage)

    def discard(self, x: Tensor) -> None:
        """Take the memory of a tensor out, if it is there."""
        if plain(x):
            self._storages.pop(x.untyped_storage()._cdata, None)

    def clear(self) -> None:
        """Take all out."""
        self._storages.clear()

    def forget_freed(self) -> None:
        """Let go of the addresses of memories that have been freed."""
        self._storages = {at: storage for at, storage in self._storages.items() if not storage.expired()}


def plain(x: Tensor) -> bool:
    """Whether a tensor lies in one piece of memory, as neither sparse nor nested ones do."""
    return x.layout is torch.strided and not x.is_nested
