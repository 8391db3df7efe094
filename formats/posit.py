"""The posit family: a sign, a regime of a length of its own, es exponent bits, and a fraction in what is left.

A run of k + 1 ones or of -k zeros, ended by the other bit, is the regime k; then come es bits of exponent e and the
fraction f: (1 + f) * 2**(k * 2**es + e). Bits that the regime pushes off the end count as zero.

Source: Standard for Posit Arithmetic (2022), sections 3 and 4, with es = 2; other es as in Gustafson and Yonemoto,
"Beating floating point at its own game", 2017.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import dyadic
from .arguments import whole
from .tapered import TaperedFormat

STANDARD_ES = 2
MAX_SCALE = 1023  # exponent of the largest power of two in float64; its inverse is a float64 too


@dataclass(frozen=True)
class PositFormat(TaperedFormat):
    """A posit format as two numbers; everything else is derived.

    Args:
        name: canonical name; not part of the identity.
        n: bits, 2 to 32.
        es: exponent bits, such that maxpos = 2**((n - 2) * 2**es) is a float64.
    """

    name: str = field(compare=False)
    n: int
    es: int = STANDARD_ES

    def __post_init__(self) -> None:
        for what in ("n", "es"):
            object.__setattr__(self, what, whole(f"{self.name}: {what}", getattr(self, what)))
        if not 2 <= self.n <= 32:
            raise ValueError(f"{self.name}: n = {self.n} is out of range; posits have n from 2 to 32 bits")
        most = max(es for es in range(10) if (self.n - 2) << es <= MAX_SCALE)
        if not 0 <= self.es <= most:
            raise ValueError(
                f"{self.name}: es = {self.es} is out of range for n = {self.n}; expected es from 0 to {most}, "
                f"so that maxpos = 2^((n-2)*2^es) does not exceed 2^{MAX_SCALE}: arrays are kept in float64"
            )

    @classmethod
    def from_name(cls, base: str) -> PositFormat | None:
        """Return the format of `posit16` (es = 2, the standard) or `posit16e1`, under its canonical name.

        Returns:
            None if the name is not of this kind.
        Raises:
            ValueError: it is, but n or es is impossible.
        """
        match = re.fullmatch(r"posit([1-9]\d*)(?:e(0|[1-9]\d*))?", base)
        if not match:
            return None
        n, es = int(match[1]), STANDARD_ES if match[2] is None else int(match[2])
        return cls(f"posit{n}" if es == STANDARD_ES else f"posit{n}e{es}", n, es)

    # --- derived numbers -------------------------------------------------------------------------------------------

    @property
    def useed(self) -> float:
        """Factor between neighbouring regimes, 2**2**es."""
        return math.ldexp(1.0, 1 << self.es)

    @property
    def maxpos(self) -> float:
        """Largest value, useed**(n-2)."""
        return self.max

    @property
    def minpos(self) -> float:
        """Smallest positive value, 1 / maxpos."""
        return self.smallest_normal

    @property
    def precision(self) -> int:
        """Significand bits of the values around 1, which have most of them; the hidden one included."""
        return max(self.n - 2 - self.es, 1)

    def boundaries(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the tables by which magnitudes are rounded to nearest, for n <= 16.

        Returns:
            (values, boundaries), both ascending: values[c] is that of code c, from 0 to maxpos, 2**(n-1) of them; from
            boundaries[c] on, a magnitude belongs to code c + 1 rather than c, and on it to the even one of the two.
            boundaries[0] is 0: all but zero itself becomes minpos. Read-only. Exact.
        Raises:
            ValueError: n > 16.
        """
        if self.n > 16:
            raise ValueError(f"{self.name} has 2**{self.n} codes; tables of boundaries are made for n up to 16")
        return _boundaries(self.n, self.es)

    # --- the definition --------------------------------------------------------------------------------------------

    def string_of(self, integer: int, exponent: int) -> tuple[int, int]:
        width = integer.bit_length() - 1  # of the fraction
        regime, exponent_field = divmod(exponent + width, 1 << self.es)
        if regime >= 0:
            prefix, length = (2 << (regime + 1)) - 2, regime + 2
        else:
            prefix, length = 1, 1 - regime
        string = prefix << self.es | exponent_field
        return (string << width) | (integer - (1 << width)), length + self.es + width

    def magnitude_of(self, code: int) -> tuple[int, int]:
        return _magnitude(code, self.n, self.es)


def _magnitude(code: int, n: int, es: int) -> tuple[int, int]:
    """Return the value m * 2**e of a positive code of any posit, as (m, e). Exact."""
    width = n - 1
    if code >> (width - 1):
        run = width - (code ^ ((1 << width) - 1)).bit_length()  # of ones
        regime = run - 1
    else:
        run = width - code.bit_length()  # of zeros
        regime = -run
    rest = max(width - run - 1, 0)  # bits behind the regime: the exponent, then the fraction
    tail = code & ((1 << rest) - 1)
    fraction_bits = max(rest - es, 0)
    exponent_field = tail >> fraction_bits << max(es - rest, 0)
    fraction = tail & ((1 << fraction_bits) - 1)
    return 1 << fraction_bits | fraction, (regime << es) + exponent_field - fraction_bits


@functools.lru_cache(maxsize=32)
def _boundaries(n: int, es: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    codes = range(1, 1 << (n - 1))
    values = [0.0, *(dyadic.to_float(*_magnitude(code, n, es)) for code in codes)]
    # One bit more puts a value in the middle of the strings of each two neighbours.
    middles = [0.0, *(dyadic.to_float(*_magnitude(2 * code + 1, n + 1, es)) for code in codes[:-1])]
    tables = np.array(values), np.array(middles)
    for table in tables:
        table.flags.writeable = False
    return tables
