"""Rules of the smooth functions of one value, by (C20), and what they do to relative bounds.

(C21) exp: K = exp(d) - 1, e = K + c u (1 + K); sigmoid likewise with K = exp(G d) - 1, G = max s(-x); tanh, concave:
e (1 + c u) + c u while e <= 1. (C22) log: what is off by e < 1 relative to x moves it by at most D = -log(1 - e), so
that d = D (1 + c u) + c u |z| + eta. (C23) sqrt: 1 - sqrt(1 - e) of itself while e <= 1, more than sqrt(1 + e) - 1. An
exact zero may be stated as an interval that begins below it, by less than 2**-990; the root there is 0.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from flint import arb

from .balls import HALF, INF, ONE, ZERO, Balls, Ends, inverse, is_infinite, larger, magnitude, power, smaller
from .document import Node, NoRule
from .functions import Function, Pair, library
from .rule import Operand, Premises, Rule, plain

_NOTHING = power(-990)


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


class Exp(Increasing):
    """exp."""

    limits = ZERO, INF

    def value(self, x: arb) -> arb:
        return x.exp()

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return self.range(lo, hi, settings)

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        return [d.expm1() + library(p) * d.exp() for d in x.d]


class Log(Increasing):
    """log; without bounds where its argument may be 0."""

    limits = -INF, INF

    def value(self, x: arb) -> arb:
        return x.log() if x > 0 else -INF

    def range(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return super().range(lo, hi, settings) if hi > 0 else (-INF, INF)

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return inverse(lo, hi) if lo > 0 else (ZERO, INF)

    def absolute(self, x: Operand, lo: Balls, hi: Balls, p: Premises) -> Balls | None:
        return [
            -(-e).log1p() * (ONE + library(p)) + magnitude(a, b) * library(p) + p.vector.eta if e < 1 and own > 0
            else INF
            for e, own, a, b in zip(x.e, x.lo, lo, hi, strict=True)
        ]  # fmt: skip


class Sqrt(Increasing):
    """sqrt."""

    limits = ZERO, INF

    def value(self, x: arb) -> arb:
        return x.sqrt() if x > 0 else ZERO if x <= 0 else ZERO.union(x.upper().sqrt())

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        if not hi > 0:  # the derivative from the right, and none from the left
            return INF, INF
        return HALF / self._at(hi), HALF / self._at(lo) if lo > 0 else INF

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        return super().off(lo, hi, most, settings, p, node) if lo >= -_NOTHING else INF

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        cu = library(p)
        return [
            (ONE - (ONE - e).sqrt()) * (ONE + cu) + cu if e <= 1 and lo >= 0 else INF
            for e, lo in zip(x.e, x.lo, strict=True)
        ]


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
            found.append(k * (ONE + library(p)) + library(p))
        return found


class Tanh(Increasing):
    """tanh."""

    limits = -ONE, ONE

    def value(self, x: arb) -> arb:
        return x.tanh()

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return _bump(lo, hi, lambda x: ONE / x.cosh() ** 2)

    def relative(self, x: Operand, box: Ends, p: Premises) -> Balls | None:
        return [e * (ONE + library(p)) + library(p) if e <= 1 else INF for e in x.e]


class Erf(Increasing):
    """The error function, computed with an absolute accuracy: no relative bound of it is known."""

    limits = -ONE, ONE

    def value(self, x: arb) -> arb:
        return x.erf()

    def slope(self, lo: arb, hi: arb, settings: tuple[float, ...]) -> Pair:
        return _bump(lo, hi, lambda x: 2 * (-x * x).exp() / arb.pi().sqrt())

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        return library(p) + p.vector.eta


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
    """x Phi(x), evaluated as 0.5 x (1 + erf(x / sqrt(2))), of which erf has an absolute accuracy, and the sum with 1
    cancels: off by up to c u (|f| + 2 |x|). Its derivative has the derivative (2 - x**2) phi(x).
    """

    least_at = arb("-0.751791524693564457457904947", 1e-26)
    turn = arb(2).sqrt()

    def settings(self, node: Node) -> tuple[float, ...]:
        plain(node, "approximate")
        if node.kwargs.get("approximate", "none") != "none" or len(node.args) > 1:
            raise NoRule(f"{node}: no rule for another form than x Phi(x)")
        return ()

    def value(self, x: arb) -> arb:
        return x * _normal(x)

    def derivative(self, x: arb) -> arb:
        return _normal(x) + x * (-x * x / 2).exp() / (2 * arb.pi()).sqrt()

    def off(self, lo: arb, hi: arb, most: arb, settings: tuple[float, ...], p: Premises, node: Node) -> arb:
        return (most + 2 * magnitude(lo, hi)) * library(p) + p.vector.eta


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
    "exp": Exp(), "log": Log(), "sqrt": Sqrt(), "sigmoid": Sigmoid(), "tanh": Tanh(), "erf": Erf(), "gelu": Gelu(),
    "silu": Silu(),
}  # fmt: skip
