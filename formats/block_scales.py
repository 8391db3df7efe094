"""How a block gets its scale: the modes of power-of-two scales, scales with a significand, and NVFP4's two levels.

With amax the largest magnitude of a block, M the element format's largest value, g = floor(log2 amax) and
emax = floor(log2 M), a scale that is a power of two has the exponent

    floor  g - emax (OCP Microscaling 1.0, section 6.3; the top of a block may clamp)
    ceil   ceil(log2 amax) - emax
    rceil  ceil(log2(amax / M)): the smallest under which nothing clamps (cuBLAS, Transformer Engine)
    even   g - emax, and 1 more where amax rounds up to 2**(g + 1) at the element's precision p, that is where its
           significand reaches 2 - 2**-p
    rne    the power of two nearest to amax / M, ties up

clamped to the range of the scale's format; amax = 0 gives the smallest. All of it is decided on significands and
exponents taken from the bits: a logarithm in floating point is wrong next to powers of two.

A scale with a significand is amax / M, the exact quotient rounded once, saturating; the mode is that rounding. Where
that gives zero, the smallest positive scale is taken instead.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .floats import FloatFormat
from .format import Format
from .rounding import ROUNDINGS
from .scaling import Array, quantize_quotient

POWER_MODES = ("floor", "ceil", "rceil", "even", "rne")
SIGNIFICAND_MODES = tuple(mode for mode in ROUNDINGS if mode != "sr")


def modes_of(scale: FloatFormat) -> tuple[str, ...]:
    """Return the modes by which a scale of this format can be found."""
    return POWER_MODES if scale.precision == 1 else SIGNIFICAND_MODES


def top_precision(element: Format) -> int:
    """Return the significand bits p of the binade that holds the largest value, which mode "even" asks for.

    Raises:
        ValueError: the values there are not evenly spaced by a power of two.
    """
    lowest = math.ldexp(1.0, math.frexp(element.max)[1] - 1)
    spacing = element.project(math.nextafter(lowest, math.inf), "ru", "sat") - lowest
    if spacing <= 0 or math.frexp(spacing)[0] != 0.5:
        raise ValueError(
            f"mode 'even' needs a precision, and {element.name} has no even spacing of values above {lowest!r}; "
            "use floor, ceil, rceil or rne"
        )
    return math.frexp(lowest)[1] - math.frexp(spacing)[1] + 1


def scales_of(amax: Array, element: Format, scale: FloatFormat, mode: str) -> Array:
    """Return the scales of blocks whose largest magnitudes are amax (finite), as values of the scale's format."""
    smallest, largest = scale.smallest_subnormal, scale.max
    if scale.precision > 1:
        rounded = quantize_quotient(scale, amax, np.array(element.max), mode, "sat")
        return np.maximum(rounded, smallest)
    exponents = _shared_exponents(amax, element, mode)
    low, high = math.frexp(smallest)[1] - 1, math.frexp(largest)[1] - 1
    return np.ldexp(1.0, np.where(amax == 0, low, np.clip(exponents, low, high)))


def _shared_exponents(amax: Array, element: Format, mode: str) -> NDArray[np.int64]:
    fraction, above = np.frexp(amax)
    significand, g = 2 * fraction, above.astype(np.int64) - 1  # amax = significand * 2**g, 1 <= significand < 2
    top_fraction, top_above = math.frexp(element.max)
    top, emax = 2 * top_fraction, top_above - 1
    match mode:
        case "floor":
            return g - emax
        case "ceil":
            return g - emax + (significand > 1)
        case "rceil":
            return g - emax + (significand > top)
        case "even":
            return g - emax + (significand >= 2 - math.ldexp(1.0, -top_precision(element)))
        case _:
            # amax / M lies in [1, 2) times 2**k; it rounds up from one and a half. The difference is exact (Sterbenz).
            k = g - emax - (significand < top)
            relative = np.where(significand < top, 2 * significand, significand)
            return k + (relative - top >= top / 2)


def tensor_scale(amax: Array, element: Format, scale: FloatFormat) -> np.float32:
    """Return NVFP4's scale of a tensor, s = M * (largest scale) / amax in float32, rounded to nearest even.

    Args:
        amax: float32 values, largest magnitudes of the blocks; empty or all zero gives s = 1.
    Returns:
        s; where the quotient overflows (amax below 2688 / 2**128 in NVFP4), the largest float32.
    """
    largest = np.float32(amax.max(initial=0.0))
    if largest == 0:
        return np.float32(1)
    with np.errstate(over="ignore"):
        quotient = np.float32(element.max * scale.max) / largest
    return min(quotient, np.finfo(np.float32).max)


def tensor_unscale(s: np.float32) -> np.float32:
    """Return the factor that takes NVFP4's scale of a tensor back: 1 / s in float32, rounded to nearest even."""
    return np.float32(1) / s


def scales_under(s: np.float32, amax: Array, element: Format, scale: FloatFormat) -> Array:
    """Return NVFP4's block scales, R((amax / M) * s): each of the two operations in float32, then R to nearest even.

    Saturating; where R gives zero, the smallest positive scale is taken.
    """
    ratio = (amax.astype(np.float32) / np.float32(element.max)) * s
    return np.maximum(scale.quantize(ratio.astype(np.float64), "rne", "sat"), scale.smallest_subnormal)
