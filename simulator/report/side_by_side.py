"""Runs side by side, in the terminal and on pages: two figures and their ratio; keys of the machines that differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.result import Setting

TABLE_ENTRIES = "technology.table."  # keys of technology tables: they are many, and the sections of a run have them


@dataclass(frozen=True)
class Pair:
    """A figure of two runs; the ratio is b over a, None where one is unknown or a is 0."""

    a: float | None
    b: float | None
    ratio: float | None


def pair(a: float | None, b: float | None) -> Pair:
    """Return two figures with their ratio; one that is not finite is not known."""
    a, b = (one if one is not None and math.isfinite(one) else None for one in (a, b))
    return Pair(a, b, b / a if a and b is not None else None)


def differences(machines: Sequence[Iterable[Setting]]) -> list[tuple[str, list[Any]]]:
    """Return the keys of machines whose values in effect differ, each with these in the order of the machines.

    The order is that of the first file, then of the others; origins do not count. None: no such key, or no value.
    """
    settings = [{one.key: one.value for one in machine if one.key} for machine in machines]
    rows = [
        (key, [_value(own.get(key)) for own in settings])
        for key in dict.fromkeys(key for own in settings for key in own)
    ]
    return [(key, values) for key, values in rows if _differ(values)]


def _value(value: Any) -> Any:
    """Return what a key itself has: a mapping has nothing but further keys."""
    return None if value == {} else value


def _differ(values: Sequence[Any]) -> bool:
    if all(value == values[0] for value in values):
        return False
    first, *others = map(_meant, values)
    return any(other != first for other in others)


def _meant(value: Any) -> Any:
    """Return a quantity for a text that is one, so that 100 ns is 0.1 µs."""
    from simulator.hardware.quantities import (  # with it come the schemas of files, which take long
        UNITS,
        parse_quantity,
    )

    if isinstance(value, str):
        try:
            return parse_quantity(value, tuple(UNITS), "")
        except ValueError:
            return value
    return value
