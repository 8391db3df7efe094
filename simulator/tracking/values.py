"""Values with noise, and the arithmetic on them of which rules are made; each operation keeps all numbers at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .algebra import EXACTLY, ONCE, Algebra, Bilinear, Both, Function, Linear, Noise, plain_sum
from .functions import FUNCTIONS

Number = int | float


def within(distance: Tensor, bound: Tensor) -> Tensor:
    """Return where what is so far away may be reached: NaN is as good as infinite, and a bound of 0 reaches nothing."""
    return ~(distance > bound) & (bound != 0)


class Trace:
    """The numbers that are kept, and how results are made.

    Args:
        algebras: of the numbers. dtype: float32 or float64, in which all is computed.
    """

    def __init__(self, algebras: Sequence[Algebra], dtype: torch.dtype) -> None:
        self.algebras, self.dtype = tuple(algebras), dtype
        self.undecided = 0  # elements at which a branch could have gone the other way; counted with the safe number
        self._exactly = (None,) * len(self.algebras)

    def exact(self, x: Tensor) -> Value:
        """Return values that are exact."""
        return Value(self, x.to(self.dtype), self._exactly)

    def value(self, x: Any) -> Value:
        """Return an operand: a value as it is; a number of the code, which its conversion rounds; an exact tensor."""
        if isinstance(x, Value):
            return x
        if isinstance(x, Tensor):
            return self._whole(x) if not x.is_floating_point() and x.itemsize >= 4 else self.exact(x)
        return self.number(float(x))

    def number(self, x: float, off: float = 0.0) -> Value:
        """Return a number of the code, which is off by so much at most itself, and rounded by its conversion."""
        held = torch.tensor(x, dtype=self.dtype)
        off = off + (abs(x - float(held)) if math.isfinite(x) else 0.0)
        if not off:
            return Value(self, held, self._exactly)
        noise = torch.tensor(off * (1.0 + 2.0**-20), dtype=self.dtype)
        return Value(self, held, tuple(None if a.label == "certain_noise" else noise for a in self.algebras))

    def _whole(self, x: Tensor) -> Value:
        """Return whole numbers, of which the type of the trace may not hold all digits (S0)."""
        held = x.to(self.dtype)
        if not x.numel() or float(held.abs().max()) < 1.0 / torch.finfo(self.dtype).eps:
            return self.exact(x)
        off = held.abs() * float(torch.finfo(self.dtype).eps)
        return Value(self, held, tuple(None if a.label == "certain_noise" else off for a in self.algebras))

    def joined(self, parts: Sequence[Value], axis: int) -> Value:
        """Return values one behind the other along an axis."""

        def noise(a: Algebra, i: int) -> Noise:
            given = [part.given(a, i) for part in parts]
            if all(n is None for n in given):
                return None
            return torch.cat([torch.zeros_like(part.x) if n is None else n.expand(part.shape)
                              for part, n in zip(parts, given, strict=True)], axis)  # fmt: skip

        return self.map(torch.cat([part.x for part in parts], axis), noise)

    def count(self, jump: Tensor) -> None:
        """Count elements at which a branch is not decided: those that are not 0."""
        total = float(jump.sign().sum())  # twice as fast as a comparison
        self.undecided += int((jump != 0).sum()) if math.isnan(total) else int(total)

    def map(self, z: Tensor, of: Callable[[Algebra, int], Noise]) -> Value:
        """Return z with the noise that each algebra makes, given it and its place."""
        return Value(self, z, tuple(of(algebra, i) for i, algebra in enumerate(self.algebras)))


class Value:
    """Values in the type of the trace, each with an amplitude of noise for each number, or None where all are exact."""

    __slots__ = ("noise", "trace", "x")

    def __init__(self, trace: Trace, x: Tensor, noise: tuple[Noise, ...]) -> None:
        self.trace, self.x, self.noise = trace, x, noise

    @property
    def shape(self) -> torch.Size:
        """Shape of the values."""
        return self.x.shape

    def given(self, algebra: Algebra, i: int) -> Noise:
        """Return its noise as it enters an operation."""
        return algebra.given(self.x, self.noise[i])

    def moved(self, f: Callable[[Tensor], Tensor]) -> Value:
        """Return the values in another place, or some of them."""
        return Value(self.trace, f(self.x), tuple(None if n is None else f(n.expand(self.shape)) for n in self.noise))

    # Arithmetic; `z` of the methods is the result where the run has computed it already.

    def plus(self, other: Any, z: Tensor | None = None) -> Value:
        """Return the sum."""
        y = self.trace.value(other)
        z = self.x + y.x if z is None else z
        return self.trace.map(z, lambda a, i: a.added(z, self.x, y.x, self.given(a, i), y.given(a, i)))

    def minus(self, other: Any, z: Tensor | None = None) -> Value:
        """Return the difference; of one tensor and itself, exactly 0."""
        y = self.trace.value(other)
        z = self.x - y.x if z is None else z
        if y.x is self.x:
            return self.trace.exact(z)
        return self.trace.map(z, lambda a, i: a.added(z, self.x, -y.x, self.given(a, i), y.given(a, i)))

    def times(self, other: Any, z: Tensor | None = None) -> Value:
        """Return the product; by a power of two it is exact, and of a tensor and itself a square."""
        y = self.trace.value(other)
        z = self.x * y.x if z is None else z
        if y.x is self.x and self.x.numel() > 0:
            return self.trace.map(z, lambda a, i: a.square(z, self.x, self.given(a, i)))
        rounded = EXACTLY if _scales_exactly(self.x, y) or _scales_exactly(y.x, self) else ONCE
        return self.trace.map(
            z, lambda a, i: a.product(z, self.x, y.x, self.given(a, i), y.given(a, i), rounded)
        )  # fmt: skip

    def over(self, other: Any, z: Tensor | None = None) -> Value:
        """Return the quotient; by a power of two it is exact, and of one tensor and itself exactly 1."""
        y = self.trace.value(other)
        z = self.x / y.x if z is None else z
        if y.x is self.x:
            return self.trace.exact(z)
        if _scales_exactly(self.x, y):
            return self.times(self.trace.exact(1.0 / y.x), z)
        return self.trace.map(z, lambda a, i: a.quotient(z, self.x, y.x, self.given(a, i), y.given(a, i)))

    def negated(self) -> Value:
        """Return -x."""
        return Value(self.trace, -self.x, self.noise)

    def function(self, name: str, z: Tensor | None = None) -> Value:
        """Return a function of functions.py."""
        compute, function = FUNCTIONS[name]
        return self.by(function, compute(self.x) if z is None else z)

    def by(self, function: Function, z: Tensor) -> Value:
        """Return z, a function of the values."""
        return self.trace.map(z, lambda a, i: a.function(z, self.x, self.given(a, i), function))

    def square(self, z: Tensor | None = None) -> Value:
        """Return the square."""
        return self.times(self, z)

    def sum(self, axes: Sequence[int] | int | None = None, keep: bool = False, z: Tensor | None = None) -> Value:
        """Return the sum over axes, all of them for None or none."""
        if axes is None or (not isinstance(axes, int) and len(axes) == 0):
            listed = list(range(self.x.dim()))
        else:
            listed = [axes] if isinstance(axes, int) else list(axes)
        z = plain_sum(self.x, listed, keep) if z is None else z
        return self.trace.map(z, lambda a, i: a.total(self.x, self.given(a, i), listed, keep, z))

    def mean(self, axes: Sequence[int] | int | None = None, keep: bool = False) -> Value:
        """Return the mean over axes, all of them for None."""
        total = self.sum(axes, keep)
        return total.over(float(self.x.numel() // max(1, total.x.numel())))

    def linear(self, f: Linear, terms: int, z: Tensor | None = None) -> Value:
        """Return f of the values: sums of so many of them."""
        z = f(self.x) if z is None else z
        return self.trace.map(z, lambda a, i: a.linear(f, self.x, self.given(a, i), terms, z))

    def bilinear(
        self,
        other: Value,
        f: Bilinear,
        terms: int,
        z: Tensor | None = None,
        matrix: bool = False,
        both: Both | None = None,
    ) -> Value:
        """Return f of both: sums of so many products of their elements; `matrix` and `both` as algebra.py has them."""
        z = f(self.x, other.x) if z is None else z

        def noise(a: Algebra, i: int) -> Noise:
            return a.bilinear(f, self.x, other.x, self.given(a, i), other.given(a, i), terms, z, matrix, both)

        return self.trace.map(z, noise)

    def matmul(self, other: Value, z: Tensor | None = None) -> Value:
        """Return the product of matrices, or of stacks of them."""
        return self.bilinear(other, torch.matmul, self.x.shape[-1], z, matrix=True)

    def either(self, jump: Tensor, undecided: Tensor | None = None, counted: bool = True) -> Value:
        """Return it with a jump where a branch of the run is not decided within the bounds; None: where it is not 0.

        Args:
            counted: whether these are elements whose branch is not decided; else pieces that meet, and it does not
                matter.
        """
        if undecided is not None:
            jump = torch.where(undecided, jump, 0.0)
        if counted:
            self.trace.count(jump)
        return self.trace.map(self.x, lambda a, i: a.either(self.noise[i], jump))

    def departing(self, z: Tensor, measures: bool = False) -> Value:
        """Return what the run has in place of these values; by how far it departs from them is part of its noise.

        Args:
            measures: whether the distance is the rounding of the operation itself, as a wider type sees it.
        """
        held = z.to(self.x.dtype)
        distance = held - self.x
        if not bool((distance != 0).any()):
            return Value(self.trace, held, self.noise)
        same = (held == self.x) | (held.isnan() & self.x.isnan())  # two infinities, whose distance is NaN
        distance = torch.where(same, 0.0, distance)
        return self.trace.map(held, lambda a, i: a.departed(self.noise[i], distance, self.x if measures else None))

    def bound(self) -> Noise:
        """Return the bound of the safe number; None if that is not kept, or all is exact."""
        for algebra, noise in zip(self.trace.algebras, self.noise, strict=True):
            if algebra.label == "safe":
                return noise
        return None

    def __add__(self, other: Any) -> Value:
        return self.plus(other)

    def __radd__(self, other: Any) -> Value:
        return self.plus(other)

    def __sub__(self, other: Any) -> Value:
        return self.minus(other)

    def __rsub__(self, other: Any) -> Value:
        return self.trace.value(other).minus(self)

    def __mul__(self, other: Any) -> Value:
        return self.times(other)

    def __rmul__(self, other: Any) -> Value:
        return self.times(other)

    def __truediv__(self, other: Any) -> Value:
        return self.over(other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.trace.value(other).over(self)

    def __neg__(self) -> Value:
        return self.negated()


def narrowed(noise: Tensor, dtype: torch.dtype) -> Tensor:
    """Return noise in a narrower type, rounded up."""
    found = noise.to(dtype)
    return torch.where(noise == 0, 0.0, found * (1.0 + 4.0 * torch.finfo(dtype).eps) + torch.finfo(dtype).tiny)


def reached(x: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of all that a bound allows around x, rounded outward: sums of both are rounded too."""
    wide = bound * (1.0 + 2.0**-20) + x.abs() * bound.sign() * float(torch.finfo(x.dtype).eps)
    return x - wide, x + wide


def _scales_exactly(x: Tensor, by: Value) -> bool:
    """Whether it is one number, 0 or plus or minus a power of two, and scales x without underflow."""
    if by.x.numel() != 1 or any(noise is not None for noise in by.noise):
        return False
    number = abs(float(by.x))
    if number == 0.0:
        return True
    if math.frexp(number)[0] != 0.5:
        return False
    if number >= 1.0:
        return True
    small = x.abs()
    least = torch.finfo(x.dtype).tiny / number
    return not bool(((small < least) & (small > 0)).any())
