"""Quantities: a number, a space and a unit, read exactly and checked against the dimension that a key expects."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_SI = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "m": -3, "µ": -6, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18}
_BYTES = {"B": 8, "kB": 8 * 10**3, "MB": 8 * 10**6, "GB": 8 * 10**9, "TB": 8 * 10**12}
_BYTES |= {"KiB": 8 * 2**10, "MiB": 8 * 2**20, "GiB": 8 * 2**30, "TiB": 8 * 2**40}
_BITS = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "Tbit": 10**12, "Kibit": 2**10, "Mibit": 2**20}


def _scaled(unit: str, prefixes: str, suffix: str = "") -> dict[str, Fraction]:
    return {f"{p}{unit}{suffix}": Fraction(10) ** _SI[p] for p in ["", *prefixes]}


# Dimension -> unit -> factor to the base unit of the dimension. Case matters: MB and Mbit are not mb.
UNITS: dict[str, dict[str, Fraction]] = {
    "length": _scaled("m", "mµun"),
    "frequency": _scaled("Hz", "kMGT"),
    "time": _scaled("s", "mµunp"),
    "cycles": {"cycle": Fraction(1), "cycles": Fraction(1)},
    "energy": _scaled("J", "mµunpfa"),
    "energy per bit": _scaled("J", "mµunpfa", "/bit"),
    "energy per square bit": _scaled("J", "pfa", "/bit²"),
    "power": _scaled("W", "mµun"),
    "area per bit": {"µm²/bit": Fraction(1)},
    "area per square bit": {"µm²/bit²": Fraction(1)},
    "size": {unit: Fraction(factor) for unit, factor in {**_BITS, **_BYTES}.items()},
    "bandwidth": {f"{unit}/s": Fraction(factor) for unit, factor in {**_BITS, **_BYTES}.items()},
    "bandwidth per cycle": {f"{unit}/cycle": Fraction(factor) for unit, factor in {**_BITS, **_BYTES}.items()},
    "MAC rate": {"MAC/cycle": Fraction(1)},
}

_NUMBER = re.compile(r"(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,2})?)(?![\d.])(?P<rest>.*)", re.DOTALL)
_LONGEST = 40


@dataclass(frozen=True)
class Quantity:
    """A number in the base unit of its dimension: m, Hz, s, cycle, J, J/bit, W, µm²/bit, bit, bit/s, bit/cycle,
    MAC/cycle."""

    value: Fraction
    dimension: str

    def __str__(self) -> str:
        """Return the quantity as a file writes it, exactly: of 1 to 999 units if it can be, in the fewest digits.

        Raises:
            ValueError: no decimal number holds it.
        """
        units = UNITS[self.dimension]
        written = {unit: text for unit, factor in units.items() if (text := _decimal(self.value / factor))}
        if not written:
            raise ValueError(f"{self.value} is no decimal number of {', '.join(units)}")

        def preference(unit: str) -> tuple[bool, int, bool, Fraction]:
            number = abs(self.value / units[unit])
            return not 1 <= number < 1000, len(written[unit]), units[unit] != 1, -units[unit]

        unit = min(written, key=preference)
        return f"{written[unit]} {unit}"


def _decimal(value: Fraction) -> str | None:
    """Return a number in decimal digits, None where they do not end, or are too many to be read again."""
    rest, places = value.denominator, 0
    while rest % 2 == 0 or rest % 5 == 0:
        rest, places = rest // (10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5), places + 1
    if rest != 1:
        return None
    text = f"{Decimal(int(value * 10**places)).scaleb(-places):f}"
    return text if len(text) <= _LONGEST else None


def parse_quantity(form: object, dimensions: tuple[str, ...], example: str) -> Quantity:
    """Read a quantity exactly.

    Args:
        form: what stands in the file, e.g. "25.6 GB/s".
        dimensions: the dimensions that the key takes, keys of UNITS.
        example: a good value, for the message.
    Raises:
        ValueError: what was found, what was expected and what to do.
    """
    expected = f"expected {' or '.join(_article(d) for d in dimensions)}"
    if isinstance(form, int | float) and not isinstance(form, bool):
        raise ValueError(f'got {form} without a unit; {expected}; write e.g. "{example}"')
    if not isinstance(form, str):
        raise ValueError(f'got {describe(form)}; {expected}; write e.g. "{example}"')
    text = form.strip()
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f'got {describe(form)}; {expected} as a number, a space and a unit; write e.g. "{example}"')
    rest = match["rest"]
    unit = rest.strip()
    if not unit:
        raise ValueError(f'got {text} without a unit; {expected}; write e.g. "{example}"')
    for dimension in dimensions:
        if unit in UNITS[dimension]:
            if rest == unit:
                raise ValueError(f'got {text!r}; expected a space before the unit; write "{match["number"]} {unit}"')
            return Quantity(Fraction(match["number"]) * UNITS[dimension][unit], dimension)
    raise ValueError(f"got {text!r}, {_what_unit(unit)}; {expected}; {_remedy(unit, dimensions, example)}")


def describe(value: object) -> str:
    """Return a short name of what was found, for messages."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case str():
            return repr(value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "...")
        case int() if abs(value) >= 10**_LONGEST:  # whose digits Python may refuse to write out
            return f"an integer of {value.bit_length():,} bits"
    text = str(value)
    return text if len(text) <= _LONGEST else f"a {type(value).__name__}"


def _article(dimension: str) -> str:
    if dimension == "cycles":
        return dimension
    return f"an {dimension}" if dimension[0] in "aeiou" else f"a {dimension}"


def _what_unit(unit: str) -> str:
    for dimension, units in UNITS.items():
        if unit in units:
            return f"which is {_article(dimension)}"
    return f"and {unit!r} is no unit"


def _remedy(unit: str, dimensions: tuple[str, ...], example: str) -> str:
    known = [u for dimension in dimensions for u in UNITS[dimension]]
    if not any(unit in units for units in UNITS.values()):
        same = [u for u in known if u.lower() == unit.lower()]
        near = same or difflib.get_close_matches(unit, known, n=1, cutoff=0.5)
        if near:
            return f'did you mean "{near[0]}"?'
    return f'write e.g. "{example}"'


def optional_float(quantity: Quantity | None) -> float | None:
    """Return a quantity in its base unit; None for none."""
    return None if quantity is None else float(quantity.value)
