"""Rules of losses and of dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .branches import clamp, maximum, minimum
from .elementwise import abs_
from .registry import rule

_NONE, _MEAN, _SUM = 0, 1, 2


def _reduced(x: Value, reduction: int) -> Value:
    return x if reduction == _NONE else x.mean() if reduction == _MEAN else x.sum()


def _share(g: Value, count: int, reduction: int) -> Value:
    return g / float(count) if reduction == _MEAN else g


def _chosen(x: Tensor, target: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Return where a target is no class to be ignored, and the classes with those replaced by 0."""
    valid = target != ignored
    return valid, torch.where(valid, target, 0)


@rule("nll_loss_forward", "nll_loss2d_forward")
def nll_loss(t: Trace, x: Value, target: Tensor, weight: Value | None, reduction: int, ignored: int) -> Any:
    """Minus x at the target, weighted; mean over the weights, and their sum."""
    axis = 1 if x.x.dim() > 1 else 0
    valid, classes = _chosen(x.x, target, ignored)
    picked = x.moved(lambda n: torch.where(valid, n.gather(axis, classes.unsqueeze(axis)).squeeze(axis), 0.0))
    weights = t.exact(valid.to(t.dtype))
    if weight is not None:
        weights = weight.moved(lambda n: n[classes] * valid)
        picked = picked * weights
    total = weights.sum()
    if reduction == _NONE:
        return -picked, None
    loss = -picked.sum()
    return (loss / total if reduction == _MEAN else loss), total


@rule("nll_loss_backward", "nll_loss2d_backward")
def nll_loss_backward(
    t: Trace, g: Value, x: Value, target: Tensor, weight: Value | None, reduction: int, ignored: int, total: Value
) -> Value:
    """-g weight / total at the target."""
    axis = 1 if x.x.dim() > 1 else 0
    valid, classes = _chosen(x.x, target, ignored)
    share = -(g / total if reduction == _MEAN else g)
    if weight is not None:
        share = share * weight.moved(lambda n: n[classes])
    each = share.moved(lambda n: (n.expand(target.shape) * valid).unsqueeze(axis))
    return each.moved(lambda n: torch.zeros_like(x.x).scatter(axis, classes.unsqueeze(axis), n))


@rule("mse_loss")
def mse_loss(t: Trace, x: Value, y: Value, reduction: int = _MEAN) -> Value:
    """(x - y)^2."""
    return _reduced((x - y).square(), reduction)


@rule("mse_loss_backward")
def mse_loss_backward(t: Trace, g: Value, x: Value, y: Value, reduction: int) -> Value:
    """2 (x - y) g."""
    return (x - y) * 2.0 * _share(g, x.x.numel(), reduction)


def _bowl(t: Trace, x: Value, y: Value, width: float) -> Value:
    """Return d^2 / 2 of a distance d up to a width, and a line beyond: m (d - m / 2), m = min(d, width)."""
    d = abs_(t, x - y)
    m = minimum(t, d, width)
    return m * (d - m * 0.5)


@rule("smooth_l1_loss")
def smooth_l1_loss(t: Trace, x: Value, y: Value, reduction: int = _MEAN, beta: float = 1.0) -> Value:
    """d^2 / (2 beta) up to beta, d - beta / 2 beyond."""
    return _reduced(_bowl(t, x, y, beta) / beta if beta else abs_(t, x - y), reduction)


@rule("smooth_l1_loss_backward")
def smooth_l1_loss_backward(t: Trace, g: Value, x: Value, y: Value, reduction: int, beta: float) -> Value:
    """g times d / beta within -1 and 1."""
    if not beta:
        raise NotImplementedError
    return clamp(t, (x - y) / beta, -1.0, 1.0) * _share(g, x.x.numel(), reduction)


@rule("huber_loss")
def huber_loss(t: Trace, x: Value, y: Value, reduction: int = _MEAN, delta: float = 1.0) -> Value:
    """d^2 / 2 up to delta, delta (d - delta / 2) beyond."""
    return _reduced(_bowl(t, x, y, delta), reduction)


@rule("huber_loss_backward")
def huber_loss_backward(t: Trace, g: Value, x: Value, y: Value, reduction: int, delta: float) -> Value:
    """g times d within -delta and delta."""
    return clamp(t, x - y, -delta, delta) * _share(g, x.x.numel(), reduction)


@rule("soft_margin_loss")
def soft_margin_loss(t: Trace, x: Value, y: Value, reduction: int = _MEAN) -> Value:
    """log(1 + exp(-x y))."""
    return _reduced((x * y).function("log_sigmoid").negated(), reduction)


@rule("soft_margin_loss_backward")
def soft_margin_loss_backward(t: Trace, g: Value, x: Value, y: Value, reduction: int) -> Value:
    """-g y sigmoid(-x y)."""
    return -(_share(g, x.x.numel(), reduction) * y * (-(x * y)).function("sigmoid"))


@rule("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    t: Trace, x: Value, y: Value, weight: Value | None = None, positive: Value | None = None, reduction: int = _MEAN
) -> Value:
    """(1 - y) x - (1 + (p - 1) y) log(sigmoid(x))."""
    log = x.function("log_sigmoid")
    loss = (1.0 - y) * x - (log if positive is None else ((positive - 1.0) * y + 1.0) * log)
    return _reduced(loss if weight is None else loss * weight, reduction)


@rule("binary_cross_entropy")
def binary_cross_entropy(t: Trace, x: Value, y: Value, weight: Value | None = None, reduction: int = _MEAN) -> Value:
    """-(y log x + (1 - y) log(1 - x)), logarithms at least -100."""
    low = maximum(t, x.function("log"), -100.0)
    high = maximum(t, (-x).function("log1p"), -100.0)
    loss = (y - 1.0) * high - y * low
    return _reduced(loss if weight is None else loss * weight, reduction)


@rule("binary_cross_entropy_backward")
def binary_cross_entropy_backward(
    t: Trace, g: Value, x: Value, y: Value, weight: Value | None = None, reduction: int = _MEAN
) -> Value:
    """g (x - y) / max(x (1 - x), 1e-12)."""
    found = _share(g, x.x.numel(), reduction) * (x - y) / maximum(t, x * (1.0 - x), 1e-12)
    return found if weight is None else found * weight


@rule("native_dropout", direct=True)
def dropout(t: Trace, x: Value, p: float, train: bool | None, z: Any = None) -> tuple[Value, None]:
    """x times the mask of the run, scaled by 1 / (1 - p); the mask is decided."""
    if z is None:
        raise NotImplementedError
    if train is False:
        return Value(t, z[0], x.noise), None
    kept = t.exact(z[1].to(t.dtype))
    return (x * kept * t.value(1.0 / (1.0 - p) if p < 1 else 0.0)), None


@rule("native_dropout_backward")
def dropout_backward(t: Trace, g: Value, mask: Tensor, scale: float) -> Value:
    """g times the mask, scaled."""
    return g * t.exact(mask.to(t.dtype)) * scale
