"""Formats as JSON: what `formats --json` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from fractions import Fraction
from typing import Any

from formats import Format
from formats.binades import bands
from formats.block import BlockFormat
from formats.comparison import Comparison, compare
from formats.exact import pair_of
from formats.facts import Facts, facts_of, facts_of_available
from formats.table import LISTED_BITS, Row, landmarks, rows
from simulator.commands.records import print_record


def print_json(wanted: Sequence[Format], compared: bool) -> None:
    """Print a record of the comparison of two formats, of each format in full, or, if none is named, of all in short.

    JSON has no infinities and no NaN: they are the texts "Infinity", "-Infinity" and "NaN". What float64 does not hold
    is a text too, an odd integer times a power of two: "3*2^-9000".
    """
    record: Any
    if compared:
        record = _comparison(compare(*wanted))
    elif wanted:
        record = [_in_full(fmt) for fmt in wanted]
    else:
        known, problems = facts_of_available()
        record = [*map(_facts, known), *({"name": name, "problem": text} for name, text in problems.items())]
    print_record(record)


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        **_plain(asdict(comparison)),
        "a": _facts(comparison.a),
        "b": _facts(comparison.b),
        "record": {what: _plain([_dictionary(one), _dictionary(other)]) for what, one, other in comparison.record},
        "code_examples": [[_row(one), _row(other)] for one, other in comparison.code_examples],
        "parts": [_comparison(part) for part in comparison.parts],
    }


def _dictionary(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _facts(facts: Facts) -> dict[str, Any]:
    record = {**asdict(facts), "family": facts.family.key}
    for derived in ("unit_roundoff", "range_binades", "range_decades"):
        record[derived] = getattr(facts, derived)
    return _plain(record)


def _in_full(fmt: Format) -> dict[str, Any]:
    record = _facts(facts_of(fmt))
    if isinstance(fmt, BlockFormat):
        return {**record, "element": _in_full(fmt.element), "scale": _in_full(fmt.scale)}
    listed = fmt.bits <= LISTED_BITS
    record["bands"] = [
        {"low": band.low, "high": band.high, "kind": band.kind, "count": band.count, "gaps": _plain(band.gaps),
         "precisions": band.precisions}
        for band in bands(fmt)
    ]  # fmt: skip
    record["values" if listed else "landmarks"] = [_row(row) for row in (rows if listed else landmarks)(fmt)]
    return record


def _row(row: Row) -> dict[str, Any]:
    return {"code": row.code, "fields": dict(row.fields), "value": _plain(row.value), "meaning": row.meaning}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Fraction):
        return "{}*2^{}".format(*pair_of(value))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
