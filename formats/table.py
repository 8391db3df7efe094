"""Value tables: what a code is made of, what it means, and which codes matter where they are too many to list."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .binades import enumerable
from .exact import Number, code_or_none, ends, next_magnitude, number, pair_of, value_of
from .fixed import FixedFormat
from .floats import FloatFormat
from .format import Format
from .posit import PositFormat
from .qtorch import QtorchFormat
from .takum import TakumFormat
from .tapered import TaperedFormat

LISTED_BITS = 8  # up to this width a table lists every code


@dataclass(frozen=True)
class Row:
    """A line of a value table.

    Args:
        code: the code. fields: (name, bits as a string of 0 and 1) from the top. value: exact; a Fraction where float64
            does not hold it. meaning: "zero", "subnormal", "normal", "infinity", "NaN" or "NaR"; in landmarks what the
            code is known for.
    """

    code: int
    fields: tuple[tuple[str, str], ...]
    value: Number
    meaning: str


@dataclass(frozen=True)
class Specials:
    """The codes that are no ordinary numbers, as ranges (first, last).

    Args:
        infinities, nans: codes of both signs. negative_zero: the code of -0, if it means that.
        has_zero: whether zero is a value. signed: whether there are negative values.
    """

    infinities: tuple[tuple[int, int], ...]
    nans: tuple[tuple[int, int], ...]
    negative_zero: int | None
    has_zero: bool
    signed: bool


def row_of(fmt: Format, code: int) -> Row:
    """Return the line of a code."""
    value = value_of(fmt, code)
    return Row(code, fields_of(fmt, code), value, meaning_of(fmt, value))


def rows(fmt: Format) -> list[Row]:
    """Return the value table of a format of at most 16 bits, every code in order."""
    return [row_of(fmt, code) for code in range(fmt.code_count)]


def landmarks(fmt: Format) -> list[Row]:
    """Return the codes that a format is known by, in code order: zeros, ends, the neighbours of 1, specials."""
    found = ends(fmt)
    tiny, normal = found.smallest, found.smallest_normal
    values: list[tuple[str, Number | None]] = [
        ("zero", 0.0),
        ("smallest positive", tiny),
        ("largest subnormal", _before(tiny, normal) if normal is not None and tiny < normal else None),
        ("smallest normal", normal if normal is not None and tiny < normal else None),
        ("one", 1.0),
        ("next after one", next_magnitude(fmt, 1.0)),
        ("largest", found.largest),
        ("infinity", math.inf),
        (nan_name(fmt), math.nan),
        ("negative zero", -0.0),
        ("largest negative", -tiny),
        ("minus one", -1.0),
        ("lowest", found.lowest if found.lowest < 0 else None),
        ("minus infinity", -math.inf),
    ]
    known: dict[int, Row] = {}
    for meaning, value in values:
        code = None if value is None else code_or_none(fmt, value)
        if code is not None:
            known_for = f"{known[code].meaning}, {meaning}" if code in known else meaning
            known[code] = Row(code, fields_of(fmt, code), value_of(fmt, code), known_for)
    return [known[code] for code in sorted(known)]


def _before(tiny: Number, normal: Number) -> Number:
    """Return the largest subnormal value: they are the multiples of the smallest below the smallest normal one."""
    (integer, exponent), (_, tiny_exponent) = pair_of(normal), pair_of(tiny)
    return number((integer << (exponent - tiny_exponent)) - 1, tiny_exponent)


def meaning_of(fmt: Format, value: Number) -> str:
    """Return what kind of value a code has."""
    if value != value:
        return nan_name(fmt)
    if value in (math.inf, -math.inf):
        return "infinity"
    if value == 0:
        return "zero"
    normal = ends(fmt).smallest_normal
    return "subnormal" if normal is None or -normal < value < normal else "normal"


def nan_name(fmt: Format) -> str:
    """Return what a format calls its code that is no number: NaR where there is only one, no real, in posits."""
    return "NaR" if isinstance(_record(fmt), TaperedFormat) else "NaN"


def specials(fmt: Format) -> Specials:
    """Return the special codes of a format without blocks."""
    if enumerable(fmt):
        table = fmt.table()
        infinities, nans = _ranges(np.flatnonzero(np.isinf(table))), _ranges(np.flatnonzero(np.isnan(table)))
    else:
        infinities, nans = _wide_specials(_record(fmt))
    zero = code_or_none(fmt, 0.0)
    has_zero = zero is not None and fmt.value_of(zero) == 0
    signed = ends(fmt).lowest < 0
    return Specials(infinities, nans, code_or_none(fmt, -0.0) if has_zero else None, has_zero, signed)


def _wide_specials(fmt: Format) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    if not isinstance(fmt, FloatFormat):
        infinity, nan = code_or_none(fmt, math.inf), code_or_none(fmt, math.nan)
        return () if infinity is None else ((infinity, infinity),), () if nan is None else ((nan, nan),)
    # Above the largest value come the infinity, if there is one, and NaNs; in both signs, if there are two.
    width = fmt.exponent_bits + fmt.fraction_bits
    top, all_ones = fmt.code_of_exact(*fmt.exact_ends[-1]), (1 << width) - 1
    infinity = fmt.code_of(math.inf) if fmt.has_infinity else None
    signs = (0, 1 << width) if fmt.rules.signed else (0,)
    infinities = () if infinity is None else tuple((sign + infinity, sign + infinity) for sign in signs)
    nans = []
    for sign in signs:
        if sign and not fmt.rules.negative_zero:
            nans.append((sign, sign))
        low = top + 2 if infinity == top + 1 else top + 1
        high = all_ones - 1 if infinity == all_ones else all_ones
        if low <= high:
            nans.append((sign + low, sign + high))
    return infinities, tuple(nans)


def _ranges(codes: Sequence[int] | np.ndarray) -> tuple[tuple[int, int], ...]:
    """Join neighbouring codes (ascending) to ranges (first, last)."""
    found: list[tuple[int, int]] = []
    for code in map(int, codes):
        if found and found[-1][1] == code - 1:
            found[-1] = found[-1][0], code
        else:
            found.append((code, code))
    return tuple(found)


def _record(fmt: Format) -> Format:
    return fmt.record if isinstance(fmt, QtorchFormat) else fmt


# --- what a code is made of -----------------------------------------------------------------------------------------


@functools.singledispatch
def fields_of(fmt: Format, code: int) -> tuple[tuple[str, str], ...]:
    """Return the fields of a code as (name, bits), from the top. A family that has none here is one field."""
    return (("bits", _bits(code, fmt.bits)),)


@fields_of.register
def _(fmt: FloatFormat, code: int) -> tuple[tuple[str, str], ...]:
    widths = {"sign": int(fmt.rules.signed), "exponent": fmt.exponent_bits, "fraction": fmt.fraction_bits}
    return _split(_bits(code, fmt.bits), widths)


@fields_of.register
def _(fmt: FixedFormat, code: int) -> tuple[tuple[str, str], ...]:
    sign = int(fmt.signed)
    fraction = min(fmt.fraction_bits, fmt.bits - sign)
    widths = {"sign": sign, "integer": fmt.bits - sign - fraction, "fraction": fraction}
    return _split(_bits(code, fmt.bits), widths)


@fields_of.register
def _(fmt: PositFormat, code: int) -> tuple[tuple[str, str], ...]:
    text = _bits(code, fmt.n)
    body = text[1:]
    run = len(body) - len(body.lstrip(body[0]))
    return _split(text, {"sign": 1, "regime": run + 1, "exponent": fmt.es, "fraction": fmt.n})


@fields_of.register
def _(fmt: TakumFormat, code: int) -> tuple[tuple[str, str], ...]:
    text = _bits(code, fmt.n)
    direction, regime = text[1:2], text[2:5].ljust(3, "0")
    length = int(regime, 2) if direction == "1" else 7 - int(regime, 2)
    widths = {"sign": 1, "direction": 1, "regime": 3, "characteristic": length, "fraction": fmt.n}
    return _split(text, widths)


@fields_of.register
def _(fmt: QtorchFormat, code: int) -> tuple[tuple[str, str], ...]:
    return fields_of(fmt.record, code)


def _bits(code: int, width: int) -> str:
    return format(code, f"0{width}b")


def _split(text: str, widths: dict[str, int]) -> tuple[tuple[str, str], ...]:
    """Cut a string of bits into fields; those for which nothing is left are absent."""
    fields = []
    for name, width in widths.items():
        if text[:width]:
            fields.append((name, text[:width]))
        text = text[width:]
    return tuple(fields)
