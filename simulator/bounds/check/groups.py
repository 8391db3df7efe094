"""Rules of means and sums, and of pools.

(C41) A sum of n terms in any order: off by (n - 1) u of the sum of magnitudes, to nearest
(as (C3)), and n underflows, with one of a division; a division rounds twice more, 1 / n and the product, unless n is a
power of two: (1 + t)**2 - 1 <= 2 u. (C42) Maxima: exact, off by at most the largest error within, relatively so
while all are below 1. On the way back an input has the derivative of a window where it alone can be the maximum,
something between 0 and that where it is one of several, else 0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np

from .balls import INF, ZERO, Balls, Ends, Places, larger, smaller, summed_into, taken
from .document import Node, NoRule
from .places import Shape, along, crossed, one_owner, positions, setting
from .rule import Found, Gradients, Operand, Parts, Reader, Rule, plain


class Sums(Rule):
    """Sums of groups of values, each divided by a number or not."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x = at.operand(node.args[0] if node.args else None, node)
        shape, places, divisors = self.groups(node, x.shape)
        r = at.premises.vector
        lo, hi, d, computed = (_sums(part, places) for part in (x.lo, x.hi, x.d, x.computed))
        n = places.shape[1]
        local: Balls = []
        for i, divisor in enumerate(divisors):
            lo[i], hi[i], d[i], mean = lo[i] / divisor, hi[i] / divisor, d[i] / divisor, computed[i] / divisor
            off = mean * r.u * (n - 1) + r.eta * n if computed[i] <= r.largest else INF
            if math.frexp(divisor)[0] != 0.5:
                off = off + (mean + off) * r.u * 2 + r.eta
            d[i] = d[i] + off
            local.append(off)
        owners = one_owner(np.where(places >= 0, x.owner[places], -1), node)
        return Found(shape, lo, hi, d, None, local, owners)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x = at.operand(node.args[0], node)
        _, places, divisors = self.groups(node, x.shape)
        assert x.number is not None
        per = places.shape[1]
        found = []
        for g in grads:
            shares = ([one for y, n in zip(end, divisors, strict=True) for one in [y / n] * per] for end in g)
            found.append(Ends(*(summed_into(len(x.lo), places, share) for share in shares)))
        return [(x.number, found)]

    @abstractmethod
    def groups(self, node: Node, shape: Shape) -> tuple[Shape, Places, Sequence[int]]:
        """Return the shape of the result, the places of each group, -1 for zeros, and what it is divided by."""


class Reductions(Sums):
    """sum and mean over some axes."""

    def __init__(self, mean: bool) -> None:
        self._mean = mean

    def groups(self, node: Node, shape: Shape) -> tuple[Shape, Places, Sequence[int]]:
        plain(node, "keepdim", "dtype")
        if len(node.args) > 3 or node.kwargs.get("dtype") not in (None, "torch.float32", "torch.float64"):
            raise NoRule(f"{node}: no rule for {len(node.args)} arguments")
        axes, keep = [*node.args[1:], None, None][:2]
        axes = list(range(len(shape))) if axes is None or axes == [] else axes
        if not isinstance(axes, list) or not all(isinstance(a, int) and -len(shape) <= a < len(shape) for a in axes):
            raise NoRule(f"{node}: no rule for the axes {axes!r}")
        keep = bool(keep or node.kwargs.get("keepdim"))
        inside = {axis % len(shape) for axis in axes}
        places = along(shape, list(inside))
        kept = [1 if axis in inside else n for axis, n in enumerate(shape) if keep or axis not in inside]
        return tuple(kept), places, [places.shape[1] if self._mean else 1] * len(places)


class AveragePool(Sums):
    """Means of windows along the last axes, as many as the name says."""

    def groups(self, node: Node, shape: Shape) -> tuple[Shape, Places, Sequence[int]]:
        plain(node)
        dims = int(node.kind[len("avg_pool")])
        given = [*node.args[1:], *([], [0], False, True, None)[max(0, len(node.args) - 2) :]]
        if len(given) != 6 or len(shape) <= dims or len(node.shapes[0]) != len(shape):
            raise NoRule(f"{node}: no rule for these arguments")
        size, padding = setting(given[0], node, dims), setting(given[2], node, dims, 0)
        stride = setting(given[1] or given[0], node, dims)
        axes, divisors = [], np.ones((1,) * dims, np.int64)
        for i, (n, k, step, pad) in enumerate(zip(shape[-dims:], size, stride, padding, strict=True)):
            count = node.shapes[0][i - dims]
            axes.append(positions(node, n, k, step, pad, 1, count, beyond=bool(given[3])))
            if given[4]:  # the padding counts, but not what lies behind it
                first = np.arange(count) * step - pad
                each = np.minimum(first + k, n + pad) - first
            else:
                each = (axes[-1] >= 0).sum(-1)
            divisors = divisors * np.expand_dims(each, [axis for axis in range(dims) if axis != i])
        if given[5] is not None:
            if not isinstance(given[5], int) or given[5] < 1:
                raise NoRule(f"{node}: no rule for the divisor {given[5]!r}")
            divisors = np.full_like(divisors, given[5])
        return _of_windows(node, crossed(shape, axes), divisors)


class AdaptivePool(Sums):
    """Means of parts of images, from floor(i size / parts) to ceil((i + 1) size / parts)."""

    def groups(self, node: Node, shape: Shape) -> tuple[Shape, Places, Sequence[int]]:
        plain(node)
        if len(node.args) != 2 or len(shape) < 3:
            raise NoRule(f"{node}: no rule for these arguments")
        axes = []
        for n, parts in zip(shape[-2:], setting(node.args[1], node, 2), strict=True):
            ends = [(i * n // parts, -(-(i + 1) * n // parts)) for i in range(parts)]
            most = max(b - a for a, b in ends)
            axes.append(np.array([[*range(a, b), *[-1] * (most - b + a)] for a, b in ends]))
        rows, columns = ((at >= 0).sum(-1) for at in axes)
        return _of_windows(node, crossed(shape, axes), rows[:, None] * columns)


class MaxPool(Rule):
    """Maxima of windows; the places of these are no values."""

    results = 2

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, read = self._read(node, at)
        places = read.reshape(-1, read.shape[-1])
        lo, hi, d = (_largest(part, places) for part in (x.lo, x.hi, x.d))
        e = _largest([one if one < 1 else INF for one in x.e], places)
        owners = one_owner(np.where(places >= 0, x.owner[places], -1), node)
        return Found(read.shape[:-1], lo, hi, d, e, [ZERO] * len(lo), owners)

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, read = self._read(node, at)
        assert x.number is not None
        rows = read.reshape(-1, read.shape[-1]).tolist()
        lo, hi = x.box
        candidates = []
        for row in rows:
            inside = [i for i in row if i >= 0]
            most = reduce(larger, [lo[i] for i in inside])
            candidates.append([i for i in inside if not hi[i] < most])
        found = []
        for g in grads:
            down, up = [ZERO] * len(lo), [ZERO] * len(lo)
            for some, a, b in zip(candidates, *g, strict=True):
                if len(some) > 1:
                    a, b = smaller(a, ZERO), larger(b, ZERO)
                for i in some:
                    down[i], up[i] = down[i] + a, up[i] + b
            found.append(Ends(down, up))
        return [(x.number, found)]

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Operand, Places]:
        plain(node)
        x = at.operand(node.args[0] if node.args else None, node)
        given = [*node.args[1:], *([], [0], [1], False)[max(0, len(node.args) - 2) :]]
        if len(given) != 5 or given[4] or len(x.shape) < 3 or len(node.shapes[0]) != len(x.shape):
            raise NoRule(f"{node}: no rule for these arguments")
        settings = [
            setting(form, node, 2, least)
            for form, least in ((given[0], 1), (given[1] or given[0], 1), (given[2], 0), (given[3], 1))
        ]
        axes = [
            positions(node, n, k, step, pad, gap, count)
            for n, k, step, pad, gap, count in zip(x.shape[-2:], *settings, node.shapes[0][-2:], strict=True)
        ]
        read = crossed(x.shape, axes)
        if bool((read < 0).all(-1).any()):
            raise NoRule(f"{node}: no rule for windows that read nothing")
        return x, read


def _of_windows(node: Node, read: Places, divisors: Places) -> tuple[Shape, Places, Sequence[int]]:
    """Return the groups of windows, given what the means of these are divided by."""
    shape = read.shape[:-1]
    if bool((divisors < 1).any()):
        raise NoRule(f"{node}: no rule for windows that read nothing")
    return shape, read.reshape(-1, read.shape[-1]), np.broadcast_to(divisors, shape).ravel().tolist()


def _sums(x: Balls, places: Places) -> Balls:
    flat, n = taken(x, places), places.shape[1]
    return [sum(flat[i : i + n], ZERO) for i in range(0, len(flat), n)]


def _largest(x: Balls, places: Places) -> Balls:
    return [reduce(larger, [x[i] for i in row if i >= 0]) for row in places.tolist()]


RULES: dict[str, Rule] = {
    "sum": Reductions(mean=False), "mean": Reductions(mean=True),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), AveragePool()),
    "_adaptive_avg_pool2d": AdaptivePool(), "max_pool2d_with_indices": MaxPool(),
}  # fmt: skip
