"""Division and multiplication of arrays by scales, without a rounding of their own.

A quotient of two float64 is seldom a float64. Rounding it to one first and then to the element's format would round
twice; here the exact quotient is rounded once, whatever the format, the mode and the range.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import dyadic
from .format import Format
from .philox import check_seed, word
from .rounding import Rounding, parse_rounding

Array = NDArray[np.float64]

# A quotient is cut after at least 203 significant bits. Decisions fall at numbers b of at most 53 + 65 bits (a boundary
# between values, and a random word); n / d - b = (n - d b) / d is 0 or above 2**-172 of b, so no cut crosses one.
_QUOTIENT_BITS = 256


def quantize_quotient(
    fmt: Format, x: Array, divisor: Array, rounding: str, overflow: str, seed: int | None = None, offset: int = 0
) -> Array:
    """Round x / divisor into a format. Correctly rounded, in one rounding of the exact quotient.

    Args:
        fmt: any format whose roundings are monotone, as all are but for the overflow mode "wrap".
        x: finite. divisor: finite and positive, of a shape that broadcasts to that of x.
        rounding, overflow, seed, offset: as for Format.quantize.
    """
    low, high, lost = _bracket(x, divisor)
    # Rounding is monotone, under stochastic roundings for a given random word: where both neighbours of a quotient
    # give the same value, so does the quotient.
    rounded = fmt.quantize(low, rounding, overflow, seed, offset=offset)
    open_ = lost
    inexact = low != high
    if inexact.any():
        other = fmt.quantize(high, rounding, overflow, seed, offset=offset)
        differ = (rounded != other) & ~(np.isnan(rounded) & np.isnan(other))
        open_ = lost | (inexact if overflow == "wrap" else inexact & differ)
    if open_.any():
        mode, seed = parse_rounding(rounding), check_seed(seed)
        flat, divisors = x.ravel(), np.broadcast_to(divisor, x.shape).ravel()
        out = rounded.flatten()
        for i in np.flatnonzero(open_).tolist():
            random = word(seed, offset + i) if mode.stochastic else 0
            out[i] = _project_quotient(fmt, float(flat[i]), float(divisors[i]), mode, overflow, random)
        rounded = out.reshape(x.shape)
    return rounded


def exact_product(x: Array, scale: Array, name: str) -> Array:
    """Return x * scale as float64. Exact; infinities and NaNs of x stay.

    Raises:
        ValueError: a product that float64 cannot hold; `name` says of what.
    """
    fraction, exponent = np.frexp(np.where(np.isfinite(x), x, 0.0))
    scale_fraction, scale_exponent = np.frexp(scale)
    product, error = _two_product(fraction, scale_fraction)
    shift = exponent + scale_exponent
    with np.errstate(over="ignore", under="ignore"):
        result = np.ldexp(product, shift)
        inexact = (error != 0) | (np.ldexp(result, -shift) != product)
    if inexact.any():
        place = tuple(np.argwhere(inexact)[0].tolist())
        factor = np.broadcast_to(scale, x.shape)[place]
        raise ValueError(
            f"{name}: element {x[place]!r} times scale {factor!r} at {place} is not a float64, in which arrays are "
            "kept; encode gives the codes, or take an element or a scale of fewer significand or exponent bits"
        )
    return np.where(np.isfinite(x), result, x)


def _bracket(x: Array, divisor: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return neighbouring float64 with the exact quotient between them, the same twice where it is a float64.

    The third array says where a quotient leaves the range of float64, so that the two mean nothing.
    """
    fraction, exponent = np.frexp(x)
    divisor_fraction, divisor_exponent = np.frexp(divisor)
    quotient = fraction / divisor_fraction
    shift = exponent - divisor_exponent
    with np.errstate(over="ignore", under="ignore"):
        low = np.ldexp(quotient, shift)
        lost = np.ldexp(low, -shift) != quotient
    low = np.where(lost, 0.0, low)
    if (divisor_fraction == 0.5).all():
        return low, low, lost
    product, error = _two_product(quotient, divisor_fraction)
    # The first difference is exact (Sterbenz), so the second has the sign of the remainder, and is 0 only if that is.
    remainder = (fraction - product) - error
    # No step leads to infinity: x < divisor * 2**k makes x / divisor at most the float64 below 2**k.
    return low, np.where(remainder == 0, low, np.nextafter(low, np.where(remainder > 0, math.inf, -math.inf))), lost


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded product and its error, which is a float64 too, for magnitudes of 0 or 1/4 to 2.

    Source: Dekker, "A floating-point technique for extending the available precision", 1971.
    """
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Array) -> tuple[Array, Array]:
    shifted = a * 134217729.0  # 2**27 + 1
    high = shifted - (shifted - a)
    return high, a - high


def _project_quotient(fmt: Format, x: float, divisor: float, mode: Rounding, overflow: str, random: int) -> float:
    """Round one quotient, in integers."""
    if x == 0.0:
        return fmt.project_special(x, overflow)
    (numerator, exponent), (denominator, divisor_exponent) = dyadic.from_float(x), dyadic.from_float(divisor)
    exponent -= divisor_exponent
    shift = _QUOTIENT_BITS + max(0, exponent)
    quotient = (abs(numerator) << shift) // denominator
    return fmt.project_finite(-quotient if x < 0 else quotient, exponent - shift, mode, overflow, random)
