"""What notebooks show of a format: what follows from its parameters, and the codes that it is known by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .block import BlockFormat
from .exact import log2
from .facts import Facts, facts_of
from .format import Format
from .notebook import Table, View
from .table import Row, landmarks, rows

_LISTED_BITS = 4  # up to this width every code is shown


def format_view(fmt: Format) -> View:
    """Return what is shown of a format."""
    facts = facts_of(fmt)
    numbers = [{"name": name.replace("_", " "), "value": _words(value)} for name, value in _numbers(facts).items()]
    tables = [Table("What follows from it", numbers)]
    if not isinstance(fmt, BlockFormat):
        listed = fmt.bits <= _LISTED_BITS
        known = rows(fmt) if listed else landmarks(fmt)
        caption = "Every code" if listed else "Codes that it is known by"
        tables.append(Table(caption, [{**row, "value": _words(row["value"])} for row in _plain(known)]))
    return View(fmt.name, [f"{facts.family.meaning}; {facts.source}"], tables)


def value_rows(fmt: Format) -> list[dict[str, Any]]:
    """Return the value table of a format, every code in order, as columns: code, fields, value, meaning.

    Raises:
        ValueError: codes of more than 16 bits, or of blocks.
    """
    if isinstance(fmt, BlockFormat):
        raise ValueError(f"{fmt.name} has codes of blocks, of which there is no table; take that of {fmt.element.name}")
    if fmt.bits > 16:
        raise ValueError(f"{fmt.name} has 2**{fmt.bits} codes; tables are made for at most 16 bits")
    return _plain(rows(fmt))


def _plain(table: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"code": row.code, "fields": " ".join(bits for _, bits in row.fields), "value": row.value,
         "meaning": row.meaning}
        for row in table
    ]  # fmt: skip


def _numbers(facts: Facts) -> dict[str, Any]:
    """Return what is known of a format by name, without what is not."""
    found = {
        "bits": facts.bits,
        "precision": facts.precision,
        "unit_roundoff": facts.unit_roundoff,
        "max": facts.max,
        "smallest_normal": facts.smallest_normal,
        "smallest_positive": facts.smallest_subnormal,
        "range_binades": round(facts.range_binades, 1),
        "overflow_mode": facts.default_overflow,
        **facts.details,
    }
    return {name: value for name, value in found.items() if value is not None}


def _words(value: Any) -> str:
    """Return a value as text: floats to the last digit, what float64 does not hold by its logarithm."""
    match value:
        case bool():
            return "yes" if value else "no"
        case Fraction():
            return f"{'-' if value < 0 else ''}2^{log2(abs(value)):.6g}"
        case float() if math.isfinite(value):
            return repr(value).removesuffix(".0")
    return str(value)
