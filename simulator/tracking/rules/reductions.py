"""Rules of sums, means, extremes and norms over axes, and of sums that scatter."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor

from ..functions import power
from ..values import Trace, Value
from .branches import size
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


@rule("std_mean")
def std_mean(t: Trace, x: Value, axes: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    """Standard deviation and mean."""
    var, middle = variance(x, axes, correction, keepdim)
    return var.function("sqrt"), middle


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
    """Norms over axes: 1, 2, infinity, and of any other positive order by powers."""
    order = 2 if order is None else float(order)
    axes = list(range(x.x.dim())) if axes is None else axes
    if order == 1:
        return _absolute(x).sum(axes, keep)
    if order == math.inf:
        return extreme(_absolute(x), axes, keep, torch.amax)
    if order <= 0:
        raise NotImplementedError
    if order != 2:
        powers = _absolute(x)
        powers = powers.by(power(order), torch.pow(powers.x, order)).sum(axes, keep)
        return powers.by(power(1.0 / order), torch.pow(powers.x, 1.0 / order)).plus(_root_of(order, powers))
    return x.square().sum(axes, keep).function("sqrt")


def _absolute(x: Value) -> Value:
    return Value(x.trace, x.x.abs(), x.noise)


def _root_of(order: float, total: Value) -> Value:
    """Return 0, off by what 1 / order lacks as a number of the run."""
    z = torch.pow(total.x, 1.0 / order)
    off = (z * total.x.log()).abs() * (2.0**-24 if z.dtype == torch.float32 else 2.0**-53)
    off = torch.where(total.x == 0, 0.0, off)
    return Value(total.trace, torch.zeros_like(z), tuple(
        None if a.label == "certain_noise" else off for a in total.trace.algebras))  # fmt: skip


@rule("dist")
def dist(t: Trace, x: Value, y: Value, order: float = 2) -> Value | None:
    """Norm of the difference."""
    return norm(t, x - y, order)


@rule("trace")
def trace(t: Trace, x: Value) -> Value:
    """Sum of the diagonal."""
    return x.moved(lambda n: n.diagonal()).sum()


@rule("nansum")
def nansum(t: Trace, x: Value, axes: Any = None, keep: bool = False) -> Value:
    """Sum over axes, NaN being 0."""
    here = x.x.isnan()
    return (x.moved(lambda n: torch.where(here, 0.0, n)) if bool(here.any()) else x).sum(axes, keep)


@rule("aminmax")
def aminmax(t: Trace, x: Value, *, dim: int | None = None, keepdim: bool = False) -> tuple[Value, Value]:
    """Smallest and largest."""
    axes = None if dim is None else [dim]
    return extreme(x, axes, keepdim, torch.amin), extreme(x, axes, keepdim, torch.amax)


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
        if a.label == "expected":
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
    candidates = (~(side * x.x + bound < surely)).sum(axes, keepdim=keep)  # also what is NaN
    # Equal values that are exact have one place, which torch's order gives.
    undecided = (candidates > 1) & (torch.where(side * x.x + bound < surely, 0.0, bound).amax(axes, keepdim=keep) != 0)
    return Choice(candidates, undecided.to(x.trace.dtype))


@rule("argmax")
def argmax(t: Trace, x: Value, axis: Any = None, keep: bool = False) -> Choice | None:
    """Place of the largest."""
    return _place(x, axis, keep, torch.amax)


@rule("argmin")
def argmin(t: Trace, x: Value, axis: Any = None, keep: bool = False) -> Choice | None:
    """Place of the smallest."""
    return _place(x, axis, keep, torch.amin)


@rule("cumprod")
def cumprod(t: Trace, x: Value, axis: int, dtype: Any = None) -> Value:
    """Running products."""
    if not x.x.dim():
        return x
    parts = [x.moved(lambda n, i=i: n.narrow(axis, i, 1)) for i in range(x.shape[axis])]  # type: ignore[misc]
    for i in range(1, len(parts)):
        parts[i] = parts[i - 1] * parts[i]
    return t.joined(parts, axis) if parts else x


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
    if not parts.shape[0]:
        return t.exact(torch.ones(parts.shape[1:]))
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


@rule("scatter_add", chooses=True)
def scatter_add(t: Trace, x: Value, dim: int, index: Any, source: Value) -> Value:
    """x with a source added in some places; where a place is not decided, that part anywhere along the axis or not."""
    if isinstance(index, Choice):
        if not isinstance(x, Value) or not isinstance(source, Value) or not x.x.dim():
            raise NotImplementedError
        found = scatter_add(t, x, dim, index.x, source)
        part = size(source)[tuple(slice(0, k) for k in index.x.shape)]
        jump = torch.where(index.undecided != 0, part, 0.0).sum(dim, keepdim=True) * 1.01
        beside = [0, 0] * x.x.dim()
        for i, (n, k) in enumerate(zip(reversed(x.shape), reversed(jump.shape), strict=True)):
            beside[2 * i + 1] = 0 if x.x.dim() - 1 - i == dim % x.x.dim() else n - k
        return found.either(torch.constant_pad_nd(jump, beside).expand(x.shape))
    source = source.moved(lambda n: n[tuple(slice(0, k) for k in index.shape)])
    return _sums(t, x, source, lambda base, part: base.scatter_add(dim, index, part), index.shape[dim])


@rule("scatter_reduce")
def scatter_reduce(
    t: Trace, x: Value, dim: int, index: Tensor, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    """x with a source added in some places."""
    if reduce != "sum" or not include_self:
        raise NotImplementedError
    return scatter_add(t, x, dim, index, source)


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
    put_ = torch.ops.aten.index_put  # takes None for a whole axis
    if accumulate:
        count = torch.zeros(x.shape, dtype=x.x.dtype)
        ones = torch.ones(values.shape, dtype=x.x.dtype)
        terms = int(put_(count, places, ones, True).max()) if count.numel() else 0
        return _sums(t, x, values, lambda base, part: put_(base, places, part, True), terms)
    z = put_(x.x, places, values.x)

    def noise(a: Any, i: int) -> Tensor | None:
        one, other = x.given(a, i), values.given(a, i)
        if one is None and other is None:
            return None
        one = torch.zeros_like(x.x) if one is None else one.expand(x.shape)
        return put_(one, places, torch.zeros_like(values.x) if other is None else other.expand(values.shape))

    return t.map(z, noise)


@rule("put")
def put(t: Trace, x: Value, index: Tensor, source: Value, accumulate: bool = False) -> Value:
    """x with values put or added in some places of its memory."""
    flat, shape = x.moved(lambda n: n.reshape(-1)), x.shape
    source = source.moved(lambda n: n.reshape(-1))
    return index_put(t, flat, [index.reshape(-1)], source, accumulate).moved(lambda n: n.reshape(shape))


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    t: Trace, weight: Value, indices: Tensor, offsets: Tensor, scale: bool = False, mode: int = 0, sparse: bool = False,
    each: Value | None = None, last: bool = False, padding: int = -1,
) -> Value:  # fmt: skip
    """Sums or means of rows."""
    if mode > 1 or padding >= 0:
        raise NotImplementedError
    starts = offsets[:-1] if last else offsets
    bag = torch.bucketize(torch.arange(len(indices)), starts, right=True) - 1
    rows = weight.moved(lambda n: n[indices])
    rows = rows if each is None else rows * each.moved(lambda n: n[:, None])
    zeros = t.exact(torch.zeros(len(starts), weight.shape[1], dtype=t.dtype))
    count = torch.bincount(bag, minlength=len(starts))
    found = _sums(t, zeros, rows, lambda base, part: base.index_add(0, bag, part), int(count.max()) if len(bag) else 0)
    return found / count.clamp(min=1)[:, None].to(t.dtype) if mode == 1 else found


@rule("_embedding_bag_backward")
def embedding_bag_backward(
    t: Trace, g: Value, indices: Tensor, offsets: Tensor, bag: Tensor, sizes: Tensor, largest: Tensor, rows: int,
    scale: bool, mode: int, sparse: bool, each: Value | None, padding: int = -1,
) -> Value:  # fmt: skip
    """Gradients of rows, those of equal indices added."""
    bag = bag if len(bag) else torch.bucketize(torch.arange(len(indices)), offsets, right=True) - 1
    return embedding_bag_dense_backward(t, g, indices, bag, sizes, largest, rows, scale, mode, each, padding)


@rule("_embedding_bag_dense_backward")
def embedding_bag_dense_backward(
    t: Trace, g: Value, indices: Tensor, bag: Tensor, sizes: Tensor, largest: Tensor, rows: int, scale: bool,
    mode: int, each: Value | None, padding: int = -1,
) -> Value:  # fmt: skip
    """Gradients of rows, those of equal indices added."""
    if mode > 1 or scale or padding >= 0 or len(bag) != len(indices):
        raise NotImplementedError
    share = g if mode == 0 else g / sizes.clamp(min=1)[:, None].to(t.dtype)
    share = share.moved(lambda n: n[bag])
    share = share if each is None else share * each.moved(lambda n: n[:, None])
    zeros = t.exact(torch.zeros(rows, g.shape[1], dtype=t.dtype))
    most = int(torch.bincount(indices).max()) if indices.numel() else 0
    return _sums(t, zeros, share, lambda base, part: base.index_add(0, indices, part), most)


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
