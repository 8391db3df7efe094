"""Rules of softmax and of batch normalisation in eval mode.

(C50) Softmax, computed as exp(x - max) over the sum of these, n of them in any order. A common shift changes nothing,
so only D counts, by how much a difference may be off, at most d_i + (|x_i - max| + d_i + max d) u, the largest of a
group. With R = (1 + c u)(1 + u) / ((1 - c u)(1 - (n - 1) u)): e = exp(2 D) R - 1, and d = G D + (R - 1) y, since no
derivative of y along a shift of the inputs by D exceeds G D = 2 y (1 - y) D; y between y_lo exp(-2 D) and
min(1, y_hi exp(2 D)). Underflow: that of an exponential, of the others through the sum, of the quotient: n + 1 in all.
(C51) Batch normalisation as x a + (beta - mean a), a = g / sqrt(var + eps): eps, the sum, the root, its inverse and the
product with g are rounded, then both products, the difference and the sum. With 1 / (1 - t) = 1 + u: off by at most
(P (1 + t)**3 - 1)(|x a| + |mean a|) + ((1 + t)**2 - 1) |beta|, P = (1 + u)**2 (1 + t)**2; that is at most
8 u (|x a| + |mean a|) + 2 u |beta| while u is at most 2**-5, with room for what is done to four underflows later.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np
from flint import arb

from .balls import HALF, INF, ONE, ZERO, Balls, Ends, Places, larger, power, smaller, times
from .document import Fault, Node
from .formats import Rounding
from .places import along, one_owner
from .rule import Found, Gradients, Operand, Parts, Premises, Reader, Rule, number, plain


class Softmax(Rule):
    """softmax along an axis."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, places = self._read(node, at)
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
        x, places = self._read(node, at)
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

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Operand, Places]:
        plain(node)
        x = at.operand(node.args[0] if node.args else None, node)
        axis = node.args[1] if len(node.args) in (2, 3) and not any(node.args[2:]) else None
        if not isinstance(axis, int) or not -len(x.shape) <= axis < len(x.shape):
            raise Fault(f"{node}: no rule for these arguments")
        return x, along(x.shape, [axis])


def _probabilities(x: list[tuple[arb, arb]]) -> list[tuple[arb, arb]]:
    """Return the ends of each softmax: it is least where its own input is and the others are largest."""
    if not all(lo.is_finite() and hi.is_finite() for lo, hi in x):
        return [(ZERO, ONE)] * len(x)
    found = []
    for i, (lo, hi) in enumerate(x):
        others = [one for k, one in enumerate(x) if k != i]
        least = ONE / (ONE + sum(((b - lo).exp() for _, b in others), ZERO))
        found.append((least, ONE / (ONE + sum(((a - hi).exp() for a, _ in others), ZERO))))
    return found


def _bounds(y: list[tuple[arb, arb]], box: list[tuple[arb, arb]], d: Balls, p: Premises) -> list[tuple[arb, arb]]:
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


class BatchNorm(Rule):
    """Batch normalisation of each channel with constants."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, channel, settings = self._read(node, at)
        r = at.premises.vector
        most = x.computed
        lo, hi, d, local = ([] for _ in range(4))
        for i, k in enumerate(channel):
            a, mean, beta = settings[k]
            low, high = times(x.lo[i], x.hi[i], a, a)
            shift = beta - a * mean
            off = _affine_error(a, mean, beta, most[i], r, node)
            lo.append(low + shift)
            hi.append(high + shift)
            d.append(abs(a) * x.d[i] + off)
            local.append(off)
        return Found(x.shape, lo, hi, d, None, local, x.owner)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, channel, settings = self._read(node, at)
        assert x.number is not None
        found = []
        for g in grads:
            ends = [times(a, b, settings[k][0], settings[k][0]) for a, b, k in zip(*g, channel, strict=True)]
            found.append(Ends([one[0] for one in ends], [one[1] for one in ends]))
        return [(x.number, found)]

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Operand, list[int], list[tuple[arb, arb, arb]]]:
        """Return the operand, the channel of each element, and a, mean and beta of each channel."""
        plain(node)
        in_training = node.kind == "native_batch_norm"
        if len(node.args) != 7 + in_training or (in_training and node.args[5]):
            raise Fault(f"{node}: no rule but for eval mode")
        x, eps = at.operand(node.args[0], node), arb(number(node.args[-1], node))
        if len(x.shape) < 2 or not eps > 0:
            raise Fault(f"{node}: no rule for these arguments")
        weight, bias, mean, variance = (_channels(form, x.shape[1], at, node) for form in node.args[1:5])
        if mean is None or variance is None:
            raise Fault(f"{node}: no rule without mean and variance")
        settings = []
        for k in range(x.shape[1]):
            if not variance[k] >= 0:
                raise Fault(f"{node}: the variance of channel {k} is negative")
            root = (variance[k] + eps).sqrt()
            a = (ONE if weight is None else weight[k]) / root
            settings.append((a, mean[k], ZERO if bias is None else bias[k]))
        shape = (1, x.shape[1], *(1,) * (len(x.shape) - 2))
        channel = np.broadcast_to(np.arange(x.shape[1]).reshape(shape), x.shape).ravel().tolist()
        return x, channel, settings


def _channels(form: object, count: int, at: Reader, node: Node) -> Balls | None:
    if form is None:
        return None
    found = at.operand(form, node)
    if found.number is not None or found.shape != (count,):
        raise Fault(f"{node}: no rule but for constants of {count} channels")
    return found.lo


def _affine_error(a: arb, mean: arb, beta: arb, most: arb, r: Rounding, node: Node) -> arb:
    """Return (C51), infinite if something may overflow."""
    if r.bits < 5:
        raise Fault(f"{node}: no rule for {r.bits} significand bits; expected at least 5")
    if r.eta > 0 and a != 0 and not abs(a) > power(-100):
        raise Fault(f"{node}: no rule for a factor as small as {float(a)!r}")
    size = abs(a) * (most + abs(mean))
    off = (size * 8 + abs(beta) * 2) * r.u + 4 * r.eta
    if size != 0 and not size >= 16 * r.eta:  # what underflows is not made up for
        off = off * (ONE + r.u) ** 2
    return off if size + abs(beta) + off <= r.largest else INF


RULES: dict[str, Rule] = {
    "_softmax": Softmax(), "native_batch_norm": BatchNorm(), "_native_batch_norm_legit_no_training": BatchNorm(),
}  # fmt: skip
