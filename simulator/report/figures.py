"""Numbers as people read them: SI prefixes, sensible digits, an en dash for what is not known."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from fractions import Fraction

MISSING = "–"
PRICE = re.compile(r"(\d*\.\d+) ([fpnµm]?J(?:/bit²?)?|[µm]m²(?:/bit²?)?)")
# Texts that need no quotes within a list or mapping in YAML: without its signs, and nothing that it reads as no text.
PLAIN = re.compile(r"[\w.][^\[\]{},:#&*!|>'\"%@`?]*(?<! )")
NO_TEXT = re.compile(r"[-+.\d_]*(?:e[-+]?\d+|inf|nan)?|0[xob][\da-f_]+|null|true|false|yes|no|on|off", re.IGNORECASE)
PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}


def significant(value: float | None) -> str:
    """Return a pure number with three significant digits, e.g. `0.155`, `12.3`, `1,230`, `1.23e-5`.

    An en dash for None. Powers of ten are for what is smaller than a thousandth, or a million and more.
    """
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return _not_finite(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    mantissa, exponent = f"{value:.2e}".split("e")
    if 3 <= int(exponent) < 6:
        return f"{float(f'{value:.2e}'):,.0f}"
    return f"{mantissa}e{int(exponent)}"


def exact(value: float | Fraction) -> str:
    """Return a dyadic number without loss: as a short decimal if it is one, else as an integer times a power of two.

    `448`, `0.1875`, `2^-9`, `3×2^-16`, `(2-2^-23)×2^127`; `Inf`, `NaN`, `-0`.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return _not_finite(value).replace("∞", "Inf")
    if value == 0:
        return "-0" if math.copysign(1.0, value) < 0 else "0"
    sign = "-" if value < 0 else ""
    numerator, denominator = value.as_integer_ratio()
    numerator = abs(numerator)
    zeros = (numerator & -numerator).bit_length() - 1
    integer, exponent = numerator >> zeros, zeros + 1 - denominator.bit_length()
    short = -4 <= exponent <= 16 if integer == 1 else numerator < 10**10 and denominator <= 256
    if short:
        fraction = f"{numerator % denominator / denominator:.8f}"[1:].rstrip("0").rstrip(".")
        return f"{sign}{numerator // denominator}{fraction}"
    if integer == 1:
        return f"{sign}2^{exponent}"
    bits = integer.bit_length()
    if bits > 10 and integer == (1 << bits) - 1:
        return f"{sign}(2-2^{1 - bits})×2^{exponent + bits - 1}"
    return f"{sign}{integer}×2^{exponent}"


def decimal(value: float | Fraction, form: str) -> str:
    """Return a finite number as format() writes it: `.6g`, `.4e`. Where float64 does not hold it, of 28 digits."""
    return format(value if isinstance(value, float) else Decimal(value.numerator) / Decimal(value.denominator), form)


def compact(value: float | Fraction) -> str:
    """Return a dyadic number in at most eleven characters and signs: exactly if it is a short decimal, a power of two,
    or a digit times one that is small or beyond float64; else with five digits."""
    text = exact(value)
    integer, _, power = text.lstrip("-").rpartition("×")
    a_digit = len(integer) == 1 and (-1 < value < 1 or isinstance(value, Fraction))
    if len(text) <= 11 and (a_digit or not integer or not power.startswith("2^")):
        return text
    mantissa, exponent = decimal(value, ".4e").split("e")
    return f"{mantissa}e{int(exponent)}"


def prefix_of(value: float) -> int:
    """Return the power of ten (a multiple of three) of the SI prefix that shows `value` as 1 to 999."""
    if value == 0 or not math.isfinite(value):
        return 0
    # The exponent is taken after rounding to three digits, so that 999.6 becomes 1.00 k and not 1000.
    exponent = int(f"{abs(value):.2e}".split("e")[1])
    return min(max(exponent // 3 * 3, min(PREFIXES)), max(PREFIXES))


def quantity(value: float | None, unit: str) -> str:
    """Return a value in its SI base unit with prefix and three digits, e.g. `quantity(1.5e-6, "J")` is `1.50 µJ`."""
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value):
        return f"{significant(value)} {unit}".rstrip()
    power = prefix_of(value)
    return f"{significant(value / 10.0**power)} {PREFIXES[power]}{unit}".rstrip()


def count(value: float | None) -> str:
    """Return a count with thousands separated, e.g. `1,500`."""
    return MISSING if value is None else f"{value:,.0f}" if math.isfinite(value) else _not_finite(value)


def counted(number: int, what: str) -> str:
    """Return how many there are of what, e.g. `1 sample`, `1,500 samples`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def short_count(value: float | None) -> str:
    """Return a count in at most seven characters: as it is below 10,000, with an SI prefix and three digits above."""
    if value is None or not math.isfinite(value) or abs(value) < 10_000:
        return count(value)
    return quantity(value, "")


def percent(share: float | None) -> str:
    """Return a share of 1 in percent; two decimals below ten percent, one above, and never a false zero."""
    if share is None:
        return MISSING
    if not math.isfinite(share):
        return _not_finite(share)
    value = 100 * share
    if value == 0:
        return "0 %"
    if abs(value) < 0.01:
        return "<0.01 %" if value > 0 else ">-0.01 %"
    return f"{value:.1f} %" if abs(value) >= 9.995 else f"{value:.2f} %"


def score(share: float | None) -> str:
    """Return an accuracy or agreement in percent with two decimals, so that one sample in 10,000 shows."""
    if share is None:
        return MISSING
    return f"{100 * share:.2f} %" if math.isfinite(share) else _not_finite(share)


def five_digits(value: float | None) -> str:
    """Return a pure number of one or more with five significant digits, e.g. `1.1026`, `60.512`, `1.2346e8`."""
    return f"{value:#.5g}".rstrip(".") if value is not None and math.isfinite(value) else significant(value)


def near_one(value: float | None) -> str:
    """Return a similarity with as many digits as show how far from 1 it is: `0.99960`, `0.9999751`, `1`."""
    if value is None or not math.isfinite(value):
        return significant(value)
    if value == 1:
        return "1"
    distance = abs(1 - value)
    digits = 2 - math.floor(math.log10(distance)) if distance < 1 else 3
    return f"{value:.{min(digits, 12)}f}"


def decibels(value: float | None) -> str:
    """Return a level in decibels with one decimal."""
    return f"{value:.1f}" if value is not None and math.isfinite(value) else significant(value)


def setting(value: object) -> str:
    """Return a value of a machine's file; an en dash for none, nothing for a mapping of further keys."""
    match value:
        case None:
            return MISSING
        case bool():
            return "true" if value else "false"
        case list():
            return ", ".join(map(str, value))
    return "" if value == {} else str(value)


def parameter(value: object) -> str:
    """Return a value that varies, as tables of points have it: numbers, as of logarithmic ranges, with six digits.

    Lists and mappings are in the flow style of YAML, as a file may have them: `[8, 16]`, `{size: 8 KiB, banks: 4}`.
    """
    return _in_flow(value) if isinstance(value, list | tuple | dict) else _scalar(value)


def _scalar(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else setting(value)


def _in_flow(value: object) -> str:
    match value:
        case dict():
            return f"{{{', '.join(f'{_in_flow(name)}: {_in_flow(below)}' for name, below in value.items())}}}"
        case list() | tuple():
            return f"[{', '.join(map(_in_flow, value))}]"
        case None:
            return "null"
        case str():
            plain = PLAIN.fullmatch(value) and not NO_TEXT.fullmatch(value)
            return value if plain else json.dumps(value, ensure_ascii=False)
    return _scalar(value)


def priced(value: object) -> str:
    """Return a value of a machine's file as `setting` does, an energy or area with at most three significant digits."""
    text = setting(value)
    if (price := PRICE.fullmatch(text)) and len(price[1].replace(".", "").lstrip("0")) > 3:
        return f"{significant(float(price[1]))} {price[2]}"
    return text


def printable(text: str) -> str:
    """Return a text on one line, with line breaks, control characters and what else has no sign as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(path: str, length: int) -> str:
    """Return the dotted path of a layer, made printable, in at most `length` characters (at least 3).

    Words but the last are cut to their first letter, from the left and no more than needed, and numbers stay, so that
    the layers of a network remain distinct: `model.layers.11.attention.query` in 24 is `m.l.11.attention.query`. What
    is too long even so gets an ellipsis before its last few characters.
    """
    words = printable(path).split(".")
    for index, word in enumerate(words[:-1]):
        if len(".".join(words)) <= length:
            break
        words[index] = word if word.isdigit() else word[:1]
    short = ".".join(words)
    if len(short) <= length:
        return short
    tail = length // 4
    return f"{short[: length - 1 - tail]}…{short[len(short) - tail :]}"


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
