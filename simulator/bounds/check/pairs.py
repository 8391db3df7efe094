"""Rules of sums, differences and products of two values that broadcast.

(C30) x + y: d = d_x + d_y + u M + eta; e = A (1 + u) + u where both have one sign, A the larger one of e_x and e_y.
Where one of both is exactly 0 nothing is rounded. (C31) x y: d = M_x d_y + M_y d_x + d_x d_y + u M + eta,
e = (1 + e_x)(1 + e_y)(1 + u) - 1; by a power of two only underflow. What a number in the code is off by is an error of
the operation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flint import arb

from .balls import INF, ONE, ZERO, Balls, Ends, Places, larger, magnitude, summed_into, taken, times
from .document import Fault, Node
from .formats import Rounding
from .places import Shape, one_owner, spread
from .rule import Found, Gradients, Operand, Parts, Reader, Rule, plain


class One(NamedTuple):
    """An element of an operand; `own` is by how much a number in the code is rounded, and in d."""

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
            found = []
            for g in grads:
                ends = [self.slope(which, a, b, c, d) for a, b, c, d in zip(*g, *boxes[1 - which], strict=True)]
                found.append(Ends(*(
                    summed_into(len(x.lo), places[which], [one[i] for one in ends]) for i in range(2)
                )))  # fmt: skip
            parts.append((x.number, found))
        return parts

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[tuple[Operand, Operand], Shape, tuple[Places, Places]]:
        plain(node, "alpha")
        if len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1:
            raise Fault(f"{node}: no rule for these arguments")
        x, y = (at.operand(form, node) for form in node.args)
        try:
            shape = np.broadcast_shapes(x.shape, y.shape)
        except ValueError:
            raise Fault(f"{node}: the shapes {list(x.shape)} and {list(y.shape)} do not fit") from None
        return (x, y), shape, (spread(x.shape, shape), spread(y.shape, shape))

    @abstractmethod
    def of(self, x: One, y: One, r: Rounding, same: bool) -> Result:
        """Return the bounds of the result; `same` of one value with itself."""

    @abstractmethod
    def slope(self, which: int, lo: arb, hi: arb, other_lo: arb, other_hi: arb) -> tuple[arb, arb]:
        """Return an interval of derivatives with respect to one operand, given that of the result."""


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

    def slope(self, which: int, lo: arb, hi: arb, other_lo: arb, other_hi: arb) -> tuple[arb, arb]:
        return (lo, hi) if which == 0 or self.sign > 0 else (-hi, -lo)


class Product(Pairs):
    """x y."""

    def of(self, x: One, y: One, r: Rounding, same: bool) -> Result:
        lo, hi = times(x.lo, x.hi, y.lo, y.hi)
        if same:
            lo = larger(lo, ZERO)
        moved = x.size * y.d + y.size * x.d + x.d * y.d
        most = magnitude(lo, hi) + moved
        off = r.off(most)
        if (x.is_power_of_two or y.is_power_of_two) and most <= r.largest:
            off = r.eta
        e = (ONE + x.e) * (ONE + y.e) * (ONE + r.u) - ONE if r.eta == 0 else INF
        return Result(lo, hi, moved + off, e, off + x.own * (y.size + y.d) + y.own * (x.size + x.d))

    def slope(self, which: int, lo: arb, hi: arb, other_lo: arb, other_hi: arb) -> tuple[arb, arb]:
        return times(lo, hi, other_lo, other_hi)


def _elements(x: Operand, places: Places) -> list[One]:
    """Return the elements of an operand; only numbers in the code have an error of their own, all of their d."""
    own = [ZERO] * len(x.lo) if x.number is not None else x.d
    parts = (taken(part, places) for part in (x.lo, x.hi, x.d, x.e, own))
    return [One(*one) for one in zip(*parts, strict=True)]


RULES: dict[str, Rule] = {"add": Sum(1), "sub": Sum(-1), "mul": Product()}
