"""tracked: arrays of numpy whose elements know how many of their bits are real.

    x = tracked([1.0, 2.0, 3.0], bits=20)
    y = np.log(x).sum()
    y.safe, y.expected, y.certain_noise

Values are numpy's, bit for bit. Comparisons look at them alone and give plain arrays, so that a program takes the ways
that it takes without tracking: errors are those of the same operations in real numbers with the same decisions. For
functions that decide by themselves (maximum, minimum, clip, largest of an axis) both ways count, within the bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import ArrayLike

from simulator.errors import InputError

from .apart import apart
from .array_functions import (
    assigned,
    clip,
    computed,
    converted,
    dot,
    exactly,
    full_like,
    moved,
    of_values,
    outer,
    reduced,
    running_sums,
    where,
)
from .array_value import TYPES, Held, has_tracked, owned, plain, real, refused, trace_of
from .declared import declared
from .labels import LABELS
from .numpy_rules import DECISIONS, MOVES, RULES
from .track import checked_numbers
from .values import Value


class Tracked(Held, NDArrayOperatorsMixin):
    """An array with noise beside it, of float32 or float64, that numpy computes with; made by `tracked`.

    An index gives a copy: there are no views. What numpy knows and this does not is refused by name.
    """

    __slots__ = ()

    # Parts.

    def __getitem__(self, index: Any) -> Tracked:
        if has_tracked(index):
            raise refused("an index that is a tracked array")
        return moved(lambda x: x[index], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.value = assigned(self, index, value)

    def __iter__(self) -> Iterator[Tracked]:
        return (self[i] for i in range(len(self)))

    def astype(self, dtype: Any) -> Tracked:
        """Return it in float32 or float64; what the conversion loses is noise."""
        wanted = np.dtype(dtype)
        if wanted not in TYPES:
            raise InputError(f"tracked: astype: got {wanted}; expected float32 or float64; convert .values")
        return converted(self, wanted)

    def copy(self) -> Tracked:
        """Return a copy."""
        return moved(np.copy, self)

    def reshape(self, *shape: Any) -> Tracked:
        """Return it in another shape."""
        return moved(np.reshape, self, shape[0] if len(shape) == 1 else shape)

    def ravel(self) -> Tracked:
        """Return it in one axis."""
        return moved(np.ravel, self)

    flatten = ravel

    def transpose(self, *axes: Any) -> Tracked:
        """Return it with its axes in another order."""
        return moved(np.transpose, self, (axes[0] if len(axes) == 1 else axes) or None)

    @property
    def T(self) -> Tracked:
        """It with its axes in reverse order."""
        return self.transpose()

    # Reductions, with the arguments of numpy.

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """Sum over axes, as numpy adds."""
        return reduced(np.sum, self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """Mean over axes."""
        return reduced(np.mean, self, axis, keepdims)

    def var(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Tracked:
        """Variance over axes."""
        return reduced(np.var, self, axis, keepdims, ddof=ddof)

    def std(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Tracked:
        """Standard deviation over axes."""
        return reduced(np.std, self, axis, keepdims, ddof=ddof)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """Largest over axes."""
        return reduced(np.max, self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """Smallest over axes."""
        return reduced(np.min, self, axis, keepdims)

    def prod(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """Product over axes."""
        return reduced(np.prod, self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Tracked:
        """Running sums over an axis; of all elements for None."""
        return running_sums(self, axis)

    def clip(self, low: Any = None, high: Any = None) -> Tracked:
        """It within bounds."""
        return clip(self, low, high)

    def dot(self, other: Any) -> Tracked:
        """Product of vectors or matrices."""
        return dot(self, other)

    def __pow__(self, other: Any) -> Tracked:
        return computed(operator.pow, RULES[np.power], self, other)  # not always the bits of numpy.power

    def __ipow__(self, other: Any) -> Tracked:
        self[...] = self**other
        return self

    # What numpy calls.

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = f"{ufunc.__name__}" if method == "__call__" else f"{ufunc.__name__}.{method}"
        if method == "__call__":
            (out,) = kwargs.pop("out", (None,))
            if not kwargs and ufunc in DECISIONS and out is None:
                return ufunc(*map(plain, inputs))
            if not kwargs and ufunc in RULES and (out is None or isinstance(out, Tracked)):
                found = computed(ufunc, RULES[ufunc], *inputs) if has_tracked(inputs) else ufunc(*inputs)
                if out is None:
                    return found
                out[...] = found
                return out
        elif (ufunc, method) in _METHODS and isinstance(inputs[0], Tracked) and not {*kwargs} - {"axis", "keepdims"}:
            kwargs.setdefault("axis", 0)
            return _METHODS[ufunc, method](*inputs, **kwargs)
        raise refused(f"numpy.{name}", kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func in MOVES:
            return moved(func, *args, **kwargs)
        if func in _FUNCTIONS:
            try:
                return _FUNCTIONS[func](*args, **kwargs)
            except TypeError as error:
                raise refused(f"numpy.{func.__name__}", kwargs) from error
        raise refused(f"{func.__module__}.{func.__name__}")


def tracked(
    array: ArrayLike | Tracked, bits: Any = None, error: Any = None, numbers: Sequence[str] = LABELS
) -> Tracked:
    """Return an array of numpy with the noise of its elements, which goes on through what is computed of it.

    Args:
        array: float32 or float64, or what numpy makes float64 of without a loss; copied.
        bits: that are right, |error| <= 2**-bits |x|. error: absolute; a number or one for each element. Neither: all
            is exact.
        numbers: of safe (upper bound), expected (statistical) and certain_noise (optimistic), which to keep.
    Returns:
        Tracked: `.values`, `.safe`, `.expected`, `.certain_noise`, `.bound`.
    Raises:
        InputError: an array without real values, an unknown number, or a wrong declaration.
    """
    labels = checked_numbers(numbers)
    held = owned(real(plain(array)))
    x = torch.from_numpy(held)
    with apart():
        value = trace_of(labels, held.dtype).exact(x)
        if bits is not None or error is not None:
            bits, error = (None if errors is None else np.array(errors, held.dtype) for errors in (bits, error))
            noise = declared(x, bits, error, "tracked")
            value = Value(value.trace, x, tuple(noise[label] for label in labels))
        return Tracked(value, labels)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: Tracked.sum, np.mean: Tracked.mean, np.var: Tracked.var, np.std: Tracked.std, np.max: Tracked.max,
    np.min: Tracked.min, np.amax: Tracked.max, np.amin: Tracked.min, np.prod: Tracked.prod, np.cumsum: Tracked.cumsum,
    np.clip: clip, np.where: where, np.dot: dot, np.outer: outer,
    **{f: exactly(f) for f in (np.zeros_like, np.ones_like, np.empty_like)},
    np.full_like: full_like,
    **{f: of_values(f) for f in (np.shape, np.ndim, np.size, np.argmax, np.argmin, np.argsort, np.array_equal)},
}  # fmt: skip

# Reductions and running sums by the names of the functions that they repeat.
_METHODS: dict[tuple[np.ufunc, str], Callable[..., Tracked]] = {
    (np.add, "reduce"): Tracked.sum, (np.multiply, "reduce"): Tracked.prod, (np.maximum, "reduce"): Tracked.max,
    (np.minimum, "reduce"): Tracked.min, (np.add, "accumulate"): Tracked.cumsum,
}  # fmt: skip

__all__ = ["Tracked", "tracked"]
