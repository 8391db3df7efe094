"""Posits read off strings of the characters 0 and 1, and rounded by looking codes up. No bit arithmetic on the input.

The boundary between the codes c and c + 1 is the value of the posit of one bit more with the code 2c + 1; finer, the
posits of k bits more mark 2**k steps from c to c + 1, which is how far along the bit string a value lies.
Source: Standard for Posit Arithmetic (2022), section 3.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

EXTRA = 80  # bits more than n in which every float64 within the range of a posit is exact


def value(code: int, n: int, es: int) -> Fraction:
    """Return the value of a code from 0 to 2**(n-1) - 1."""
    text = format(code, f"0{n}b")[1:]
    if "1" not in text:
        return Fraction(0)
    first = text[0]
    run = len(text) - len(text.lstrip(first))
    regime = run - 1 if first == "1" else -run
    rest = text[run + 1 :] + "0" * es  # bits pushed off the end count as zero
    exponent = int(rest[:es] or "0", 2)
    fraction = rest[es:]
    significand = 1 + Fraction(int(fraction or "0", 2), 2 ** len(fraction))
    return Fraction(2) ** (regime * 2**es + exponent) * significand


def place(x: Fraction, n: int, es: int) -> tuple[int, Fraction]:
    """Return the code below a positive x within the range and how far x lies from it along the bit string."""
    low, high = 0, 1 << (n + EXTRA - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle, n + EXTRA, es) <= x else (low, middle)
    assert value(low, n + EXTRA, es) == x
    return low >> EXTRA, Fraction(low % (1 << EXTRA), 1 << EXTRA)


class Magnitudes:
    """The codes from 0 to 2**(n-1) - 1 of one posit format of at most 16 bits."""

    def __init__(self, n: int, es: int) -> None:
        self.n, self.es, self.top = n, es, (1 << (n - 1)) - 1
        self.exact = [value(code, n, es) for code in range(self.top + 1)]
        exact_middles = [value(2 * code + 1, n + 1, es) for code in range(1, self.top)]
        self.values = np.array([float(v) for v in self.exact])
        self.middles = np.array([0.0, *map(float, exact_middles)])  # nothing but zero belongs to zero
        assert all(Fraction(float(v)) == v for v in self.exact + exact_middles)

    def codes(self, x: NDArray[np.float64], mode: str) -> NDArray[np.int64]:
        """Return the codes of magnitudes to which finite x are rounded; the sign of x is left out of them."""
        magnitude, negative = np.abs(x), x < 0
        low = np.searchsorted(self.values, magnitude, side="right") - 1
        inside = np.clip(low, 0, max(self.top - 1, 0))
        middle = self.middles[np.minimum(inside, self.middles.size - 1)]
        odd = inside % 2 == 1
        up = {
            "rne": (magnitude > middle) | ((magnitude == middle) & odd),
            "rna": magnitude >= middle,
            "rnz": magnitude > middle,
            "rz": np.zeros(x.shape, bool),
            "ru": ~negative,
            "rd": negative,
            "odd": ~odd,
        }[mode]
        up &= (low < self.top) & (magnitude != self.values[low])
        return np.where(magnitude == 0, 0, np.maximum(low + up, 1))

    def quantized(self, x: NDArray[np.float64], mode: str) -> NDArray[np.float64]:
        """Return the values to which finite x are rounded."""
        return np.where(x < 0, -1.0, 1.0) * self.values[self.codes(x, mode)]

    def probes(self) -> NDArray[np.float64]:
        """All values, all boundaries and their float64 neighbours, and what lies beyond both ends; both signs."""
        useed = 2.0**2**self.es
        largest, smallest = self.values[-1], self.values[1]
        with np.errstate(over="ignore"):
            beyond = np.minimum(largest * np.array([1.5, useed / 2, useed, 2 * useed, useed**2]), 1.7e308)
        below = np.array([smallest / 2, smallest / useed, 5e-324])
        ends = np.concatenate([self.values, self.middles, beyond, below])
        magnitudes = np.concatenate([ends, np.nextafter(ends, np.inf), np.nextafter(ends, -np.inf)])
        magnitudes = magnitudes[magnitudes >= 0]
        return np.concatenate([magnitudes, -magnitudes[magnitudes > 0]])
