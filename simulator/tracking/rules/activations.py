"""Rules of activations, forward and on the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..algebra import Algebra, Function, Rounded
from ..functions import gelu_slope, second_of_gelu, second_of_silu, silu_slope, slope_of
from ..values import Trace, Value, within
from .branches import chosen, clamp, gated, let_through, maximum, minimum, size
from .registry import rule

# Pieces: within the bound of x another piece may be the true one.


@rule("relu", direct=True)
def relu(t: Trace, x: Value, z: Tensor | None = None) -> Value:
    """max(x, 0): moves no more than x, and not at all where x is surely negative."""
    z = torch.relu(x.x) if z is None else z

    def noise(a: Algebra, i: int) -> Tensor | None:
        n = x.given(a, i)
        return None if n is None else a.kept(x.x, n.expand(x.shape))

    return t.map(z, noise)


@rule("hardtanh")
def hardtanh(t: Trace, x: Value, min_val: float = -1, max_val: float = 1) -> Value:
    """x within bounds."""
    return clamp(t, x, min_val, max_val)


@rule("threshold")
def threshold(t: Trace, x: Value, at: float, value: float) -> Value:
    """x above a threshold, else a number."""
    found, near = chosen(x.x > at, x, t.value(value)), _near(x, (at,))
    return found if near is None else found.either(size(x) + abs(value), near)


@rule("hardshrink")
def hardshrink(t: Trace, x: Value, at: float = 0.5) -> Value:
    """x where |x| is above a threshold, else 0."""
    return let_through(x, x.x.abs() > at, _near(x, (at, -at)))


@rule("softshrink")
def softshrink(t: Trace, x: Value, at: float = 0.5) -> Value:
    """x less a threshold, towards 0."""
    return maximum(t, x - at, 0.0) + minimum(t, x + at, 0.0)


@rule("leaky_relu")
def leaky_relu(t: Trace, x: Value, negative_slope: float = 0.01) -> Value:
    """x, or slope x where x is not positive; the steeper piece counts where both are within the bound."""
    found = chosen(x.x > 0, x, x * negative_slope)
    return _steeper(found, x, abs(negative_slope))


def _steeper(found: Value, x: Value, slope: Tensor | float) -> Value:
    """Return x, or what is as steep as that, below 0: off by as much as the steeper one where both may be true."""
    bound = x.bound()
    if bound is None:
        return found
    return found.either(bound * (slope + 1.0), within(x.x.abs(), bound), counted=False)


@rule("_prelu_kernel")
def prelu(t: Trace, x: Value, weight: Value) -> Value:
    """x, or weight x where x is not positive."""
    return _steeper(chosen(x.x > 0, x, x * weight), x, size(weight))


@rule("elu")
def elu(t: Trace, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """Scale times x, or times alpha (exp(input scale x) - 1) below 0."""
    below = minimum(t, x, 0.0) * input_scale
    return (maximum(t, x, 0.0) + below.function("expm1") * alpha) * scale


@rule("celu")
def celu(t: Trace, x: Value, alpha: float = 1.0) -> Value:
    """x, or alpha (exp(x / alpha) - 1) below 0."""
    return elu(t, x, alpha, 1.0, 1.0 / alpha)


@rule("hardsigmoid")
def hardsigmoid(t: Trace, x: Value) -> Value:
    """(x + 3) / 6 within 0 and 1."""
    return clamp(t, x + 3.0, 0.0, 6.0) / 6.0


@rule("hardswish")
def hardswish(t: Trace, x: Value) -> Value:
    """x (x + 3) / 6, 0 and x beyond."""
    return x * clamp(t, x + 3.0, 0.0, 6.0) / 6.0


# Smooth ones.


@rule("gelu")
def gelu(t: Trace, x: Value, approximate: str = "none") -> Value:
    """x Phi(x), or with a tanh in place of Phi."""
    if approximate == "none":
        return x.function("gelu")
    inner = (x + x * x * x * 0.044715) * math.sqrt(2.0 / math.pi)
    return x * 0.5 * (inner.function("tanh") + 1.0)


@rule("softplus")
def softplus(t: Trace, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """log(1 + exp(beta x)) / beta, and x beyond the threshold, where both differ by exp(-threshold) / beta at most."""
    scaled = x * beta
    found = chosen(scaled.x > threshold, x, scaled.function("softplus") / beta)
    near = _near_threshold(scaled, threshold)
    return found if near is None else found.either(near * (math.exp(-threshold) / abs(beta) * 1.01), counted=False)


def _near_threshold(scaled: Value, threshold: float) -> Tensor | None:
    """Return 1 where it may be on the other side of a threshold, else 0; None if it is nowhere."""
    near = _near(scaled, (threshold,))
    return None if near is None else near.to(scaled.x.dtype)


@rule("mish")
def mish(t: Trace, x: Value) -> Value:
    """x tanh(softplus(x))."""
    return x * softplus(t, x).function("tanh")


@rule("glu")
def glu(t: Trace, x: Value, axis: int = -1) -> Value:
    """Half of x times the sigmoid of the other half."""
    half, gate = (x.moved(lambda n, i=i: n.chunk(2, axis)[i]) for i in range(2))  # type: ignore[misc]
    return half * gate.function("sigmoid")


@rule("log_sigmoid_forward")
def log_sigmoid(t: Trace, x: Value) -> tuple[Value, None]:
    """log(sigmoid(x)), and a buffer that the way back does not read here."""
    return x.function("log_sigmoid"), None


# On the way back: g times a slope, which has noise of its own.


@rule("threshold_backward", direct=True)
def threshold_backward(t: Trace, g: Value, x: Value, threshold: float, z: Tensor | None = None) -> Value:
    """g where x, or the ReLU of x, is above the threshold."""
    over = x if threshold == 0 else x - threshold
    return gated(g, over, torch.ops.aten.threshold_backward(g.x, over.x, 0) if z is None else z)


@rule("hardtanh_backward")
def hardtanh_backward(t: Trace, g: Value, x: Value, min_val: float, max_val: float) -> Value:
    """g where x is strictly within bounds."""
    for over in (x - min_val, max_val - x):
        g = gated(g, over, torch.ops.aten.threshold_backward(g.x, over.x, 0))
    return g


@rule("hardshrink_backward")
def hardshrink_backward(t: Trace, g: Value, x: Value, at: float) -> Value:
    """g where |x| is above a threshold."""
    return let_through(g, x.x.abs() > at, _near(x, (at, -at)))


@rule("softshrink_backward")
def softshrink_backward(t: Trace, g: Value, x: Value, at: float) -> Value:
    """g where |x| is above a threshold."""
    return hardshrink_backward(t, g, x, at)


def _near(x: Value, kinks: Sequence[float]) -> Tensor | None:
    """Return where one of these numbers of the code is within the bound, which their conversion is a part of; None if
    none is anywhere.
    """
    found = None
    for over in (x - kink if kink else x for kink in kinks):
        bound = over.bound()
        if bound is not None:
            near = within(over.x.abs(), bound)
            found = near if found is None else found | near
    return found if found is not None and bool(found.any()) else None


def _bent(found: Value, g: Value, x: Value, kinks: Sequence[float], by: Tensor | float) -> Value:
    """Return g times a slope that differs by so much at most between any two places, beyond one of the kinks."""
    near = _near(x, kinks)
    return found if near is None else found.either(size(g) * by, near)


@rule("leaky_relu_backward")
def leaky_relu_backward(t: Trace, g: Value, x: Value, negative_slope: float, self_is_result: bool) -> Value:
    """g, or g times the slope where x is not positive."""
    return _bent(chosen(x.x > 0, g, g * negative_slope), g, x, (0.0,), 1.0 + abs(negative_slope))


@rule("_prelu_kernel_backward")
def prelu_backward(t: Trace, g: Value, x: Value, weight: Value) -> tuple[Value, Value]:
    """g, or g times the weight where x is not positive; for the weight g min(x, 0)."""
    to_input = _bent(chosen(x.x > 0, g, g * weight), g, x, (0.0,), 1.0 + size(weight))
    return to_input, g * minimum(t, x, 0.0)


@rule("tanh_backward")
def tanh_backward(t: Trace, g: Value, y: Value) -> Value:
    """g (1 - y^2)."""
    return g * (1.0 - y.square())


@rule("sigmoid_backward")
def sigmoid_backward(t: Trace, g: Value, y: Value) -> Value:
    """g y (1 - y)."""
    return g * y.by(_LOGISTIC_SLOPE, y.x * (1.0 - y.x))


# y (1 - y), computed in two operations.
_LOGISTIC_SLOPE = Function(
    lambda y, z: (1.0 - 2.0 * y).abs(), lambda y, z, d: ((1.0 - 2.0 * y).abs() + d) * d, Rounded(4.0, 2.0)
)
# Their values are of the order of 1 where they are computed, whatever is left of them.
_SILU_SLOPE = slope_of(second_of_silu, 0.501, 0.31)._replace(
    beside=lambda x, z: 8.0 * (1.0 + x.abs()) * torch.sigmoid(x)
)
_GELU_SLOPE = slope_of(second_of_gelu, 0.7979, 1.0)._replace(beside=lambda x, z: torch.full_like(x, 16.0))


@rule("silu_backward")
def silu_backward(t: Trace, g: Value, x: Value) -> Value:
    """g times the slope of silu."""
    return g * x.by(_SILU_SLOPE, silu_slope(x.x, x.x))


@rule("gelu_backward")
def gelu_backward(t: Trace, g: Value, x: Value, approximate: str = "none") -> Value:
    """g times the slope of gelu."""
    if approximate == "none":
        return g * x.by(_GELU_SLOPE, gelu_slope(x.x, x.x))
    k, c = math.sqrt(2.0 / math.pi), 0.044715
    squared = x.square()
    y = ((x + x * squared * c) * k).function("tanh")
    inner = (1.0 + squared * (3.0 * c)) * k
    return g * (0.5 * (y + 1.0) + x * 0.5 * (1.0 - y.square()) * inner)


@rule("mish_backward")
def mish_backward(t: Trace, g: Value, x: Value) -> Value:
    """g (y + x sigmoid(x) (1 - y^2)), y = tanh(softplus(x))."""
    y = softplus(t, x).function("tanh")
    return g * (y + x * x.function("sigmoid") * (1.0 - y.square()))


@rule("glu_backward")
def glu_backward(t: Trace, g: Value, x: Value, axis: int) -> Value:
    """g times the sigmoid of the other half; for that, g times x and the slope of the sigmoid."""
    half, gate = (x.moved(lambda n, i=i: n.chunk(2, axis)[i]) for i in range(2))  # type: ignore[misc]
    open_ = gate.function("sigmoid")
    return t.joined([g * open_, sigmoid_backward(t, g * half, open_)], axis)


@rule("softplus_backward")
def softplus_backward(t: Trace, g: Value, x: Value, beta: float, threshold: float) -> Value:
    """g sigmoid(beta x), and g beyond the threshold, where both differ by g exp(-threshold) at most."""
    scaled = x * beta
    near = _near_threshold(scaled, threshold)
    far = scaled.x > threshold
    if near is None:
        return chosen(far, g, g * scaled.function("sigmoid"))
    found = chosen(far & (near == 0), g, g * scaled.function("sigmoid"))
    return found.either(size(g) * near * (math.exp(-threshold) * 1.01), counted=False)


@rule("log_sigmoid_backward")
def log_sigmoid_backward(t: Trace, g: Value, x: Value, buffer: Any) -> Value:
    """g sigmoid(-x)."""
    return g * (-x).function("sigmoid")


@rule("elu_backward")
def elu_backward(
    t: Trace, g: Value, alpha: float, scale: float, input_scale: float, is_result: bool, x: Value
) -> Value:
    """g times the slope of elu, of x or of its result."""
    if is_result:
        below = (minimum(t, x, 0.0) + alpha * scale) * input_scale
    else:
        below = (minimum(t, x, 0.0) * input_scale).function("exp") * (alpha * scale * input_scale)
    if alpha * input_scale == 1:  # no step at 0: where it may be below, what is said of that holds above too
        near = _near(x, (0.0,))
        return chosen((x.x > 0) if near is None else (x.x > 0) & ~near, g * scale, g * below)
    return _bent(chosen(x.x > 0, g * scale, g * below), g, x, (0.0,), abs(scale) * (1.0 + abs(alpha * input_scale)))


@rule("hardsigmoid_backward")
def hardsigmoid_backward(t: Trace, g: Value, x: Value) -> Value:
    """g / 6 where x is within -3 and 3."""
    return hardtanh_backward(t, g / 6.0, x, -3.0, 3.0)


@rule("hardswish_backward")
def hardswish_backward(t: Trace, g: Value, x: Value) -> Value:
    """g (2 x + 3) / 6 between -3 and 3, 0 and g beyond."""
    inside = g * ((x * 2.0 + 3.0) / 6.0)
    found = chosen(x.x <= -3.0, t.value(0.0), chosen(x.x < 3.0, inside, g))
    return _bent(found, g, x, (-3.0, 3.0), 2.0)
