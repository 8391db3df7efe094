"""Rules of functions of one value, and of those that only compare.

With X what holds exact and computed values, F = max |f| and S = max |f'| over X, and an evaluation off by at most o:
d = S d_x + o (C20), by the mean value theorem. o = c u F + eta of the functions of a library, of which c is a premise;
0 of what only compares. Comparisons keep signs, and so relative bounds, while e < 1; magnitudes and negatives always.
On the way back an interval is multiplied by that of f' over X, of Clarke at kinks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping

from flint import arb

from .balls import INF, ONE, ZERO, Balls, Ends, larger, least_magnitude, magnitude, share, smaller, times
from .document import Fault, Node, NoRule
from .rule import Found, Gradients, Operand, Parts, Premises, Reader, Rule, each, number, plain

Pair = tuple[arb, arb]


class Function(Rule):
    """A function; a subclass says its range and that of its derivative over intervals, ends possibly infinite."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x = self._operand(node, at)
        p, settings = at.premises, self.settings(node)
        box = x.box
        exact = each(lambda lo, hi: self.range(lo, hi, settings), x.lo, x.hi)
        lo, hi = [one[0] for one in exact], [one[1] for one in exact]
        d, local, fits = [], [], []
        for a, b, off_x in zip(*box, x.d, strict=True):
            most = magnitude(*self.range(a, b, settings))
            off = self.off(a, b, most, settings, p, node)
            fits.append(self.compares or most + off <= p.vector.largest)
            off = off if fits[-1] else INF
            d.append(share(magnitude(*self.slope(a, b, settings)), off_x) + off)
            local.append(off)
        other = self.absolute(x, lo, hi, p)
        if other is not None:
            d = each(lambda one, two, fine: smaller(one, two) if fine and two.is_finite() else one, d, other, fits)
        relative = self.relative(x, box, p)
        if relative is not None and not self.compares:
            relative = each(lambda e, a, b, fine: e + _underflow(p, a, b) if fine else INF, relative, lo, hi, fits)
        return Found(x.shape, lo, hi, d, relative, local, x.owner)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, settings = self._operand(node, at), self.settings(node)
        slopes = each(lambda a, b: self.slope(a, b, settings), *x.box)
        assert x.number is not None
        found = []
        for g in grads:
            ends = [times(a, b, *slope) for a, b, slope in zip(*g, slopes, strict=True)]
            found.append(Ends([one[0] for one in ends], [one[1] for one in ends]))
        return [(x.number, found)]

    @staticmethod
    def _operand(node: Node, at: Reader) -> Operand:
        if not node.args:
            raise Fault(f"{node}: its operand is missing")
        return at.operand(node.args[0], node)

    compares = False  # whether it only compares, so that nothing is rounded

    def settings(self, node: Node) -> tuple[float, ...]:
        """Return what it takes besides its operand."""
        plain(node)
        if len(node.args) > 1:
            raise NoRule(f"{node}: no rule for {len(node.args)} arguments")
        return ()

    @abstractmethod
    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        """Return the ends of f over an interval."""

    @abstractmethod
    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        """Return what encloses f' over an interval."""

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        """Return the error of an evaluation anywhere in an interval, of results of at most this magnitude."""
        return most * library(p) + p.vector.eta

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        """Return relative bounds without underflow."""
        return None

    def absolute(self, x: Operand, lo: Balls, hi: Balls, p: Premises) -> Balls | None:
        """Return other absolute bounds, given the ends of the exact results."""
        return None


def library(p: Premises) -> arb:
    """Return c u."""
    return p.library * p.vector.u


def _underflow(p: Premises, lo: arb, hi: arb) -> arb:
    if p.vector.eta == 0:
        return ZERO
    least = least_magnitude(lo, hi)
    return p.vector.eta / least if least > 0 else INF


class Relu(Function):
    """max(x, 0)."""

    compares = True

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return larger(lo, ZERO), larger(hi, ZERO)

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return ONE if lo > 0 else ZERO, ZERO if hi <= 0 else ONE

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        return ZERO

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        return [e if e < 1 else INF for e in x.e]


class Abs(Function):
    """|x|."""

    compares = True

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return least_magnitude(lo, hi), magnitude(lo, hi)

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return ONE if lo > 0 else -ONE, -ONE if hi < 0 else ONE

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        return ZERO

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        return x.e


class Negative(Function):
    """-x."""

    compares = True

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return -hi, -lo

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return -ONE, -ONE

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        return ZERO

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        return x.e


class LeakyRelu(Function):
    """x, or s x where x is negative: s and the product are rounded there, (1 + t)**2 - 1 <= 2 u to nearest."""

    def settings(self, node: Node) -> tuple[float, ...]:
        plain(node)
        s = number(node.args[1], node) if len(node.args) > 1 else 0.01
        if len(node.args) > 2 or not (s == 0 or 2.0**-100 <= s <= 2.0**100):
            raise NoRule(f"{node}: no rule for the slope {s!r}")
        return (s,)

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        s = arb(settings[0])
        return smaller(lo, ZERO) * s + larger(lo, ZERO), smaller(hi, ZERO) * s + larger(hi, ZERO)

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        s = arb(settings[0])
        left, right = ONE if lo > 0 else s, s if hi <= 0 else ONE
        return smaller(left, right), larger(left, right)

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        if lo >= 0 or settings[0] == 0:
            return ZERO
        return -lo * arb(settings[0]) * 2 * p.vector.u + p.vector.eta


class Clamp(Function):
    """min(max(x, a), b), with a and b as the arithmetic holds them, (C8)."""

    compares = True

    def settings(self, node: Node) -> tuple[float, ...]:
        names = ("min_val", "max_val") if node.kind == "hardtanh" else ("min", "max")
        plain(node, *names)
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        if len(node.args) > 3 or (node.kind == "hardtanh" and node.kwargs):
            raise NoRule(f"{node}: no rule for these arguments")
        without = (-1.0, 1.0) if node.kind == "hardtanh" else (-math.inf, math.inf)
        low, high = (
            end if given.get(name) is None else number(given[name], node)
            for name, end in zip(names, without, strict=True)
        )
        if low > high:
            raise NoRule(f"{node}: no rule for ends {low!r} above {high!r}")
        return low, high

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        low, high = map(arb, settings)
        return smaller(larger(lo, low), high), smaller(larger(hi, low), high)

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        low, high = settings
        outside = hi < low or lo > high
        return ONE if lo >= low and hi <= high else ZERO, ZERO if outside else ONE

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        low, high = settings
        found = ZERO
        if math.isfinite(low) and not lo >= low:
            found = p.constant_error(low, node)
        if math.isfinite(high) and not hi <= high:
            found = larger(found, p.constant_error(high, node))
        return found


RULES: dict[str, Rule] = {
    "relu": Relu(), "abs": Abs(), "neg": Negative(), "leaky_relu": LeakyRelu(), "clamp": Clamp(), "clamp_min": Clamp(),
    "hardtanh": Clamp(),
}  # fmt: skip
