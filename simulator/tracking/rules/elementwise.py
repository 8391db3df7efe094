"""Rules of what is computed element by element, forward and on the way back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..algebra import EXACTLY
from ..functions import LIBRARY, power
from ..values import Trace, Value, within
from .branches import chosen, clamp, let_through, maximum, size, stepped, trunc
from .registry import as_it_is, rule


@rule("add", direct=True, keeps=lambda x, y, alpha=1: alpha == 1, chooses=True)
def add(t: Trace, x: Any, y: Any, alpha: float = 1, z: Tensor | None = None) -> Value:
    """x + alpha y; with another factor than 1 rounded twice, of which fused additions save one."""
    x, y = t.value(as_it_is(t, x)), t.value(as_it_is(t, y))
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
        return t.value(as_it_is(t, x)).minus(t.value(as_it_is(t, y)), z)
    return add(t, x, y, -alpha, z)


@rule("rsub", direct=True)
def rsub(t: Trace, x: Value, y: Any, alpha: float = 1, z: Tensor | None = None) -> Value:
    """y - alpha x."""
    return sub(t, y, x, alpha, z)


@rule("mul", direct=True, chooses=True)
def mul(t: Trace, x: Any, y: Any, z: Tensor | None = None) -> Value:
    """x y."""
    return t.value(as_it_is(t, x)).times(as_it_is(t, y), z)


@rule("div", direct=True, chooses=True)
def div(t: Trace, x: Any, y: Any, rounding_mode: str | None = None, z: Tensor | None = None) -> Value:
    """x / y."""
    x = t.value(as_it_is(t, x))
    if rounding_mode is None:
        return x.over(as_it_is(t, y), z)
    quotient = x.over(as_it_is(t, y))
    return stepped(quotient, torch.floor if rounding_mode == "floor" else torch.trunc)


@rule("frac")
def frac(t: Trace, x: Value) -> Value:
    """What is behind the point."""
    return x - trunc(t, x)


@rule("fmod")
def fmod(t: Trace, x: Any, y: Any) -> Value:
    """x - y trunc(x / y)."""
    return _remainder(t, x, y, torch.trunc)


@rule("remainder")
def remainder(t: Trace, x: Any, y: Any) -> Value:
    """x - y floor(x / y)."""
    return _remainder(t, x, y, torch.floor)


def _remainder(t: Trace, x: Any, y: Any, f: Any) -> Value:
    x, y = t.value(x), t.value(y)
    return x - y * stepped(x.over(y), f)


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
              "erf", "erfc", "sin", "cos", "atan", "asinh", "asin", "acos", "atanh", "acosh", "sinh", "cosh",
              "silu"):  # fmt: skip
    rule(_name, direct=True)(_unary(_name))


@rule("tan")
def tan(t: Trace, x: Value) -> Value:
    """sin x / cos x."""
    return x.function("sin") / x.function("cos")


@rule("deg2rad")
def deg2rad(t: Trace, x: Value) -> Value:
    """x pi / 180."""
    return x * (math.pi / 180.0)


@rule("rad2deg")
def rad2deg(t: Trace, x: Value) -> Value:
    """x 180 / pi."""
    return x * (180.0 / math.pi)


@rule("logit")
def logit(t: Trace, x: Value, eps: float | None = None) -> Value:
    """log(x / (1 - x)), of x within eps and 1 - eps."""
    x = x if eps is None else clamp(t, x, eps, 1.0 - eps)
    return (x / (1.0 - x)).function("log")


@rule("logit_backward")
def logit_backward(t: Trace, g: Value, x: Value, eps: float | None = None) -> Value:
    """g / (x (1 - x)), 0 where x is not within eps and 1 - eps."""
    found = g / (x * (1.0 - x))
    if eps is None:
        return found
    inside = (x.x >= eps) & (x.x <= 1.0 - eps)
    near = torch.zeros_like(inside)
    for over in (x - eps, 1.0 - t.value(eps) - x):
        bound = over.bound()
        near = near if bound is None else near | within(over.x.abs(), bound)
    if not bool(near.any()):
        return let_through(found, inside, None)
    steepest = size(g) / (eps * (1.0 - eps)) * 1.01
    return let_through(found, inside & ~near, None).either(steepest.expand(found.shape), near)


@rule("logaddexp")
def logaddexp(t: Trace, x: Value, y: Value) -> Value:
    """log(exp(x) + exp(y)): max + log(1 + exp(-distance)), which moves no more than the larger error."""
    return maximum(t, x, y) + (-abs_(t, x - y)).function("exp").function("log1p")


@rule("logaddexp2")
def logaddexp2(t: Trace, x: Value, y: Value) -> Value:
    """The same to base 2."""
    return maximum(t, x, y) + (-abs_(t, x - y)).function("exp2").function("log1p") / math.log(2.0)


@rule("hypot")
def hypot(t: Trace, x: Value, y: Value) -> Value:
    """Root of the sum of squares."""
    return (x.square() + y.square()).function("sqrt")


@rule("xlogy")
def xlogy(t: Trace, x: Any, y: Any) -> Value:
    """x log y; 0 where x is."""
    x, y = t.value(x), t.value(y)
    zero = (x.x == 0).expand(torch.broadcast_shapes(x.shape, y.shape))
    bound = x.bound()
    if bound is not None:
        zero = zero & (bound == 0)
    return chosen(zero, t.value(0.0), x * y.function("log"))


@rule("copysign")
def copysign(t: Trace, x: Value, y: Any) -> Value:
    """|x| with the sign of y."""
    y = t.value(y)
    z = torch.copysign(x.x, y.x)
    found = t.map(z, lambda a, i: x.given(a, i))
    return found.either((size(x) * 2.0).expand(z.shape), _unsigned(y).expand(z.shape))


def _unsigned(x: Value) -> Tensor:
    """Return where a sign is not decided; real numbers have no -0."""
    minus_zero = (x.x == 0) & torch.signbit(x.x)
    bound = x.bound()
    return minus_zero if bound is None else minus_zero | within(x.x.abs(), bound)


@rule("atan2", direct=True)
def atan2(t: Trace, y: Value, x: Value, z: Tensor | None = None) -> Value:
    """Angle of (x, y): a distance d of it moves that by asin(d / r) at most, and across the cut by a turn (S7)."""
    z = torch.atan2(y.x, x.x) if z is None else z
    r = torch.hypot(y.x, x.x)

    def noise(a: Any, i: int) -> Tensor | None:
        by = (math.pi / r, math.pi / r) if a.label == "safe" else (x.x.abs() / r / r, y.x.abs() / r / r)
        return a.combined(z, [(by[0], y.given(a, i)), (by[1], x.given(a, i))], LIBRARY)

    bound = x.bound()
    left = x.x < 0 if bound is None else ~(x.x > bound)
    return t.map(z, noise).either(torch.full_like(z, 2.0 * math.pi), _unsigned(y) & left)


@rule("pow", direct=True)
def pow_(t: Trace, x: Any, exponent: Any, z: Tensor | None = None) -> Value:
    """x**y: whole powers by products, others for x > 0."""
    if isinstance(exponent, int | float):
        base = t.value(x)
        if exponent == 2:
            return base.square(z)
        if exponent == 0.5:
            return base.function("sqrt", z)
        if exponent == 0:
            return t.exact(torch.ones_like(base.x))
        if exponent == 1:
            return Value(t, base.x if z is None else z, base.noise)
        if exponent == -1:
            return base.function("reciprocal", z)
        z = torch.pow(base.x, exponent) if z is None else z
        held = t.value(exponent)
        found = base.by(power(float(exponent)), z)
        if any(n is not None for n in held.noise):  # the number itself is rounded
            steep = z.abs() * base.x.abs().log().abs() * 1.01
            found = t.map(z, lambda a, i: a.combined(z, [(1.0, found.noise[i]), (steep, held.noise[i])], EXACTLY))
        return found
    base, power_of = t.value(x), t.value(exponent)
    return (base.function("log") * power_of).function("exp")


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


@rule("fill")
def fill(t: Trace, x: Value, value: Any) -> Value:
    """A number, which its conversion rounds."""
    value = t.value(value)
    return t.map(value.x.expand(x.shape), lambda a, i: value.noise[i])


@rule("full", "full_like", "new_full", "scalar_tensor")
def full(t: Trace, *args: Any, **kwargs: Any) -> Value:
    """A number, which its conversion rounds."""
    return t.value(args[-1])


@rule("arange")
def arange(t: Trace, *args: Any, **kwargs: Any) -> Value:
    """Numbers from one on, in steps."""
    places = t.exact(torch.arange(len(torch.arange(*args, dtype=torch.float64))))
    start = args[0] if len(args) > 1 else 0
    return _steps(t, start, args[2] if len(args) > 2 else 1, places)


@rule("linspace")
def linspace(t: Trace, start: Any, end: Any, steps: int, **kwargs: Any) -> Value:
    """Numbers from one to another, in equal steps."""
    places = t.exact(torch.arange(steps))
    if isinstance(start, int | float) and isinstance(end, int | float) and (end - start) % max(1, steps - 1) == 0:
        return _steps(t, start, (end - start) / max(1, steps - 1), places)
    start, end = t.value(start), t.value(end)
    return start + (end - start) * (places / float(max(1, steps - 1)))


def _steps(t: Trace, start: float, step: float, places: Value) -> Value:
    """Return numbers in steps; whole ones of which the type has all digits are exact."""
    if float(start).is_integer() and float(step).is_integer():
        z = start + step * places.x.double()
        if not z.numel() or float(z.abs().max()) < 1.0 / torch.finfo(t.dtype).eps:
            return t.exact(z)
    return t.value(start) + places * step


@rule("nan_to_num")
def nan_to_num(t: Trace, x: Value, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Value:
    """x, and numbers in place of what is infinite or NaN."""
    z = torch.nan_to_num(x.x, nan, posinf, neginf)
    return t.map(z, lambda a, i: x.noise[i])
