"""Exact values magnitude * 2**exponent: how the slow arithmetic sees a float.

Every finite float64 is one, and sums and products of them are again. Nothing here rounds.
"""

import math


def from_float(x: float) -> tuple[int, int]:
    """Split a finite float64 exactly.

    Args:
        x: finite float.
    Returns:
        (signed integer m, exponent e) with x == m * 2**e; (0, 0) for either zero. Exact.
    """
    fraction, exponent = math.frexp(x)
    if fraction == 0.0:
        return 0, 0
    integer = int(fraction * 9007199254740992.0)  # 2**53: a float64 has at most 53 significant bits
    trailing = (integer & -integer).bit_length() - 1
    return integer >> trailing, exponent - 53 + trailing


def to_float(integer: int, exponent: int) -> float:
    """Return integer * 2**exponent as a float64.

    Raises:
        OverflowError, ValueError: when float64 cannot hold the value exactly.
    """
    value = math.ldexp(integer, exponent)
    if from_float(value) != normalised(integer, exponent):
        raise ValueError(f"{integer} * 2**{exponent} is not a float64")
    return value


def normalised(integer: int, exponent: int) -> tuple[int, int]:
    """Return the same value with an odd integer, (0, 0) for zero. Exact."""
    if integer == 0:
        return 0, 0
    trailing = (integer & -integer).bit_length() - 1
    return integer >> trailing, exponent + trailing


def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """Return a + b. Exact."""
    low = min(a[1], b[1])
    return (a[0] << (a[1] - low)) + (b[0] << (b[1] - low)), low


def multiply(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """Return a * b. Exact."""
    return a[0] * b[0], a[1] + b[1]
