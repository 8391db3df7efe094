"""Balls: real numbers with a radius, in which the rules are evaluated, so that every comparison is proved.

A comparison of balls is true only if it is true of all numbers in them. Lists of balls are arrays in C order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat
from numpy.typing import NDArray

BITS = 128  # of the midpoints
ZERO, ONE, HALF, INF = arb(0), arb(1), arb(0.5), arb("inf")

Balls = list[arb]
Places = NDArray[np.int64]


class Ends(NamedTuple):
    """Intervals by their ends."""

    lo: Balls
    hi: Balls


def balls(numbers: Iterable[float]) -> Balls:
    """Return numbers as they are."""
    return [arb(x) for x in numbers]


def power(exponent: int) -> arb:
    """Return 2**exponent."""
    return arb(2) ** exponent


def is_infinite(x: arb) -> bool:
    """Whether it is an infinity, not a ball without bound."""
    return not x.is_finite() and (x > 0 or x < 0)


def magnitude(lo: arb, hi: arb) -> arb:
    """Return the largest magnitude of an interval."""
    if lo >= 0:
        return hi
    if hi <= 0:
        return -lo
    return larger(-lo, hi)


def least_magnitude(lo: arb, hi: arb) -> arb:
    """Return the least magnitude of an interval, 0 where it may have 0 in it."""
    if lo > 0:
        return lo
    return -hi if hi < 0 else ZERO


def larger(x: arb, y: arb) -> arb:
    """Return the larger one of two numbers."""
    return x if x >= y else y if y >= x else x.max(y)


def smaller(x: arb, y: arb) -> arb:
    """Return the smaller one of two numbers."""
    return x if x <= y else y if y <= x else x.min(y)


def times(a: arb, b: arb, c: arb, d: arb) -> tuple[arb, arb]:
    """Return the ends of [a, b] * [c, d]."""
    if c >= 0:
        return a * (c if a >= 0 else d), b * (d if b >= 0 else c)
    if d <= 0:
        return b * (c if b >= 0 else d), a * (d if a >= 0 else c)
    ends = a * c, a * d, b * c, b * d
    return smaller(smaller(ends[0], ends[1]), smaller(ends[2], ends[3])), larger(
        larger(ends[0], ends[1]), larger(ends[2], ends[3])
    )


def share(factor: arb, d: arb) -> arb:
    """Return a part of an error: none of what is exact, whatever multiplies it."""
    return ZERO if d == 0 else factor * d


def inverse(lo: arb, hi: arb) -> tuple[arb, arb]:
    """Return the ends of 1 / x over an interval, infinite where it may have 0 in it."""
    return (ONE / hi, ONE / lo) if lo > 0 or hi < 0 else (-INF, INF)


def taken(x: Balls, places: Places) -> Balls:
    """Return what lies at these places, 0 at -1."""
    with_zero = [*x, ZERO]
    return [with_zero[i] for i in places.ravel().tolist()]


def summed_into(size: int, places: Places, parts: Balls) -> Balls:
    """Return for each place the sum of the parts that are there, those at -1 left out."""
    found = [ZERO] * size
    for i, part in zip(places.ravel().tolist(), parts, strict=True):
        if i >= 0:
            found[i] = found[i] + part
    return found


def matrix(x: Balls, places: Places) -> arb_mat:
    """Return the matrix of what lies at these places."""
    rows, columns = places.shape
    return arb_mat(rows, columns, taken(x, places))


def added(*parts: Sequence[arb] | None) -> Balls:
    """Return the sum of arrays; None is zero."""
    there = [part for part in parts if part is not None]
    return [sum(some[1:], some[0]) for some in zip(*there, strict=True)]
