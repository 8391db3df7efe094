"""Where noise is kept: one buffer for each memory of tensors, so that all views of it share its noise."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from simulator.errors import InputError

from .labels import working


class _Entry:
    """Noise of one memory.

    Args:
        reference: to the memory; it must live as long as the entry does. buffers: by number, an amplitude for each
            element of the memory; None: all are exact. itemsize: bytes of an element.
    """

    __slots__ = ("buffers", "itemsize", "reference")

    def __init__(self, reference: Any, count: int, itemsize: int) -> None:
        self.reference, self.itemsize = reference, itemsize
        self.buffers: list[Tensor | None] = [None] * count


class Table:
    """Amplitudes of noise by tensor, for so many numbers; what has no entry is exact.

    A view, a tensor without its graph, or what autograd saved of it, is the same memory and has the same noise. An
    entry holds no tensor but its own and goes with the memory that it is about, without the garbage collector.

    Args:
        count: of the numbers kept.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Memory of all noise, in bytes."""
        return sum(b.numel() * b.itemsize for e in self._entries.values() for b in e.buffers if b is not None)

    def clear(self) -> None:
        """Declare all values exact."""
        self._entries.clear()

    def get(self, x: Tensor) -> tuple[Tensor | None, ...]:
        """Return the noise of a tensor, of its shape, or None where all of it is exact; to be read only.

        Raises:
            InputError: a memory now read as elements of another size.
        """
        entry = self._entries.get(x.untyped_storage()._cdata)
        if entry is None:
            return (None,) * self.count
        if entry.itemsize != x.itemsize:
            raise InputError(
                f"track: a tensor is read as {x.dtype} whose memory was written with elements of {entry.itemsize} "
                "bytes: its noise is not known; expected one size of elements; copy with .to() instead of .view(dtype)"
            )
        return tuple(None if buffer is None else _as(x, buffer) for buffer in entry.buffers)

    def put(self, x: Tensor, noise: tuple[Tensor | None, ...]) -> None:
        """Set the noise of a tensor, and so of that part of its memory."""
        storage = x.untyped_storage()
        entry = self._entries.get(storage._cdata)
        if entry is None:
            if all(part is None for part in noise):
                return
            key, entries = storage._cdata, self._entries
            entry = _Entry(weakref.ref(storage, lambda _: entries.pop(key, None)), self.count, x.itemsize)
            entries[key] = entry
        size = storage.nbytes() // x.itemsize
        for i, part in enumerate(noise):
            entry.buffers[i] = _written(x, size, entry.buffers[i], part)
        entry.itemsize = x.itemsize


def _as(x: Tensor, buffer: Tensor) -> Tensor:
    if buffer.numel() == x.numel() and x.is_contiguous():
        return buffer.view(x.shape)
    return buffer.as_strided(x.size(), x.stride(), x.storage_offset())


def _written(x: Tensor, size: int, buffer: Tensor | None, noise: Tensor | None) -> Tensor | None:
    """Return the buffer of a memory of so many elements, with the noise of a tensor in its place."""
    whole = x.numel() == size
    if noise is None:
        if buffer is None or whole:
            return None
        buffer = buffer.clone()  # another memory may have the same noise
        _as(x, buffer).zero_()
        return buffer
    if whole and x.is_contiguous():
        return noise.expand(x.shape).contiguous().view(-1)
    if buffer is None or buffer.numel() != size:
        buffer = torch.zeros(size, dtype=working(x.dtype))
    elif not whole:
        buffer = buffer.clone()
    _as(x, buffer).copy_(noise)
    return buffer
