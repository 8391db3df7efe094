"""Functions of numpy on arrays with noise: numpy computes the values, rules the noise.

Results are of the class of the first array with noise among the operands, and keep the numbers that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulator.errors import InputError

from .algebra import Noise
from .apart import apart
from .array_value import TYPES, Held, has_tracked, owned, plain, real, refused, trace_of
from .numpy_rules import REDUCTIONS
from .rules import branches, products, reductions
from .values import Trace, Value, narrowed


def as_tracked(x: Any, like: Held) -> Held:
    """Return an operand with the numbers of another one: itself, or an exact array."""
    if isinstance(x, Held):
        if x.numbers != like.numbers:
            raise InputError(
                f"tracked: got arrays with {', '.join(x.numbers)} and with {', '.join(like.numbers)}; expected one set "
                "of numbers; give both the same numbers="
            )
        return x
    return exact(x, like)


def exact(x: Any, like: Held) -> Any:
    """Return an array that is exact."""
    values = owned(real(x))
    return type(like)(trace_of(like.numbers, values.dtype).exact(torch.from_numpy(values)), like.numbers)


def operand(x: Held, trace: Trace) -> Value:
    """Return it in the type of a trace."""
    value = x.value
    if value.x.dtype == trace.dtype:
        return value
    wide = value.x.double()
    held = wide.to(trace.dtype)
    if trace.dtype == torch.float64:
        return Value(trace, held, tuple(None if n is None else n.double() for n in value.noise))
    rounded = value.departing(held.double())
    return Value(trace, held, tuple(None if n is None else narrowed(n, trace.dtype) for n in rounded.noise))


def noise_of(value: Value, i: int) -> NDArray[Any]:
    """Return the noise of a number that moves, of the shape of the values."""
    given = value.given(value.trace.algebras[i], i)
    return np.zeros(value.shape, value.x.numpy().dtype) if given is None else given.expand(value.shape).numpy()


def computed(function: Any, rule: Callable[..., Value], *inputs: Any) -> Any:
    """Return a function of numpy of operands, the first tracked one of which says which numbers are kept."""
    like = next(x for x in inputs if isinstance(x, Held))
    z = owned(function(*map(plain, inputs)))
    if z.dtype not in TYPES:
        raise InputError(f"tracked: got a result of {z.dtype}; expected float32 or float64; convert the operands")
    with apart():
        trace = trace_of(like.numbers, z.dtype)
        operands: dict[int, Any] = {}
        for x in inputs:
            number = isinstance(x, int | float | np.integer | np.floating)
            operands[id(x)] = float(x) if number else operand(as_tracked(x, like), trace)
        if not isinstance(operands[id(inputs[0])], Value):
            operands[id(inputs[0])] = trace.value(operands[id(inputs[0])])
        return type(like)(rule(trace, torch.from_numpy(z), *(operands[id(x)] for x in inputs)), like.numbers)


def moved(function: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what only moves elements of an array, or of a list of them: the same of the noise."""
    if {*kwargs} & {"out", "dtype", "casting"}:
        raise refused(f"numpy.{function.__name__}", kwargs)
    several = isinstance(first, tuple | list)
    given = list(first) if several else [first]
    if not any(isinstance(x, Held) for x in given) or has_tracked((args, *kwargs.values())):
        raise refused(f"numpy.{function.__name__} of a tracked array that is not the first argument")
    like = next(x for x in given if isinstance(x, Held))
    with apart():
        parts = [as_tracked(x, like) for x in given]
        z = owned(function([x.values for x in parts] if several else parts[0].values, *args, **kwargs))
        if z.dtype not in TYPES:
            raise refused(f"numpy.{function.__name__}", kwargs)
        noise: list[Noise] = []
        for i in range(len(like.numbers)):
            if all(x.value.noise[i] is None for x in parts):
                noise.append(None)
                continue
            moved = [noise_of(x.value, i) for x in parts]
            noise.append(torch.from_numpy(owned(function(moved if several else moved[0], *args, **kwargs))))
        return type(like)(Value(trace_of(like.numbers, z.dtype), torch.from_numpy(z), tuple(noise)), like.numbers)


def reduced(function: Any, x: Held, axis: Any, keepdims: bool, **options: Any) -> Any:
    """Return a reduction of numpy over axes."""
    z = owned(function(x.values, axis=axis, keepdims=keepdims, **options))
    given = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = [int(a) % max(1, x.ndim) for a in given]
    with apart():
        value = x.value
        if not axes:  # torch takes no axes for all
            value, axes, keepdims = value.moved(lambda n: n.unsqueeze(0)), [0], False
        return type(x)(REDUCTIONS[function](value, axes, keepdims, torch.from_numpy(z), **options), x.numbers)


def running_sums(x: Held, axis: int | None = None) -> Any:
    """Return numpy.cumsum."""
    if axis is None:
        x, axis = moved(np.ravel, x), 0
    with apart():
        z = owned(np.cumsum(x.values, axis))
        return type(x)(reductions.cumsum(x.value.trace, x.value, axis).departing(torch.from_numpy(z)), x.numbers)


def assigned(x: Held, index: Any, value: Any) -> Value:
    """Return an array with other values in some places."""
    with apart():
        part = operand(as_tracked(value, x), x.value.trace)
        values = x.value.x.numpy().copy()
        values[index] = part.x.numpy()
        noise: list[Noise] = []
        for i in range(len(x.numbers)):
            if x.value.noise[i] is None and part.noise[i] is None:
                noise.append(None)
                continue
            old = noise_of(x.value, i).copy()
            old[index] = noise_of(part, i)
            noise.append(torch.from_numpy(old))
        return Value(x.value.trace, torch.from_numpy(values), tuple(noise))


def converted(x: Held, dtype: np.dtype[Any]) -> Any:
    """Return it in float32 or float64; what the conversion loses is noise."""
    with apart():
        value = operand(x, trace_of(x.numbers, dtype))
        return type(x)(Value(value.trace, value.x.clone(), value.noise), x.numbers)


def clip(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    """Return numpy.clip."""
    ends = (a_min, a_max)

    def both(found: tuple[Any, ...]) -> list[Any]:
        given = iter(found)
        return [None if end is None else next(given) for end in ends]

    def rule(t: Trace, z: Tensor, x: Any, *found: Any) -> Value:
        return branches.clamp(t, x, *both(found)).departing(z)

    return computed(lambda x, *found: np.clip(x, *both(found)), rule, a, *(end for end in ends if end is not None))


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return numpy.where by decided conditions."""
    decided = torch.from_numpy(np.array(condition, dtype=bool))

    def rule(t: Trace, z: Tensor, x: Any, y: Any) -> Value:
        return branches.where(t, decided, x, y).departing(z)

    return computed(lambda x, y: np.where(decided.numpy(), x, y), rule, x, y)


def dot(x: Any, y: Any) -> Any:
    """Return numpy.dot of vectors or matrices."""
    if np.ndim(plain(x)) == 0 or np.ndim(plain(y)) == 0:
        return np.multiply(x, y)
    if np.ndim(plain(y)) > 2:
        raise refused("numpy.dot of more than two axes")
    return computed(np.dot, lambda t, z, x, y: products.matmul(t, x, y, z), x, y)


def outer(x: Any, y: Any) -> Any:
    """Return numpy.outer."""
    return np.multiply(np.reshape(x, (-1, 1)), np.reshape(y, (1, -1)))


def exactly(function: Any) -> Callable[..., Any]:
    """Return a function of numpy that makes values of nothing."""
    return lambda x, *args: exact(function(x.values, *args), x)


def full_like(x: Held, fill_value: Any, *args: Any) -> Any:
    """Return numpy.full_like; a number is off by its conversion."""
    z = owned(np.full_like(x.values, fill_value, *args))
    if z.dtype not in TYPES or not isinstance(fill_value, int | float | np.integer | np.floating):
        return exact(z, x)
    with apart():
        trace, values = trace_of(x.numbers, z.dtype), torch.from_numpy(z)
        number = trace.value(float(fill_value))
        return type(x)(Value(trace, number.x.expand(values.shape), number.noise).departing(values), x.numbers)


def of_values(function: Any) -> Callable[..., Any]:
    """Return a function of numpy that looks at values alone, and gives plain numbers or arrays."""
    return lambda *args, **kwargs: function(*map(plain, args), **kwargs)
