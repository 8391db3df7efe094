"""Where noise is kept: one buffer for each memory of tensors, so that all views of it share its noise."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor

from simulator.errors import InputError

from .labels import working

_FEW = 4  # tensors seen of a memory, from which on those that are gone are looked for


class _Entry:
    """Noise of one memory.

    Args:
        reference: to the memory; it must live as long as the entry does. buffers: by number, an amplitude for each
            element of the memory; None: all are exact. dtype: of an element.
        seen: tensors that are this memory. left: those that were there when the block was left, and their versions;
            empty within it. stale: whether one was written to since.
    """

    __slots__ = ("buffers", "dtype", "left", "reference", "seen", "stale")

    def __init__(self, reference: Any, count: int, dtype: torch.dtype) -> None:
        self.reference, self.dtype, self.stale = reference, dtype, False
        self.buffers: list[Tensor | None] = [None] * count
        self.seen: list[weakref.ref[Tensor]] = []
        self.left: list[tuple[weakref.ref[Tensor], int]] = []

    def see(self, x: Tensor) -> None:
        """Keep a tensor in mind that is this memory."""
        for known in self.seen:
            if known() is x:
                return
        if len(self.seen) >= _FEW:
            self.seen = [known for known in self.seen if known() is not None]
        self.seen.append(weakref.ref(x))

    def leave(self) -> None:
        """Note the versions of all tensors that are this memory, each of which counts writes to it."""
        alive = [(known, x) for known in self.seen if (x := known()) is not None]
        self.left = [(known, x._version) for known, x in alive if not x.is_inference()]

    def written_since(self) -> bool:
        """Whether the memory was written to since `leave`."""
        return any((x := known()) is not None and x._version != version for known, version in self.left)


class Table:
    """Amplitudes of noise by tensor, for so many numbers; what has no entry is exact.

    A view, a tensor without its graph, or what autograd saved of it, is the same memory and has the same noise. An
    entry holds no tensor but its own and goes with the memory that it is about, without the garbage collector.

    Within a block all writes are seen. Between blocks they are not, but torch counts them, in the version that a tensor
    shares with its views; of an entry whose count has changed the noise is not known. Tensors of inference mode have no
    such count, and what is written through `.data` is not counted.

    Args:
        count: of the numbers kept.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._entries: dict[int, _Entry] = {}
        self._within = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Memory of all noise, in bytes."""
        return sum(b.numel() * b.itemsize for e in self._entries.values() for b in e.buffers if b is not None)

    def enter(self) -> None:
        """Begin a block, in which all writes are seen."""
        self._within = True
        for entry in self._entries.values():
            entry.stale = entry.stale or entry.written_since()
            entry.left = []

    def leave(self) -> None:
        """End it."""
        self._within = False
        for entry in self._entries.values():
            entry.leave()

    def clear(self) -> None:
        """Declare all values exact."""
        self._entries.clear()

    def see(self, x: Tensor) -> None:
        """Keep in mind that a tensor is a memory of the table, if it is."""
        entry = self._entries.get(x.untyped_storage()._cdata)
        if entry is not None:
            entry.see(x)

    def get(self, x: Tensor) -> tuple[Tensor | None, ...]:
        """Return the noise of a tensor, of its shape, or None where all of it is exact; to be read only.

        A memory that is read in another type than it was written in is not known: infinite.

        Raises:
            InputError: it was written to outside of the block.
        """
        entry = self._entries.get(x.untyped_storage()._cdata)
        if entry is None:
            return (None,) * self.count
        if entry.stale or (entry.left and entry.written_since()):
            raise InputError(
                f"track: a tensor of shape {tuple(x.shape)} was written to outside of the block, after its noise was "
                "found: it is not known any more; expected writes within the block; write there, or say with "
                "declare() how far it is off, or call restart_exact()"
            )
        if self._within:
            entry.see(x)
        if entry.dtype != x.dtype:
            return (torch.full((), math.inf).expand(x.shape),) * self.count
        size = x.untyped_storage().nbytes() // x.itemsize
        return tuple(None if buffer is None else _as(x, _grown(buffer, size)) for buffer in entry.buffers)

    def carry(self, x: Tensor, source: Tensor) -> bool:
        """Give a memory the noise of another one, if both are taken as bytes, as copies of storages take them; return
        whether they are.
        """
        entry = self._entries.get(source.untyped_storage()._cdata)
        if entry is None or x.itemsize != 1 or x.dtype != source.dtype or entry.dtype == source.dtype:
            return False
        if x.numel() != x.untyped_storage().nbytes() or source.numel() != source.untyped_storage().nbytes():
            return False
        copied = self._entry(x)
        copied.buffers, copied.dtype, copied.stale = list(entry.buffers), entry.dtype, entry.stale
        return True

    def _entry(self, x: Tensor) -> _Entry:
        """Return the entry of the memory of a tensor, a new one if it has none."""
        storage = x.untyped_storage()
        key, entries = storage._cdata, self._entries
        if key not in entries:
            entries[key] = _Entry(weakref.ref(storage, lambda _: entries.pop(key, None)), self.count, x.dtype)
        return entries[key]

    def put(self, x: Tensor, noise: tuple[Tensor | None, ...]) -> None:
        """Set the noise of a tensor, and so of that part of its memory."""
        storage = x.untyped_storage()
        size = storage.nbytes() // x.itemsize
        entry = self._entries.get(storage._cdata)
        whole = _covers(x, size)
        if all(part is None for part in noise) and (entry is None or whole):
            self._entries.pop(storage._cdata, None)
            return
        entry = self._entry(x)
        if entry.dtype != x.dtype and not whole:
            entry.buffers = [torch.full((size,), math.inf, dtype=working(x.dtype)) for _ in noise]
        for i, part in enumerate(noise):
            entry.buffers[i] = _written(x, size, entry.buffers[i], part, whole)
        entry.dtype = x.dtype
        entry.see(x)
        entry.stale = entry.stale and not whole
        if not self._within and not entry.stale:
            entry.leave()


def _as(x: Tensor, buffer: Tensor) -> Tensor:
    if buffer.numel() == x.numel() and x.is_contiguous():
        return buffer.view(x.shape)
    return buffer.as_strided(x.size(), x.stride(), x.storage_offset())


def _grown(buffer: Tensor, size: int) -> Tensor:
    """Return the buffer of a memory that has grown to so many elements since: what is new is not known."""
    if buffer.numel() >= size:
        return buffer
    return torch.cat([buffer, torch.full((size - buffer.numel(),), math.inf, dtype=buffer.dtype)])


def _covers(x: Tensor, size: int) -> bool:
    """Whether a tensor is all of a memory of so many elements."""
    return x.numel() == size and (x.is_contiguous() or 0 not in x.stride())


def _written(x: Tensor, size: int, buffer: Tensor | None, noise: Tensor | None, whole: bool) -> Tensor | None:
    """Return the buffer of a memory of so many elements, with the noise of a tensor in its place."""
    if noise is None and (buffer is None or whole):
        return None
    if whole and x.is_contiguous():
        assert noise is not None
        return noise.expand(x.shape).contiguous().view(-1)
    # A new one, for another memory may have the same noise.
    buffer = torch.zeros(size, dtype=working(x.dtype)) if whole or buffer is None else _grown(buffer, size).clone()
    if noise is None:
        _as(x, buffer).zero_()
    else:
        _as(x, buffer).copy_(noise)
    return buffer
