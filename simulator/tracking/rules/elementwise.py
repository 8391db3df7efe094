"""Rules of what is computed element by element, forward and on the way back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..algebra import EXACTLY, Algebra, Function, Rounded
from ..functions import (
    gelu_slope,
    power,
    second_of_gelu,
    second_of_silu,
    silu_slope,
    slope_of,
)  # fmt: skip
from ..values import Trace, Value
from .registry import Choice, rule


def _as_it_is(t: Trace, x: Any) -> Any:
    """Return a factor that is 0 or 1 by decision as a value; what is not decided may be either."""
    if isinstance(x, Choice):
        return t.exact(x.x).either(torch.ones_like(x.undecided), x.undecided > 0)
    return x


@rule("add", direct=True, keeps=lambda x, y, alpha=1: alpha == 1, chooses=True)
def add(t: Trace, x: Any, y: Any, alpha: float = 1, z: Tensor | None = None) -> Value:
    """x + alpha y; with another factor than 1 rounded twice, of which fused additions save one."""
    x, y = t.value(_as_it_is(t, x)), t.value(_as_it_is(t, y))
    if alpha == 1:
        return x.plus(y, z)
    if z is None:
        return x.plus(y.times(alpha))
    factor = t.value(alpha)
    held = float(factor.x)
    off = abs(float(alpha) - held)
    return t.map(z, lambda a, i: a.multiple_added(z, y.x, held, off, x.given(a, i), y.given(a, i)))


@rule("sub", direct=True, keeps=lambda x, y, alpha=1: alpha == 1, chooses=True)
def sub(t: Trace, x: Any, y: Any, alpha: float = 1, z: Tensor | None = None) -> Value:
    """x - alpha y."""
    if alpha == 1:
        return t.value(_as_it_is(t, x)).minus(t.value(_as_it_is(t, y)), z)
    return add(t, x, y, -alpha, z)


@rule("rsub", direct=True)
def rsub(t: Trace, x: Value, y: Any, alpha: float = 1, z: Tensor | None = None) -> Value:
    """y - alpha x."""
    return sub(t, y, x, alpha, z)


@rule("mul", direct=True, chooses=True)
def mul(t: Trace, x: Any, y: Any, z: Tensor | None = None) -> Value:
    """x y."""
    return t.value(_as_it_is(t, x)).times(_as_it_is(t, y), z)


@rule("div", direct=True, chooses=True)
def div(t: Trace, x: Any, y: Any, rounding_mode: str | None = None, z: Tensor | None = None) -> Value:
    """x / y."""
    x = t.value(_as_it_is(t, x))
    if rounding_mode is None:
        return x.over(_as_it_is(t, y), z)
    quotient = x.over(_as_it_is(t, y))
    return _steps(quotient, torch.floor if rounding_mode == "floor" else torch.trunc)


def _steps(x: Value, f: Any) -> Value:
    """Return a function with steps at whole numbers: nothing is lost while no step is within the bound."""
    z = f(x.x)
    bound = x.bound()
    if bound is None:
        return x.trace.exact(z)
    low, high = f(x.x - bound), f(x.x + bound)
    jump = torch.maximum((high - z).abs(), (z - low).abs())
    return x.trace.exact(z).either(jump + 1.0, jump != 0)


@rule("floor")
def floor(t: Trace, x: Value) -> Value:
    """Largest whole number below."""
    return _steps(x, torch.floor)


@rule("ceil")
def ceil(t: Trace, x: Value) -> Value:
    """Least whole number above."""
    return _steps(x, torch.ceil)


@rule("round")
def round_(t: Trace, x: Value, decimals: int = 0) -> Value:
    """Nearest whole number."""
    return _steps(x, torch.round)


@rule("trunc")
def trunc(t: Trace, x: Value) -> Value:
    """Next whole number towards 0."""
    return _steps(x, torch.trunc)


@rule("sign", "sgn")
def sign(t: Trace, x: Value) -> Value:
    """Sign, which is lost where 0 is within the bound."""
    bound = x.bound()
    z = torch.sign(x.x)
    if bound is None:
        return t.exact(z)
    return t.exact(z).either(torch.full_like(z, 2.0), x.x.abs() <= bound)


@rule("neg", direct=True)
def neg(t: Trace, x: Value, z: Tensor | None = None) -> Value:
    """-x, exact."""
    return Value(t, -x.x if z is None else z, x.noise)


@rule("abs", direct=True)
def abs_(t: Trace, x: Value, z: Tensor | None = None) -> Value:
    """|x|, exact; it moves no more than x."""
    return Value(t, x.x.abs() if z is None else z, x.noise)


def _unary(name: str) -> Any:
    def make(t: Trace, x: Value, z: Tensor | None = None) -> Value:
        return x.function(name, z)

    return make


for _name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid",
              "erf", "sin", "cos", "atan", "silu"):  # fmt: skip
    rule(_name, direct=True)(_unary(_name))


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
    found = (x * beta).function("softplus") / beta
    far = x.x * beta > threshold
    found = _where(far, x, found)
    bound = x.bound()
    near = (x.x * beta - threshold).abs() <= (0.0 if bound is None else bound * abs(beta) * 1.01)
    return (
        found.either(torch.full_like(found.x, math.exp(-threshold) / abs(beta) * 1.01), near) if near.any() else found
    )


def _where(condition: Tensor, x: Value, y: Value) -> Value:
    """Return x where the condition holds, else y; both have the shape of the result."""
    z = torch.where(condition, x.x, y.x)
    zero = torch.zeros((), dtype=z.dtype)

    def either(a: Any, i: int) -> Tensor | None:
        one, other = x.given(a, i), y.given(a, i)
        if one is None and other is None:
            return None
        return torch.where(condition, zero if one is None else one, zero if other is None else other)

    return x.trace.map(z, either)


@rule("where", chooses=True)
def where(t: Trace, condition: Any, x: Any, y: Any) -> Value:
    """x where the condition holds, else y."""
    x, y = t.value(x), t.value(y)
    if not isinstance(condition, Choice):
        return _where(condition, x, y)
    found = _where(condition.x, x, y)
    jump = (x.x - y.x).abs()
    for side in (x, y):
        bound = side.bound()
        jump = jump if bound is None else jump + bound
    return found.either(jump.expand(found.shape), (condition.undecided > 0).expand(found.shape))


@rule("masked_fill", chooses=True)
def masked_fill(t: Trace, x: Value, mask: Any, value: Any) -> Value:
    """x but for a number where the mask holds."""
    return where(t, mask, value, x)


@rule("pow", direct=True)
def pow_(t: Trace, x: Any, exponent: Any, z: Tensor | None = None) -> Value:
    """x**y: whole powers by products, others for x > 0."""
    if isinstance(exponent, int | float):
        base = t.value(x)
        if exponent == 2:
            return base.square(z)
        if exponent == 0.5:
            return base.function("sqrt", z)
        if exponent == 1:
            return Value(t, base.x if z is None else z, base.noise)
        if exponent == -1:
            return base.function("reciprocal", z)
        z = torch.pow(base.x, exponent) if z is None else z
        held = t.value(exponent)
        found = base.by(power(float(exponent)), z)
        if held.noise and any(n is not None for n in held.noise):  # the number itself is rounded
            found = found.plus(t.map(z * 0.0, lambda a, i: a.combined(
                z, [(z.abs() * base.x.abs().log().abs(), held.noise[i])], EXACTLY)), z)  # fmt: skip
        return found
    base, power_of = t.value(x), t.value(exponent)
    return (base.function("log") * power_of).function("exp")


# Piecewise functions: within the bound of x the other piece may be the true one.


@rule("relu", direct=True)
def relu(t: Trace, x: Value, z: Tensor | None = None) -> Value:
    """max(x, 0): moves no more than x, and not at all where x is surely negative."""
    z = torch.relu(x.x) if z is None else z

    def noise(a: Algebra, i: int) -> Tensor | None:
        n = x.given(a, i)
        return None if n is None else a.kept(x.x, n.expand(x.shape))

    return t.map(z, noise)


def _pieces(t: Trace, x: Value, z: Tensor, slope: Tensor, steepest: float, kinks: tuple[float, ...]) -> Value:
    """Return a continuous function made of straight lines: within reach of a kink its steepest slope counts."""

    def noise(a: Any, i: int) -> Tensor | None:
        n = x.given(a, i)
        if n is None:
            return None
        factor = slope
        if a.label == "safe":
            near = torch.zeros_like(x.x, dtype=torch.bool)
            for kink in kinks:
                near |= (x.x - kink).abs() <= n
            factor = torch.where(near, steepest, slope)
        return a.combined(z, [(factor, n)], EXACTLY)

    return t.map(z, noise)


@rule("clamp", "hardtanh")
def clamp(t: Trace, x: Value, min: Any = None, max: Any = None, min_val: Any = None, max_val: Any = None) -> Value:
    """x within bounds; hardtanh is bounded by -1 and 1 if nothing is said."""
    low, high = (min_val if min is None else min), (max_val if max is None else max)
    if low is not None:
        x = maximum(t, x, low)
    return x if high is None else minimum(t, x, high)


@rule("hardtanh")
def hardtanh(t: Trace, x: Value, min_val: float = -1, max_val: float = 1) -> Value:
    """x within bounds."""
    return clamp(t, x, min_val, max_val)


@rule("clamp_min")
def clamp_min(t: Trace, x: Value, low: Any) -> Value:
    """max(x, low)."""
    return maximum(t, x, low)


@rule("clamp_max")
def clamp_max(t: Trace, x: Value, high: Any) -> Value:
    """min(x, high)."""
    return minimum(t, x, high)


@rule("maximum")
def maximum(t: Trace, x: Value, y: Any) -> Value:
    """The larger one: off by what either is off where both overlap, else by what the winner is."""
    return _extreme(t, x, t.value(y), torch.maximum)


@rule("minimum")
def minimum(t: Trace, x: Value, y: Any) -> Value:
    """The smaller one."""
    return _extreme(t, x, t.value(y), torch.minimum)


def _extreme(t: Trace, x: Value, y: Value, pick: Any) -> Value:
    z = pick(x.x, y.x)
    first = (z == x.x).expand(z.shape)
    zero = torch.zeros((), dtype=z.dtype)

    def noise(a: Any, i: int) -> Tensor | None:
        one, other = x.given(a, i), y.given(a, i)
        if one is None and other is None:
            return None
        one, other = (zero if n is None else n for n in (one, other))
        found = torch.where(first, one, other)
        if a.label != "safe":
            return found
        return torch.where((x.x - y.x).abs() <= one + other, torch.maximum(one, other), found)

    return t.map(z, noise)


@rule("leaky_relu")
def leaky_relu(t: Trace, x: Value, negative_slope: float = 0.01) -> Value:
    """max(x, slope x)."""
    return _where(x.x > 0, x, x * negative_slope) if x.bound() is None else _leaky(t, x, negative_slope)


def _leaky(t: Trace, x: Value, slope: float) -> Value:
    z = torch.where(x.x > 0, x.x, x.x * slope)
    steep = torch.where(x.x > 0, 1.0, abs(slope)).to(z.dtype)
    found = _pieces(t, x, z, steep, max(1.0, abs(slope)), (0.0,))
    scaled = x.detached() * slope  # whose rounding is that of the product
    return _where(x.x > 0, found, found.plus(scaled.minus(scaled.detached(), scaled.x * 0.0), z))


@rule("elu")
def elu(t: Trace, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """Scale times x, or times alpha (exp(input scale x) - 1) below 0."""
    below = minimum(t, x, 0.0) * input_scale
    return (maximum(t, x, 0.0) + below.function("expm1") * alpha) * scale


@rule("hardsigmoid")
def hardsigmoid(t: Trace, x: Value) -> Value:
    """(x + 3) / 6 within 0 and 1."""
    return clamp(t, x + 3.0, 0.0, 6.0) / 6.0


@rule("hardswish")
def hardswish(t: Trace, x: Value) -> Value:
    """x (x + 3) / 6, 0 and x beyond."""
    return x * clamp(t, x + 3.0, 0.0, 6.0) / 6.0


@rule("mish")
def mish(t: Trace, x: Value) -> Value:
    """x tanh(softplus(x))."""
    return x * softplus(t, x).function("tanh")


@rule("log_sigmoid_forward")
def log_sigmoid(t: Trace, x: Value) -> tuple[Value, None]:
    """log(sigmoid(x)), and a buffer that the way back does not read here."""
    return x.function("log_sigmoid"), None


# On the way back: g times a slope, which has noise of its own.


def _gated(g: Value, x: Value, z: Tensor) -> Value:
    """Return z, the gradient g where x > 0; where that is not decided it might be let through, or not."""
    t = g.trace
    noise = []
    for i, a in enumerate(t.algebras):
        found, undecided = a.gated(g.x, g.given(a, i), x.x, x.given(a, i))
        noise.append(found)
        if undecided is not None:
            t.count(undecided)
    return Value(t, z, tuple(noise))


@rule("threshold_backward", direct=True)
def threshold_backward(t: Trace, g: Value, x: Value, threshold: float, z: Tensor | None = None) -> Value:
    """g where x, or the ReLU of x, is above the threshold."""
    over = x if threshold == 0 else x - threshold
    return _gated(g, over, torch.ops.aten.threshold_backward(g.x, over.x, 0) if z is None else z)


@rule("hardtanh_backward")
def hardtanh_backward(t: Trace, g: Value, x: Value, min_val: float, max_val: float) -> Value:
    """g where x is strictly within bounds."""
    for over in (x - min_val, max_val - x):
        g = _gated(g, over, torch.ops.aten.threshold_backward(g.x, over.x, 0))
    return g


@rule("leaky_relu_backward")
def leaky_relu_backward(t: Trace, g: Value, x: Value, negative_slope: float, self_is_result: bool) -> Value:
    """g, or g times the slope where x is not positive."""
    found = _where(x.x > 0, g, g * negative_slope)
    bound = x.bound()
    if bound is None:
        return found
    own = g.bound()
    jump = (g.x.abs() if own is None else g.x.abs() + own) * (1.0 + abs(negative_slope))
    return found.either(jump, (x.x.abs() <= bound) & (bound > 0))


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
_SILU_SLOPE = slope_of(silu_slope, second_of_silu, 0.501, 0.31)
_GELU_SLOPE = slope_of(gelu_slope, second_of_gelu, 0.7979, 1.0)
# Their values are of the order of 1 where they are computed, whatever is left of them.
_SILU_SLOPE = _SILU_SLOPE._replace(beside=lambda x, z: 8.0 * (1.0 + x.abs()) * torch.sigmoid(x))
_GELU_SLOPE = _GELU_SLOPE._replace(beside=lambda x, z: torch.full_like(x, 16.0))


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


@rule("softplus_backward")
def softplus_backward(t: Trace, g: Value, x: Value, beta: float, threshold: float) -> Value:
    """g sigmoid(beta x), g beyond the threshold."""
    scaled = x * beta
    found = _where(scaled.x > threshold, g, g * scaled.function("sigmoid"))
    bound = scaled.bound()
    near = (scaled.x - threshold).abs() <= (0.0 if bound is None else bound)
    return found.either(g.x.abs() * math.exp(-threshold) * 1.01, near) if near.any() else found


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
    found = _where(x.x > 0, g * scale, g * below)
    bound = x.bound()
    if bound is None or alpha * input_scale == 1:
        return found  # without a step at 0
    own = g.bound()
    jump = (g.x.abs() if own is None else g.x.abs() + own) * abs(scale) * (1.0 + abs(alpha * input_scale))
    return found.either(jump, (x.x.abs() <= bound) & (bound > 0))


@rule("hardsigmoid_backward")
def hardsigmoid_backward(t: Trace, g: Value, x: Value) -> Value:
    """g / 6 where x is within -3 and 3."""
    return hardtanh_backward(t, g / 6.0, x, -3.0, 3.0)


@rule("hardswish_backward")
def hardswish_backward(t: Trace, g: Value, x: Value) -> Value:
    """g (2 x + 3) / 6 between -3 and 3, 0 and g beyond."""
    inside = g * ((x * 2.0 + 3.0) / 6.0)
    found = _where(x.x <= -3.0, g.detached() * 0.0, _where(x.x < 3.0, inside, g))
    bound = x.bound()
    if bound is None:
        return found
    own = g.bound()
    jump = g.x.abs() if own is None else g.x.abs() + own
    return found.either(jump * 2.0, (((x.x + 3.0).abs() <= bound) | ((x.x - 3.0).abs() <= bound)) & (bound > 0))


# Of optimisers.


@rule("addcmul")
def addcmul(t: Trace, x: Value, y: Value, w: Value, value: float = 1) -> Value:
    """x + value y w."""
    return x + (y * w if value == 1 else y * value * w)


@rule("addcdiv")
def addcdiv(t: Trace, x: Value, y: Value, w: Value, value: float = 1) -> Value:
    """x + value y / w."""
    return x + (y if value == 1 else y * value) / w


@rule("lerp")
def lerp(t: Trace, x: Value, end: Value, weight: Any) -> Value:
    """x + weight (end - x), in real numbers (1 - weight) x + weight end."""
    weight = t.value(weight)
    return x * (1.0 - weight) + end * weight


@rule("nan_to_num")
def nan_to_num(t: Trace, x: Value, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Value:
    """x, and numbers in place of what is infinite or NaN."""
    z = torch.nan_to_num(x.x, nan, posinf, neginf)
    return t.map(z, lambda a, i: x.noise[i])


# Decisions: undecided where the bounds overlap.


def _compares(t: Trace, x: Value, y: Any, f: Any) -> Choice | None:
    y = t.value(y)
    bounds = [n for n in (x.bound(), y.bound()) if n is not None]
    if not bounds:
        return None
    total = bounds[0] if len(bounds) == 1 else bounds[0] + bounds[1]
    near = ((x.x - y.x).abs() <= total) & (total > 0)
    return Choice(f(x.x, y.x), near.to(t.dtype))


for _name, _compare in (("lt", torch.lt), ("le", torch.le), ("gt", torch.gt), ("ge", torch.ge), ("eq", torch.eq),
                        ("ne", torch.ne)):  # fmt: skip

    def _make(t: Trace, x: Any, y: Any, f: Any = _compare) -> Choice | None:
        return _compares(t, t.value(x), y, f)

    rule(_name)(_make)


@rule("logical_not", "bitwise_not", chooses=True)
def logical_not(t: Trace, x: Any) -> Choice | None:
    """The opposite, decided where x is."""
    return Choice(~x.x, x.undecided) if isinstance(x, Choice) else None


@rule("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", chooses=True)
def logical(t: Trace, x: Any, y: Any) -> Choice | None:
    """Decided where both are."""
    parts = [part.undecided for part in (x, y) if isinstance(part, Choice)]
    if not parts:
        return None
    found = parts[0] if len(parts) == 1 else torch.maximum(*parts)
    shape = torch.broadcast_shapes(*(p.x.shape if isinstance(p, Choice) else p.shape for p in (x, y)))
    return Choice(torch.zeros(shape, dtype=torch.bool), found.expand(shape))
