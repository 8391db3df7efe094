"""What a model is run on: tensors, or a stream of batches, in parts of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simulator.errors import InputError


def fixed_batch(model: nn.Module) -> int | None:
    """Return how many samples a network takes at a time, neither more nor less; None for any number.

    A network says so by an attribute of this name, as those do whose file fixes the first axis of their inputs.
    """
    size = getattr(model, "fixed_batch", None)
    return size if isinstance(size, int) else None


def check_samples_first(model: nn.Module, place: str) -> None:
    """Refuse a network that does not have its samples along the first axis, where a run divides them.

    A network says so by an attribute `batch_elsewhere`, as one of an ONNX file does; whoever calls it with what it
    takes, such as a module around it, may do so all the same.

    Args:
        place: what would divide them, for the message.
    """
    elsewhere = getattr(model, "batch_elsewhere", None)
    if isinstance(elsewhere, str):
        raise InputError(
            f"{place}: {type(model).__name__} has its samples elsewhere: {elsewhere}; expected them along the first "
            "axis of every input; export it so (batch_first=True, and no states to begin with), or wrap it in a module "
            "that moves them there"
        )


def batch_of(model: nn.Module, asked: int | None, name: str, default: int) -> int:
    """Return how many samples a pass takes: the fixed number of a network, or what is asked for.

    Args:
        asked: for; None: nothing was. name: of what asks, for the message. default: where neither says.
    Raises:
        InputError: asked for another number than the fixed one.
    """
    fixed = fixed_batch(model)
    if fixed is not None and asked not in (None, fixed):
        raise InputError(
            f"{name}: got {asked}; expected {fixed}, as many samples as {type(model).__name__} takes at a time; leave "
            f"it out, or give {fixed}"
        )
    return fixed or (default if asked is None else asked)


def check_whole(model: nn.Module, samples: int, place: str, option: str = "") -> None:
    """Refuse a number of samples that fills no whole batches of a network of fixed ones.

    Args:
        place: what has them, for the message. option: that says how many there are, e.g. `--samples`, if one does.
    """
    at_once = fixed_batch(model) or 1
    if samples % at_once:
        whole = samples // at_once * at_once
        remedy = "more samples" if not whole else f"{option} {whole}" if option else f"{whole} of them"
        raise InputError(
            f"{place}: {samples} samples; expected a multiple of {at_once}, as many as {type(model).__name__} takes at "
            f"a time; give {remedy}"
        )


def in_whole_batches(model: nn.Module, rows: Tensor) -> Tensor:
    """Return rows of samples in order, with all others of the same batches where a network takes a fixed number."""
    size = fixed_batch(model)
    if size is None:
        return rows
    return ((rows // size).unique()[:, None] * size + torch.arange(size)).flatten()


def passes(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return the arguments of the forward passes that samples take: one, or several of a network of fixed batches.

    Args:
        args, kwargs: of all samples; those that are tensors have the samples along the first axis.
    Raises:
        InputError: they fill no whole batches.
    """
    size = fixed_batch(model)
    lengths = {len(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.dim()}
    if size is None or len(lengths) != 1:
        return [(args, dict(kwargs))]
    (samples,) = lengths
    check_whole(model, samples, "x")

    def part(x: Any, rows: slice) -> Any:
        return some(x, rows) if isinstance(x, Tensor) else x

    return [
        (
            tuple(part(x, slice(first, first + size)) for x in args),
            {name: part(x, slice(first, first + size)) for name, x in kwargs.items()},
        )
        for first in range(0, samples, size)
    ]


def some(x: Tensor, rows: Any) -> Tensor:
    """Return some samples of an input, or the whole of one without axes, which is the same for all samples."""
    return x[rows] if x.dim() else x


@dataclass(frozen=True)
class Batch:
    """The arguments of one forward pass, samples along the first axis of each tensor that has one, and their labels.

    Args:
        args, kwargs: positional and keyword arguments, at least one in all. labels: of the same samples, or None.
    """

    args: tuple[Tensor, ...]
    kwargs: Mapping[str, Tensor]
    labels: Tensor | None = None

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return next(len(x) for x in self.inputs.values() if x.dim())

    @property
    def inputs(self) -> dict[str, Tensor]:
        """All arguments by name, the positional ones as x, or x[0] and so on."""
        return {**{f"x[{i}]" if len(self.args) > 1 else "x": x for i, x in enumerate(self.args)}, **self.kwargs}

    def rows(self, rows: slice | Tensor) -> Batch:
        """Return some of the samples."""
        return Batch(
            tuple(some(x, rows) for x in self.args),
            {name: some(x, rows) for name, x in self.kwargs.items()},
            None if self.labels is None else self.labels[rows],
        )

    def part(self, first: int, end: int) -> Batch:
        """Return the samples from `first` to before `end`."""
        return self.rows(slice(first, end))

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
            arguments, those without axes the same for all samples; or any other iterable, of batches: each a tensor, a
            mapping, or (x, y) in a tuple or list, where x may also be a tuple or list of positional arguments. A list
            of one holds an x without labels.
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
            self._first: Batch | None = as_batch(x, y)
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
        return as_batch(batch, None)
    if not isinstance(batch, tuple | list) or len(batch) not in (1, 2):
        what = f"{len(batch)} things" if isinstance(batch, tuple | list) else type(batch).__name__
        raise InputError(
            f"x: a batch of {what}; expected x or (x, y); put several inputs in a tuple or mapping, as in ((a, b), y)"
        )
    return as_batch(batch[0], batch[1] if len(batch) == 2 else None)


def as_batch(x: Any, y: Any) -> Batch:
    """Return samples as a batch.

    Args:
        x: a tensor; several in a tuple or list, by position; or in a mapping, by name, of which those without axes are
            the same for all samples. y: their labels, or None.
    Raises:
        InputError: what is no such thing, or of unequal lengths.
    """
    args = (x,) if isinstance(x, Tensor) else tuple(x) if isinstance(x, tuple | list) else ()
    kwargs = dict(x) if isinstance(x, Mapping) else {}
    named = {**{f"x[{i}]" if len(args) > 1 else "x": value for i, value in enumerate(args)}, **kwargs}
    if not named:
        raise InputError(f"x: got {type(x).__name__} {x!r:.40}; expected a tensor, or several in a tuple or mapping")
    for_all = [name for name, value in kwargs.items() if isinstance(value, Tensor) and not value.dim()]
    if len(for_all) < len(named):
        named = {name: value for name, value in named.items() if name not in for_all}
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
