"""The numbers of a format exactly, whatever their range: what describes formats is computed with these.

A number is a float64 where that holds it, else a Fraction. To compare the two is exact. Arithmetic that mixes them is
not: it takes Fraction(number) first.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

from . import dyadic
from .floats import FloatFormat
from .format import Format
from .qtorch import QtorchFormat
from .rounding import Rounding

Number = float | Fraction

_BEYOND = 1 << 18  # a power of two beyond every format: exponents reach 2**16, and a bias is below 2**17
PLACES = 64  # binary places: a number that differs from a value only below these is nearer to it than to any other
_TOWARD_ZERO, _UP, _DOWN = Rounding("rz"), Rounding("ru"), Rounding("rd")


@dataclass(frozen=True)
class Ends:
    """The numbers between which the finite values of a format lie.

    Args:
        lowest, largest: of all finite values. smallest: positive. smallest_normal: None where all are subnormal.
    """

    lowest: Number
    smallest: Number
    smallest_normal: Number | None
    largest: Number


# --- numbers --------------------------------------------------------------------------------------------------------


def number(integer: int, exponent: int) -> Number:
    """Return integer * 2**exponent. Exact."""
    integer, exponent = dyadic.normalised(integer, exponent)
    bits = integer.bit_length()
    if bits <= 53 and exponent >= -1074 and bits + exponent <= 1024:
        return math.ldexp(integer, exponent)
    return Fraction(integer << exponent) if exponent >= 0 else Fraction(integer, 1 << -exponent)


def pair_of(value: Number) -> tuple[int, int]:
    """Return a finite number as (integer, exponent), integer * 2**exponent with an odd integer or (0, 0). Exact."""
    numerator, denominator = value.as_integer_ratio()
    return dyadic.normalised(numerator, 1 - denominator.bit_length())


def exponent_of(value: Number) -> int:
    """Return floor(log2(value)) of a positive number. Exact."""
    integer, exponent = pair_of(value)
    return integer.bit_length() - 1 + exponent


def significand_of(value: Number) -> Fraction:
    """Return a positive number divided by 2**exponent_of(value), from 1 to below 2. Exact."""
    integer, _ = pair_of(value)
    return Fraction(integer, 1 << (integer.bit_length() - 1))


def scaled(significand: Fraction, exponent: int) -> Number:
    """Return significand * 2**exponent, where the significand is a dyadic fraction. Exact."""
    integer, below = pair_of(significand)
    return number(integer, exponent + below)


def log2(value: Number) -> float:
    """Return the logarithm of a positive number."""
    numerator, denominator = value.as_integer_ratio()
    return math.log2(numerator) - math.log2(denominator)


# --- formats --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def ends(fmt: Format) -> Ends:
    """Return between which numbers the finite values of a format without blocks lie. Exact."""
    smallest, normal, largest = _positive_ends(fmt)
    lowest = number(*rounded(fmt, -1, _BEYOND, _TOWARD_ZERO))
    return Ends(lowest, smallest, None if smallest <= largest < normal else normal, largest)


@functools.singledispatch
def rounded(fmt: Format, integer: int, exponent: int, rounding: Rounding) -> tuple[int, int]:
    """Round integer * 2**exponent (not zero), what lies beyond the range to its end, to such a pair. Exact."""
    return dyadic.from_float(fmt.project_finite(integer, exponent, rounding, "sat"))


@functools.singledispatch
def value_of(fmt: Format, code: int) -> Number:
    """Return the value of a code; infinities, NaN and -0 are float64. Exact."""
    return fmt.value_of(code)


def code_or_none(fmt: Format, value: Number) -> int | None:
    """Return the code of a value, None if the format lacks it."""
    try:
        if isinstance(value, Fraction):  # which only floats have
            return fmt.code_of_exact(*pair_of(value)) if isinstance(fmt, FloatFormat) else None
        return fmt.code_of(value)
    except ValueError:
        return None


def contains(fmt: Format, value: Number) -> bool:
    """Whether a finite number is a value of a format."""
    if value == 0:
        code = code_or_none(fmt, 0.0)
        return code is not None and value_of(fmt, code) == 0
    return rounded(fmt, *pair_of(value), _TOWARD_ZERO) == pair_of(value)


def magnitude_beside(fmt: Format, integer: int, exponent: int, sign: int, away: bool) -> tuple[int, int]:
    """Return the magnitude to which sign * integer * 2**exponent is rounded, away from zero or toward it, as a pair."""
    mode = (_UP if sign > 0 else _DOWN) if away else _TOWARD_ZERO
    magnitude, below = rounded(fmt, sign * integer, exponent, mode)
    return abs(magnitude), below


def magnitude_after(fmt: Format, integer: int, exponent: int, sign: int) -> tuple[int, int] | None:
    """Return the next larger magnitude after integer * 2**exponent (positive), as a pair; None after the largest."""
    above = magnitude_beside(fmt, integer << PLACES | 1, exponent - PLACES, sign, away=True)
    return above if dyadic.add(above, (-integer, exponent))[0] > 0 else None


def next_magnitude(fmt: Format, magnitude: Number, sign: int = 1) -> Number | None:
    """Return the next larger magnitude after a finite number (not negative); None after the largest."""
    if magnitude == 0:
        return ends(fmt).smallest if largest_magnitude(fmt, sign) > 0 else None
    after = magnitude_after(fmt, *pair_of(magnitude), sign)
    return None if after is None else number(*after)


def largest_magnitude(fmt: Format, sign: int) -> Number:
    """Return the largest magnitude of a sign; zero or less if there are no values of it."""
    return ends(fmt).largest if sign > 0 else -ends(fmt).lowest


# --- what differs by family -----------------------------------------------------------------------------------------


@functools.singledispatch
def _positive_ends(fmt: Format) -> tuple[Number, ...]:
    """Return the smallest positive value, the smallest normal one (though none may reach it), and the largest."""
    return fmt.smallest_subnormal, fmt.smallest_normal, fmt.max


@_positive_ends.register
def _(fmt: FloatFormat) -> tuple[Number, ...]:
    return tuple(number(*pair) for pair in fmt.exact_ends)


@rounded.register
def _(fmt: FloatFormat, integer: int, exponent: int, rounding: Rounding) -> tuple[int, int]:
    return fmt.exact_value_of(fmt.code_of_finite(integer, exponent, rounding, "sat"))


@value_of.register
def _(fmt: FloatFormat, code: int) -> Number:
    try:
        return fmt.value_of(code)
    except ValueError:  # float64 does not hold it
        return number(*fmt.exact_value_of(code))


# The packages of qtorch have no exact numbers; what they round to has.
@_positive_ends.register
def _(fmt: QtorchFormat) -> tuple[Number, ...]:
    return _positive_ends(fmt.record)


@rounded.register
def _(fmt: QtorchFormat, integer: int, exponent: int, rounding: Rounding) -> tuple[int, int]:
    return rounded(fmt.record, integer, exponent, rounding)
