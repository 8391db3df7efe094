"""Dot products: the operands of a unit as it holds them, and the sums over these that bounds are made of."""

from __future__ import annotations

from typing import NamedTuple

from .balls import ZERO, Balls, Places, added, matrix
from .formats import Use
from .rule import Operand, Premises, each


class Block(NamedTuple):
    """A product of two matrices: the places of a (M, K), of b (K, N), of the result and of the addend (M, N)."""

    a: Places
    b: Places
    out: Places
    c: Places | None


class Side(NamedTuple):
    """An operand as the unit has it.

    Args:
        middle, radius: of the exact values. size: their largest magnitudes. d: how far it is off in all. own: of that
            the conversion. most: largest magnitude of what the unit holds. is_point: whether all values are known.
    """

    middle: Balls
    radius: Balls
    size: Balls
    d: Balls
    own: Balls
    most: Balls
    is_point: bool

    def is_bounded(self, i: int) -> bool:
        """Whether an element has bounds at all."""
        return self.middle[i].is_finite() and self.radius[i].is_finite() and self.d[i].is_finite()


def as_held(x: Operand, use: Use | None, premises: Premises) -> Side:
    """Return an operand as a unit has it, converted to this format."""
    middle = each(lambda lo, hi: lo if lo == hi else (lo + hi) / 2, x.lo, x.hi)
    radius = each(lambda lo, hi: ZERO if lo == hi else (hi - lo) / 2, x.lo, x.hi)
    own = [ZERO] * len(x.lo) if use is None else _conversion(x, use, premises)
    d = added(x.d, own)
    return Side(middle, radius, x.size, d, own, added(x.size, d), x.is_point)


def _conversion(x: Operand, use: Use, premises: Premises) -> Balls:
    """Return the errors of converting an operand, of known values exactly."""
    rounding = use.rounded(premises.precision)
    found = []
    for lo, hi, d, most in zip(x.lo, x.hi, x.d, x.computed, strict=True):
        known = use.error_of(float(lo)) if lo == hi and d == 0 else None
        found.append(rounding.off(most) if known is None else known)
    return found


class Dots:
    """The sums of a block that bounds are made of; matrices of weights are built once each."""

    def __init__(self, block: Block, a: Side, b: Side) -> None:
        self._block, self._a, self._b = block, a, b

    def exact(self) -> tuple[Balls, Balls]:
        """Return the exact products: middle and radius."""
        a, b = self._a, self._b
        middle = self._product(a.middle, b.middle)
        around: list[Balls] = []
        if not a.is_point:
            around.append(self._product(a.radius, added(each(abs, b.middle), b.radius)))
        if not b.is_point:
            around.append(self._product(each(abs, a.middle), b.radius))
        return middle, added(*around) if around else [ZERO] * len(middle)

    def moved(self) -> Balls:
        """Return by how much what comes in, conversions included, moves the sums."""
        return self._two(self._a.d, self._b.most, self._a.size, self._b.d)

    def converted(self) -> Balls:
        """Return by how much conversions alone move them, whatever comes in."""
        return self._two(self._a.own, self._b.most, self._a.most, self._b.own)

    def sizes(self) -> Balls:
        """Return the sums of magnitudes that the unit adds up."""
        return self._product(self._a.most, self._b.most)

    def _two(self, a: Balls, b: Balls, c: Balls, d: Balls) -> Balls:
        parts = [self._product(x, y) for x, y in ((a, b), (c, d)) if _any(x) and _any(y)]
        return added(*parts) if parts else [ZERO] * self._block.out.size

    def _product(self, a: Balls, b: Balls) -> Balls:
        return (matrix(a, self._block.a) * matrix(b, self._block.b)).entries()


def _any(x: Balls) -> bool:
    return not all(one == 0 for one in x)
