"""Seeded operands that provoke what goes wrong in accumulation, in the values of a given format."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

import formats
from formats import Format


def finite(fmt: str | Format, shape: tuple[int, ...], seed: int, spread: int = 3) -> NDArray[np.float64]:
    """Values of a format around 1, of both signs, with some zeros of both signs; exponents within +-spread."""
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.uniform(1, 2, shape), rng.integers(-spread, spread + 1, shape)) * rng.choice([-1, 1], shape)
    x = np.where(rng.random(shape) < 0.06, np.copysign(0.0, x), x)
    return formats.get(fmt).quantize(x, overflow="sat")


def anything(fmt: str | Format, shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Finite values of a format with exponents over its whole range (at most that of float32)."""
    fmt = formats.get(fmt)
    rng = np.random.default_rng(seed)
    low = max(math.frexp(fmt.smallest_subnormal)[1] - 1, -149)
    high = min(math.frexp(fmt.max)[1] - 1, 127)
    x = np.ldexp(rng.uniform(1, 2, shape), rng.integers(low, high + 1, shape)) * rng.choice([-1, 1], shape)
    return fmt.quantize(x, overflow="sat")


def structured(kind: str, fmt: str | Format, accumulator: str | Format, m: int, n: int, k: int, seed: int):
    """Operands (a, b) of shapes (m, k) and (k, n) for one hard situation of an accumulator format.

    Kinds: random, wide, cancellation, equal, subnormal, large, zeros, special.
    """
    fmt, total = formats.get(fmt), formats.get(accumulator)
    rng = np.random.default_rng(seed)
    a, b = finite(fmt, (m, k), seed + 1), finite(fmt, (k, n), seed + 2)
    if kind == "wide":
        return anything(fmt, (m, k), seed + 1), anything(fmt, (k, n), seed + 2)
    if kind == "cancellation":
        # Each product is followed, in another order, by its negative: the exact sum is zero or tiny.
        half = k // 2
        order = rng.permutation(half)
        a[:, half : 2 * half], b[half : 2 * half] = -a[:, order], b[order]
    elif kind == "equal":
        a[:], b[:] = a[:, :1], b[:1]
    elif kind == "subnormal":
        # Products around the smallest values of the accumulator.
        target = math.frexp(total.smallest_subnormal)[1] // 2
        low = math.frexp(fmt.smallest_subnormal)[1]
        shift = max(target, low)
        scale = rng.integers(0, 5, (m, k))
        a = fmt.quantize(np.ldexp(a, shift + scale), overflow="sat")
        b = fmt.quantize(np.ldexp(b, min(max(math.frexp(total.smallest_subnormal)[1] - shift, low), 0)), overflow="sat")
    elif kind == "large":
        # A few products reach the largest value of the accumulator, so that sums overflow, saturate and come back.
        top = min(math.frexp(total.max)[1], 2 * math.frexp(fmt.max)[1])
        first = min(top // 2, math.frexp(fmt.max)[1] - 4)
        a = fmt.quantize(np.ldexp(a, first), overflow="sat")
        b = fmt.quantize(np.ldexp(b, min(top - first - 6, math.frexp(fmt.max)[1] - 4)), overflow="sat")
    elif kind == "zeros":
        a = np.where(rng.random((m, k)) < 0.7, np.copysign(0.0, a), a)
        a[: m // 2] = -0.0
        b[:, : n // 2] = np.abs(b[:, : n // 2])
    elif kind == "special":
        infinite = fmt.max if not fmt.has_infinity else math.inf
        # About every third inner product meets an infinity, every tenth a NaN, whatever its length.
        a = np.where(rng.random((m, k)) < 0.2 / k, np.copysign(infinite, a), a)
        b = np.where(rng.random((k, n)) < 0.2 / k, np.copysign(infinite, b), b)
        if fmt.has_nan:
            a = np.where(rng.random((m, k)) < 0.1 / k, math.nan, a)
    return a, b


KINDS = ("random", "wide", "cancellation", "equal", "subnormal", "large", "zeros", "special")


def addend(accumulator: str | Format, shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Addends for one accumulator format: around 1, tiny, large, and zeros of both signs; not rounded to it."""
    total = formats.get(accumulator)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    kind = rng.integers(0, 5, shape)
    x = np.where(kind == 1, x * total.smallest_subnormal, x)
    x = np.where(kind == 2, np.copysign(total.max / 2, x), x)
    return np.where(kind == 3, np.copysign(0.0, x), x)
