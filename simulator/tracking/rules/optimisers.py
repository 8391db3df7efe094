"""Rules of optimisers whose step is one operation on all parameters, composed of their arithmetic.

What the kernel did, in the order in which it did it, differs from the composition by roundings, which are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..values import Trace, Value
from .branches import maximum

# By name: (trace, tensors of one parameter, settings) -> what is written to each of the tensors, None where nothing is.
FUSED: dict[str, Callable[..., tuple[Value | None, ...]]] = {}


def _fused(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(make: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            FUSED[name] = make
        return make

    return register


def _gradient(g: Value, grad_scale: Value | None, maximize: bool) -> Value:
    g = g if grad_scale is None else g / grad_scale
    return -g if maximize else g


def _number(x: Any) -> float:
    return float(x.x) if isinstance(x, Value) else float(x)


# Of the arithmetic in float64 that makes numbers of the settings of an optimiser.
_UNIT = 2.0**-53


def _rest(t: Trace, x: float) -> Value:
    """Return 1 - x, computed in float64."""
    return t.number(1.0 - x, 0.0 if 0.5 <= x <= 2.0 else _UNIT * abs(1.0 - x))


def _corrected(beta: float, n: float) -> tuple[float, float]:
    """Return 1 - beta^n, computed in float64, and by how much it may be off relatively (S2, S4)."""
    power = beta**n
    found = 1.0 - power
    return found, _UNIT * ((n + 2.0) * power / found + 1.0)


def _skips(found_inf: Any) -> bool:
    """Whether a step is left out because a scaled gradient has overflowed."""
    return found_inf is not None and _number(found_inf) != 0.0


@_fused("_fused_sgd")
def sgd(
    t: Trace, w: Value, g: Value, moment: Value | None, *, lr: Any, weight_decay: float, momentum: float,
    dampening: float, nesterov: bool, maximize: bool, is_first_step: bool, grad_scale: Any = None,
    found_inf: Any = None,
) -> tuple[Value | None, ...]:  # fmt: skip
    """w - lr (g + decay w), or its running sum."""
    if _skips(found_inf):
        return w, g, moment
    scaled = g if grad_scale is None else g / grad_scale
    g = _gradient(g, grad_scale, maximize)
    step = g + w * weight_decay if weight_decay else g
    if momentum and moment is not None:
        moment = step if is_first_step else moment * momentum + step * _rest(t, dampening)
        step = step + moment * momentum if nesterov else moment
    return w - step * lr, scaled, moment


def _adam(decoupled: bool) -> Callable[..., tuple[Value | None, ...]]:
    """Return Adam: w - lr / (1 - beta1^n) m / (sqrt(v / (1 - beta2^n)) + eps); decoupled: with a decay of its own."""

    def make(
        t: Trace, w: Value, g: Value, m: Value, v: Value, most: Value | None, steps: Value, *, lr: Any, beta1: float,
        beta2: float, weight_decay: float, eps: float, amsgrad: bool, maximize: bool, grad_scale: Any = None,
        found_inf: Any = None,
    ) -> tuple[Value | None, ...]:  # fmt: skip
        if _skips(found_inf):
            return w, g, m, v, most, None
        scaled = g if grad_scale is None else g / grad_scale
        g = _gradient(g, grad_scale, maximize)
        n = _number(steps)
        if weight_decay and decoupled:
            w = w - w * (t.value(lr) * weight_decay)
        elif weight_decay:
            g = g + w * weight_decay
        m = m * beta1 + g * _rest(t, beta1)
        v = v * beta2 + g.square() * _rest(t, beta2)
        root = v
        if amsgrad and most is not None:
            root = most = maximum(t, most, v)
        (first, off), (second, off_second) = _corrected(beta1, n), _corrected(beta2, n)
        if isinstance(lr, float):
            size = t.number(lr / first, abs(lr / first) * (off + _UNIT) * 1.01)
        else:
            size = t.value(lr) / t.number(first, first * off)
        scale = math.sqrt(second)
        w = w - m * size / (root.function("sqrt") / t.number(scale, scale * (off_second + _UNIT) * 1.01) + eps)
        return w, scaled, m, v, most, None

    return make


FUSED["_fused_adam"], FUSED["_fused_adamw"] = _adam(decoupled=False), _adam(decoupled=True)


@_fused("_fused_adagrad")
def adagrad(
    t: Trace, w: Value, g: Value, sums: Value, steps: Value, *, lr: Any, lr_decay: float, weight_decay: float,
    eps: float, maximize: bool, grad_scale: Any = None, found_inf: Any = None,
) -> tuple[Value | None, ...]:  # fmt: skip
    """w - lr / (1 + (n - 1) decay) g / (sqrt(sum of g^2) + eps)."""
    if _skips(found_inf):
        return w, g, sums, None
    scaled = g if grad_scale is None else g / grad_scale
    g = _gradient(g, grad_scale, maximize)
    g = g + w * weight_decay if weight_decay else g
    sums = sums + g.square()
    slower = 1.0 + (_number(steps) - 1.0) * lr_decay
    size = t.value(lr) / t.number(slower, 2.0 * _UNIT * slower if lr_decay else 0.0)
    return w - g * size / (sums.function("sqrt") + eps), scaled, sums, None
