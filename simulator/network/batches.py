"""What a model is run on: tensors, or a stream of batches, in parts of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from simulator.errors import InputError


def fixed_batch(model: nn.Module) -> int | None:
    """Return how many samples a network takes at a time, neither more nor less; None for any number.

    A network says so by an attribute of this name, as those do whose file fixes the first axis of their inputs.
    """
    size = getattr(model, "fixed_batch", None)
    return size if isinstance(size, int) else None


@dataclass(frozen=True)
class Batch:
    """The arguments of one forward pass, samples along the first axis of each tensor, and their labels.

    Args:
        args, kwargs: positional and keyword arguments, at least one in all. labels: of the same samples, or None.
    """

    args: tuple[Tensor, ...]
    kwargs: Mapping[str, Tensor]
    labels: Tensor | None

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.args[0] if self.args else next(iter(self.kwargs.values())))

    def part(self, first: int, end: int) -> Batch:
        """Return the samples from `first` to before `end`."""
        return Batch(
            tuple(x[first:end] for x in self.args),
            {name: x[first:end] for name, x in self.kwargs.items()},
            None if self.labels is None else self.labels[first:end],
        )

    def copy(self) -> Batch:
        """Return copies of the arguments, for a pass that may change them, with the same labels."""
        kwargs = {name: x.clone() for name, x in self.kwargs.items()}
        return Batch(tuple(x.clone() for x in self.args), kwargs, self.labels)

    def parts(self, size: int) -> Iterator[Batch]:
        """Yield all samples in parts of at most `size`."""
        for first in range(0, self.samples, size):
            yield self.part(first, first + size)


class Batches:
    """Data in one pass; of an iterable no more is held than the batch that is read.

    Args:
        x: a tensor; a tuple of tensors, which are positional arguments; a mapping of tensors, which are keyword
            arguments; or any other iterable, of batches: each a tensor, a mapping, or (x, y) in a tuple or list, where
            x may also be a tuple or list of positional arguments. A list of one holds an x without labels.
        y: labels; those of an iterable come with its batches.
    Attributes:
        total: how many samples there are; None if only the end of the data tells.
        expected: how many there are if all batches are like the first; None without a length.
    Raises:
        InputError: data of another kind, of unequal lengths, or without a sample, when it is read.
    """

    def __init__(self, x: Any, y: Tensor | None = None) -> None:
        self.total = self.expected = None
        self._rest: Iterator[Any] = iter(())
        if isinstance(x, Tensor | tuple | Mapping):
            self._first: Batch | None = _batch(x, y)
            self.total = self.expected = self._first.samples
            return
        if not isinstance(x, Iterable) or isinstance(x, str | bytes) or hasattr(x, "__array__"):
            raise InputError(
                f"x: got {type(x).__name__}; expected a tensor, a tuple or mapping of tensors, or an iterable of "
                "batches; make an array a tensor with torch.from_numpy"
            )
        if y is not None:
            raise InputError("y: got labels beside an iterable of batches; expected (x, y) in each; put them there")
        self._rest = iter(x)
        for batch in self._rest:
            self._first = _unpack(batch)
            break
        else:
            raise InputError("x: an iterable without a batch; expected at least one; a generator can be read only once")
        if isinstance(x, Sized):
            self.expected = len(x) * self._first.samples

    def head(self, size: int) -> Batch:
        """Return at most `size` samples from the first batch; before `parts` is called."""
        assert self._first is not None
        return self._first.part(0, size)

    def parts(self, size: int) -> Iterator[Batch]:
        """Yield all of the data in parts of at most `size` samples, once."""
        batch, self._first = self._first, None
        assert batch is not None
        labelled, number = batch.labels is not None, 0
        while batch is not None:
            yield from batch.parts(size)
            batch = None  # gone before the next one is read
            for following in self._rest:
                batch, number = _unpack(following), number + 1
                if (batch.labels is not None) != labelled:
                    now, before = ("no labels", "labels") if labelled else ("labels", "no labels")
                    raise InputError(
                        f"x: batch {number} (counted from 0) has {now}, and those before it have {before}; expected "
                        "labels in all batches or in none; give them to all, or leave them out"
                    )
                break


def _unpack(batch: Any) -> Batch:
    """Read a batch of an iterable."""
    if isinstance(batch, Tensor | Mapping):
        return _batch(batch, None)
    if not isinstance(batch, tuple | list) or len(batch) not in (1, 2):
        what = f"{len(batch)} things" if isinstance(batch, tuple | list) else type(batch).__name__
        raise InputError(
            f"x: a batch of {what}; expected x or (x, y); put several inputs in a tuple or mapping, as in ((a, b), y)"
        )
    return _batch(batch[0], batch[1] if len(batch) == 2 else None)


def _batch(x: Any, y: Any) -> Batch:
    args = (x,) if isinstance(x, Tensor) else tuple(x) if isinstance(x, tuple | list) else ()
    kwargs = dict(x) if isinstance(x, Mapping) else {}
    named = {**{f"x[{i}]" if len(args) > 1 else "x": value for i, value in enumerate(args)}, **kwargs}
    if not named:
        raise InputError(f"x: got {type(x).__name__} {x!r:.40}; expected a tensor, or several in a tuple or mapping")
    if y is not None:
        named["y"] = y
    sizes = {}
    for name, value in named.items():
        if not isinstance(value, Tensor) or not value.dim():
            what = "a tensor without axes" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{name}: got {what}; expected a tensor with samples along its first axis; give one")
        sizes[name] = len(value)
    if len(set(sizes.values())) > 1 or not min(sizes.values()):
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(
            f"x: samples along the first axes: {shown}; expected the same number, at least one; correct them"
        )
    return Batch(args, kwargs, y)
