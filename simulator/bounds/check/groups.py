"""Rules of what moves values, of means and sums, and of pools.

(C40) Moves round nothing. (C41) A sum of n terms in any order: off by (n - 1) u of the sum of magnitudes, to nearest
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
from typing import Any

import numpy as np

from .balls import INF, ZERO, Balls, Ends, Places, larger, smaller, summed_into, taken
from .document import Fault, Node
from .places import Shape, along, fits, moved, one_owner, pair, windows
from .rule import Found, Gradients, Operand, Parts, Reader, Rule, plain


class Moves(Rule):
    """Values are moved."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, places = self._read(node, at)
        lo, hi, d, e = (taken(part, places) for part in (x.lo, x.hi, x.d, x.e))
        return Found(places.shape, lo, hi, d, e, [ZERO] * len(lo), x.owner[places].ravel())

    def backward(self, node: Node, at: Reader, grads: Gradients) -> Parts:
        x, places = self._read(node, at)
        assert x.number is not None
        return [(x.number, [Ends(*(summed_into(len(x.lo), places, end) for end in g)) for g in grads])]

    @staticmethod
    def _read(node: Node, at: Reader) -> tuple[Operand, Places]:
        plain(node, "memory_format", "implicit")
        x = at.operand(node.args[0] if node.args else None, node)
        places = moved(node, x.shape)
        fits(node, places.shape)
        return x, places


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
        plain(node, "keepdim")
        if len(node.args) > 3:
            raise Fault(f"{node}: no rule for {len(node.args)} arguments")
        axes, keep = [*node.args[1:], None, None][:2]
        axes = list(range(len(shape))) if axes is None or axes == [] else axes
        if not isinstance(axes, list) or not all(isinstance(a, int) and -len(shape) <= a < len(shape) for a in axes):
            raise Fault(f"{node}: no rule for the axes {axes!r}")
        keep = bool(keep or node.kwargs.get("keepdim"))
        inside = {axis % len(shape) for axis in axes}
        places = along(shape, list(inside))
        kept = [1 if axis in inside else n for axis, n in enumerate(shape) if keep or axis not in inside]
        return tuple(kept), places, [places.shape[1] if self._mean else 1] * len(places)


class AveragePool(Sums):
    """Means of windows."""

    def groups(self, node: Node, shape: Shape) -> tuple[Shape, Places, Sequence[int]]:
        given = [*node.args[1:], *([], [0, 0], False, True, None)[len(node.args) - 2 :]]
        if len(given) != 6 or given[3]:
            raise Fault(f"{node}: no rule for these arguments")
        read = _pooled(node, shape, given[:3], [1, 1])
        places = read.reshape(-1, read.shape[-1])
        counts = [places.shape[1]] * len(places) if given[4] else (places >= 0).sum(-1).tolist()
        if given[5] is not None:
            if not isinstance(given[5], int) or given[5] < 1:
                raise Fault(f"{node}: no rule for the divisor {given[5]!r}")
            counts = [given[5]] * len(places)
        return read.shape[:4], places, counts


class MaxPool(Rule):
    """Maxima of windows; the places of these are no values."""

    def forward(self, node: Node, at: Reader, stated: Mapping[str, Balls]) -> Found:
        x, read = self._read(node, at)
        places = read.reshape(-1, read.shape[-1])
        lo, hi, d = (_largest(part, places) for part in (x.lo, x.hi, x.d))
        e = _largest([one if one < 1 else INF for one in x.e], places)
        owners = one_owner(np.where(places >= 0, x.owner[places], -1), node)
        return Found(read.shape[:4], lo, hi, d, e, [ZERO] * len(lo), owners)

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
        x = at.operand(node.args[0] if node.args else None, node)
        given = [*node.args[1:], *([], [0, 0], [1, 1], False)[len(node.args) - 2 :]]
        if len(given) != 5 or given[4]:
            raise Fault(f"{node}: no rule for these arguments")
        return x, _pooled(node, x.shape, given[:3], given[3])


def _pooled(node: Node, shape: Shape, given: Sequence[Any], dilation: Any) -> Places:
    """Return the windows of a pool, given size, stride and padding."""
    plain(node)
    size, padding = pair(given[0], node), pair(given[2], node, 0)
    if len(shape) != 4 or any(2 * pad > k or k > 2 * n for pad, k, n in zip(padding, size, shape[2:], strict=True)):
        raise Fault(f"{node}: no rule for windows of {list(size)}, padded by {list(padding)}, of {list(shape)}")
    return windows(node, shape, size, pair(given[1] or given[0], node), padding, pair(dilation, node))


def _sums(x: Balls, places: Places) -> Balls:
    flat, n = taken(x, places), places.shape[1]
    return [sum(flat[i : i + n], ZERO) for i in range(0, len(flat), n)]


def _largest(x: Balls, places: Places) -> Balls:
    return [reduce(larger, [x[i] for i in row if i >= 0]) for row in places.tolist()]


_MOVED = (
    "view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "squeeze", "unsqueeze", "expand",
    "clone", "detach", "alias", "lift_fresh",
)  # fmt: skip
RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVED, Moves()),
    "sum": Reductions(mean=False), "mean": Reductions(mean=True), "avg_pool2d": AveragePool(),
    "max_pool2d_with_indices": MaxPool(),
}  # fmt: skip
