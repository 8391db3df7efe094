"""Rules of sums, differences, products, quotients and extremes of two values that broadcast.

(C30) x + y: d = d_x + d_y + u M + eta; e = A (1 + u) + u where both have one sign, A the larger one of e_x and e_y.
Where one of both is exactly 0 nothing is rounded. (C31) x y: d = M_x d_y + M_y d_x + d_x d_y + u M + eta,
e = (1 + e_x)(1 + e_y)(1 + u) - 1; by a power of two only underflow. (C32) x / y, y never 0: with x' and y' as computed,
x' / y' - x / y = (x' - x - (x / y)(y' - y)) / y', so that d = (d_x + M d_y) / (m_y - d_y) and one rounding, m_y the
least magnitude; e = (e_x + e_y) / (1 - e_y) (1 + u) + u while e_y < 1. (C33) max and min: off by at most the larger
error, relatively too while both are below 1, as signs stay; the derivative is 1 of the operand that is surely taken,
between 1 and 0 where either may be. What a constant is off by as it is read is an error of the operation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flint import arb

from .balls import (
    INF,
    ONE,
    ZERO,
    Balls,
    Ends,
    Places,
    inverse,
    larger,
    least_magnitude,
    magnitude,
    share,
    smaller,
    summed_into,
    taken,
    times,
)
from .document import Fault, Node, NoRule
from .formats import Rounding
from .places import Shape, one_owner, spread
from .rule import Found, Gradients, Operand, Parts, Reader, Rule, plain

Pair = tuple[arb, arb]


class One(NamedTuple):
    """An element of an operand; `own` is by how much a constant is rounded as it is read, and in d."""

    lo: arb
    hi: arb
    d: arb
    e: arb
    own: arb

    @property
    def size(self) -> arb:
        """Largest magnitude of the exact value."""
        return magnitude(self.lo, self.hi)

    @property
    def is_exactly_zero(self) -> bool:
        """Whether it is known to be 0, and computed so."""
        return bool(self.lo == 0 and self.hi == 0 and self.d == 0)

    @property
    def is_power_of_two(self) -> bool:
        """Whether it is known to be one, and computed so."""
        return bool(self.lo == self.hi and self.d == 0) and self.lo.is_finite() and abs(self.lo.man_exp()[0]) == 1


class Result(NamedTuple):
    """Bounds of an element of the result."""

    lo: arb
    hi: arb
    d: arb
    e: arb
    local: arb


class Pairs(Rule):
    """An operation on two values; a subclass says its bounds and its derivatives."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        operands, shape, places = self._read(node, at)
        r = at.premises.vector
        each = [_elements(x, some) for x, some in zip(operands, places, strict=True)]
        same = operands[0].number is not None and operands[0].number == operands[1].number
        found = [self.of(x, y, r, same) for x, y in zip(*each, strict=True)]
        owners = np.stack([x.owner[some] for x, some in zip(operands, places, strict=True)], -1)
        lo, hi, d, e, local = ([one[i] for one in found] for i in range(5))
        return Found(shape, lo, hi, d, e, local, one_owner(owners, node).ravel())

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        operands, _, places = self._read(node, at)
        boxes = [Ends(*(taken(end, some) for end in x.box)) for x, some in zip(operands, places, strict=True)]
        parts: Parts = []
        for which, x in enumerate(operands):
            if x.number is None:
                continue
            slopes = [self.slope(which, (a, b), (c, d)) for a, b, c, d in zip(*boxes[0], *boxes[1], strict=True)]
            found = []
            for g in grads:
                ends = [times(a, b, *slope) for a, b, slope in zip(*g, slopes, strict=True)]
                found.append(Ends(*(
                    summed_into(len(x.lo), places[which], [one[i] for one in ends]) for i in range(2)
                )))  # fmt: skip
            parts.append((x.number, found))
        return parts

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[tuple[Operand, Operand], Shape, tuple[Places, Places]]:
        plain(node, "alpha")
        if len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1:
            raise NoRule(f"{node}: no rule for these arguments")
        x, y = (at.operand(form, node, as_read=True) for form in node.args)
        try:
            shape = np.broadcast_shapes(x.shape, y.shape)
        except ValueError:
            raise Fault(f"{node}: the shapes {list(x.shape)} and {list(y.shape)} do not fit") from None
        return (x, y), shape, (spread(x.shape, shape), spread(y.shape, shape))

    @abstractmethod
    def of(self, x: One, y: One, r: Rounding, same: bool) -> Result:
        """Return the bounds of the result; `same` of one value with itself."""

    @abstractmethod
    def slope(self, which: int, x: Pair, y: Pair) -> Pair:
        """Return what encloses the derivative with respect to one operand, over the boxes of both."""


class Sum(Pairs):
    """x + y, or x - y where the sign is -1."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def of(self, x: One, y: One, r: Rounding, same: bool) -> Result:
        if self.sign < 0:
            y = One(-y.hi, -y.lo, y.d, y.e, y.own)
        lo, hi = x.lo + y.lo, x.hi + y.hi
        moved = x.d + y.d
        rounds = not (x.is_exactly_zero or y.is_exactly_zero)
        off = r.off(magnitude(lo, hi) + moved) if rounds else ZERO
        one_sign = (x.lo >= 0 and y.lo >= 0) or (x.hi <= 0 and y.hi <= 0)
        e = larger(x.e, y.e) * (ONE + r.u) + r.u if one_sign and r.eta == 0 else INF
        return Result(lo, hi, moved + off, e, off + x.own + y.own)

    def slope(self, which: int, x: Pair, y: Pair) -> Pair:
        return (ONE, ONE) if which == 0 or self.sign > 0 else (-ONE, -ONE)


class Product(Pairs):
    """x y."""

    def of(self, x: One, y: One, r: Rounding, same: bool) -> Result:
        lo, hi = times(x.lo, x.hi, y.lo, y.hi)
        if same:
            lo = larger(lo, ZERO)
        moved = share(x.size, y.d) + share(y.size, x.d) + share(x.d, y.d)
        most = magnitude(lo, hi) + moved
        off = r.off(most)
        if (x.is_power_of_two or y.is_power_of_two) and most <= r.largest:
            off = r.eta
        e = (ONE + x.e) * (ONE + y.e) * (ONE + r.u) - ONE if r.eta == 0 else INF
        return Result(lo, hi, moved + off, e, off + share(y.size + y.d, x.own) + share(x.size + x.d, y.own))

    def slope(self, which: int, x: Pair, y: Pair) -> Pair:
        return (y, x)[which]


class Quotient(Pairs):
    """x / y."""

    def of(self, x: One, y: One, r: Rounding, same: bool) -> Result:
        lo, hi = times(x.lo, x.hi, *inverse(y.lo, y.hi)) if y.lo > 0 or y.hi < 0 else (-INF, INF)
        least = least_magnitude(y.lo, y.hi)
        if not least > y.d:
            return Result(lo, hi, INF, INF, INF)
        most = magnitude(lo, hi)
        moved = (x.d + share(most, y.d)) / (least - y.d)
        off = r.off(most + moved)
        if y.is_power_of_two and most + moved <= r.largest:
            off = r.eta
        e = (x.e + y.e) / (ONE - y.e) * (ONE + r.u) + r.u if r.eta == 0 and y.e < 1 else INF
        own = x.own + share((x.size + x.d) / least, y.own)
        return Result(lo, hi, moved + off, e, off + own / (least - y.d))

    def slope(self, which: int, x: Pair, y: Pair) -> Pair:
        by_x = inverse(*y)
        if which == 0 or not by_x[0].is_finite():
            return by_x
        lo, hi = times(*times(*by_x, *by_x), *x)
        return -hi, -lo


class Extreme(Pairs):
    """max(x, y), or min(x, y) where the sign is -1."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def of(self, x: One, y: One, r: Rounding, same: bool) -> Result:
        pick = larger if self.sign > 0 else smaller
        e = larger(x.e, y.e) if x.e < 1 and y.e < 1 else INF
        off = larger(x.own, y.own)
        of_constant = larger(x.e if x.own > 0 else ZERO, y.e if y.own > 0 else ZERO)
        if off > 0 and of_constant < 1:
            reach = magnitude(pick(x.lo - x.d, y.lo - y.d), pick(x.hi + x.d, y.hi + y.d))
            off = smaller(off, of_constant * reach)
        return Result(pick(x.lo, y.lo), pick(x.hi, y.hi), larger(x.d, y.d), e, off)

    def slope(self, which: int, x: Pair, y: Pair) -> Pair:
        own, other = (x, y) if which == 0 else (y, x)
        if self.sign < 0:
            own, other = (-own[1], -own[0]), (-other[1], -other[0])
        return ONE if own[0] > other[1] else ZERO, ZERO if own[1] < other[0] else ONE


def _elements(x: Operand, places: Places) -> list[One]:
    """Return the elements of an operand; only constants have an error of their own, all of their d."""
    own = [ZERO] * len(x.lo) if x.number is not None else x.d
    parts = (taken(part, places) for part in (x.lo, x.hi, x.d, x.e, own))
    return [One(*one) for one in zip(*parts, strict=True)]


RULES: dict[str, Rule] = {
    "add": Sum(1), "sub": Sum(-1), "mul": Product(), "div": Quotient(), "maximum": Extreme(1), "minimum": Extreme(-1),
}  # fmt: skip
