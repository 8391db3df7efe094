"""The float family: X exponent bits, Y fraction bits, and a dialect that says what the special codes mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from . import dyadic
from .format import Format
from .rounding import Rounding, round_magnitude


@dataclass(frozen=True)
class Dialect:
    """What a family of floats does with its codes.

    Args:
        meaning: in words.
        signed: whether there is a sign bit.
        negative_zero: whether the code of -0 means -0; if not, it is the NaN ("nan"), or there is none (unsigned).
        reserved: what the largest codes of magnitude mean, from the top down ("inf", "nan"); "exponent" reserves the
            whole top exponent, its first code being the infinity.
        field_zero: "subnormal": exponent field 0 holds zero and the subnormals; "normal": its codes are normal values,
            but for code 0, which is zero; "no zero": normal values, all of them.
        bias_above: default bias minus (2**(X-1) - 1).
        overflow: default overflow mode.
        stays_finite: whether "ieee" leaves at the largest value what lies beyond it, though there is a NaN.
    """

    meaning: str
    signed: bool = True
    negative_zero: bool = True
    reserved: tuple[str, ...] = ()
    field_zero: str = "subnormal"
    bias_above: int = 0
    overflow: str = "nan"
    stays_finite: bool = False


DIALECTS: Mapping[str, Dialect] = MappingProxyType({
    "ieee": Dialect("top exponent reserved for infinities and NaNs", reserved=("exponent",), overflow="ieee"),
    "fn": Dialect("no infinities; the code of all ones is NaN, in both signs", reserved=("nan",)),
    "fnuz": Dialect("no infinities; the code of negative zero is NaN", negative_zero=False, bias_above=1),
    "finite": Dialect("no infinities and no NaN: every code is a number", overflow="sat"),
    "se": Dialect(
        "P3109 signed, extended: the code of negative zero is NaN, the top code of each sign infinity",
        negative_zero=False, reserved=("inf",), bias_above=1, overflow="ieee",
    ),
    "sf": Dialect(
        "P3109 signed, finite: the code of negative zero is NaN",
        negative_zero=False, bias_above=1, stays_finite=True,
    ),
    "ue": Dialect(
        "P3109 unsigned, extended: the two top codes are NaN and infinity",
        signed=False, negative_zero=False, reserved=("nan", "inf"), bias_above=1, overflow="ieee",
    ),
    "uf": Dialect(
        "P3109 unsigned, finite: the top code is NaN",
        signed=False, negative_zero=False, reserved=("nan",), bias_above=1, stays_finite=True,
    ),
    "scale": Dialect(
        "powers of two without sign and zero; the top code is NaN",
        signed=False, negative_zero=False, reserved=("nan",), field_zero="no zero",
    ),
    "ufn": Dialect("no sign, no infinities; the top code is NaN", signed=False, negative_zero=False, reserved=("nan",)),
    "dlfloat": Dialect(
        "no subnormals: exponent field 0 is normal, but for zero; the code of all ones is infinity and NaN in one",
        reserved=("nan",), field_zero="normal",
    ),
})  # fmt: skip


@dataclass(frozen=True)
class FloatFormat(Format):
    """A binary floating-point format as numbers only; everything else is derived.

    Args:
        name: canonical name; not part of the identity.
        exponent_bits: width X of the exponent field, 1 to 11.
        fraction_bits: width Y of the stored fraction, 0 to 52; the precision is Y + 1.
        bias: exponent bias; None for the dialect's default.
        dialect: key of DIALECTS.
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
        if self.dialect not in DIALECTS:
            raise ValueError(f"{self.name}: dialect {self.dialect!r} is unknown; expected {', '.join(DIALECTS)}")
        if not (1 <= x <= 11 and 0 <= y <= 52):
            raise ValueError(f"{self.name}: e{x}m{y} is out of range; expected e1..e11 and m0..m52")
        if self.bias is None:
            object.__setattr__(self, "bias", default_bias(x, self.dialect))
        if not self.subnormals and self.rules.field_zero != "subnormal":
            raise ValueError(f"{self.name}: has no subnormals that could be flushed; leave ftz out")
        if self._top_code < 1 << y and not (self.subnormals and self._top_code > 0):
            raise ValueError(f"{self.name}: no finite normal value is left beside the special codes")
        if not (self._max_exponent <= 1023 and self.min_exponent - y >= -1074):
            raise ValueError(
                f"{self.name}: with bias {self.bias} the values leave the range of float64, in which arrays are kept: "
                f"2^{self.min_exponent - y} to 2^{self._max_exponent}"
            )

    # --- derived numbers -------------------------------------------------------------------------------------------

    @property
    def rules(self) -> Dialect:
        """The dialect's record."""
        return DIALECTS[self.dialect]

    @property
    def bits(self) -> int:
        return self.rules.signed + self.exponent_bits + self.fraction_bits

    @property
    def precision(self) -> int:
        """Significand bits p, the hidden one included."""
        return self.fraction_bits + 1

    @property
    def _lowest_field(self) -> int:
        """Smallest exponent field of a normal value."""
        return 1 if self.rules.field_zero == "subnormal" else 0

    @property
    def min_exponent(self) -> int:
        """Exponent emin of the smallest normal value."""
        return self._lowest_field - self.bias

    @property
    def _top_code(self) -> int:
        """Code of the largest finite value."""
        all_ones = (1 << (self.exponent_bits + self.fraction_bits)) - 1
        reserved = self.rules.reserved
        return all_ones - (1 << self.fraction_bits if reserved == ("exponent",) else len(reserved))

    @property
    def _max_exponent(self) -> int:
        return max(self._top_code >> self.fraction_bits, self._lowest_field) - self.bias

    @property
    def max(self) -> float:
        return self.value_of(self._top_code)

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, self.min_exponent) if self.rules.field_zero != "normal" else self.value_of(1)

    @property
    def smallest_subnormal(self) -> float:
        if not self.subnormals or self.rules.field_zero != "subnormal":
            return self.smallest_normal
        return math.ldexp(1.0, self.min_exponent - self.fraction_bits)

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding to nearest, 2**-p."""
        return math.ldexp(1.0, -self.precision)

    @property
    def has_infinity(self) -> bool:
        """Whether infinities have codes."""
        return self.rules.reserved == ("exponent",) or "inf" in self.rules.reserved

    @property
    def has_nan(self) -> bool:
        rules = self.rules
        if rules.reserved == ("exponent",):
            return self.fraction_bits > 0
        return "nan" in rules.reserved or (rules.signed and not rules.negative_zero)

    @property
    def has_negative_zero(self) -> bool:
        """Whether -0 differs from +0."""
        return self.rules.signed and self.rules.negative_zero

    @property
    def has_zero(self) -> bool:
        """Whether zero is a value."""
        return self.rules.field_zero != "no zero"

    @property
    def default_overflow(self) -> str:
        return self.rules.overflow

    # --- the definition --------------------------------------------------------------------------------------------

    def overflowed(self, overflow: str, rounding: Rounding | None = None, negative: bool = False) -> float:
        """Magnitude that replaces a finite result beyond the largest finite value: max, infinity or NaN.

        Under "ieee" roundings that never go beyond a value stay at max: rz, and rd or ru on the side where they point
        inwards. So do all of them in P3109's finite formats, and odd in its unsigned extended ones, whose largest
        value has an odd code (SatNone of the interim report v4.0).
        """
        if overflow in ("sat", "satprop"):
            return self.max
        if overflow == "nan":
            return math.nan
        odd_below_infinity = self.has_infinity and not self.rules.signed
        stay = ("rz", "ru" if negative else "rd", *(["odd"] if odd_below_infinity else []))
        if self.rules.stays_finite or (rounding is not None and rounding.mode in stay):
            return self.max
        return self.infinite(overflow)

    def infinite(self, overflow: str) -> float:
        """Magnitude that replaces an infinity."""
        if overflow == "sat":
            return self.max
        if overflow == "nan":
            return math.nan
        if self.has_infinity:
            return math.inf
        return math.nan if self.has_nan and overflow == "ieee" else self.max

    def round_unbounded(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> tuple[int, int, bool]:
        """Round integer * 2**exponent (not zero) as if there were no largest value.

        Returns:
            (rounded magnitude m, its exponent q, whether m * 2**q exceeds the largest finite value). Correctly rounded.
        """
        magnitude = abs(integer)
        leading = magnitude.bit_length() - 1 + exponent
        quantum = max(leading, self.min_exponent) - self.fraction_bits
        odd = None
        if self.precision == 1 and magnitude >> max(quantum - exponent, 0):
            odd = bool((quantum + self.bias) & 1)  # one significand bit: the code is even or odd, the floor always odd
        rounded = round_magnitude(magnitude, quantum - exponent, rounding, integer < 0, word, odd)
        top, top_quantum = dyadic.from_float(self.max)
        return rounded, quantum, dyadic.add((rounded, quantum), (-top, top_quantum))[0] > 0

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        negative = integer < 0
        if negative and not self.rules.signed:
            return self._below_zero(integer, exponent, rounding, overflow)
        if self.rules.field_zero != "subnormal" and self._below_smallest(integer, exponent):
            value = self._between_zero_and_smallest(abs(integer), exponent, rounding, negative, word)
        else:
            rounded, quantum, beyond = self.round_unbounded(integer, exponent, rounding, word)
            value = self.overflowed(overflow, rounding, negative) if beyond else dyadic.to_float(rounded, quantum)
            if not self.subnormals and value < self.smallest_normal:
                value = 0.0
        if value == 0.0 and not self.has_negative_zero:
            return 0.0
        return -value if negative else value

    def _below_zero(self, integer: int, exponent: int, rounding: Rounding, overflow: str) -> float:
        """A negative value in a format without sign: the smallest value where saturation is asked for, else NaN."""
        inwards = overflow == "ieee" and rounding.mode in ("rz", "ru")
        if overflow in ("sat", "satprop") or inwards or not self.has_nan:
            return 0.0 if self.has_zero else self.smallest_normal
        return math.nan

    def _below_smallest(self, integer: int, exponent: int) -> bool:
        smallest, quantum = dyadic.from_float(self.smallest_normal)
        return dyadic.add((abs(integer), exponent), (-smallest, quantum))[0] < 0

    def _between_zero_and_smallest(
        self, magnitude: int, exponent: int, rounding: Rounding, negative: bool, word: int
    ) -> float:
        """Round where no subnormals fill the gap between zero (if there is one) and the smallest value."""
        if not self.has_zero:
            return self.smallest_normal
        smallest, quantum = dyadic.from_float(self.smallest_normal)
        # The fraction magnitude / smallest to 256 bits, with a jammed bit below: enough to decide any mode.
        shifted = magnitude << (256 + max(0, exponent - quantum))
        fraction, rest = divmod(shifted, smallest << max(0, quantum - exponent))
        up = round_magnitude(2 * fraction | bool(rest), 257, rounding, negative, word, odd=False)
        return self.smallest_normal if up else 0.0

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        if integer < 0 and not self.rules.signed:
            return True
        return self.round_unbounded(integer, exponent, rounding, word)[2]

    def project_special(self, x: float, overflow: str) -> float:
        if math.isnan(x):
            return x
        if x == 0.0:
            if not self.has_zero:
                return self.smallest_normal if overflow in ("sat", "satprop") else math.nan
            return x if self.has_negative_zero else 0.0
        if x < 0 and not self.rules.signed:
            if overflow in ("sat", "satprop"):
                return 0.0 if self.has_zero else self.smallest_normal
            return math.nan
        return math.copysign(self.infinite(overflow), x)

    # --- codes -----------------------------------------------------------------------------------------------------

    def value_of(self, code: int) -> float:
        if not 0 <= code < 1 << self.bits:
            raise ValueError(f"code {code} of {self.name} lies outside 0 .. {(1 << self.bits) - 1}")
        width = self.exponent_bits + self.fraction_bits
        magnitude, negative = code & ((1 << width) - 1), bool(code >> width)
        if negative and magnitude == 0 and not self.rules.negative_zero:
            return math.nan
        if magnitude > self._top_code:
            value = self._special_of(magnitude)
        else:
            exponent_field, fraction = magnitude >> self.fraction_bits, magnitude & ((1 << self.fraction_bits) - 1)
            if exponent_field >= self._lowest_field and (magnitude or not self.has_zero):
                fraction |= 1 << self.fraction_bits
            elif not self.subnormals:
                fraction = 0
            value = math.ldexp(fraction, max(exponent_field, self._lowest_field) - self.bias - self.fraction_bits)
        return -value if negative else value

    def _special_of(self, magnitude: int) -> float:
        if self.rules.reserved == ("exponent",):
            return math.inf if magnitude == self._top_code + 1 else math.nan
        above = (1 << (self.exponent_bits + self.fraction_bits)) - 1 - magnitude
        return math.inf if self.rules.reserved[above] == "inf" else math.nan

    def code_of(self, value: float) -> int:
        width = self.exponent_bits + self.fraction_bits
        sign_bit, all_ones = 1 << width, (1 << width) - 1
        reserved = self.rules.reserved
        if math.isnan(value):
            if not self.has_nan:
                raise ValueError(f"{self.name} has no NaN")
            if reserved == ("exponent",):
                return self._top_code + 1 + (1 << (self.fraction_bits - 1))  # the quiet NaN
            return all_ones - reserved.index("nan") if "nan" in reserved else sign_bit
        negative = math.copysign(1.0, value) < 0
        if negative and not self.rules.signed:
            raise ValueError(f"{self.name} has no sign, and {value!r} is negative")
        sign = sign_bit if negative else 0
        if math.isinf(value):
            if not self.has_infinity:
                raise ValueError(f"{self.name} has no infinity")
            return sign | (self._top_code + 1 if reserved == ("exponent",) else all_ones - reserved.index("inf"))
        if value == 0.0:
            if not self.has_zero or (sign and not self.has_negative_zero):
                raise ValueError(f"{self.name} has no {'negative ' if sign else ''}zero")
            return sign
        if self.project(value, "rne", self.default_overflow) != value:
            raise ValueError(f"{value!r} is not a value of {self.name}")
        integer, exponent = dyadic.from_float(abs(value))
        leading = integer.bit_length() - 1 + exponent
        quantum = max(leading, self.min_exponent) - self.fraction_bits
        significand = integer << (exponent - quantum)
        # The hidden bit, which a subnormal lacks, adds one to the exponent field below.
        exponent_field = max(leading, self.min_exponent) + self.bias
        return sign | (((exponent_field - 1) << self.fraction_bits) + significand)


def default_bias(exponent_bits: int, dialect: str) -> int:
    """Return the bias that a dialect has where none is given."""
    return (1 << (exponent_bits - 1)) - 1 + DIALECTS[dialect].bias_above
