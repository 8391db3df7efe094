"""The float family: X exponent bits, Y fraction bits, and a dialect that says what the special codes mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from . import dyadic
from .arguments import code_of_format, whole
from .dialects import DIALECTS, Dialect, default_bias
from .format import Format
from .rounding import Rounding, parse_rounding, round_magnitude

LARGEST_BIAS = 99_999  # exact values stay integers of a size that can be computed with


@dataclass(frozen=True)
class FloatFormat(Format):
    """A binary floating-point format as numbers only; everything else is derived.

    The definition works on codes, and a value is an integer times a power of two: the range may exceed that of float64.
    Arrays are kept in float64, and what gives values (`quantize`, `decode`, `table`, `max`) refuses one that is none.

    Args:
        name: canonical name; not part of the identity.
        exponent_bits: width X of the exponent field, 1 to 11; to 16 in the dialects of P3109.
        fraction_bits: width Y of the stored fraction, 0 to 52; the precision is Y + 1.
        bias: exponent bias, of at most five digits; None for the dialect's default.
        dialect: key of DIALECTS.
        subnormals: False flushes to zero what is below the smallest normal once rounded as if exponents went on.
    """

    name: str = field(compare=False)
    exponent_bits: int
    fraction_bits: int
    bias: int = None  # type: ignore[assignment]  # always an int once built
    dialect: str = "ieee"
    subnormals: bool = True

    def __post_init__(self) -> None:
        for what in ("exponent_bits", "fraction_bits", "bias"):
            if what != "bias" or self.bias is not None:
                object.__setattr__(self, what, whole(f"{self.name}: {what}", getattr(self, what)))
        x, y = self.exponent_bits, self.fraction_bits
        if self.dialect not in DIALECTS:
            raise ValueError(f"{self.name}: dialect {self.dialect!r} is unknown; expected {', '.join(DIALECTS)}")
        most = 16 if self.rules.p3109 else 11
        if not (1 <= x <= most and 0 <= y <= 52):
            raise ValueError(
                f"{self.name}: {x} exponent and {y} fraction bits are out of range; expected 1 to {most} and 0 to 52"
            )
        if self.bias is None:
            object.__setattr__(self, "bias", default_bias(x, self.dialect))
        if abs(self.bias) > LARGEST_BIAS:
            raise ValueError(
                f"{self.name}: a bias of {self.bias} is out of range; expected -{LARGEST_BIAS} to {LARGEST_BIAS}"
            )
        if not self.subnormals and self.rules.field_zero != "subnormal":
            raise ValueError(f"{self.name}: has no subnormals that could be flushed; leave ftz out")
        if self._top_code < 1 << y and not (self.subnormals and self._top_code > 0):
            raise ValueError(f"{self.name}: no finite normal value is left beside the special codes")

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
        reserved = self.rules.reserved
        return self._all_ones - (1 << self.fraction_bits if reserved == ("exponent",) else len(reserved))

    @property
    def _first_normal(self) -> int:
        """Code of the smallest normal value."""
        return {"subnormal": 1 << self.fraction_bits, "normal": 1, "no zero": 0}[self.rules.field_zero]

    @property
    def _smallest(self) -> int:
        """Code of the smallest positive value."""
        return 1 if self.subnormals and self.rules.field_zero == "subnormal" else self._first_normal

    @cached_property
    def fits_float64(self) -> bool:
        top_exponent = max(self._top_code >> self.fraction_bits, self._lowest_field) - self.bias
        return top_exponent <= 1023 and self.min_exponent - self.fraction_bits >= -1074

    @property
    def max(self) -> float:
        return self._as_float(self._top_code, "the largest value")

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value with full precision; beyond `max` where all are subnormal, as in e1m2."""
        return self._as_float(self._first_normal, "the smallest normal value")

    @property
    def smallest_subnormal(self) -> float:
        return self._as_float(self._smallest, "the smallest value")

    @property
    def exact_ends(self) -> tuple[tuple[int, int], ...]:
        """The smallest positive, the smallest normal and the largest value, as pairs like those of exact_value_of."""
        codes = (self._smallest, self._first_normal, self._top_code)
        return tuple(dyadic.normalised(*self._pair(code)) for code in codes)

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

    # --- the definition, on codes ----------------------------------------------------------------------------------

    def project_code(self, x: float, rounding: Rounding, overflow: str, word: int = 0) -> int:
        if x == 0.0 or not math.isfinite(x):
            return self.code_of_special(x, overflow)
        return self.code_of_finite(*dyadic.from_float(x), rounding, overflow, word)

    def code_of_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> int:
        """Round integer * 2**exponent (integer not zero), then apply the overflow mode; return the code.

        Correctly rounded. `word` holds the 64 random bits of a stochastic rounding.
        """
        negative = integer < 0
        code = self.rounded_code(integer, exponent, rounding, word)
        if negative and not self.rules.signed and (code or not self.has_zero):
            return self._code_below_zero(overflow, rounding)
        if code > self._top_code:
            return self._code_beyond(overflow, rounding, negative)
        return code if code == 0 and not self.has_negative_zero else self._sign(negative) | code

    def code_of_special(self, x: float, overflow: str) -> int:
        """Return the code of what a zero, an infinity or a NaN becomes."""
        if math.isnan(x):
            return self._nan_code
        if math.isinf(x):
            return self._code_of_infinite(overflow, x < 0)
        if not self.has_zero:
            return self._first_normal if overflow in ("sat", "satprop") else self._nan_code
        return self._sign(math.copysign(1.0, x) < 0) if self.has_negative_zero else 0

    def rounded_code(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> int:
        """Round integer * 2**exponent (not zero) as if there were no largest value, then flush subnormals if need be.

        What is flushed has first been rounded with all fraction bits, as if exponents went on below the smallest normal
        (tiny after rounding, in the words of IEEE 754, section 7.5).

        Returns:
            The code of the rounded magnitude; past that of the largest finite value, codes go on as if none had a
            special meaning. Correctly rounded.
        """
        magnitude = abs(integer)
        if self.rules.field_zero != "subnormal" and self._below_smallest(magnitude, exponent):
            return self._between_zero_and_smallest(magnitude, exponent, rounding, integer < 0, word)
        # What is to be flushed keeps its bits for one binade more; below that it cannot reach the smallest normal.
        least = self.min_exponent if self.subnormals else self.min_exponent - 1
        quantum = max(magnitude.bit_length() - 1 + exponent, least) - self.fraction_bits
        shift = quantum - exponent
        # A significand, hidden bit included, adds this to its code; a subnormal has no hidden bit and a field of 0.
        binade = (quantum + self.fraction_bits + self.bias - 1) << self.fraction_bits
        # What is even is decided by the code: with one significand bit the floor itself is always odd.
        odd = bool((binade + (magnitude >> max(shift, 0))) & 1)
        code = binade + round_magnitude(magnitude, shift, rounding, integer < 0, word, odd)
        return code if self.subnormals or code >= self._first_normal else 0

    def _below_smallest(self, magnitude: int, exponent: int) -> bool:
        smallest, quantum = self._pair(self._first_normal)
        return dyadic.add((magnitude, exponent), (-smallest, quantum))[0] < 0

    def _between_zero_and_smallest(
        self, magnitude: int, exponent: int, rounding: Rounding, negative: bool, word: int
    ) -> int:
        """Round where no subnormals fill the gap between zero (if there is one) and the smallest value."""
        if not self.has_zero:
            return self._first_normal
        smallest, quantum = self._pair(self._first_normal)
        # The fraction magnitude / smallest to 256 bits, with a jammed bit below: enough to decide any mode.
        shifted = magnitude << (256 + max(0, exponent - quantum))
        fraction, rest = divmod(shifted, smallest << max(0, quantum - exponent))
        return round_magnitude(2 * fraction | bool(rest), 257, rounding, negative, word, odd=False)

    def _code_beyond(self, overflow: str, rounding: Rounding | None, negative: bool) -> int:
        """Code that replaces a finite result beyond the largest finite value: that of max, infinity or NaN."""
        inwards = {"rz", "ru" if negative else "rd"}
        if self.rules.p3109 and not self.rules.signed:
            inwards.add("odd")  # the code of max is odd there
        if overflow == "ieee" and rounding is not None and rounding.mode in inwards:
            overflow = "sat"
        if overflow in ("sat", "satprop"):
            return self._sign(negative) | self._top_code
        return self._code_of_infinite(overflow, negative)

    def _code_of_infinite(self, overflow: str, negative: bool) -> int:
        """Code of what an infinity becomes."""
        if negative and not self.rules.signed:
            return self._code_below_zero(overflow)
        if overflow == "nan":
            return self._nan_code
        if overflow != "sat" and self.has_infinity:
            return self._sign(negative) | self._infinity_code
        if overflow == "ieee" and self.has_nan and not self.rules.p3109:
            return self._nan_code
        return self._sign(negative) | self._top_code

    def _code_below_zero(self, overflow: str, rounding: Rounding | None = None) -> int:
        """Code of what a negative value becomes where there is no sign: the smallest code or NaN."""
        inwards = overflow == "ieee" and rounding is not None and rounding.mode in ("rz", "ru")
        return 0 if inwards or overflow in ("sat", "satprop") else self._nan_code

    # --- the definition, on values: those of the codes above -------------------------------------------------------

    def project(self, x: float, rounding: str | Rounding, overflow: str, word: int = 0) -> float:
        mode = parse_rounding(rounding) if isinstance(rounding, str) else rounding
        return self.value_of(self.project_code(x, mode, overflow, word))

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        return self.value_of(self.code_of_finite(integer, exponent, rounding, overflow, word))

    def project_special(self, x: float, overflow: str) -> float:
        return self.value_of(self.code_of_special(x, overflow))

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        code = self.rounded_code(integer, exponent, rounding, word)
        if integer < 0 and not self.rules.signed:
            return code > 0 or not self.has_zero
        return code > self._top_code

    def overflowed(self, overflow: str, rounding: Rounding | None = None, negative: bool = False) -> float:
        """Magnitude that replaces a finite result beyond the largest finite value: max, infinity or NaN.

        Under "ieee" roundings that never go beyond a value stay at max: rz, and rd or ru on the side where they point
        inwards; in unsigned P3109 formats odd as well.
        """
        return abs(self.value_of(self._code_beyond(overflow, rounding, negative and self.rules.signed)))

    def infinite(self, overflow: str) -> float:
        """Magnitude that replaces an infinity."""
        return abs(self.value_of(self._code_of_infinite(overflow, False)))

    def below_zero(self, overflow: str, rounding: Rounding) -> float:
        """What a finite value that is negative once rounded becomes in a format without sign."""
        return self.value_of(self._code_below_zero(overflow, rounding))

    # --- codes -----------------------------------------------------------------------------------------------------

    def exact_value_of(self, code: int) -> tuple[int, int]:
        """Return the value of a code as (integer, exponent), integer * 2**exponent, whatever its range. Exact.

        The integer is odd, or both are 0 for either zero.

        Raises:
            ValueError: a code outside the format, of an infinity or of a NaN.
        """
        magnitude, negative = self._split(code)
        if magnitude > self._top_code or code == self._nan_code_at_zero:
            raise ValueError(f"code {code} of {self.name} is {self.value_of(code)}, not a finite number")
        integer, exponent = dyadic.normalised(*self._pair(magnitude))
        return -integer if negative else integer, exponent

    def value_of(self, code: int) -> float:
        magnitude, negative = self._split(code)
        if code == self._nan_code_at_zero:
            return math.nan
        if magnitude > self._top_code:
            value = self._special_of(magnitude)
        else:
            value = self._as_float(magnitude, f"code {code}", negative)
        return -value if negative else value

    def code_of(self, value: float) -> int:
        if math.isnan(value):
            return self._nan_code
        negative = math.copysign(1.0, value) < 0
        if negative and not self.rules.signed:
            raise ValueError(f"{self.name} has no sign, and {value!r} is negative")
        if math.isinf(value):
            if not self.has_infinity:
                raise ValueError(f"{self.name} has no infinity")
            return self._sign(negative) | self._infinity_code
        if value == 0.0:
            if not self.has_zero or (negative and not self.has_negative_zero):
                raise ValueError(f"{self.name} has no {'negative ' if negative else ''}zero")
            return self._sign(negative)
        code = self._code_of_magnitude(*dyadic.from_float(abs(value)))
        if code is None:
            raise ValueError(f"{value!r} is not a value of {self.name}")
        return self._sign(negative) | code

    def code_of_exact(self, integer: int, exponent: int) -> int:
        """Return the code of integer * 2**exponent (not zero), whatever the range; ValueError if that is no value."""
        code = self._code_of_magnitude(abs(integer), exponent)
        if code is None or (integer < 0 and not self.rules.signed):
            raise ValueError(f"{integer} * 2**{exponent} is not a value of {self.name}")
        return self._sign(integer < 0) | code

    def _code_of_magnitude(self, integer: int, exponent: int) -> int | None:
        code = self.rounded_code(integer, exponent, Rounding("rz"))
        if code > self._top_code or dyadic.normalised(*self._pair(code)) != dyadic.normalised(integer, exponent):
            return None
        return code

    @property
    def _all_ones(self) -> int:
        """Largest code of a magnitude."""
        return (1 << (self.exponent_bits + self.fraction_bits)) - 1

    def _sign(self, negative: bool) -> int:
        return self._all_ones + 1 if negative else 0

    def _split(self, code: int) -> tuple[int, bool]:
        """Split a code into that of its magnitude and whether it is negative."""
        code = code_of_format(self.name, code, 1 << self.bits)
        return code & self._all_ones, code > self._all_ones

    @property
    def _nan_code_at_zero(self) -> int | None:
        """Code of a NaN that stands where -0 would, if there is one."""
        return self._sign(True) if self.rules.signed and not self.rules.negative_zero else None

    @property
    def _nan_code(self) -> int:
        """Code that stands for NaN; ValueError where there is none."""
        if not self.has_nan:
            raise ValueError(f"{self.name} has no NaN")
        if self.rules.reserved == ("exponent",):
            return self._infinity_code + (1 << (self.fraction_bits - 1))  # the quiet NaN
        if "nan" in self.rules.reserved:
            return self._all_ones - self.rules.reserved.index("nan")
        return self._sign(True)

    @property
    def _infinity_code(self) -> int:
        """Code of +infinity, where there is one."""
        reserved = self.rules.reserved
        return self._top_code + 1 if reserved == ("exponent",) else self._all_ones - reserved.index("inf")

    def _special_of(self, magnitude: int) -> float:
        return math.inf if self.has_infinity and magnitude == self._infinity_code else math.nan

    def _pair(self, code: int) -> tuple[int, int]:
        """Return the value m * 2**e of the code of a magnitude, read as a finite one, as (m, e). Exact."""
        exponent_field, fraction = code >> self.fraction_bits, code & ((1 << self.fraction_bits) - 1)
        if exponent_field >= self._lowest_field and (code or not self.has_zero):
            fraction |= 1 << self.fraction_bits
        elif not self.subnormals:
            fraction = 0
        return fraction, max(exponent_field, self._lowest_field) - self.bias - self.fraction_bits

    def _as_float(self, code: int, what: str, negative: bool = False) -> float:
        """Return the value of the code of a magnitude as float64; ValueError says what has none."""
        integer, exponent = self._pair(code)
        if self.fits_float64:
            return math.ldexp(integer, exponent)
        try:
            return dyadic.to_float(integer, exponent)
        except (OverflowError, ValueError):
            integer, exponent = dyadic.normalised(integer, exponent)
            factor = "" if integer == 1 else f"{integer} * "
            raise ValueError(
                f"{self.name}: {what} is {'-' if negative else ''}{factor}2^{exponent}, which float64, in which arrays "
                "are kept, does not hold; use codes (encode) and their exact values (exact_value_of)"
            ) from None
