"""Tapered precision: what posits and takums share, numbers whose exponent field has a length of its own.

A positive value is a bit string without end: a prefix that holds the exponent, then the fraction. A format of n bits
keeps the first n - 1 bits behind the sign. So rounding cuts the *string*: where it cuts inside the prefix, the
boundary between two neighbours is not their arithmetic mean, and `sr` weighs them by their distance in the string.
Negative values are the two's complement of positive ones; 100...0 is NaR, "not a real", the only code of NaN.

Source: Standard for Posit Arithmetic (2022), section 4.1; Hunhold, "Beating posits at their own game: takum
arithmetic", arXiv 2404.18603.
"""

from __future__ import annotations

import math
from abc import abstractmethod

from . import dyadic
from .arguments import code_of_format
from .format import Format
from .rounding import Rounding, round_magnitude


class TaperedFormat(Format):
    """Rounding, specials and codes of a format of n bits, once a family says how its strings look.

    Nothing but zero becomes zero, and no finite value becomes NaR unless the overflow mode asks for it: results below
    the smallest positive value become that value, and those beyond the largest the largest ("sat", the default, and
    "satprop"), or NaR ("ieee" and "nan"). NaN and the infinities become NaR in every mode.
    """

    n: int

    @abstractmethod
    def string_of(self, integer: int, exponent: int) -> tuple[int, int]:
        """Return the bit string of integer * 2**exponent (integer > 0), sign left out, and its length. Exact.

        Values beyond every string give the string after the last one, 2**length; those below every string give 0.
        """

    @abstractmethod
    def magnitude_of(self, code: int) -> tuple[int, int]:
        """Return the value m * 2**e of a code from 1 to 2**(n-1) - 1 as (m, e). Exact."""

    @property
    def bits(self) -> int:
        return self.n

    @property
    def _top_code(self) -> int:
        """Code of the largest value."""
        return (1 << (self.n - 1)) - 1

    @property
    def max(self) -> float:
        return self.value_of(self._top_code)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value: precision tapers off toward it, and there are no subnormals."""
        return self.value_of(1)

    @property
    def smallest_subnormal(self) -> float:
        return self.value_of(1)

    @property
    def default_overflow(self) -> str:
        return "sat"

    # --- the definition --------------------------------------------------------------------------------------------

    def round_string(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> int:
        """Round the string of |integer| * 2**exponent (integer not zero) to n - 1 bits.

        Returns:
            The code of the magnitude, from 1; one past the largest code where the string rounds beyond it.
        """
        string, length = self.string_of(abs(integer), exponent)
        code = round_magnitude(string, length - (self.n - 1), rounding, integer < 0, word)
        return max(code, 1)

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        code = self.round_string(integer, exponent, rounding, word)
        if code > self._top_code:
            if overflow in ("ieee", "nan"):
                return math.nan
            code = self._top_code
        value = self._magnitude_as_float(code)
        return -value if integer < 0 else value

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        return self.round_string(integer, exponent, rounding, word) > self._top_code

    def project_special(self, x: float, overflow: str) -> float:
        return 0.0 if x == 0.0 else math.nan

    # --- codes -----------------------------------------------------------------------------------------------------

    def value_of(self, code: int) -> float:
        code = code_of_format(self.name, code, 1 << self.n)
        if code == 0:
            return 0.0
        if code == self._top_code + 1:
            return math.nan
        if code > self._top_code:
            return -self._magnitude_as_float((1 << self.n) - code)
        return self._magnitude_as_float(code)

    def _magnitude_as_float(self, code: int) -> float:
        integer, exponent = self.magnitude_of(code)
        return math.ldexp(integer, exponent)  # exact: 30 significant bits at most, and the families bound the exponent

    def code_of(self, value: float) -> int:
        if math.isnan(value):
            return self._top_code + 1
        if value == 0.0:
            if math.copysign(1.0, value) < 0:
                raise ValueError(f"{self.name} has no negative zero")
            return 0
        if math.isinf(value):
            raise ValueError(f"{self.name} has no infinity")
        integer, exponent = dyadic.from_float(value)
        code = self.round_string(integer, exponent, Rounding("rz"))
        if dyadic.normalised(*self.magnitude_of(code)) != (abs(integer), exponent):
            raise ValueError(f"{value!r} is not a value of {self.name}")
        return code if value > 0 else (1 << self.n) - code
