"""Rules of softmax and of its logarithm.

(C50) Softmax, computed as exp(x - max) over the sum of these, n of them in any order. A common shift changes nothing,
so only D counts, by how much a difference may be off, at most d_i + (|x_i - max| + d_i + max d) u, the largest of a
group. With R = (1 + c u)(1 + u) / ((1 - c u)(1 - (n - 1) u)): e = exp(2 D) R - 1, and d = G D + (R - 1) y, since no
derivative of y along a shift of the inputs by D exceeds G D = 2 y (1 - y) D; y between y_lo exp(-2 D) and
min(1, y_hi exp(2 D)). Underflow: that of an exponential, of the others through the sum, of the quotient: n + 1 in all.
(C52) Its logarithm, x - max less log s, s the sum of exp(x - max). No sum of exponentials of differences moves by more
than max d in its logarithm: d_i + max d. Of the evaluation, t_i = x_i - max at most T: a difference off by T u changes
an exponential by K = exp(T u) - 1 + c u exp(T u) of itself; s, from 1 to n, by r = K + (n - 1) u (1 + K) + n eta of
itself, its logarithm by L = -log(1 - r)(1 + c u) + c u log n; the result by |t_i| u + L, and by the last difference
(|t_i|(1 + u) + log n + L) u, of which 1 + u is at most 2; three operations may underflow besides. While r is below 1
no difference is so large that it overflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from flint import arb

from .balls import HALF, INF, ONE, ZERO, Balls, Ends, Places, larger, smaller, times
from .document import Node, NoRule
from .places import along, one_owner
from .rule import Found, Gradients, Operand, Parts, Premises, Reader, Rule, plain

Pairs = list[tuple[arb, arb]]


class Softmax(Rule):
    """softmax along an axis."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, places = _read(node, at)
        p = at.premises
        size = len(x.lo)
        lo, hi, d, e, local = ([ZERO] * size for _ in range(5))
        box = x.box
        underflow = p.vector.eta * (places.shape[1] + 1)
        for row in places.tolist():
            exact = [(x.lo[i], x.hi[i]) for i in row]
            wide = [(box.lo[i], box.hi[i]) for i in row]
            y, own = _probabilities(exact), _probabilities(wide)
            off = [x.d[i] for i in row]
            bounds, locals_ = _bounds(y, wide, off, p), _bounds(own, wide, [ZERO] * len(row), p)
            for k, i in enumerate(row):
                (lo[i], hi[i]), (bound, relative) = y[k], bounds[k]
                d[i], local[i] = bound + underflow, locals_[k][0] + underflow
                e[i] = relative if p.vector.eta == 0 else INF
        one_owner(x.owner[places], node)
        return Found(x.shape, lo, hi, d, e, local, x.owner)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, places = _read(node, at)
        assert x.number is not None
        lo, hi = x.box
        rows = [(row, _probabilities([(lo[i], hi[i]) for i in row])) for row in places.tolist()]
        found = []
        for g in grads:
            down, up = [ZERO] * len(lo), [ZERO] * len(lo)
            for row, y in rows:
                mine = [(g.lo[i], g.hi[i]) for i in row]
                parts = [times(*one, *share) for one, share in zip(mine, y, strict=True)]
                # The sum of g y is a mean of g, and so between its ends too.
                low = larger(sum((a for a, _ in parts), ZERO), reduce(smaller, [a for a, _ in mine]))
                high = smaller(sum((b for _, b in parts), ZERO), reduce(larger, [b for _, b in mine]))
                for i, (a, b), share in zip(row, mine, y, strict=True):
                    down[i], up[i] = times(a - high, b - low, *share)
            found.append(Ends(down, up))
        return [(x.number, found)]


class LogSoftmax(Rule):
    """log_softmax along an axis."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, places = _read(node, at)
        lo, hi, d, local = ([ZERO] * len(x.lo) for _ in range(4))
        box = x.box
        for row in places.tolist():
            ends = _logarithms([(x.lo[i], x.hi[i]) for i in row])
            off = _evaluated([(box.lo[i], box.hi[i]) for i in row], at.premises)
            most = reduce(larger, [x.d[i] for i in row])
            for i, pair, own in zip(row, ends, off, strict=True):
                (lo[i], hi[i]), d[i], local[i] = pair, x.d[i] + most + own, own
        one_owner(x.owner[places], node)
        return Found(x.shape, lo, hi, d, None, local, x.owner)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, places = _read(node, at)
        assert x.number is not None
        lo, hi = x.box
        rows = [(row, _probabilities([(lo[i], hi[i]) for i in row])) for row in places.tolist()]
        found = []
        for g in grads:
            down, up = [ZERO] * len(lo), [ZERO] * len(lo)
            for row, y in rows:
                total = sum((g.lo[i] for i in row), ZERO), sum((g.hi[i] for i in row), ZERO)
                for i, own in zip(row, y, strict=True):
                    least, most = times(*total, *own)
                    down[i], up[i] = g.lo[i] - most, g.hi[i] - least
            found.append(Ends(down, up))
        return [(x.number, found)]


def _read(node: Node, at: Reader) -> tuple[Operand, Places]:
    """Return the operand, and the groups along the axis."""
    plain(node)
    x = at.operand(node.args[0] if node.args else None, node)
    axis = node.args[1] if len(node.args) in (2, 3) and not any(node.args[2:]) else None
    if not isinstance(axis, int) or not -len(x.shape) <= axis < len(x.shape):
        raise NoRule(f"{node}: no rule for these arguments")
    return x, along(x.shape, [axis])


def _probabilities(x: Pairs) -> Pairs:
    """Return the ends of each softmax: it is least where its own input is and the others are largest."""
    if not all(lo.is_finite() and hi.is_finite() for lo, hi in x):
        return [(ZERO, ONE)] * len(x)
    found = []
    for i, (lo, hi) in enumerate(x):
        others = [one for k, one in enumerate(x) if k != i]
        least = ONE / (ONE + sum(((b - lo).exp() for _, b in others), ZERO))
        most = ONE / (ONE + sum(((a - hi).exp() for a, _ in others), ZERO))
        found.append((least, most if most <= 1 else ONE))
    return found


def _bounds(y: Pairs, box: Pairs, d: Balls, p: Premises) -> Pairs:
    """Return absolute and relative bounds of results within y, of inputs off by d."""
    u, cu, n = p.vector.u, p.library * p.vector.u, len(y)
    top, most = reduce(larger, [hi for _, hi in box]), reduce(larger, d)
    reach = reduce(larger, [off + (top - lo + off + most) * u for off, (lo, _) in zip(d, box, strict=True)])
    adds = (n - 1) * u
    if not (cu < 1 and adds < 1 and reach.is_finite()):
        return [(INF, INF)] * n
    ratio = (ONE + cu) * (ONE + u) / ((ONE - cu) * (ONE - adds))
    stretch = (2 * reach).exp()
    found = []
    for lo, hi in y:
        low, high = lo / stretch, smaller(hi * stretch, ONE)
        middle = smaller(larger(HALF, low), high)
        found.append((2 * middle * (ONE - middle) * reach + (ratio - ONE) * high, stretch * ratio - ONE))
    return found


def _logarithms(x: Pairs) -> Pairs:
    """Return the ends of the logarithm of each softmax."""
    if not all(lo.is_finite() and hi.is_finite() for lo, hi in x):
        return [(-INF, ZERO)] * len(x)
    found = []
    for i, (lo, hi) in enumerate(x):
        others = [one for k, one in enumerate(x) if k != i]
        least = -sum(((b - lo).exp() for _, b in others), ZERO).log1p()
        found.append((least, smaller(-sum(((a - hi).exp() for a, _ in others), ZERO).log1p(), ZERO)))
    return found


def _evaluated(box: Pairs, p: Premises) -> Balls:
    """Return how far evaluations of log-softmax are off, anywhere in a box."""
    u, cu, eta, n = p.vector.u, p.library * p.vector.u, p.vector.eta, len(box)
    top, log_n = reduce(larger, [hi for _, hi in box]), arb(n).log()
    apart = [top - lo for lo, _ in box]
    shift = reduce(larger, apart) * u
    if not shift.is_finite():
        return [INF] * n
    each = shift.expm1() + cu * shift.exp()
    relative = each + (n - 1) * u * (ONE + each) + n * eta
    if not relative < 1:
        return [INF] * n
    of_sum = -(-relative).log1p() * (ONE + cu) + cu * log_n
    return [t * u + of_sum + (t + log_n + of_sum) * u * 2 + eta * 3 for t in apart]


RULES: dict[str, Rule] = {"_softmax": Softmax(), "_safe_softmax": Softmax(), "_log_softmax": LogSoftmax()}
