"""What functions of numpy do to noise: the rules of torch's operations of the same meaning.

Their results are numpy's own, bit for bit. Those of arithmetic are correctly rounded (IEEE 754), which rules count; of
all others torch computes its own beside, within what rules allow it, and by how far numpy's departs from them is added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rules import branches, elementwise, products, reductions
from .values import Trace, Value

# Of functions of elements, given (trace, result of numpy, operands).
Rule = Callable[..., Value]


def _function(name: str) -> Rule:
    return lambda t, z, x: x.function(name).departing(z)


def _beside(rule: Callable[..., Value]) -> Rule:
    return lambda t, z, *operands: rule(t, *operands).departing(z)


def _as_it_is(t: Trace, z: Tensor, x: Value) -> Value:
    return Value(t, z, x.noise)


RULES: dict[np.ufunc, Rule] = {
    np.add: lambda t, z, x, y: x.plus(y, z),
    np.subtract: lambda t, z, x, y: x.minus(y, z),
    np.multiply: lambda t, z, x, y: x.times(y, z),
    np.divide: lambda t, z, x, y: x.over(y, z),
    np.square: lambda t, z, x: x.square(z),
    np.sqrt: lambda t, z, x: x.function("sqrt", z),
    np.matmul: lambda t, z, x, y: products.matmul(t, x, y, z),
    **dict.fromkeys((np.negative, np.positive, np.absolute, np.fabs), _as_it_is),
    **{f: _function(f.__name__) for f in (np.exp, np.exp2, np.expm1, np.log, np.log2, np.log10, np.log1p, np.tanh,
                                          np.sin, np.cos, np.reciprocal)},
    np.arctan: _function("atan"),
    np.power: _beside(elementwise.pow_),
    np.maximum: _beside(branches.maximum),
    np.minimum: _beside(branches.minimum),
    np.floor: _beside(branches.floor),
    np.ceil: _beside(branches.ceil),
    np.rint: _beside(branches.round_),
    np.trunc: _beside(branches.trunc),
    np.sign: _beside(branches.sign),
}  # fmt: skip

# What looks at values only, and gives plain arrays.
DECISIONS: frozenset[Any] = frozenset({
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isfinite, np.isinf, np.isnan,
    np.signbit,
})  # fmt: skip

# What only moves elements of an array, or of a list of them.
MOVES: frozenset[Any] = frozenset({
    np.broadcast_to, np.column_stack, np.concatenate, np.copy, np.diag, np.diagonal, np.dstack, np.expand_dims, np.flip,
    np.hstack, np.moveaxis, np.ravel, np.repeat, np.reshape, np.roll, np.squeeze, np.stack, np.swapaxes, np.take,
    np.tile, np.transpose, np.tril, np.triu, np.vstack,
})  # fmt: skip


def _product(x: Value, axes: list[int], keep: bool, z: Tensor) -> Value:
    """Return the product, axis by axis."""
    for axis in sorted(axes, reverse=True):
        if not x.shape[axis]:
            return x.trace.exact(z)
        x = reductions.prod(x.trace, x, axis, keep)
    return x.departing(z)


def _variance(x: Value, axes: list[int], keep: bool, z: Tensor, ddof: float) -> Value:
    return reductions.variance(x, axes, ddof, keep)[0].departing(z)


def _deviation(x: Value, axes: list[int], keep: bool, z: Tensor, ddof: float) -> Value:
    return reductions.variance(x, axes, ddof, keep)[0].function("sqrt").departing(z)


# Given (operand, axes, whether they stay, result of numpy, other options).
REDUCTIONS: dict[Any, Callable[..., Value]] = {
    # Numpy adds in pairs along the last axis, and row by row along others.
    np.sum: lambda x, axes, keep, z: x.sum(axes, keep).departing(z),
    np.mean: lambda x, axes, keep, z: x.mean(axes, keep).departing(z),
    np.var: _variance,
    np.std: _deviation,
    np.max: lambda x, axes, keep, z: reductions.extreme(x, axes, keep, torch.amax).departing(z),
    np.min: lambda x, axes, keep, z: reductions.extreme(x, axes, keep, torch.amin).departing(z),
    np.prod: _product,
}
