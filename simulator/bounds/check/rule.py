"""What a rule is to the checker: what the stated bounds of the inputs give at least, forward and on the way back.

(C7) A relative bound e follows from an absolute one d, and the other way round: d = e M, e = d / m with the largest and
the least magnitude of the exact values. (C8) A constant in the code that the arithmetic does not hold is rounded first,
and an array of constants that a narrower vector unit reads; that is an error of the operation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from flint import arb

from .balls import ZERO, Balls, Ends, Places, balls, magnitude, power
from .document import Array, Fault, Node, NoRule
from .formats import Rounding, nearest_error, use
from .places import Shape

MOST_WHOLE = 2**24  # up to which integers are values of float32


class Operand(NamedTuple):
    """What an operation reads: exact values within [lo, hi], off by at most d, and e relative to them.

    Args:
        owner: the sample that each element belongs to, -1 for constants. number: of the value, None of a constant.
    """

    shape: Shape
    lo: Balls
    hi: Balls
    d: Balls
    e: Balls
    owner: Places
    number: int | None = None

    @property
    def is_point(self) -> bool:
        """Whether all values are known."""
        return all(lo == hi for lo, hi in zip(self.lo, self.hi, strict=True))

    @property
    def size(self) -> Balls:
        """Largest magnitude of the exact values."""
        return [magnitude(lo, hi) for lo, hi in zip(self.lo, self.hi, strict=True)]

    @property
    def computed(self) -> Balls:
        """Largest magnitude of exact and computed values."""
        return [m + d for m, d in zip(self.size, self.d, strict=True)]

    @property
    def box(self) -> Ends:
        """What holds exact and computed values, and all between; of a constant what it is to exact operations."""
        if self.number is None:
            return Ends(self.lo, self.hi)
        return Ends(
            [lo - d for lo, d in zip(self.lo, self.d, strict=True)],
            [hi + d for hi, d in zip(self.hi, self.d, strict=True)],
        )


class Found(NamedTuple):
    """What a rule gives; `relative` is None where it gives no relative bound."""

    shape: Shape
    lo: Balls
    hi: Balls
    d: Balls
    relative: Balls | None
    local: Balls
    owner: Places


Gradients = Sequence[Ends]  # for each class: derivatives with respect to a value
Parts = list[tuple[int, list[Ends]]]


@dataclass(frozen=True)
class Premises:
    """What computes, as the certificate says.

    Args:
        precision: significand bits of everything, with any exponent; None for the formats of the unit, in which case
            all but products is float32. running: whether sums are bounded by their partial sums. library: c.
        vector: the rounding of what is no product.
    """

    precision: int | None
    running: bool
    library: arb
    vector: Rounding

    def constant_error(self, x: float, node: Node) -> arb:
        """Return by how much a constant in the code may change, (C8); 0 if the arithmetic holds it."""
        if x and not 2.0**-100 <= abs(x) <= 2.0**100:
            raise NoRule(f"{node}: no rule for the constant {x!r}")
        return ZERO if nearest_error(x, self.vector.bits) == 0 else self.vector.off(abs(arb(x)))


class Reader:
    """Reads arguments as operands, from the stated bounds of values."""

    def __init__(self, premises: Premises, constants: Mapping[str, Array], stated: Mapping[int, Operand]) -> None:
        self.premises, self._constants, self.stated = premises, constants, stated
        self._made: dict[tuple[str, str], Operand] = {}

    def operand(self, form: Any, node: Node, as_read: bool = False) -> Operand:
        """Return a value or a constant; a number in the code has its rounding in d.

        Args:
            as_read: whether an array of constants has that of the vector unit which reads it.
        """
        match form:
            case {"value": int(number)}:
                if number not in self.stated:
                    raise Fault(f"{node}: reads value {number}, which is not known there")
                return self.stated[number]
            case {"constant": str(key)}:
                if key not in self._constants:
                    raise Fault(f"{node}: reads the constant {key}, which is not there")
                name = node.use if as_read else ""
                if (key, name) not in self._made:
                    array = self._constants[key]
                    found = balls(array.numbers)
                    self._made[key, name] = _known(array.shape, found, _as_read(array.numbers, name, node))
                return self._made[key, name]
            case {"integers": given}:
                given_numbers = np.asarray(given, dtype=object)
                numbers = [int(x) for x in given_numbers.ravel() if isinstance(x, int)]
                if len(numbers) != given_numbers.size or any(abs(x) > MOST_WHOLE for x in numbers):
                    raise NoRule(f"{node}: no rule for integers beyond {MOST_WHOLE} among floats")
                name = node.use if as_read else ""
                exact = [arb(x) for x in numbers]
                return _known(given_numbers.shape, exact, _as_read([float(x) for x in numbers], name, node))
            case int() | float() if not isinstance(form, bool):
                return _known((), [arb(form)], [self.premises.constant_error(float(form), node)])
        raise Fault(f"{node}: got the argument {form!r}; expected a value or a constant")


def _as_read(numbers: Sequence[float], name: str, node: Node) -> Balls:
    """Return by how much constants change in the format of a vector unit, (C8)."""
    if not name:
        return [ZERO] * len(numbers)
    found = [use(name).error_of(x) for x in numbers]
    if any(off is None for off in found):
        raise NoRule(f"{node}: no rule for constants in {name}")
    return found  # type: ignore[return-value]


def _known(shape: Shape, x: Balls, d: Balls) -> Operand:
    e = [ZERO if off == 0 else off / abs(one) for one, off in zip(x, d, strict=True)]
    return Operand(shape, x, x, d, e, np.full(len(x), -1))


class Rule(ABC):
    """An operation; what it computes first is the only value that it makes, of so many results."""

    results = 1

    @abstractmethod
    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        """Return the bounds of its result. `stated` are those of the certificate, for rules that stop where a simple
        bound suffices.
        """

    @abstractmethod
    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        """Return what it adds to the derivatives of its inputs."""


def number(form: Any, node: Node) -> float:
    """Return a finite or infinite number in the code."""
    if not isinstance(form, int | float) or isinstance(form, bool) or math.isnan(form):
        raise Fault(f"{node}: got the argument {form!r}; expected a number")
    return float(form)


def plain(node: Node, *names: str) -> None:
    """Fault of keyword arguments besides these, unless they are None or False."""
    for name, value in node.kwargs.items():
        if name not in names and value is not None and value is not False:
            raise NoRule(f"{node}: no rule for {name}={value!r}")


def each(f: Callable[..., Any], *arrays: Sequence[Any]) -> list[Any]:
    """Return f of the elements of arrays."""
    return [f(*some) for some in zip(*arrays, strict=True)]


FLOAT32 = Rounding(24, power(-150), arb((2.0 - 2.0**-23) * 2.0**127))
TORCH = Rounding(24, power(-126), FLOAT32.largest)
