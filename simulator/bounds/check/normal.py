"""Rules of normalisations: of batches in eval mode, and of layers.

(C51) Batch normalisation as x a + (beta - mean a), a = g / sqrt(var + eps): eps, the sum, the root, its inverse and the
product with g are rounded, then both products, the difference and the sum. With 1 / (1 - t) = 1 + u: off by at most
(P (1 + t)**3 - 1)(|x a| + |mean a|) + ((1 + t)**2 - 1) |beta|, P = (1 + u)**2 (1 + t)**2; that is at most
8 u (|x a| + |mean a|) + 2 u |beta| while u is at most 2**-5, with room for what is done to four underflows later.
(C53) Layer normalisation, g y + b, y = (x - mean) / s, s = sqrt(var + eps) over groups of n. s is Lipschitz with
1 / sqrt(n) in the 2-norm. From the middle c of a box of radii r, with R = sqrt(mean r**2), s is at least
m = max(s_c - R, sqrt(eps)), and y within (r + mean r + |y_c| R) / m of y_c. Row i of the Jacobian, (1[i = j] - 1 / n -
y_i y_j / n) / s, has at most (2 - 2 / n + |y_i|) / s in sum, as mean |y| <= 1: moved by that times max d. The
evaluation takes mean and variance at least as well as two passes in any order, a premise. With F(h) = (1 + u)**h - 1
and F(n) <= 1 the mean is off by F(n) mean |x|, the variance by F(n + 3) var + (1 + F(n + 3)) (F(n) mean |x|)**2, at
most F(2 n + 3) mean x**2. With t = F(2 n + 8) mean x**2 / (2 m**2) + 4 u that moves 1 / s by at most 2 t of itself
while t <= 1/4: (1 - v)**(-1/2) - 1 <= 0.83 v up to v = 1/2, and the roundings of eps, the sum, the root and its inverse
cost 6 u of that, 8 u with room. y is then off by |y| times that, by the mean's error over s, and by 5 u (|x| + mean
|x|) / s, as the mean is subtracted before the quotient or behind it; the result by two roundings, which 4 u of |g y| +
|b| covers with room for what is done to four underflows later, and by what g and b are off as they are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from flint import arb

from .balls import INF, ONE, ZERO, Balls, Ends, Places, larger, power, share, times
from .document import Fault, Node, NoRule
from .formats import Rounding
from .places import along, one_owner
from .rule import Found, Gradients, Operand, Parts, Reader, Rule, each, number, plain


class BatchNorm(Rule):
    """Batch normalisation of each channel with constants."""

    results = 3

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, channel, settings = self._read(node, at)
        r = at.premises.vector
        most = x.computed
        lo, hi, d, local = ([] for _ in range(4))
        for i, k in enumerate(channel):
            a, mean, beta, *as_read = settings[k]
            low, high = times(x.lo[i], x.hi[i], a, a)
            shift = beta - a * mean
            off = _affine_error(a, mean, beta, most[i], as_read, r, node)
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
    def _read(node: Node, at: Reader) -> tuple[Operand, list[int], list[tuple[arb, arb, arb, arb, arb]]]:
        """Return the operand, the channel of each element, and of each channel a, mean and beta, and how far a and beta
        are off as they are read.
        """
        plain(node)
        in_training = node.kind == "native_batch_norm"
        if len(node.args) != 7 + in_training or (in_training and node.args[5]):
            raise NoRule(f"{node}: no rule but for eval mode")
        x, eps = at.operand(node.args[0], node), arb(number(node.args[-1], node))
        if len(x.shape) < 2 or not eps > 0:
            raise NoRule(f"{node}: no rule for these arguments")
        weight, bias, mean, variance = (
            _channels(node.args[1 + i], x.shape[1], at, node, as_read) for i, as_read in enumerate(_AS_READ)
        )
        if mean is None or variance is None:
            raise NoRule(f"{node}: no rule without mean and variance")
        settings = []
        for k in range(x.shape[1]):
            if not variance.lo[k] >= 0:
                raise Fault(f"{node}: the variance of channel {k} is negative")
            root = (variance.lo[k] + eps).sqrt()
            g, g_off = (ONE, ZERO) if weight is None else (weight.lo[k], weight.d[k])
            beta, beta_off = (ZERO, ZERO) if bias is None else (bias.lo[k], bias.d[k])
            settings.append((g / root, mean.lo[k], beta, g_off / root, beta_off))
        shape = (1, x.shape[1], *(1,) * (len(x.shape) - 2))
        channel = np.broadcast_to(np.arange(x.shape[1]).reshape(shape), x.shape).ravel().tolist()
        return x, channel, settings


_AS_READ = (True, True, False, False)  # what a narrower vector unit reads in its format: not mean and variance


def _channels(form: object, count: int, at: Reader, node: Node, as_read: bool) -> Operand | None:
    if form is None:
        return None
    found = at.operand(form, node, as_read)
    if found.number is not None or found.shape != (count,):
        raise NoRule(f"{node}: no rule but for constants of {count} channels")
    return found


def _affine_error(a: arb, mean: arb, beta: arb, most: arb, as_read: Sequence[arb], r: Rounding, node: Node) -> arb:
    """Return (C51), infinite if something may overflow; a and beta are off by so much as they are read."""
    if r.bits < 5:
        raise NoRule(f"{node}: no rule for {r.bits} significand bits; expected at least 5")
    if r.eta > 0 and a != 0 and not abs(a) > power(-100):
        raise NoRule(f"{node}: no rule for a factor as small as {float(a)!r}")
    of_a, of_beta = as_read[0] * (most + abs(mean)), as_read[1]
    size = abs(a) * (most + abs(mean))
    off = of_a + of_beta + ((size + of_a) * 8 + (abs(beta) + of_beta) * 2) * r.u + 4 * r.eta
    if size != 0 and not size >= 16 * r.eta:  # what underflows is not made up for
        off = off * (ONE + r.u) ** 2
    return off if size + abs(beta) + off <= r.largest else INF


class _Box(NamedTuple):
    """A group before and behind its normalisation: y within `radii` of `middle`, s between `least` and `most`."""

    middle: Balls
    radii: Balls
    least: arb
    most: arb


class LayerNorm(Rule):
    """Layer normalisation over the last axes, with constants."""

    results = 3

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, places, g, b, eps = self._read(node, at)
        r, box, most = at.premises.vector, x.box, x.computed
        lo, hi, d, local = ([ZERO] * len(x.lo) for _ in range(4))
        n = places.shape[1]
        for row in places.tolist():
            exact = _normalised([x.lo[i] for i in row], [x.hi[i] for i in row], eps)
            wide = _normalised([box.lo[i] for i in row], [box.hi[i] for i in row], eps)
            reach = [abs(y) + radius for y, radius in zip(wide.middle, wide.radii, strict=True)]
            off = _layer_error([most[i] for i in row], reach, wide.least, g, b, r)
            largest = reduce(larger, [x.d[i] for i in row])
            for k, i in enumerate(row):
                y, radius, scale = exact.middle[k], exact.radii[k], g.lo[k]
                low, high = times(y - radius, y + radius, scale, scale)
                lo[i], hi[i], local[i] = low + b.lo[k], high + b.lo[k], off[k]
                steepest = abs(scale) * (2 - arb(2) / n + reach[k]) / wide.least
                d[i] = share(steepest, largest) + off[k]
        one_owner(x.owner[places], node)
        return Found(x.shape, lo, hi, d, None, local, x.owner)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, places, scale, _, eps = self._read(node, at)
        assert x.number is not None
        box = x.box
        rows = [(row, _normalised([box.lo[i] for i in row], [box.hi[i] for i in row], eps)) for row in places.tolist()]
        found = []
        for g in grads:
            down, up = [ZERO] * len(x.lo), [ZERO] * len(x.lo)
            for row, own in rows:
                mine = [times(g.lo[i], g.hi[i], a, a) for i, a in zip(row, scale.lo, strict=True)]
                y = [(c - radius, c + radius) for c, radius in zip(own.middle, own.radii, strict=True)]
                mean, tilt = _mean(mine), _mean([times(*a, *b) for a, b in zip(mine, y, strict=True)])
                for i, (a, b), one in zip(row, mine, y, strict=True):
                    least, most = times(*tilt, *one)
                    down[i], up[i] = times(
                        a - mean[1] - most, b - mean[0] - least, ONE / own.most, ONE / own.least
                    )  # fmt: skip
            found.append(Ends(down, up))
        return [(x.number, found)]

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Operand, Places, Operand, Operand, arb]:
        """Return the operand, its groups, g and b, and eps."""
        plain(node)
        if len(node.args) != 5:
            raise NoRule(f"{node}: no rule for {len(node.args)} arguments")
        x, sizes, eps = at.operand(node.args[0], node), node.args[1], arb(number(node.args[4], node))
        dims = len(sizes) if isinstance(sizes, list) else 0
        if not dims or list(x.shape[-dims:]) != sizes or not eps > 0:
            raise NoRule(f"{node}: no rule for groups {sizes!r} of {list(x.shape)}, and the eps {float(eps)!r}")
        n, parts = math.prod(sizes), []
        for form, default in zip(node.args[2:4], (ONE, ZERO), strict=True):
            own = Operand((n,), [default] * n, [default] * n, [ZERO] * n, [ZERO] * n, np.full(n, -1))
            parts.append(own if form is None else at.operand(form, node, as_read=True))
        if any(one.number is not None or len(one.lo) != n for one in parts):
            raise NoRule(f"{node}: no rule but for constants of {sizes}")
        return x, along(x.shape, range(-dims, 0)), parts[0], parts[1], eps


def _mean(x: Sequence[tuple[arb, arb]]) -> tuple[arb, arb]:
    return sum((a for a, _ in x), ZERO) / len(x), sum((b for _, b in x), ZERO) / len(x)


def _normalised(lo: Balls, hi: Balls, eps: arb) -> _Box:
    """Return what holds the normalised values of a group that lies in a box."""
    n = len(lo)
    if not all(x.is_finite() for x in (*lo, *hi)):
        return _Box([ZERO] * n, [INF] * n, eps.sqrt(), INF)
    middle, radii = each(lambda a, b: (a + b) / 2, lo, hi), each(lambda a, b: (b - a) / 2, lo, hi)
    mean, around = sum(middle, ZERO) / n, sum(radii, ZERO) / n
    s = (sum(((x - mean) ** 2 for x in middle), ZERO) / n + eps).sqrt()
    reach = (sum((x**2 for x in radii), ZERO) / n).sqrt()
    least = larger(s - reach, eps.sqrt())
    y = [(x - mean) / s for x in middle]
    return _Box(y, [(radius + around + abs(one) * reach) / least for one, radius in zip(y, radii, strict=True)],
                least, s + reach)  # fmt: skip


def _layer_error(size: Balls, reach: Balls, least: arb, g: Operand, b: Operand, r: Rounding) -> Balls:
    """Return (C53) of a group of values of at most these sizes, that of y given; infinite if something may overflow."""
    n, u = len(size), r.u
    mean, square = sum(size, ZERO) / n, sum((x**2 for x in size), ZERO) / n
    of_mean, of_square = (ONE + u) ** n - ONE, (ONE + u) ** (2 * n + 8) - ONE
    t = (of_square * square + 2 * r.eta) / (2 * least**2) + 4 * u
    if not (of_mean <= 1 and t <= 0.25 and square * n * (ONE + of_square) <= r.largest):
        return [INF] * n
    found = []
    for k, (x, y) in enumerate(zip(size, reach, strict=True)):
        off = 2 * t * y + (of_mean * mean + 5 * u * (x + mean)) / least * (ONE + 2 * t)
        scale, own = abs(g.lo[k]), g.d[k] * (y + off) + b.d[k]
        whole = (scale + g.d[k]) * (y + off) + abs(b.lo[k]) + b.d[k]
        off = scale * off + own + whole * 4 * u + 4 * r.eta * (ONE + scale)
        found.append(off if whole + off <= r.largest else INF)
    return found


RULES: dict[str, Rule] = {
    "native_batch_norm": BatchNorm(), "_native_batch_norm_legit_no_training": BatchNorm(),
    "native_layer_norm": LayerNorm(),
}  # fmt: skip
