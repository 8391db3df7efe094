"""Rules of operations on two values: sums, differences, products, quotients, maxima."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from simulator.errors import InputError

from .bounded import Bounded
from .graph import Node, Ref
from .outward import ZERO, above, below, grown
from .roundings import Rounding
from .rule import Gradients, Interval, Read, Rule, Step, Unit, off_by, operand, unbroadcast

Pair = tuple[Bounded, Bounded]


class Binary(Rule):
    """An operation on two values that broadcast; a subclass says its bounds and its derivatives."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        r = unit.vector(node.path)
        a, b = node.args[:2]
        x, y = self._operands(node, read)
        x, y = _rounded_scalar(a, x, r), _rounded_scalar(b, y, r)
        step = self.of(x, y, r, node)
        if all(isinstance(arg, Ref) or not bool((of.d > 0).any()) for arg, of in ((a, x), (b, y))):
            return [step]
        # A constant that is rounded is the operation's own error: what it makes of any values within their boxes.
        given = [_within(of) if isinstance(arg, Ref) else of for arg, of in ((a, x), (b, y))]
        return [Step(step.value, self.of(given[0], given[1], r, node).value.d)]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        g, pair = grads[node.outputs[0]], self._operands(node, read)  # type: ignore[index]
        found = []
        for arg, (lo, hi) in zip(node.args[:2], self.derivatives(*pair, node), strict=True):
            if isinstance(arg, Ref):
                shape = read(arg.number).lo.shape
                found.append((arg.number, unbroadcast(g.times(lo, hi), shape)))
        return found

    @staticmethod
    def _operands(node: Node, read: Read) -> Pair:
        if float(node.kwargs.get("alpha", 1)) != 1 or node.kwargs.get("rounding_mode"):
            raise InputError(
                f"bounds: {node.path}: {node.kind} with alpha or a rounding mode: no rule; write it plainly"
            )
        return operand(node.args[0], read, node.use), operand(node.args[1], read, node.use)

    @abstractmethod
    def of(self, x: Bounded, y: Bounded, r: Rounding, node: Node) -> Step:
        """Return the bounds of the result."""

    @abstractmethod
    def derivatives(self, x: Bounded, y: Bounded, node: Node) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return what encloses the derivatives with respect to both, over the boxes."""


class Sum(Binary):
    """(B22) x + y and x - y: d = (d_x + d_y)(1 + u) + u M; e from A = max(e_x, e_y) where both have one sign, else from
    max |x / z| e_x + max |y / z| e_y. Where one of both is exactly zero nothing is rounded.

    Args:
        sign: of y.
    """

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def of(self, x: Bounded, y: Bounded, r: Rounding, node: Node) -> Step:
        ends = (y.lo, y.hi) if self.sign > 0 else (-y.hi, -y.lo)
        lo, hi = below(x.lo + ends[0]), above(x.hi + ends[1])
        moved = x.d + y.d
        most = torch.maximum(lo.abs(), hi.abs()) + moved
        off = off_by(r, most)
        off = torch.where((x.computed <= ZERO) | (y.computed <= ZERO), 0.0, off)
        off = grown(off)
        same = ((x.lo >= 0) & (ends[0] >= 0)) | ((x.hi <= 0) & (ends[1] <= 0))
        e = torch.where(same, grown(torch.maximum(x.e, y.e) * (1.0 + r.u) + r.u), torch.inf)
        if r.eta:
            e = torch.full_like(e, torch.inf)
        return Step(Bounded(lo, hi, grown(moved + off), e), off)

    def derivatives(self, x: Bounded, y: Bounded, node: Node) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        one = torch.ones((), dtype=torch.float64)
        return (one, one), (one * self.sign, one * self.sign)


class Product(Binary):
    """(B23) x y: d = (M_x d_y + M_y d_x + d_x d_y)(1 + u) + u M; e = (1 + e_x)(1 + e_y)(1 + u) - 1. By a power of two:
    exact.
    """

    def of(self, x: Bounded, y: Bounded, r: Rounding, node: Node) -> Step:
        lo, hi = Interval(x.lo, x.hi).times(y.lo, y.hi)
        if node.args[0] == node.args[1]:  # a square
            lo = lo.clamp(min=0)
        moved = grown(_zero_if(y.d, x.magnitude) + _zero_if(x.d, y.magnitude) + _zero_if(x.d, y.d))
        most = grown(torch.maximum(lo.abs(), hi.abs()) + moved)
        off = torch.where(_power_of_two(x) | _power_of_two(y), r.eta + torch.where(most > r.largest, torch.inf, 0.0),
                          off_by(r, most))  # fmt: skip
        e = x.e + y.e + _zero_if(x.e, y.e)
        e = e + r.u * (1.0 + e)  # (1 + e_x)(1 + e_y)(1 + u) - 1 would lose digits
        return Step(Bounded(lo, hi, grown(moved + off), grown(e) if not r.eta else None), grown(off))

    def derivatives(self, x: Bounded, y: Bounded, node: Node) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return y.box, x.box


class Quotient(Binary):
    """(B24) x / y: d = (d_x + M_z d_y) / (m_y - d_y) (1 + u) + u M; e = (e_x + e_y) / (1 - e_y) (1 + u) + u where e_y
    is below 1.
    """

    def of(self, x: Bounded, y: Bounded, r: Rounding, node: Node) -> Step:
        free = (y.box[0] > 0) | (y.box[1] < 0)
        lo, hi = Interval(x.lo, x.hi).times(*_inverse(y.lo, y.hi))
        most = torch.maximum(lo.abs(), hi.abs())
        least = torch.minimum(y.lo.abs(), y.hi.abs()) - y.d
        moved = grown(torch.where(free, (x.d + _zero_if(y.d, most)) / below(least), torch.inf))
        off = grown(off_by(r, most + moved))
        if bool((_power_of_two(y)).all()):
            off = torch.where(most + moved > r.largest, torch.inf, torch.full_like(off, r.eta))
        e = torch.where(y.e < 1, (x.e + y.e) / (1.0 - y.e) * (1.0 + r.u) + r.u, torch.inf)
        return Step(Bounded(lo, hi, grown(moved + off), grown(e) if not r.eta else None), off)

    def derivatives(self, x: Bounded, y: Bounded, node: Node) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        inverse = Interval(*_inverse(*y.box))
        by_y = inverse.times(*inverse).times(*x.box)
        return (inverse.lo, inverse.hi), (-by_y.hi, -by_y.lo)


class Extreme(Binary):
    """(B25) max(x, y), min(x, y): exact; off by at most the larger of both errors.

    Args:
        largest: whether it is max.
    """

    def __init__(self, largest: bool) -> None:
        self.largest = largest

    def of(self, x: Bounded, y: Bounded, r: Rounding, node: Node) -> Step:
        pick = torch.maximum if self.largest else torch.minimum
        d = torch.maximum(x.d, y.d)
        e = torch.where((x.e < 1) & (y.e < 1), torch.maximum(x.e, y.e), torch.inf)
        return Step(Bounded(pick(x.lo, y.lo), pick(x.hi, y.hi), d, e), torch.zeros_like(d))

    def derivatives(self, x: Bounded, y: Bounded, node: Node) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        sign = 1.0 if self.largest else -1.0
        a, b = (tuple(sorted_ends(one.box, sign)) for one in (x, y))
        return ((a[0] > b[1]).double(), (a[1] >= b[0]).double()), ((b[0] > a[1]).double(), (b[1] >= a[0]).double())


def _rounded_scalar(arg: Any, x: Bounded, r: Rounding) -> Bounded:
    """Return a number in the code, which is rounded before it is used, unless it has few bits."""
    if isinstance(arg, Ref | Tensor):
        return x
    return Bounded(x.lo, x.hi, torch.full_like(x.lo, r.of_number(float(x.lo))))


def _within(x: Bounded) -> Bounded:
    """Return exact values anywhere between exact and computed ones."""
    return Bounded(*x.box, torch.zeros_like(x.d))


def sorted_ends(box: tuple[Tensor, Tensor], sign: float) -> tuple[Tensor, Tensor]:
    """Return the ends of a box, or of its negative."""
    return box if sign > 0 else (-box[1], -box[0])


def _zero_if(d: Tensor, factor: Tensor) -> Tensor:
    """Return d * factor, 0 where either is; but 0 times what has no bound may be NaN."""
    return torch.where((d == 0) | ((factor == 0) & d.isfinite()), 0.0, d * factor)


def _power_of_two(x: Bounded) -> Tensor:
    return (x.lo == x.hi) & (x.d == 0) & (torch.frexp(x.lo.abs())[0] == 0.5)


def _inverse(lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    free = (lo > 0) | (hi < 0)
    return torch.where(free, below(1.0 / hi), -torch.inf), torch.where(free, above(1.0 / lo), torch.inf)


RULES: dict[str, Rule] = {
    "add": Sum(1.0), "sub": Sum(-1.0), "mul": Product(), "div": Quotient(),
    "maximum": Extreme(largest=True), "minimum": Extreme(largest=False),
}  # fmt: skip
