"""The linear takum family: a sign, a direction bit, three bits of regime, a characteristic of up to 7 bits, a fraction.

The regime says how many bits r the characteristic has, and with the direction where its range begins; the value is
(1 + f) * 2**c with c from -255 to 254 at any width. Bits that do not fit count as zero.

Source: Hunhold, "Beating posits at their own game: takum arithmetic", arXiv 2404.18603, definitions 2 and 3 (linear).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .arguments import whole
from .tapered import TaperedFormat

_LOWEST, _HIGHEST = -255, 254  # characteristics
_LONGEST = 11  # direction, regime and characteristic at most


@dataclass(frozen=True)
class TakumFormat(TaperedFormat):
    """A linear takum format, given by its width.

    Args:
        name: canonical name; not part of the identity.
        n: bits, 2 to 32.
    """

    name: str = field(compare=False)
    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole(f"{self.name}: n", self.n))
        if not 2 <= self.n <= 32:
            raise ValueError(f"{self.name}: n = {self.n} is out of range; takums have n from 2 to 32 bits")

    @classmethod
    def from_name(cls, base: str) -> TakumFormat | None:
        """Return the format of `takum16`; None if the name is not of this kind.

        Raises:
            ValueError: it is, but its width is impossible.
        """
        match = re.fullmatch(r"takum([1-9]\d*)", base)
        return cls(base, int(match[1])) if match else None

    @property
    def precision(self) -> int:
        """Significand bits of the values around 1, which have most of them; the hidden one included."""
        return max(self.n - 4, 1)

    def string_of(self, integer: int, exponent: int) -> tuple[int, int]:
        width = integer.bit_length() - 1  # of the fraction
        characteristic = exponent + width
        if characteristic > _HIGHEST:
            return 1 << _LONGEST, _LONGEST
        if characteristic < _LOWEST:
            return 0, _LONGEST
        if characteristic >= 0:
            r = (characteristic + 1).bit_length() - 1
            prefix = (0b1000 | r) << r | (characteristic + 1 - (1 << r))
        else:
            r = (-characteristic).bit_length() - 1
            prefix = (7 - r) << r | (characteristic + (2 << r) - 1)
        return prefix << width | (integer - (1 << width)), 4 + r + width

    def magnitude_of(self, code: int) -> tuple[int, int]:
        fraction_bits = max(self.n - 1 - _LONGEST, 0)
        string = code << (_LONGEST + fraction_bits - (self.n - 1))
        direction, regime = divmod(string >> (fraction_bits + 7), 8)
        r = regime if direction else 7 - regime
        fraction_bits += 7 - r
        field_of_r = (string >> fraction_bits) & ((1 << r) - 1)
        characteristic = field_of_r + ((1 << r) - 1 if direction else 1 - (2 << r))
        fraction = string & ((1 << fraction_bits) - 1)
        return 1 << fraction_bits | fraction, characteristic - fraction_bits
