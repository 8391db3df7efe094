"""Rules of sums, means, extremes and norms over axes, and of sums that scatter."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .registry import Choice, rule


@rule("sum", direct=True)
def sum_(t: Trace, x: Value, axes: Any = None, keep: bool = False, dtype: Any = None, z: Tensor | None = None) -> Value:
    """Sum over axes, in any order."""
    return x.sum(axes, keep, z)


@rule("mean")
def mean(t: Trace, x: Value, axes: Any = None, keep: bool = False, dtype: Any = None) -> Value:
    """Mean over axes."""
    return x.mean(axes, keep)


def variance(x: Value, axes: Any = None, correction: Any = 1, keep: bool = False) -> tuple[Value, Value]:
    """Return variance and mean over axes."""
    listed = list(range(x.x.dim())) if axes is None or axes == [] else axes
    middle = x.mean(listed, keep=True)
    squares = (x - middle).square().sum(listed, keep)
    count = x.x.numel() // max(1, middle.x.numel())
    over = max(0.0, count - (1 if correction is None else float(correction)))
    return squares / over, x.mean(listed, keep)


@rule("var")
def var(
    t: Trace, x: Value, axes: Any = None, *, correction: Any = 1, keepdim: bool = False, unbiased: Any = None
) -> Any:
    """Variance."""
    return variance(x, axes, correction if unbiased is None else int(unbiased), keepdim)[0]


@rule("std")
def std(t: Trace, x: Value, axes: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Value:
    """Standard deviation."""
    return variance(x, axes, correction, keepdim)[0].function("sqrt")


@rule("var_mean")
def var_mean(t: Trace, x: Value, axes: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    """Variance and mean."""
    return variance(x, axes, correction, keepdim)


@rule("linalg_vector_norm", "norm")
def norm(t: Trace, x: Value, order: Any = 2, axes: Any = None, keep: bool = False, **kwargs: Any) -> Value | None:
    """Norms 1, 2 and infinity over axes; no more noise than the root of the sum of squares of its noise would be."""
    order = 2 if order is None else float(order)
    axes = list(range(x.x.dim())) if axes is None else axes
    if order == 1:
        return _absolute(x).sum(axes, keep)
    if order == math.inf:
        return extreme(_absolute(x), axes, keep, torch.amax)
    if order != 2:
        raise NotImplementedError
    return x.square().sum(axes, keep).function("sqrt")


def _absolute(x: Value) -> Value:
    return Value(x.trace, x.x.abs(), x.noise)


def extreme(x: Value, axes: Any, keep: bool, pick: Any) -> Value:
    """Return the largest or smallest over axes: off by no more than the noisiest one that it may be."""
    axes = list(range(x.x.dim())) if axes is None or axes == [] else axes
    z, each = pick(x.x, axes, keepdim=keep), pick(x.x, axes, keepdim=True)

    def noise(a: Any, i: int) -> Tensor | None:
        n = x.given(a, i)
        if n is None:
            return None
        n = n.expand(x.shape)
        winners = x.x == each
        if a.label != "safe":
            return torch.amax(torch.where(winners, n, 0.0), axes, keepdim=keep)
        own = torch.amax(torch.where(winners, n, 0.0), axes, keepdim=True)
        apart = (x.x - each).abs() > (n + own) * (1.0 + 2.0**-18)  # false of what is NaN
        return torch.amax(torch.where(apart, 0.0, n), axes, keepdim=keep)

    return x.trace.map(z, noise)


@rule("amax")
def amax(t: Trace, x: Value, axes: Any = (), keep: bool = False) -> Value:
    """Largest over axes."""
    return extreme(x, list(axes), keep, torch.amax)


@rule("amin")
def amin(t: Trace, x: Value, axes: Any = (), keep: bool = False) -> Value:
    """Smallest over axes."""
    return extreme(x, list(axes), keep, torch.amin)


@rule("max")
def max_(t: Trace, x: Value, axis: Any = None, keep: bool = False) -> Any:
    """Largest of all; over an axis with its place, or of two tensors."""
    return _with_place(t, x, axis, keep, torch.amax)


@rule("min")
def min_(t: Trace, x: Value, axis: Any = None, keep: bool = False) -> Any:
    """Smallest of all; over an axis with its place, or of two tensors."""
    return _with_place(t, x, axis, keep, torch.amin)


def _with_place(t: Trace, x: Value, axis: Any, keep: bool, pick: Any) -> Any:
    if axis is None:
        return extreme(x, None, False, pick)
    values = extreme(x, [axis], keep, pick)
    return values, _place(x, axis, keep, pick)


def _place(x: Value, axis: int | None, keep: bool, pick: Any) -> Choice | None:
    """Return the place of the extreme, undecided where another is within the bounds."""
    bound = x.bound()
    if bound is None:
        return None
    axes = list(range(x.x.dim())) if axis is None else [axis]
    bound = bound.expand(x.shape)
    side = 1.0 if pick is torch.amax else -1.0
    surely = (side * x.x - bound).amax(axes, keepdim=True)  # what the winner has at least
    candidates = (side * x.x + bound >= surely).sum(axes, keepdim=keep)
    return Choice(candidates, (candidates > 1).to(x.trace.dtype))


@rule("argmax")
def argmax(t: Trace, x: Value, axis: Any = None, keep: bool = False) -> Choice | None:
    """Place of the largest."""
    return _place(x, axis, keep, torch.amax)


@rule("argmin")
def argmin(t: Trace, x: Value, axis: Any = None, keep: bool = False) -> Choice | None:
    """Place of the smallest."""
    return _place(x, axis, keep, torch.amin)


@rule("cumsum")
def cumsum(t: Trace, x: Value, axis: int, dtype: Any = None) -> Value:
    """Running sums."""
    if not x.x.numel() or not x.x.dim():
        return x
    z = torch.cumsum(x.x, axis)
    return t.map(z, lambda a, i: a.running(x.x, x.given(a, i), axis, z))


@rule("prod")
def prod(t: Trace, x: Value, axis: Any = None, keep: bool = False, dtype: Any = None) -> Value:
    """Product over an axis, or of all."""
    parts = x.moved(lambda n: n.reshape(-1) if axis is None else n.movedim(axis, 0))
    found = parts.moved(lambda n: n[0])
    for i in range(1, parts.shape[0]):
        found = found * parts.moved(operator.itemgetter(i))
    return found.moved(lambda n: n.unsqueeze(axis)) if keep and axis is not None else found


@rule("logsumexp")
def logsumexp(t: Trace, x: Value, axes: Any, keep: bool = False) -> Value:
    """log of the sum of exponentials, which moves no more than the largest error of its operands."""
    axes = [axes] if isinstance(axes, int) else list(axes)
    top = t.exact(torch.nan_to_num(x.x.amax(axes, keepdim=True), posinf=0.0, neginf=0.0))
    total = (x - top).function("exp").sum(axes, keep=True).function("log") + top
    return total if keep else total.moved(lambda n: n.squeeze(tuple(axes)))


@rule("scatter_add")
def scatter_add(t: Trace, x: Value, dim: int, index: Tensor, source: Value) -> Value:
    """x with a source added in some places."""
    return _sums(t, x, source, lambda base, part: base.scatter_add(dim, index, part), index.shape[dim])


@rule("index_add")
def index_add(t: Trace, x: Value, dim: int, index: Tensor, source: Value, alpha: float = 1) -> Value:
    """x with slices added in some places."""
    source = source if alpha == 1 else source * alpha
    return _sums(t, x, source, lambda base, part: base.index_add(dim, index, part), index.numel())


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(t: Trace, x: Value, indices: Any, values: Value, accumulate: bool = False, unsafe: bool = False) -> Value:
    """x with values put or added in some places."""
    values = t.value(values)
    places = list(indices)
    if accumulate:
        count = torch.zeros(x.shape, dtype=x.x.dtype)
        ones = torch.ones(values.shape, dtype=x.x.dtype)
        terms = int(count.index_put(places, ones, True).max()) if count.numel() else 0
        return _sums(t, x, values, lambda base, part: base.index_put(places, part, True), terms)
    z = x.x.index_put(places, values.x)

    def noise(a: Any, i: int) -> Tensor | None:
        one, other = x.given(a, i), values.given(a, i)
        if one is None and other is None:
            return None
        one = torch.zeros_like(x.x) if one is None else one.expand(x.shape)
        return one.index_put(places, torch.zeros_like(values.x) if other is None else other.expand(values.shape))

    return t.map(z, noise)


def _sums(t: Trace, x: Value, part: Value, f: Any, terms: int) -> Value:
    """Return sums of x and parts: every term is rounded at most as often as there are parts in its place."""
    spread = part.linear(lambda n: f(torch.zeros_like(x.x), n.expand(part.shape)), terms + 1)
    return x + spread


@rule("embedding_dense_backward")
def embedding_backward(t: Trace, g: Value, indices: Tensor, rows: int, padding: int, scale: bool) -> Value:
    """Sums of the gradients of equal indices."""
    if scale:
        raise NotImplementedError
    most = int(torch.bincount(indices.reshape(-1)).max()) if indices.numel() else 0

    def f(n: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten.embedding_dense_backward(n, indices, rows, padding, False)
        return found

    return g.linear(f, most)
