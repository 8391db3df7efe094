"""Rules of functions of one value: activations, exponentials, roots.

Common to all: with X the box of exact and computed values, F = max |f|, S = max |f'| over it, and an evaluation that is
off by c u |f| + eta (plus what a rule names), d = S d_x + off: (B11), by the mean value theorem. The others that are
numbered give a relative bound besides. c is of the arithmetic; torch's own functions in float32 are taken to be off by
2 ulp.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from simulator.errors import InputError

from .bounded import Bounded
from .graph import Node
from .outward import ZERO, above, below, grown
from .roundings import Rounding
from .rule import Gradients, Interval, Read, Rule, Step, Unit

Ends = tuple[Tensor, Tensor]


class Unary(Rule):
    """A function of one value; a subclass says its range and that of its derivative over intervals."""

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x, r = read(node.args[0].number), unit.vector(node.path)
        lo, hi = self.range(x.lo, x.hi, node)
        wide = self.range(*x.box, node)
        most = torch.maximum(wide[0].abs(), wide[1].abs())
        off = self.off(most, x, r, unit.library, node)
        off = torch.where(off == 0, 0.0, grown(off))  # 0 of what is exact
        over = off + most > r.largest
        off = torch.where(over, torch.inf, off)
        slope = self.slope(*x.box, node)
        steepest = torch.maximum(slope[0].abs(), slope[1].abs())
        moved = torch.where(x.d == 0, 0.0, steepest * x.d)
        d, other = grown(moved + off), self.absolute(x, r, unit.library, node)
        if other is not None:
            d = torch.minimum(d, other)
        e = self.relative(x, r, unit.library, node)
        if e is not None and r.eta:  # underflow, relative to the least magnitude of the result
            least = torch.where((lo <= 0) & (hi >= 0), 0.0, torch.minimum(lo.abs(), hi.abs()))
            e = grown(e + r.eta / least)
        d = torch.where(over, torch.inf, d)
        e = None if e is None else torch.where(over, torch.inf, e)
        return [Step(Bounded(lo, hi, d, e), off)]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        number = node.args[0].number
        slope = self.slope(*read(number).box, node)
        return [(number, grads[node.outputs[0]].times(*slope))]  # type: ignore[index]

    @abstractmethod
    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        """Return what encloses f over [lo, hi]."""

    @abstractmethod
    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        """Return what encloses f' over [lo, hi], of Clarke where there is none."""

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        """Return how far an evaluation is off, of values of at most this magnitude."""
        return most * (c * r.u) + r.eta

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        """Return a relative bound of the result without underflow; None where only the absolute one says something."""
        return None

    def absolute(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        """Return another absolute bound of the result, or None."""
        return None


class Increasing(Unary):
    """A function that increases."""

    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return below(self.value(lo, node)), above(self.value(hi, node))

    @abstractmethod
    def value(self, x: Tensor, node: Node) -> Tensor:
        """Return f(x) in float64."""


class Relu(Increasing):
    """(B12) max(x, 0): exact, and 1-Lipschitz; relative errors below 1 stay, since signs do."""

    def value(self, x: Tensor, node: Node) -> Tensor:
        return x.clamp(min=0)

    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return lo.clamp(min=0), hi.clamp(min=0)

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return (lo > 0).double(), (hi > 0).double()

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        return torch.zeros_like(most)

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        return None if x.given is None else torch.where(x.e < 1, x.e, torch.inf)

    def absolute(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        return torch.where(x.box[1] <= 0, 0.0, x.d)


class LeakyRelu(Increasing):
    """(B13) x, or s x where x is negative: roundings of s and of the product, none of x itself; 0 <= s."""

    @staticmethod
    def _scale(node: Node) -> float:
        return float(node.args[1]) if len(node.args) > 1 else 0.01

    def value(self, x: Tensor, node: Node) -> Tensor:
        s = self._scale(node)
        if s < 0:
            raise _unsupported(node, f"a negative slope of {s:g}")
        return torch.where(x > 0, x, x * s)

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        s = self._scale(node)
        one = torch.ones_like(lo)  # a number for it would make float32 of both
        left, right = torch.where(lo > 0, one, s), torch.where(hi > 0, one, s)
        return torch.minimum(left, right), torch.maximum(left, right)

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        negative = (-x.box[0]).clamp(min=0) * self._scale(node)
        return torch.where(negative > 0, negative * (r.u * (2.0 + r.u)) + r.eta, 0.0)


class Clamp(Increasing):
    """(B14) min(max(x, a), b): 1-Lipschitz in x, a and b, and exact, unless an end that is reached is rounded."""

    @staticmethod
    def _ends(node: Node) -> tuple[float, float]:
        given = [*node.args[1:], *(node.kwargs.get(name) for name in ("min", "max")[len(node.args) - 1 :])]
        if node.kind == "hardtanh":
            given = [*node.args[1:], *(-1.0, 1.0)[len(node.args) - 1 :]]
        if any(isinstance(end, Tensor) for end in given):
            raise _unsupported(node, "ends that are tensors")
        low, high = (*given, None, None)[:2]
        return -math.inf if low is None else float(low), math.inf if high is None else float(high)

    def value(self, x: Tensor, node: Node) -> Tensor:
        low, high = self._ends(node)
        return x.clamp(min=low, max=high)

    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return self.value(lo, node), self.value(hi, node)

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        low, high = self._ends(node)
        return ((lo >= low) & (hi <= high)).double(), ((hi >= low) & (lo <= high)).double()

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        (low, high), (least, largest) = self._ends(node), x.box
        off = torch.zeros_like(most)
        for end, reached in ((low, lambda own: least < low + own), (high, lambda own: largest > high - own)):
            own = r.of_number(end) if math.isfinite(end) else 0.0
            off = torch.where(reached(own), off.clamp(min=own), off)
        return off


class Exp(Increasing):
    """(B15) exp: e = K(d) + c u (1 + K(d)), K(d) = exp(d) - 1: absolute errors become relative ones."""

    def value(self, x: Tensor, node: Node) -> Tensor:
        return x.exp()

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return self.range(lo, hi, node)

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        k = torch.expm1(x.d)
        return grown(k + c * r.u * (1.0 + k))


class Log(Increasing):
    """(B16) log: d = D (1 + c u) + c u |z|, D = -log(1 - e): relative errors become absolute ones; e below 1."""

    def value(self, x: Tensor, node: Node) -> Tensor:
        return x.log()

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return torch.where(lo > 0, below(1.0 / hi), 0.0), torch.where(lo > 0, above(1.0 / lo), torch.inf)

    def absolute(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        lo, hi = self.range(x.lo, x.hi, node)
        moved = -torch.log1p(-x.e.clamp(max=1.0))
        z = torch.maximum(lo.abs(), hi.abs())
        return torch.where((x.e < 1) & (x.lo > 0), grown(moved * (1.0 + c * r.u) + c * r.u * z + r.eta), torch.inf)


class Sqrt(Increasing):
    """(B17) sqrt: e = (e_x / 2)(1 + e_x)(1 + c u) + c u where e_x is at most 1; d_x / (sqrt(m) + sqrt(m - d_x))
    otherwise. torch's is not correctly rounded. Near 0 there is no bound linear in u, nor any where x may be negative.
    """

    def value(self, x: Tensor, node: Node) -> Tensor:
        return x.clamp(min=0).sqrt()

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        least = 0.5 / self.value(hi, node)
        return below(least), torch.where(lo > 0, above(0.5 / self.value(lo, node)), torch.inf)

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        return torch.where(x.box[0] < -ZERO, torch.inf, most * (c * r.u) + r.eta)

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        found = grown(x.e / 2 * (1.0 + x.e) * (1.0 + c * r.u) + c * r.u)
        return torch.where((x.e <= 1) & (x.lo >= 0), found, torch.inf)


class Sigmoid(Increasing):
    """(B18) sigmoid: S = max s(x) s(-x) <= 1/4; e = K(G d)(1 + c u) + c u, G = max s(-x)."""

    def value(self, x: Tensor, node: Node) -> Tensor:
        return x.sigmoid()

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return _bump(lo, hi, lambda x: x.sigmoid() * (-x).sigmoid())

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        return grown(torch.expm1((-x.box[0]).sigmoid() * x.d) * (1.0 + c * r.u) + c * r.u)


class Tanh(Increasing):
    """(B19) tanh: S = max 1 / cosh**2; e = e_x (1 + c u) + c u only where e_x is at most 1."""

    def value(self, x: Tensor, node: Node) -> Tensor:
        return x.tanh()

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return _bump(lo, hi, lambda x: 1.0 / x.cosh().square())

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        found = grown(x.e * (1.0 + c * r.u) + c * r.u)
        return torch.where(x.e <= 1, found, torch.inf)


class Erf(Increasing):
    """(B33) erf: S = max 2 / sqrt(pi) exp(-x**2); of absolute accuracy, off by c u, so that no relative bound holds."""

    def value(self, x: Tensor, node: Node) -> Tensor:
        return x.erf()

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        least, most = _bump(lo, hi, lambda x: (-x.square()).exp() * (2.0 / math.sqrt(math.pi)))
        return least * (1.0 - 2.0**-40), most * (1.0 + 2.0**-40)  # far out x**2 is off by more than `below` allows

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        return torch.full_like(most, c * r.u + r.eta)


class Wavy(Unary):
    """A function with one minimum, and a derivative with extremes at +-`turn`."""

    least_at: float
    turn: float

    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        ends = torch.stack([self.value(lo, node), self.value(hi, node)])
        inside = (lo <= self.least_at) & (hi >= self.least_at)
        least = self.value(torch.tensor(self.least_at, dtype=torch.float64), node) - 2.0**-30
        return below(torch.where(inside, least, ends.amin(0))), above(ends.amax(0))

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        ends = torch.stack([self.derivative(lo), self.derivative(hi)])
        least, most = ends.amin(0), ends.amax(0)
        for at in (-self.turn, self.turn):
            inside = (lo <= at) & (hi >= at)
            there = self.derivative(torch.tensor(at, dtype=torch.float64))
            least = torch.where(inside, torch.minimum(least, there - 2.0**-30), least)
            most = torch.where(inside, torch.maximum(most, there + 2.0**-30), most)
        return below(least) - 2.0**-40, above(most) + 2.0**-40

    @abstractmethod
    def value(self, x: Tensor, node: Node) -> Tensor:
        """Return f(x) in float64."""

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """Return f'(x) in float64."""


class Gelu(Wavy):
    """(B20) x Phi(x), not the form with tanh: as computed, 1 + erf cancels where x is negative, and erf itself is of
    absolute accuracy, so that the evaluation is off by c u (|f| + 2 |x|). It passes through 2 f.
    """

    turn, least_at = math.sqrt(2.0), -0.7517915

    def value(self, x: Tensor, node: Node) -> Tensor:
        if node.kwargs.get("approximate", "none") != "none":
            raise _unsupported(node, "the form with tanh")
        finite = x.clamp(min=-1e30)
        return finite * _normal(finite)

    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        # To the left of -14 erfc may have lost what `below` allows for; there x Phi(x) is above -2**-140.
        least, most = super().range(lo, hi, node)
        return least - 2.0**-140, most + 2.0**-140

    def derivative(self, x: Tensor) -> Tensor:
        finite = x.clamp(-1e30, 1e30)
        return _normal(finite) + finite * torch.exp(-finite.square() / 2) / math.sqrt(2 * math.pi)

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        off = (most + 2.0 * x.computed) * (c * r.u) + r.eta
        return torch.where(2.0 * (most + off) > r.largest, torch.inf, off)


class Silu(Wavy):
    """(B21) x s(x), where s may underflow before it is multiplied by x: off by eta |x| besides."""

    turn, least_at = 2.3993573, -1.2784645

    def value(self, x: Tensor, node: Node) -> Tensor:
        finite = x.clamp(min=-1e30)
        return finite * finite.sigmoid()

    def derivative(self, x: Tensor) -> Tensor:
        finite = x.clamp(-1e30, 1e30)
        return finite.sigmoid() * (1.0 + finite * (-finite).sigmoid())

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        return most * (c * r.u) + r.eta * (1.0 + x.computed)


class Abs(Unary):
    """(B14) of |x|: exact, and 1-Lipschitz."""

    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        ends = torch.stack([lo.abs(), hi.abs()])
        return torch.where((lo <= 0) & (hi >= 0), 0.0, ends.amin(0)), ends.amax(0)

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return torch.where(lo > 0, 1.0, -1.0).double(), torch.where(hi < 0, -1.0, 1.0).double()

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        return torch.zeros_like(most)

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        return None if x.given is None else torch.where(x.e < 1, x.e, torch.inf)


class Negative(Unary):
    """(B14) of -x: exact."""

    def range(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return -hi, -lo

    def slope(self, lo: Tensor, hi: Tensor, node: Node) -> Ends:
        return torch.full_like(lo, -1.0), torch.full_like(hi, -1.0)

    def off(self, most: Tensor, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor:
        return torch.zeros_like(most)

    def relative(self, x: Bounded, r: Rounding, c: float, node: Node) -> Tensor | None:
        return x.e


def _normal(x: Tensor) -> Tensor:
    """Return Phi(x) by erfc, relatively accurate where x is negative; ndtr of torch is 0 below -8.3."""
    return torch.special.erfc(x * -math.sqrt(0.5)) / 2


def _bump(lo: Tensor, hi: Tensor, f: Any) -> Ends:
    """Return the range of a positive even function that falls away from 0."""
    ends = torch.stack([f(lo), f(hi)])
    peak = f(torch.zeros((), dtype=torch.float64))
    return below(ends.amin(0)).clamp(min=0), above(torch.where((lo <= 0) & (hi >= 0), peak, ends.amax(0)))


def _unsupported(node: Node, what: str) -> InputError:
    return InputError(f"bounds: {node.path}: {node.kind} with {what}: no rule; expected the plain form; write it so")


RULES: dict[str, Rule] = {
    "relu": Relu(), "leaky_relu": LeakyRelu(), "clamp": Clamp(), "clamp_min": Clamp(), "hardtanh": Clamp(),
    "exp": Exp(), "log": Log(), "sqrt": Sqrt(), "sigmoid": Sigmoid(), "tanh": Tanh(), "erf": Erf(), "gelu": Gelu(),
    "silu": Silu(), "abs": Abs(), "neg": Negative(),
}  # fmt: skip
