"""Rounding as a choice between two neighbours, by exact fractions: the rules of the modes, read once more.

`goes_high` asks where x lies between its neighbours and never counts dropped bits; the stochastic rules are those of
the table "how many of the 2**N words go up", so that a word goes up when it is among the highest that many.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from fractions import Fraction

DETERMINISTIC = ("rne", "rna", "rnz", "rz", "ru", "rd", "odd")


def goes_high(mode: str, x: Fraction, boundary: Fraction, low_is_odd: bool) -> bool:
    """Return whether x, strictly between two neighbours, goes to the higher one.

    Args:
        boundary: where nearest changes over. low_is_odd: parity of the lower neighbour, opposite to the higher one's.
    """
    positive = x >= 0
    if mode in ("rne", "rna", "rnz"):
        if x != boundary:
            return x > boundary
        return {"rne": low_is_odd, "rna": positive, "rnz": not positive}[mode]
    return {"rz": not positive, "ru": True, "rd": False, "odd": not low_is_odd}[mode]


def words_up(v: Fraction, n: int, variant: str) -> int:
    """Return how many of the 2**n random words round a fraction v, 0 < v < 1, away from zero."""
    if variant == "a":
        return math.floor(v * 2**n)
    if variant == "b":
        return (math.floor(v * 2 ** (n + 1)) + 1) // 2
    return round(v * 2**n)  # of a Fraction: to nearest, ties to even


def rounded(values: Sequence[Fraction], x: Fraction, mode: str, boundaries: Sequence[Fraction] | None = None) -> int:
    """Return the place in an ascending list to which x is rounded; beyond the ends, the end."""
    low = bisect.bisect_right(values, x) - 1
    if low < 0:
        return 0
    if low == len(values) - 1 or values[low] == x:
        return low
    boundary = (values[low] + values[low + 1]) / 2 if boundaries is None else boundaries[low]
    return low + goes_high(mode, x, boundary, low % 2 == 1)


def fraction_between(values: Sequence[Fraction], x: Fraction) -> tuple[int, int, Fraction]:
    """Return the places of the neighbours of x, the one nearer to zero first, and how far x is from the first."""
    low = bisect.bisect_right(values, x) - 1
    near, far = (low, low + 1) if x >= 0 else (low + 1, low)
    return near, far, (x - values[near]) / (values[far] - values[near])
