"""Fixed point and integers: N bits, the last F of them behind the point; two's complement where there is a sign.

Source: the Q notation of DSPs (ARM Q-format, TI IQmath); ISO/IEC 9899 for the modular arithmetic of `wrap`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from . import dyadic
from .arguments import code_of_format, whole
from .format import Format
from .rounding import Rounding, round_magnitude


@dataclass(frozen=True)
class FixedFormat(Format):
    """The multiples of 2**-F that N bits hold.

    There are no infinities and no NaN, so "ieee" and "satprop" do what "sat" does: the nearest end of the range.

    Args:
        name: canonical name; not part of the identity.
        total_bits: width N, sign included, up to 53: then float64 holds every value.
        fraction_bits: F, 0 to 1074; may exceed N.
        signed: whether there is a sign bit.
    """

    name: str = field(compare=False)
    total_bits: int
    fraction_bits: int = 0
    signed: bool = True

    def __post_init__(self) -> None:
        for what in ("total_bits", "fraction_bits"):
            object.__setattr__(self, what, whole(f"{self.name}: {what}", getattr(self, what)))
        least = 2 if self.signed else 1
        if not least <= self.total_bits <= 53:
            raise ValueError(
                f"{self.name}: {self.total_bits} bits are out of range; expected {least} to 53, "
                "of which float64, in which arrays are kept, holds every value"
            )
        if not 0 <= self.fraction_bits <= 1074:
            raise ValueError(
                f"{self.name}: {self.fraction_bits} fraction bits are out of range; expected 0 to 1074, "
                "because float64, in which arrays are kept, ends at 2^-1074"
            )

    @classmethod
    def from_name(cls, base: str) -> FixedFormat | None:
        """Return the format of `fix16.8`, `ufix16.8` (N.F), `int8` or `uint8`, under its canonical name.

        Returns:
            None if the name is not of this kind. Without fraction bits the canonical name is intN or uintN.
        Raises:
            ValueError: it is, but N or F is impossible.
        """
        number = r"(0|[1-9]\d*)"
        match = re.fullmatch(rf"(u?)(?:int{number}|fix{number}\.{number})", base)
        if not match:
            return None
        total, fraction = int(match[2] or match[3]), int(match[4] or 0)
        name = f"{match[1]}fix{total}.{fraction}" if fraction else f"{match[1]}int{total}"
        return cls(name, total, fraction, signed=not match[1])

    # --- derived numbers -------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        return self.total_bits

    @property
    def lowest(self) -> int:
        """Smallest value in units of the quantum."""
        return -(1 << (self.total_bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """Largest value in units of the quantum."""
        return (1 << (self.total_bits - self.signed)) - 1

    @property
    def quantum(self) -> float:
        """Distance of neighbouring values, 2**-F."""
        return math.ldexp(1.0, -self.fraction_bits)

    @property
    def max(self) -> float:
        return self._scaled(self.highest)

    @property
    def min(self) -> float:
        """Smallest value: negative with a sign, else zero."""
        return self._scaled(self.lowest)

    @property
    def smallest_normal(self) -> float:
        """The quantum: all values have the same absolute precision."""
        return self.quantum

    @property
    def smallest_subnormal(self) -> float:
        return self.quantum

    @property
    def has_nan(self) -> bool:
        return False

    @property
    def wraps(self) -> bool:
        return True

    @property
    def default_overflow(self) -> str:
        return "sat"

    # --- the definition --------------------------------------------------------------------------------------------

    def round_unbounded(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> int:
        """Round integer * 2**exponent to a multiple of the quantum, as if there were no ends; in quanta.

        Correctly rounded.
        """
        shift = -(exponent + self.fraction_bits)
        magnitude = round_magnitude(abs(integer), shift, rounding, integer < 0, word)
        return -magnitude if integer < 0 else magnitude

    def project_finite(self, integer: int, exponent: int, rounding: Rounding, overflow: str, word: int = 0) -> float:
        rounded = self.round_unbounded(integer, exponent, rounding, word)
        if overflow == "wrap":
            return self._scaled(self._signed(rounded % (1 << self.total_bits)))
        return self._scaled(min(max(rounded, self.lowest), self.highest))

    def overflows(self, integer: int, exponent: int, rounding: Rounding, word: int = 0) -> bool:
        return not self.lowest <= self.round_unbounded(integer, exponent, rounding, word) <= self.highest

    def project_special(self, x: float, overflow: str) -> float:
        if math.isnan(x):
            raise ValueError(f"{self.name} has no NaN; replace it before quantising")
        if x == 0.0:
            return 0.0
        if overflow == "wrap":
            raise ValueError(f"{self.name}: {x!r} cannot wrap around; replace infinities first, or use 'sat'")
        return self.max if x > 0 else self.min

    # --- codes -----------------------------------------------------------------------------------------------------

    def value_of(self, code: int) -> float:
        return self._scaled(self._signed(code_of_format(self.name, code, 1 << self.total_bits)))

    def code_of(self, value: float) -> int:
        if not math.isfinite(value) or (value == 0.0 and math.copysign(1.0, value) < 0):
            raise ValueError(f"{self.name} has no {'negative zero' if value == 0.0 else value}")
        integer, exponent = dyadic.from_float(value)
        quanta = self.round_unbounded(integer, exponent, Rounding("rz"))
        if not self.lowest <= quanta <= self.highest or self._scaled(quanta) != value:
            raise ValueError(f"{value!r} is not a value of {self.name}")
        return quanta % (1 << self.total_bits)

    def _signed(self, code: int) -> int:
        """Read a code as a number of quanta."""
        return code - (1 << self.total_bits) if code > self.highest else code

    def _scaled(self, quanta: int) -> float:
        return math.ldexp(quanta, -self.fraction_bits)  # exact: at most 53 significant bits, not below 2**-1074
