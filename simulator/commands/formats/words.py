"""How formats are put into words, in the terminal and in the documentation alike."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from formats.exact import Number
from formats.facts import Facts
from formats.table import Row, Specials
from simulator.report.figures import MISSING, compact, count, decimal, exact

BINARY_BITS = 32  # up to this width codes are written in binary
LEGEND = (
    "bits: of a value, in block formats with its share of the scale. p: significand bits, the hidden one included. "
    "smallest: positive value. overflow: of results beyond the largest, where a use names nothing else."
)


def bits(facts: Facts) -> str:
    """Width of a value, in block formats with its share of the scale."""
    return f"{facts.details.get('bits_per_element', facts.bits):g}"


def precision(facts: Facts) -> str:
    """Significand bits: `11`, `up to 12` as `<=12` where they taper, a dash where there are none."""
    if facts.precision is None:
        return MISSING
    return f"<={facts.precision}" if facts.tapers else str(facts.precision)


def special_names(facts: Facts) -> str:
    """Name what a format has besides ordinary numbers, and what it lacks: `Inf NaN -0`, `NaN, no sign, no 0`."""
    specials = facts.specials
    if specials is None:
        return "block NaN"
    found = [
        name
        for name, held in (
            ("Inf" if specials.signed else "+Inf", bool(specials.infinities)),
            (_nan(facts), bool(specials.nans)),
            ("-0", specials.negative_zero is not None),
        )
        if held
    ]
    lacking = [word for word, lacks in (("no sign", not specials.signed), ("no 0", not specials.has_zero)) if lacks]
    return ", ".join([" ".join(found), *lacking] if found else lacking) or MISSING


def special_codes(facts: Facts, specials: Specials) -> list[tuple[str, str]]:
    """Return (name, codes in hexadecimal) of infinities, NaNs and zeros; "none" where there are none."""
    zero = "none" if specials.negative_zero is None else hexadecimal(specials.negative_zero, facts.bits)
    return [
        ("infinity", _ranges(specials.infinities, facts.bits)),
        (_nan(facts), _ranges(specials.nans, facts.bits)),
        ("negative zero", zero),
    ]


def hexadecimal(code: int, width: int) -> str:
    """Write a code of `width` bits in hexadecimal, all its digits."""
    return f"{code:0{-(-width // 4)}X}"


def fields(row: Row) -> str:
    """Write the fields of a code in binary, `0|1111|110`, or in hexadecimal where they have too many bits."""
    texts = [text for _, text in row.fields]
    if sum(map(len, texts)) > BINARY_BITS:
        texts = [hexadecimal(int(text, 2), len(text)) for text in texts]
    return "|".join(texts)


def how_many(number: int) -> str:
    """Write a count, in full as long as that can be read."""
    return count(number) if number < 10**12 else compact(float(number))


def field_names(rows: Sequence[Row]) -> str:
    """Name the fields that codes of a table may have: `sign|exponent|fraction`."""
    longest = max(rows, key=lambda row: len(row.fields))
    return "|".join(name for name, _ in longest.fields)


def significand_bits(facts: Facts) -> str:
    """Write the precision out."""
    plural = "" if facts.precision == 1 else "s"
    return f"{facts.precision} significand bit{plural}{around(facts)}, the hidden one included"


def around(facts: Facts) -> str:
    """Say where the precision holds, if not everywhere."""
    return " around 1" if facts.tapers else ""


def with_decimal(number: Number) -> str:
    """Write a number exactly, and rounded to six digits where that is not plain."""
    text = exact(number)
    return f"{text} ≈ {decimal(number, '.6g')}" if "^" in text else text


def value(row: Row) -> str:
    """Write the value of a code exactly."""
    return row.meaning if row.value != row.value else exact(row.value)


def in_full(number: Number) -> str:
    """Write a number exactly if that is short or it is no float64, else with the digits that tell it from others."""
    if isinstance(number, Fraction):
        return exact(number)
    short = compact(number)
    return repr(number).replace("e+", "e") if "e" in short else short


def or_none(number: Number | None) -> str:
    """Write a number of a table in short, or that there is none."""
    return "none" if number is None else compact(number)


def detail(what: Any) -> str:
    """Write what a family says of a format."""
    if isinstance(what, bool):
        return "yes" if what else "no"
    return with_decimal(what) if isinstance(what, float | Fraction) else str(what)


def in_short(what: Any) -> str:
    """Write a number of a record in a comparison."""
    return or_none(what) if what is None or isinstance(what, float | Fraction) else detail(what)


def _nan(facts: Facts) -> str:
    return "NaR" if facts.tapers else "NaN"


def _ranges(ranges: Sequence[tuple[int, int]], width: int) -> str:
    texts = [
        hexadecimal(low, width) if low == high else f"{hexadecimal(low, width)}-{hexadecimal(high, width)}"
        for low, high in ranges
    ]
    count = sum(high - low + 1 for low, high in ranges)
    return f"{' '.join(texts)} ({count} codes)" if count > len(texts) else " ".join(texts) or "none"
