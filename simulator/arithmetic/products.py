"""matmul and dot as a MAC unit computes them: quantise, choose a kernel, accumulate, finish.

The results equal those of `reference.dot`, bit for bit, whatever kernel runs (NaNs come out as the positive quiet NaN).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.arguments import whole_of_bits
from native.matmul import Key

from .accumulators import Accumulator
from .engine import Accumulation, check_shapes, numbers, random_key
from .scaling import scaled
from .spec import MacSpec
from .spec import mac as make_spec  # `mac` is the public name of an argument
from .stats import Stats

LARGEST = sys.float_info.max


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    mac: str | Mapping[str, Any] | MacSpec | Accumulator,
    c: ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
    stats: bool | str = False,
    alpha: float = 1.0,
    beta: float = 1.0,
    step: int = 0,
    site: int = 0,
    first_row: int = 0,
    matrix: int = 0,
) -> Any:
    """Multiply matrices, or stacks of them, as a MAC unit does.

    Args:
        a, b: (..., M, K) and (..., K, N), floats or integers that float64 holds, leading axes broadcast against each
            other; any strides, so that a transposed view costs nothing. Quantised first if the spec names operands.
        mac: MacSpec or its string or YAML form.
        c: addend, broadcastable to (..., M, N), or None.
        seed, step, site: key of the random words of stochastic roundings and number of the operation (32, 32 and 24
            bits); without effect on other roundings.
        threads: at most so many; None for all processors available. The result does not depend on it.
        stats: True: also return Stats; "overflows": Stats with overflow flags only, which cost next to nothing. For two
            matrices only.
        alpha, beta: factors of the result and of the addend. With one that is not 1 the sum starts at +0, and
            y = R(R_s(alpha * sum) + R_s(beta * R_s(c))), R_s the rounding of the state, R that of the output.
        first_row: row of the whole result (all M of a stack one behind the other) that is row 0 of this one, where a
            product is computed in parts.
        matrix: likewise the place of the first b in a stack of which this is a part.
    Returns:
        (..., M, N), float32 if that holds the output format, else float64; with stats a pair. Exact definition:
        simulator.arithmetic.reference.
    Raises:
        ValueError: shapes or formats that do not fit, with what was found. TypeError: operands that are not numbers.
    """
    spec, a, b = make_spec(mac), numbers(a, "a"), numbers(b, "b")
    if not isinstance(stats, bool) and not (isinstance(stats, str) and stats == "overflows"):
        raise ValueError(f'stats: got {stats!r}; expected False, True or "overflows"; give one of them')
    factors = _factor("alpha", alpha), _factor("beta", beta)
    if a.ndim == 2 and b.ndim == 2:
        check_shapes("matmul", a, b)
        y, counted = _one(
            spec, a, b, c, threads, random_key(seed, step, site, first_row, b.shape[1], matrix), stats, factors
        )
        return (y, counted) if stats else y
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: a {a.shape} and b {b.shape} do not fit; expected (..., M, K) and (..., K, N)")
    if stats:
        raise ValueError(f"stats: got a {a.shape} and b {b.shape}; expected two matrices; count one by one")
    try:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: the leading axes of a {a.shape} and b {b.shape} do not broadcast") from None
    m, n = a.shape[-2], b.shape[-1]
    matrices = np.broadcast_to(np.arange(math.prod(b.shape[:-2])).reshape(b.shape[:-2]), stack)
    a, b = np.broadcast_to(a, (*stack, *a.shape[-2:])), np.broadcast_to(b, (*stack, *b.shape[-2:]))
    addend = None if c is None else _broadcast(numbers(c, "c"), (*stack, m, n))
    y = np.empty((*stack, m, n), spec.dtype)
    for i, at in enumerate(np.ndindex(stack)):
        key = random_key(seed, step, site, first_row + i * m, n, matrix + int(matrices[at]))
        y[at] = _one(spec, a[at], b[at], None if addend is None else addend[at], threads, key, False, factors)[0]
    return y


def dot(
    a: ArrayLike,
    b: ArrayLike,
    mac: str | Mapping[str, Any] | MacSpec | Accumulator,
    c: ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> NDArray[Any]:
    """Row-wise inner products as a MAC unit computes them.

    Args:
        a, b: (..., K) and (..., K), leading axes broadcast against each other.
        c: addend, broadcastable to the leading axes, or None. mac, seed, threads: as for matmul.
    Returns:
        (...), float32 if that holds the output format, else float64. Exact definition: simulator.arithmetic.reference.
    Raises:
        ValueError: shapes or formats that do not fit, with what was found. TypeError: operands that are not numbers.
    """
    a, b = numbers(a, "a"), numbers(b, "b")
    if a.ndim < 1 or b.ndim < 1 or a.shape[-1] != b.shape[-1]:
        raise ValueError(f"dot: a {a.shape} and b {b.shape} do not fit; expected (..., K) and (..., K)")
    try:
        a, b = np.broadcast_arrays(a, b)
    except ValueError:
        raise ValueError(f"dot: the leading axes of a {a.shape} and b {b.shape} do not broadcast") from None
    shape, k = a.shape[:-1], a.shape[-1]
    count = math.prod(shape)
    rows = np.arange(count, dtype=np.int64)
    addend = None if c is None else _broadcast(numbers(c, "c"), shape).reshape(count, 1)
    key = Key(whole_of_bits("seed", seed, 32), row=1)
    work = Accumulation(make_spec(mac), a.reshape(count, k), b.reshape(count, k).T, addend, threads, key)
    return work.listed((rows, rows))[0].reshape(shape)


def _one(
    spec: MacSpec,
    a: NDArray[Any],
    b: NDArray[Any],
    c: ArrayLike | None,
    threads: int | None,
    key: Key,
    stats: bool | str,
    factors: tuple[float, float],
) -> tuple[NDArray[Any], Stats | None]:
    if factors == (1.0, 1.0):
        return Accumulation(spec, a, b, c, threads, key).dense(stats)
    addend = None if c is None else _broadcast(numbers(c, "c"), (a.shape[0], b.shape[1]))
    return scaled(spec, a, b, addend, threads, key, stats, *factors)


def _broadcast(c: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.broadcast_to(c, shape)
    except ValueError:
        raise ValueError(f"c {c.shape} does not broadcast to the output's shape {shape}") from None


def _factor(name: str, x: float) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float | np.floating | np.integer) or not abs(x) <= LARGEST:
        raise ValueError(f"{name}: got {x!r}; expected a finite number; give e.g. 1.0")
    # Numpy would compare its integers as float64.
    if float(x) != (int(x) if isinstance(x, np.integer) else x):
        raise ValueError(f"{name}: got {x!r}; expected a number that float64 holds; give the float that is meant")
    return float(x)
