"""Rules of functions of one value.

With X what holds exact and computed values, F = max |f| and S = max |f'| over X, and an evaluation off by at most o:
d = S d_x + o (C20), by the mean value theorem. o = c u F + eta of the functions of a library, of which c is a premise;
0 of what only compares. Relative bounds: (C21) exp: K = exp(d) - 1, e = K + c u (1 + K); sigmoid likewise with
K = exp(G d) - 1, G = max s(-x); tanh, concave: e (1 + c u) + c u while e <= 1; comparisons keep signs while e < 1.
On the way back an interval is multiplied by that of f' over X, of Clarke at kinks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping

from flint import arb

from .balls import (
    HALF,
    INF,
    ONE,
    ZERO,
    Balls,
    Ends,
    is_infinite,
    larger,
    least_magnitude,
    magnitude,
    power,
    smaller,
    times,
)
from .document import Fault, Node
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
        d, local = [], []
        for a, b, off_x in zip(*box, x.d, strict=True):
            most = magnitude(*self.range(a, b, settings))
            off = self.off(a, b, most, settings, p, node)
            if not self.compares and not most + off <= p.vector.largest:
                off = INF
            moved = ZERO if off_x == 0 else magnitude(*self.slope(a, b, settings)) * off_x
            d.append(moved + off)
            local.append(off)
        relative = self.relative(x, box, p)
        if relative is not None:
            relative = each(lambda e, a, b: e + _underflow(p, a, b), relative, lo, hi)
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
            raise Fault(f"{node}: no rule for {len(node.args)} arguments")
        return ()

    @abstractmethod
    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        """Return the ends of f over an interval."""

    @abstractmethod
    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        """Return what encloses f' over an interval."""

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        """Return the error of an evaluation anywhere in an interval, of results of at most this magnitude."""
        return most * _library(p) + p.vector.eta

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        """Return relative bounds without underflow."""
        return None


def _library(p: Premises) -> arb:
    return p.library * p.vector.u


def _underflow(p: Premises, lo: arb, hi: arb) -> arb:
    if p.vector.eta == 0:
        return ZERO
    least = least_magnitude(lo, hi)
    return p.vector.eta / least if least > 0 else INF


class Increasing(Function):
    """A function that increases, with its limits."""

    limits: Pair

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return self._at(lo), self._at(hi)

    def _at(self, x: arb) -> arb:
        return self.limits[bool(x > 0)] if is_infinite(x) else self.value(x)

    @abstractmethod
    def value(self, x: arb) -> arb:
        """Return f(x)."""


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


class LeakyRelu(Function):
    """x, or s x where x is negative: s and the product are rounded there, (1 + t)**2 - 1 <= 2 u to nearest."""

    def settings(self, node: Node) -> tuple[float, ...]:
        plain(node)
        s = number(node.args[1], node) if len(node.args) > 1 else 0.01
        if len(node.args) > 2 or not (s == 0 or 2.0**-100 <= s <= 2.0**100):
            raise Fault(f"{node}: no rule for the slope {s!r}")
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
            raise Fault(f"{node}: no rule for these arguments")
        without = (-1.0, 1.0) if node.kind == "hardtanh" else (-math.inf, math.inf)
        low, high = (
            end if given.get(name) is None else number(given[name], node)
            for name, end in zip(names, without, strict=True)
        )
        if low > high:
            raise Fault(f"{node}: no rule for ends {low!r} above {high!r}")
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


class Exp(Increasing):
    """exp."""

    limits = ZERO, INF

    def value(self, x: arb) -> arb:
        return x.exp()

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return self.range(lo, hi, settings)

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        return [d.expm1() + _library(p) * d.exp() for d in x.d]


class Sigmoid(Increasing):
    """1 / (1 + exp(-x))."""

    limits = ZERO, ONE

    def value(self, x: arb) -> arb:
        return _sigmoid(x)

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return _bump(lo, hi, lambda x: _sigmoid(x) * _sigmoid(-x))

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        found = []
        for lo, d in zip(box.lo, x.d, strict=True):
            k = (_sigmoid(-lo) * d).expm1() if d.is_finite() else INF
            found.append(k * (ONE + _library(p)) + _library(p))
        return found


class Tanh(Increasing):
    """tanh."""

    limits = -ONE, ONE

    def value(self, x: arb) -> arb:
        return x.tanh()

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return _bump(lo, hi, lambda x: ONE / x.cosh() ** 2)

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        return [e * (ONE + _library(p)) + _library(p) if e <= 1 else INF for e in x.e]


class Wavy(Function):
    """A function that falls to a minimum at `least_at`, left of which it stays below 0, and then rises; its derivative
    has its least value at -`turn`, its largest one at `turn`, and rises between. It is 0 far to the left.
    """

    least_at: arb
    turn: arb

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        left, right = self._at(lo), self._at(hi)
        least = smaller(left, right) if hi <= self.least_at or lo >= self.least_at else self.value(self.least_at)
        return least, larger(left, right)

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        left, right = self._slope_at(lo), self._slope_at(hi)
        least, most = smaller(left, right), larger(left, right)
        if not (hi <= -self.turn or lo >= -self.turn):
            least = self.derivative(-self.turn)
        if not (hi <= self.turn or lo >= self.turn):
            most = self.derivative(self.turn)
        return least, most

    def _at(self, x: arb) -> arb:
        return (INF if x > 0 else ZERO) if is_infinite(x) else self.value(x)

    def _slope_at(self, x: arb) -> arb:
        return (ONE if x > 0 else ZERO) if is_infinite(x) else self.derivative(x)

    @abstractmethod
    def value(self, x: arb) -> arb:
        """Return f(x)."""

    @abstractmethod
    def derivative(self, x: arb) -> arb:
        """Return f'(x)."""


class Gelu(Wavy):
    """x Phi(x), evaluated with an error of c u (|f| + |x|). Its derivative has the derivative (2 - x**2) phi(x)."""

    least_at = arb("-0.751791524693564457457904947", 1e-26)
    turn = arb(2).sqrt()

    def settings(self, node: Node) -> tuple[float, ...]:
        plain(node, "approximate")
        if node.kwargs.get("approximate", "none") != "none" or len(node.args) > 1:
            raise Fault(f"{node}: no rule for another form than x Phi(x)")
        return ()

    def value(self, x: arb) -> arb:
        return x * _normal(x)

    def derivative(self, x: arb) -> arb:
        return _normal(x) + x * (-x * x / 2).exp() / (2 * arb.pi()).sqrt()

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        return (most + magnitude(lo, hi)) * _library(p) + p.vector.eta


class Silu(Wavy):
    """x s(x), evaluated as one function; in float32 as x / (1 + exp(-x)), which is 0 where exp overflows, below -88."""

    least_at = arb("-1.278464542761073795109358739", 1e-26)
    turn = arb("2.399357280515467667832739697", 1e-26)

    def value(self, x: arb) -> arb:
        return x * _sigmoid(x)

    def derivative(self, x: arb) -> arb:
        return _sigmoid(x) * (ONE + x * _sigmoid(-x))

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        off = super().off(lo, hi, most, settings, p, node)
        return off if p.precision is not None or lo > -88 else off + power(-120)


def _sigmoid(x: arb) -> arb:
    return ONE / (ONE + (-x).exp())


def _normal(x: arb) -> arb:
    """Return the distribution function of the normal distribution."""
    return (-x / arb(2).sqrt()).erfc() * HALF


def _bump(lo: arb, hi: arb, f: Callable[[arb], arb]) -> Pair:
    """Return the range of a positive even function that falls away from its peak at 0 to 0."""
    left, right = (ZERO if is_infinite(x) else f(x) for x in (lo, hi))
    return smaller(left, right), larger(left, right) if lo >= 0 or hi <= 0 else f(ZERO)


RULES: dict[str, Rule] = {
    "relu": Relu(), "leaky_relu": LeakyRelu(), "clamp": Clamp(), "clamp_min": Clamp(), "hardtanh": Clamp(),
    "exp": Exp(), "sigmoid": Sigmoid(), "tanh": Tanh(), "gelu": Gelu(), "silu": Silu(),
}  # fmt: skip
