"""The float family: sign, X exponent bits, Y fraction bits, and one of four conventions for the special codes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from . import dyadic
from .format import Format
from .rounding import round_magnitude

DIALECTS = {
    "ieee": "top exponent is reserved: infinities and NaNs",
    "fn": "finite: no infinities, NaN is the code of all ones in both signs",
    "fnuz": "finite, unsigned zero: no infinities, the code of negative zero is the only NaN",
    "finite": "no infinities and no NaN: every code is a number",
}


@dataclass(frozen=True)
class FloatFormat(Format):
    """A binary floating-point format as numbers only; everything else is derived.

    Args:
        name: canonical name; not part of the identity.
        exponent_bits: width X of the exponent field, 1 to 11.
        fraction_bits: width Y of the stored fraction, 0 to 52; the precision is Y + 1.
        bias: exponent bias; None for 2**(X-1) - 1, one more under "fnuz".
        dialect: one of DIALECTS.
        subnormals: False flushes results below the smallest normal to zero, after rounding.
    """

    name: str = field(compare=False)
    exponent_bits: int
    fraction_bits: int
    bias: int = None  # type: ignore[assignment]  # always an int once built
    dialect: str = "ieee"
    subnormals: bool = True

    def __post_init__(self) -> None:
        x, y = self.exponent_bits, self.fraction_bits
        if not (1 <= x <= 11 and 0 <= y <= 52):
            raise ValueError(f"{self.name}: e{x}m{y} is out of range; expected e1..e11 and m0..m52")
        if self.dialect not in DIALECTS:
            raise ValueError(f"{self.name}: dialect {self.dialect!r} is unknown; expected {', '.join(DIALECTS)}")
        if self.bias is None:
            object.__setattr__(self, "bias", (1 << (x - 1)) - 1 + (self.dialect == "fnuz"))
        if self._top_code < 1 << y and not (self.subnormals and self._top_code > 0):
            raise ValueError(f"{self.name}: no finite normal value is left beside the special codes")
        if not (self._max_exponent <= 1023 and self.min_exponent - y >= -1074):
            raise ValueError(f"{self.name}: with bias {self.bias} the values leave the range of float64")

    # --- derived numbers -------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def precision(self) -> int:
        """Significand bits p, the hidden one included."""
        return self.fraction_bits + 1

    @property
    def min_exponent(self) -> int:
        """Exponent emin of the smallest normal value."""
        return 1 - self.bias

    @property
    def _top_code(self) -> int:
        """Code of the largest finite value."""
        all_ones = (1 << (self.exponent_bits + self.fraction_bits)) - 1
        if self.dialect == "ieee":
            return all_ones - (1 << self.fraction_bits)
        return all_ones - (self.dialect == "fn")

    @property
    def _max_exponent(self) -> int:
        return max(self._top_code >> self.fraction_bits, 1) - self.bias

    @property
    def max(self) -> float:
        return self.value_of(self._top_code)

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, self.min_exponent)

    @property
    def smallest_subnormal(self) -> float:
        return math.ldexp(1.0, self.min_exponent - self.fraction_bits) if self.subnormals else self.smallest_normal

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding to nearest, 2**-p."""
        return math.ldexp(1.0, -self.precision)

    @property
    def has_infinity(self) -> bool:
        """Whether infinities have codes."""
        return self.dialect == "ieee"

    @property
    def has_nan(self) -> bool:
        return self.dialect != "finite" and not (self.dialect == "ieee" and self.fraction_bits == 0)

    @property
    def has_negative_zero(self) -> bool:
        """Whether -0 differs from +0."""
        return self.dialect != "fnuz"

    @property
    def default_overflow(self) -> str:
        return {"ieee": "ieee", "fn": "nan", "fnuz": "nan", "finite": "sat"}[self.dialect]

    # --- the definition --------------------------------------------------------------------------------------------

    def overflowed(self, overflow: str) -> float:
        """Magnitude that replaces every result beyond the largest finite value: max, infinity or NaN."""
        if overflow == "sat":
            return self.max
        if overflow == "nan":
            return math.nan
        if self.has_infinity:
            return math.inf
        return math.nan if self.has_nan else self.max

    def round_unbounded(self, integer: int, exponent: int, rounding: str) -> tuple[int, int, bool]:
        """Round integer * 2**exponent (not zero) as if there were no largest value.

        Returns:
            (rounded magnitude m, its exponent q, whether m * 2**q exceeds the largest finite value). Correctly rounded.
        """
        magnitude = abs(integer)
        leading = magnitude.bit_length() - 1 + exponent
        quantum = max(leading, self.min_exponent) - self.fraction_bits
        # Every normal significand of one bit is 1: evenness is that of the code, which is the exponent field.
        one_is_odd = self.precision > 1 or (quantum + self.bias) % 2 == 1
        rounded = round_magnitude(magnitude, quantum - exponent, rounding, one_is_odd)
        top, top_quantum = dyadic.from_float(self.max)
        return rounded, quantum, dyadic.add((rounded, quantum), (-top, top_quantum))[0] > 0

    def project_finite(self, integer: int, exponent: int, rounding: str, overflow: str) -> float:
        rounded, quantum, beyond = self.round_unbounded(integer, exponent, rounding)
        value = self.overflowed(overflow) if beyond else dyadic.to_float(rounded, quantum)
        if not self.subnormals and value < self.smallest_normal:
            value = 0.0
        if value == 0.0 and not self.has_negative_zero:
            return 0.0
        return -value if integer < 0 else value

    def overflows(self, integer: int, exponent: int, rounding: str) -> bool:
        return self.round_unbounded(integer, exponent, rounding)[2]

    def project_special(self, x: float, overflow: str) -> float:
        if math.isinf(x):
            return math.copysign(self.overflowed(overflow), x)
        if x == 0.0 and not self.has_negative_zero:
            return 0.0
        return x

    # --- codes -----------------------------------------------------------------------------------------------------

    def value_of(self, code: int) -> float:
        if not 0 <= code < 1 << self.bits:
            raise ValueError(f"code {code} of {self.name} lies outside 0 .. {(1 << self.bits) - 1}")
        sign_bit = 1 << (self.bits - 1)
        magnitude, negative = code & (sign_bit - 1), bool(code & sign_bit)
        if self.dialect == "fnuz" and code == sign_bit:
            return math.nan
        if magnitude > self._top_code:
            infinite = self.dialect == "ieee" and magnitude == self._top_code + 1
            value = math.inf if infinite else math.nan
        else:
            exponent_field, fraction = magnitude >> self.fraction_bits, magnitude & ((1 << self.fraction_bits) - 1)
            if exponent_field:
                fraction |= 1 << self.fraction_bits
            elif not self.subnormals:
                fraction = 0
            value = math.ldexp(fraction, max(exponent_field, 1) - self.bias - self.fraction_bits)
        return -value if negative else value

    def code_of(self, value: float) -> int:
        sign_bit = 1 << (self.bits - 1)
        if math.isnan(value):
            if not self.has_nan:
                raise ValueError(f"{self.name} has no NaN")
            if self.dialect == "fnuz":
                return sign_bit
            # IEEE: the quiet NaN; fn: the code of all ones.
            return self._top_code + 1 + ((1 << self.fraction_bits) >> 1 if self.dialect == "ieee" else 0)
        sign = sign_bit if math.copysign(1.0, value) < 0 else 0
        if math.isinf(value):
            if not self.has_infinity:
                raise ValueError(f"{self.name} has no infinity")
            return sign | (self._top_code + 1)
        if value == 0.0:
            if sign and not self.has_negative_zero:
                raise ValueError(f"{self.name} has no negative zero")
            return sign
        if self.project(value, "rne", "ieee") != value:
            raise ValueError(f"{value!r} is not a value of {self.name}")
        integer, exponent = dyadic.from_float(abs(value))
        leading = integer.bit_length() - 1 + exponent
        quantum = max(leading, self.min_exponent) - self.fraction_bits
        significand = integer << (exponent - quantum)
        exponent_field = max(leading, self.min_exponent) + self.bias
        # A subnormal lacks the hidden bit, so its exponent field comes out one too large and is taken back.
        return sign | (((exponent_field - 1) << self.fraction_bits) + significand)
