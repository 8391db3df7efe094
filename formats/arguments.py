"""Arguments of public calls, taken as what they mean or refused with what was found and what was expected."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .format import Format


def whole(what: str, number: object, expected: str = "a whole number") -> int:
    """Return an integer of any type as a Python int; TypeError for all else, a truth value included."""
    try:
        if isinstance(number, bool):
            raise TypeError
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what}: got {number!r} ({type(number).__name__}); expected {expected}") from None


def whole_of_bits(what: str, number: object, bits: int) -> int:
    """Return an unsigned integer of so many bits; TypeError or ValueError says why it is none."""
    expected = f"a whole number from 0 to 2**{bits} - 1"
    value = whole(what, number, expected)
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{what}: got {value}; expected {expected}")
    return value


def code_of_format(name: str, code: object, count: int) -> int:
    """Return a code of a format that has `count` of them; TypeError or ValueError says why it is none."""
    value = whole(f"code of {name}", code, f"a whole number from 0 to {count - 1}")
    if not 0 <= value < count:
        raise ValueError(f"code {value} of {name} lies outside 0 .. {count - 1}")
    return value


def held_by_float64(fmt: Format, where: str = "") -> None:
    """Refuse a format with values that float64 does not hold, where arrays of its values are needed."""
    if not fmt.fits_float64:
        raise ValueError(
            f"{where}{': ' if where else ''}{fmt.name} has values that float64, in which arrays are kept, does not "
            "hold; take a format of a narrower range, such as fp32"
        )
