"""What an ONNX file declares of its inputs: names, types and shapes, and what is said of others."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simulator.errors import InputError

from .input_types import as_integers, kind_of, type_name
from .onnx_operators.recurrent import RECURRENT
from .onnx_operators.registry import Value


@dataclass(frozen=True)
class Declared:
    """An input as the file declares it.

    Args:
        name: in the file. argument: in Python, an identifier.
        dtype: of its elements; None for a sequence, or an optional, which are taken as they are.
        shape: the lengths that are fixed, and the names of those that are free, "" without a name; None: any shape.
        has_default: whether the file holds a value for it.
    """

    name: str
    argument: str
    dtype: torch.dtype | None
    shape: tuple[int | str, ...] | None
    has_default: bool

    def check(self, path: str, value: Value, dtype: torch.dtype | None) -> Value:
        """Return what is given for the input, in a type.

        Args:
            path: of the file, for messages. value: what is given. dtype: the type to convert to.
        Raises:
            InputError: it has another kind of elements, numbers beyond the type, or another shape.
        """
        if dtype is None:
            return value
        place = f"{path}: input {self.name}"
        if not isinstance(value, Tensor):
            raise InputError(f"{place}: is given {type(value).__name__}; expected a tensor; give one")
        if self.shape is not None and not self._takes(tuple(value.shape)):
            raise InputError(
                f"{place}: is given shape {tuple(value.shape)}; expected {self._shape()}, as the file declares it; "
                "reshape the data, or export the network with free axes"
            )
        return value if value.dtype == dtype else self._converted(place, value, dtype)

    def _takes(self, shape: tuple[int, ...]) -> bool:
        assert self.shape is not None
        fits = (isinstance(own, str) or own == given for own, given in zip(self.shape, shape, strict=False))
        return len(shape) == len(self.shape) and all(fits)

    def _shape(self) -> str:
        shown = [str(length) or "any" for length in self.shape or ()]
        return f"({', '.join(shown)}{',' if len(shown) == 1 else ''})"

    def _converted(self, place: str, value: Tensor, dtype: torch.dtype) -> Tensor:
        if kind_of(value.dtype) != kind_of(dtype):
            raise InputError(
                f"{place}: is given {type_name(value.dtype)}; expected {type_name(dtype)}, as the file declares it; "
                "convert the data"
            )
        return as_integers(place, value, dtype).to(dtype)


def signature(inputs: Sequence[Declared]) -> inspect.Signature:
    """Return the signature of the forward pass of a network with such inputs, those without default first."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    ordered = sorted(inputs, key=lambda one: one.has_default)
    own = [inspect.Parameter(one.argument, kind, default=None if one.has_default else inspect.Parameter.empty)
           for one in ordered]  # fmt: skip
    return inspect.Signature([inspect.Parameter("self", kind), *own])


def fixed_batch(inputs: Sequence[Declared]) -> int | None:
    """Return how many samples a network takes at a time, if its inputs all fix the same number; None if they do not."""
    first = {one.shape[0] for one in inputs if one.shape and not one.has_default}
    only = first.pop() if len(first) == 1 else ""
    return only if isinstance(only, int) and only > 0 else None


def batch_elsewhere(inputs: Sequence[Declared], nodes: Iterable[Any]) -> str | None:
    """Return which inputs have their samples along another axis than the first, and who says so; None if none has.

    A recurrent operator does, whose `layout` puts the steps of its input first, or the layers of its states; else the
    name of an axis that has "batch" in it, unless the first has such a name.

    Args:
        nodes: of the graph, as the file has them.
    """
    nodes = list(nodes)
    same = {node.output[0]: node.input[0] for node in nodes
            if node.op_type in ("Cast", "Identity") and node.input and node.output}  # fmt: skip
    readers: dict[str, str] = {}
    for node in nodes:
        if (
            node.domain
            or node.op_type not in RECURRENT
            or any(one.name == "layout" and one.i for one in node.attribute)
        ):
            continue
        for read in (name for at, name in enumerate(node.input) if at in _BATCH_SECOND):
            for _ in range(len(same)):  # and no further, since a damaged file may have them in a circle
                read = same.get(read, read)
            readers.setdefault(read, f"the {node.op_type} that reads it")
    found = []
    for one in inputs:
        if one.has_default or not one.shape:
            continue
        named = [at for at, length in enumerate(one.shape) if isinstance(length, str) and "batch" in length.lower()]
        if one.name in readers and len(one.shape) == 3:
            found.append(f"input {one.name} along axis 1, as {readers[one.name]} has them")
        elif named and named[0] > 0:
            found.append(f"input {one.name} along axis {named[0]}, by the names of its axes")
    return "; ".join(found) or None


# Inputs of recurrent operators, by position, that have the batch second: the sequence, and the states to begin with.
_BATCH_SECOND = (0, 5, 6)
