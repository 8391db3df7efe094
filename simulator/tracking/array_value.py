"""An array of numpy with noise beside it: what is known of it, and its file."""

from __future__ import annotations

import functools
import os
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from simulator.errors import InputError

from .reading import Reading
from .track import ALGEBRAS, checked_numbers
from .values import Trace, Value

TYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


@functools.cache
def trace_of(numbers: tuple[str, ...], dtype: np.dtype[Any]) -> Trace:
    """Return how results of a type are made."""
    return Trace([ALGEBRAS[label]() for label in numbers], TYPES[dtype])


class Held:
    """An array of float32 or float64 with noise beside it.

    Args:
        value: the array as a Value, whose memory nobody else writes to. numbers: labels of its noise.
    """

    __slots__ = ("numbers", "value")

    def __init__(self, value: Value, numbers: tuple[str, ...]) -> None:
        self.value, self.numbers = value, numbers

    @property
    def values(self) -> NDArray[Any]:
        """The array, read only."""
        found = self.value.x.numpy().view()
        found.flags.writeable = False
        return found

    @property
    def reading(self) -> Reading:
        """What is known of it, as for tensors; `shown(label)` prints it by another number than the first."""
        return Reading(self.value.x, dict(zip(self.numbers, self.value.noise, strict=True)))

    @property
    def safe(self) -> NDArray[np.uint8]:
        """Bits that are surely right: |value - exact| <= 2**-bits |exact|. Upper bound of the error."""
        return self.reading.safe.numpy()

    @property
    def expected(self) -> NDArray[np.uint8]:
        """Bits within two standard deviations of the error. Statistical."""
        return self.reading.expected.numpy()

    @property
    def certain_noise(self) -> NDArray[np.uint8]:
        """Bits beyond which all is noise even by an optimistic count. Estimate."""
        return self.reading.certain_noise.numpy()

    @property
    def bound(self) -> NDArray[Any]:
        """Upper bound of |value - exact|, of the safe number; infinite where there is none."""
        return self.reading.bound.numpy()

    def __repr__(self) -> str:
        return repr(self.reading)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.value.x.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.x.dim()

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.value.x.numel()

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        raise refused("a conversion to a plain array")

    def __float__(self) -> float:
        raise refused("a conversion to a plain number")

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write values and noise to a file, .npz."""
        parts: dict[str, Any] = {"values": self.values, "numbers": np.array(self.numbers)}
        for label, noise in self.reading.noise.items():
            if noise is not None:
                parts[f"noise_{label}"] = noise.expand(self.shape).numpy()
        np.savez(path, **parts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: another file, or one that is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                parts = dict(file)
            numbers = checked_numbers(tuple(map(str, parts["numbers"])))
            values = owned(parts["values"])
            noise = [parts.get(f"noise_{label}") for label in numbers]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{os.fspath(path)}: got no tracked array ({type(error).__name__}); expected an .npz of Tracked.save; "
                "write it again"
            ) from error
        for part in noise:
            if part is not None and (part.shape != values.shape or part.dtype != values.dtype or (part < 0).any()):
                raise InputError(
                    f"{os.fspath(path)}: got noise that is not that of the values; expected an .npz of Tracked.save; "
                    "write it again"
                )
        tensors = tuple(None if part is None else torch.from_numpy(owned(part)) for part in noise)
        return cls(Value(trace_of(numbers, values.dtype), torch.from_numpy(values), tensors), numbers)


def owned(values: Any) -> NDArray[Any]:
    """Return a copy of its own, in an order and with bytes that torch takes."""
    found = np.asarray(values)
    return np.array(found, dtype=found.dtype.newbyteorder("="), order="C")


def plain(x: Any) -> Any:
    """Return the values of an array with noise, and what is none as it is."""
    return x.values if isinstance(x, Held) else x


def has_tracked(x: Any) -> bool:
    """Whether it is an array with noise, or has one in it."""
    return isinstance(x, Held) or (isinstance(x, tuple | list) and any(map(has_tracked, x)))


def refused(what: str, options: Any = ()) -> InputError:
    """Return the error of what has no rule."""
    with_options = f" with {', '.join(options)}" if options else ""
    return InputError(
        f"tracked: {what}{with_options}: no rule, the noise would be lost; expected arithmetic, elementary functions, "
        "reductions or moves of elements; give .values, which are exact from there on"
    )


def real(array: Any) -> NDArray[Any]:
    """Return an array as float32 or float64.

    Raises:
        InputError: one without real values, or with some that float64 does not hold.
    """
    values = np.asarray(array)
    if values.dtype.newbyteorder("=") in TYPES:
        return values
    wide = values.astype(np.float64) if values.dtype.kind in "fiub" and values.dtype.itemsize <= 8 else None
    if wide is None or not np.array_equal(wide.astype(values.dtype), values, equal_nan=True):
        raise InputError(
            f"tracked: got an array of {values.dtype}; expected real numbers that float64 holds; convert it"
        )
    return wide
