"""Rules of decisions: steps, choices, extremes, comparisons; both outcomes count where the bound reaches both (S10)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value, reached, within
from .registry import Choice, as_it_is, rule


def stepped(x: Value, f: Any) -> Value:
    """Return a function with steps at whole numbers: nothing is lost while no step is within the bound (S10)."""
    z = f(x.x)
    bound = x.bound()
    if bound is None:
        return x.trace.exact(z)
    low, high = map(f, reached(x.x, bound))
    jump = torch.maximum((high - z).abs(), (z - low).abs())
    return x.trace.exact(z).either(jump * (1.0 + 2.0**-20) + 1.0, jump != 0)


@rule("floor")
def floor(t: Trace, x: Value) -> Value:
    """Largest whole number below."""
    return stepped(x, torch.floor)


@rule("ceil")
def ceil(t: Trace, x: Value) -> Value:
    """Least whole number above."""
    return stepped(x, torch.ceil)


@rule("round")
def round_(t: Trace, x: Value, decimals: int = 0) -> Value:
    """Nearest whole number, or multiple of 10**-decimals."""
    if decimals:
        return stepped(x * 10.0**decimals, torch.round) / 10.0**decimals
    return stepped(x, torch.round)


@rule("trunc")
def trunc(t: Trace, x: Value) -> Value:
    """Next whole number towards 0."""
    return stepped(x, torch.trunc)


@rule("sign", "sgn")
def sign(t: Trace, x: Value) -> Value:
    """Sign, which is lost where 0 is within the bound."""
    bound = x.bound()
    z = torch.sign(x.x)
    if bound is None:
        return t.exact(z)
    return t.exact(z).either(torch.full_like(z, 2.0), within(x.x.abs(), bound))


def size(x: Value) -> Tensor:
    """Return upper bounds of magnitudes of exact values, up to a rounding that every use of them rounds up."""
    bound = x.bound()
    return x.x.abs() if bound is None else x.x.abs() + bound


def let_through(g: Value, open_: Tensor, near: Tensor | None) -> Value:
    """Return g where a gate is open, else 0; either where that is not decided."""
    found = chosen(open_, g, g.trace.value(0.0))
    return found if near is None else found.either(size(g).expand(found.shape), near)


def chosen(condition: Tensor, x: Value, y: Value) -> Value:
    """Return x where the condition holds, else y."""
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
    x, y = t.value(as_it_is(t, x)), t.value(as_it_is(t, y))
    if not isinstance(condition, Choice):
        return chosen(condition, x, y)
    found = chosen(condition.x, x, y)
    jump = (x.x - y.x).abs()
    for side in (x, y):
        bound = side.bound()
        jump = jump if bound is None else jump + bound
    return found.either(jump.expand(found.shape), (condition.undecided > 0).expand(found.shape))


@rule("masked_fill", chooses=True)
def masked_fill(t: Trace, x: Any, mask: Any, value: Any) -> Value:
    """x but for a number where the mask holds."""
    return where(t, mask, value, x)


@rule("clamp")
def clamp(t: Trace, x: Value, min: Any = None, max: Any = None) -> Value:
    """x within bounds."""
    if min is not None:
        x = maximum(t, x, min)
    return x if max is None else minimum(t, x, max)


@rule("clamp_min")
def clamp_min(t: Trace, x: Value, low: Any) -> Value:
    """max(x, low)."""
    return maximum(t, x, low)


@rule("clamp_max")
def clamp_max(t: Trace, x: Value, high: Any) -> Value:
    """min(x, high)."""
    return minimum(t, x, high)


@rule("maximum", "fmax")
def maximum(t: Trace, x: Value, y: Any) -> Value:
    """The larger one: off by what either is off where both overlap, else by what the winner is."""
    return _extreme(t, x, t.value(y), torch.maximum)


@rule("minimum", "fmin")
def minimum(t: Trace, x: Value, y: Any) -> Value:
    """The smaller one."""
    return _extreme(t, x, t.value(y), torch.minimum)


def _extreme(t: Trace, x: Value, y: Value, pick: Any) -> Value:
    """Return the larger or smaller one (S12, C5)."""
    z = pick(x.x, y.x)
    first = (z == x.x).expand(z.shape)
    zero = torch.zeros((), dtype=z.dtype)
    both = x.x != y.x  # where both are the same infinity, there is no distance

    def noise(a: Any, i: int) -> Tensor | None:
        one, other = x.given(a, i), y.given(a, i)
        if one is None and other is None:
            return None
        one, other = (zero if n is None else n for n in (one, other))
        found = torch.where(first, one, other)
        if a.label == "expected":
            return found
        apart = ((x.x - y.x).abs() > one + other) & both  # false of what is NaN
        return torch.where(apart, found, torch.maximum(one, other))

    return t.map(z, noise)


def gated(g: Value, x: Value, z: Tensor) -> Value:
    """Return z, the gradient g where x > 0; where that is not decided it might be let through, or not."""
    t = g.trace
    noise = []
    for i, a in enumerate(t.algebras):
        found, undecided = a.gated(g.x, g.given(a, i), x.x, x.given(a, i))
        noise.append(found)
        t.undecided += undecided
    return Value(t, z, tuple(noise))


# Decisions: undecided where the bounds overlap.


def _compares(t: Trace, x: Value, y: Any, f: Any) -> Choice | None:
    y = t.value(y)
    if y.x is x.x:  # which asks whether it is a number
        return _is_of_kind(x, f(x.x, x.x))
    bounds = [n for n in (x.bound(), y.bound()) if n is not None]
    if not bounds:
        return None
    total = bounds[0] if len(bounds) == 1 else bounds[0] + bounds[1]
    return Choice(f(x.x, y.x), within((x.x - y.x).abs(), total).to(t.dtype))


def _is_of_kind(x: Value, z: Tensor) -> Choice | None:
    """Return whether it is a number, or a finite one: decided where there is one and a bound of it."""
    bound = x.bound()
    if bound is None:
        return None
    undecided = ~bound.isfinite() | (x.x.isnan() & (bound != 0))
    return Choice(z, undecided.to(x.x.dtype)) if bool(undecided.any()) else None


for _name, _asks in (("isnan", torch.isnan), ("isinf", torch.isinf), ("isposinf", torch.isposinf),
                     ("isneginf", torch.isneginf)):  # fmt: skip

    def _ask(t: Trace, x: Any, f: Any = _asks) -> Choice | None:
        return _is_of_kind(x, f(x.x)) if isinstance(x, Value) else None

    rule(_name, chooses=True)(_ask)


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
    """Decided where both are; numbers of the code are."""
    parts = [part.undecided for part in (x, y) if isinstance(part, Choice)]
    if not parts:
        return None
    found = parts[0] if len(parts) == 1 else torch.maximum(*parts)
    operands = [part.x if isinstance(part, Choice) else torch.as_tensor(part) for part in (x, y)]
    z = torch.zeros(torch.broadcast_shapes(*(part.shape for part in operands)), dtype=torch.bool)
    return Choice(z, found.expand(z.shape))
