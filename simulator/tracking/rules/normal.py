"""Rules of normalisations and softmax, forward and on the way back, composed of their arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..algebra import Algebra
from ..values import Trace, Value
from .registry import rule


def _normalised(x: Value, axes: list[int], eps: float) -> tuple[Value, Value, Value]:
    """Return (x - mean) / deviation, mean, and 1 / deviation, with the axes kept."""
    mean = x.mean(axes, keep=True)
    middle = x - mean
    inverse = (middle.square().mean(axes, keep=True) + eps).function("rsqrt")
    return middle * inverse, mean, inverse


def _scaled(x: Value, weight: Value | None, bias: Value | None) -> Value:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def _shaped(x: Value | None, f: Callable[[Tensor], Tensor]) -> Value | None:
    return None if x is None else x.moved(f)


def _backward(gw: Value, normal: Value, inverse: Value, axes: list[int]) -> Value:
    """Return the gradient of the input: (gw - mean(gw) - normal mean(gw normal)) / deviation."""
    return (gw - gw.mean(axes, keep=True) - normal * (gw * normal).mean(axes, keep=True)) * inverse


@rule("native_layer_norm")
def layer_norm(t: Trace, x: Value, shape: Any, weight: Value | None, bias: Value | None, eps: float) -> Any:
    """Layer normalisation, its mean and 1 / deviation."""
    axes = list(range(x.x.dim() - len(shape), x.x.dim()))
    normal, mean, inverse = _normalised(x, axes, eps)
    return _scaled(normal, weight, bias), mean, inverse


@rule("native_layer_norm_backward")
def layer_norm_backward(
    t: Trace, g: Value, x: Value, shape: Any, mean: Value, inverse: Value, weight: Value | None, bias: Value | None,
    mask: Any,
) -> Any:  # fmt: skip
    """Gradients of input, weight and bias."""
    axes = list(range(x.x.dim() - len(shape), x.x.dim()))
    rows = list(range(x.x.dim() - len(shape)))
    normal = (x - mean) * inverse
    gw = g if weight is None else g * weight
    return (
        _backward(gw, normal, inverse, axes) if mask[0] else None,
        ((g * normal).sum(rows) if rows else g * normal) if mask[1] and weight is not None else None,
        (g.sum(rows) if rows else g) if mask[2] and bias is not None else None,
    )


@rule("_fused_rms_norm")
def rms_norm(t: Trace, x: Value, shape: Any, weight: Value | None, eps: float | None) -> Any:
    """Normalisation by the root of the mean square, and the inverse of that."""
    axes = list(range(x.x.dim() - len(shape), x.x.dim()))
    eps = float(torch.finfo(t.dtype).eps) if eps is None else eps
    inverse = (x.square().mean(axes, keep=True) + eps).function("rsqrt")
    return _scaled(x * inverse, weight, None), inverse


@rule("_fused_rms_norm_backward")
def rms_norm_backward(
    t: Trace, g: Value, x: Value, shape: Any, inverse: Value, weight: Value | None, mask: Any
) -> Any:  # fmt: skip
    """Gradients of input and weight."""
    axes = list(range(x.x.dim() - len(shape), x.x.dim()))
    rows = list(range(x.x.dim() - len(shape)))
    normal = x * inverse
    gw = g if weight is None else g * weight
    back = (gw - normal * (gw * normal).mean(axes, keep=True)) * inverse
    return back if mask[0] else None, (g * normal).sum(rows) if mask[1] and weight is not None else None


def _channels(x: Value) -> Callable[[Tensor], Tensor]:
    shape = [1, -1, *(1 for _ in range(x.x.dim() - 2))]
    return lambda part: part.reshape(shape)


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
)
def batch_norm(t: Trace, x: Value, weight: Value | None, bias: Value | None, *rest: Any) -> Any:
    """Batch normalisation; its mean and 1 / deviation in training; running statistics are followed, see `running`."""
    *given, eps = rest
    statistics = [part for part in given if isinstance(part, Value)]
    training = next((part for part in given if isinstance(part, bool)), len(statistics) < 2)
    spread = _channels(x)
    weight, bias = _shaped(weight, spread), _shaped(bias, spread)
    if not training:
        mean, var = (part.moved(spread) for part in statistics)
        inverse = (var + eps).function("rsqrt")
        return _scaled((x - mean) * inverse, weight, bias), None, None
    axes = [0, *range(2, x.x.dim())]
    normal, mean, inverse = _normalised(x, axes, eps)
    flat = [part.moved(lambda n: n.reshape(-1)) for part in (mean, inverse)]
    return _scaled(normal, weight, bias), *flat


def running(t: Trace, x: Value, old: tuple[Value, Value], momentum: float) -> tuple[Value, Value]:
    """Return running mean and variance after a batch."""
    axes = [0, *range(2, x.x.dim())]
    mean = x.mean(axes)
    count = x.x.numel() // max(1, mean.x.numel())
    spread = _channels(x)
    var = (x - mean.moved(spread)).square().sum(axes) / max(1, count - 1)
    return tuple(o * (1.0 - momentum) + new * momentum for o, new in zip(old, (mean, var), strict=True))  # type: ignore[return-value]


@rule("native_batch_norm_backward")
def batch_norm_backward(
    t: Trace, g: Value, x: Value, weight: Value | None, mean: Value | None, var: Value | None, saved_mean: Value | None,
    saved_inverse: Value | None, train: bool, eps: float, mask: Any,
) -> Any:  # fmt: skip
    """Gradients of input, weight and bias."""
    spread = _channels(x)
    axes = [0, *range(2, x.x.dim())]
    if train:
        assert saved_mean is not None and saved_inverse is not None
        middle, inverse = saved_mean.moved(spread), saved_inverse.moved(spread)
    else:
        assert mean is not None and var is not None
        middle, inverse = mean.moved(spread), (var.moved(spread) + eps).function("rsqrt")
    normal = (x - middle) * inverse
    gw = g if weight is None else g * weight.moved(spread)
    return (
        (_backward(gw, normal, inverse, axes) if train else gw * inverse) if mask[0] else None,
        (g * normal).sum(axes) if mask[1] else None,
        g.sum(axes) if mask[2] else None,
    )


def _groups(n: int, c: int, groups: int) -> Callable[[Tensor], Tensor]:
    return lambda part: part.reshape(n, groups, -1)


@rule("native_group_norm")
def group_norm(
    t: Trace, x: Value, weight: Value | None, bias: Value | None, n: int, c: int, size: int, groups: int, eps: float
) -> Any:
    """Group normalisation, mean and 1 / deviation of each group."""
    normal, mean, inverse = _normalised(x.moved(_groups(n, c, groups)), [2], eps)
    spread = _channels(x)
    out = _scaled(normal.moved(lambda part: part.reshape(x.shape)), _shaped(weight, spread), _shaped(bias, spread))
    return out, *(part.moved(lambda m: m.reshape(n, groups)) for part in (mean, inverse))


@rule("native_group_norm_backward")
def group_norm_backward(
    t: Trace, g: Value, x: Value, mean: Value, inverse: Value, weight: Value | None, n: int, c: int, size: int,
    groups: int, mask: Any,
) -> Any:  # fmt: skip
    """Gradients of input, weight and bias."""
    grouped = _groups(n, c, groups)
    middle, over = (part.moved(lambda m: m.reshape(n, groups, 1)) for part in (mean, inverse))
    normal = (x.moved(grouped) - middle) * over
    gw = (g if weight is None else g * weight.moved(_channels(x))).moved(grouped)
    back = _backward(gw, normal, over, [2])
    axes = [0, *range(2, x.x.dim())]
    whole = normal.moved(lambda part: part.reshape(x.shape))
    return (
        back.moved(lambda part: part.reshape(x.shape)) if mask[0] else None,
        (g * whole).sum(axes) if mask[1] else None,
        g.sum(axes) if mask[2] else None,
    )


# Softmax. In real numbers any shift gives the same: the largest value, which the run subtracts, counts as exact.


@rule("_softmax", "_safe_softmax", "softmax")
def softmax(t: Trace, x: Value, axis: int, half_to_float: Any = False) -> Value:
    """exp(x - max) over their sum."""
    return softmax_of(x, axis)


def softmax_of(x: Value, axis: int) -> Value:
    """Return softmax over an axis: what its computation rounds, and how far the operands move it (S11, E5)."""
    if not x.x.numel():
        return x
    e = _shifted(_computed(x), axis).function("exp")
    y = e / e.sum([axis], keep=True)
    return x.trace.map(y.x, lambda a, i: a.shares(y.x, y.noise[i], _given(x, a, i), axis))


def _computed(x: Value) -> Value:
    """Return operands as the computation sees them: exact, but for the number whose rules are those of its parts."""
    parts = zip(x.trace.algebras, x.noise, strict=True)
    return Value(x.trace, x.x, tuple(n if a.label == "certain_noise" else None for a, n in parts))


def _given(x: Value, a: Algebra, i: int) -> Tensor | None:
    n = x.given(a, i)
    return None if n is None else n.expand(x.shape)


def _shifted(x: Value, axis: int) -> Value:
    top = torch.nan_to_num(x.x.amax(axis, keepdim=True), posinf=0.0, neginf=0.0)
    return x - x.trace.exact(top)


@rule("_softmax_backward_data")
def softmax_backward(t: Trace, g: Value, y: Value, axis: int, dtype: Any) -> Value:
    """y (g - sum(g y))."""
    return y * (g - (g * y).sum([axis], keep=True))


@rule("_log_softmax", "log_softmax")
def log_softmax(t: Trace, x: Value, axis: int, half_to_float: Any = False) -> Value:
    """x - max - log(sum(exp(x - max)))."""
    if not x.x.numel():
        return x
    shifted = _shifted(_computed(x), axis)
    y = shifted - shifted.function("exp").sum([axis], keep=True).function("log")
    return t.map(y.x, lambda a, i: a.log_shares(y.x, y.noise[i], _given(x, a, i), axis))


@rule("_log_softmax_backward_data")
def log_softmax_backward(t: Trace, g: Value, y: Value, axis: int, dtype: Any) -> Value:
    """g - exp(y) sum(g)."""
    return g - y.function("exp") * g.sum([axis], keep=True)
