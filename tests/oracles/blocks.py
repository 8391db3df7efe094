"""Block scales by the words of their definitions, on fractions: compare, search and measure distances; no bits.

Source: OCP Microscaling Formats 1.0 for floor; the definitions of the other modes as formats/block_scales.py cites.
"""

from __future__ import annotations

import bisect
from fractions import Fraction

from .nearest import Magnitudes

POWERS = [Fraction(2) ** k for k in range(-1200, 1200)]


def largest_power_up_to(x: Fraction) -> int:
    """Largest k with 2**k <= x."""
    return bisect.bisect_right(POWERS, x) - 1 - 1200


def smallest_power_from(x: Fraction) -> int:
    """Smallest k with 2**k >= x."""
    return bisect.bisect_left(POWERS, x) - 1200


def nearest_power(x: Fraction) -> int:
    """The k whose 2**k lies nearest to x, the larger one in a tie."""
    k = largest_power_up_to(x)
    return k + 1 if Fraction(2) ** (k + 1) - x <= x - Fraction(2) ** k else k


def rounded_to_precision(x: Fraction, bits: int) -> Fraction:
    """Nearest number of `bits` significant bits; a half goes up, as it does under ties-to-even below a power of two."""
    unit = Fraction(2) ** (largest_power_up_to(x) - bits + 1)
    return (x / unit + Fraction(1, 2)).__floor__() * unit


def scale_exponent(amax: float, top: Fraction, precision: int, mode: str, low: int = -127, high: int = 127) -> int:
    """Exponent of the shared scale of a block.

    Args:
        amax: largest magnitude of the block. top: largest value of the element's format. precision: its p.
        low, high: range of the scale's exponent.
    """
    x = Fraction(amax)
    if x == 0:
        return low
    emax = largest_power_up_to(top)
    exponent = {
        "floor": lambda: largest_power_up_to(x) - emax,
        "ceil": lambda: smallest_power_from(x) - emax,
        "rceil": lambda: smallest_power_from(x / top),
        "even": lambda: largest_power_up_to(rounded_to_precision(x, precision)) - emax,
        "rne": lambda: nearest_power(x / top),
    }[mode]()
    return min(max(exponent, low), high)


class Elements:
    """The magnitudes of an element format, written down from its standard.

    Args:
        exact: ascending, from 0, continued by at least one beyond the largest. top: index of the largest.
        precision: significand bits. two_zeros: whether there is a negative zero.
    """

    def __init__(self, exact: list[Fraction], top: int, precision: int, two_zeros: bool = True) -> None:
        self.exact, self.top, self.precision, self.two_zeros = exact, top, precision, two_zeros

    @property
    def largest(self) -> Fraction:
        return self.exact[self.top]

    def nearest(self, x: Fraction) -> Fraction:
        """Nearest magnitude to |x|, ties to the even index, at most the largest."""
        x = abs(x)
        i = min(bisect.bisect_left(self.exact, x), len(self.exact) - 1)
        if i and (x - self.exact[i - 1], (i - 1) % 2) < (self.exact[i] - x, i % 2):
            i -= 1
        return self.exact[min(i, self.top)]

    def scaled(self, x: float, scale: Fraction) -> float:
        """What becomes of x under a scale: nearest element of the exact quotient, times the scale."""
        product = self.nearest(Fraction(x) / scale) * scale
        assert Fraction(float(product)) == product
        negative = x < 0 or (x == 0 and str(x)[0] == "-")
        return -float(product) if negative and (product or self.two_zeros) else float(product)


def _float(exponent_bits: int, fraction_bits: int, bias: int, top: int) -> Elements:
    return Elements(Magnitudes(exponent_bits, fraction_bits, bias, top).exact, top, fraction_bits + 1)


# OCP Microscaling Formats 1.0, tables 2 to 6: exponent and fraction bits, bias, index of the largest.
MX_ELEMENTS = {
    "mxfp8_e4m3": _float(4, 3, 7, 0x7E),
    "mxfp8_e5m2": _float(5, 2, 15, 0x7B),
    "mxfp6_e3m2": _float(3, 2, 3, 0x1F),
    "mxfp6_e2m3": _float(2, 3, 1, 0x1F),
    "mxfp4": _float(2, 1, 1, 0x7),
    "mxint8": Elements([Fraction(i, 64) for i in range(130)], 127, 7, two_zeros=False),
}


def float32(x: Fraction) -> Fraction:
    """Nearest float32 (ties to even) of a magnitude, as if there were no largest one."""
    if x == 0:
        return x
    unit = Fraction(2) ** max(largest_power_up_to(x) - 23, -149)
    return round(x / unit) * unit


LARGEST_FLOAT32 = (2 - Fraction(1, 2**23)) * 2**127
UE4M3 = _float(4, 3, 7, 0x7E)


def nvfp4(x: list[float]) -> list[float]:
    """NVFP4 of finite float32 values, blocks of 16, step by step; every operation rounded to float32."""
    e2m1 = MX_ELEMENTS["mxfp4"]
    amax = max(abs(Fraction(v)) for v in x)
    s = min(float32(2688 / amax), LARGEST_FLOAT32) if amax else Fraction(1)
    back = float32(1 / s)
    out = []
    for start in range(0, len(x), 16):
        block = x[start : start + 16]
        ratio = float32(float32(max(abs(Fraction(v)) for v in block) / 6) * s)
        scale = UE4M3.nearest(ratio) or Fraction(1, 512)
        for v in block:
            quotient = float32(float32(abs(Fraction(v)) * s) / scale)
            value = float(e2m1.nearest(quotient) * scale * back)
            out.append(-value if str(v)[0] == "-" else value)
    return out
