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
        moment = step if is_first_step else moment * momentum + step * (1.0 - dampening)
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
        m = m * beta1 + g * (1.0 - beta1)
        v = v * beta2 + g.square() * (1.0 - beta2)
        root = v
        if amsgrad and most is not None:
            root = most = maximum(t, most, v)
        size = lr / (1.0 - beta1**n) if isinstance(lr, float) else t.value(lr) / (1.0 - beta1**n)
        w = w - m * size / (root.function("sqrt") / math.sqrt(1.0 - beta2**n) + eps)
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
    size = t.value(lr) / (1.0 + (_number(steps) - 1.0) * lr_decay)
    return w - g * size / (sums.function("sqrt") + eps), scaled, sums, None
