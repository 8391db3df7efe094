"""Where two formats differ: in their numbers, their values, their codes, and their precision by magnitude."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .binades import ENUMERATED_BITS, Binade, bands, binades, contains, finite_values, lowest, next_magnitude
from .facts import Facts, facts_of
from .format import Format
from .table import Row, code_count, landmarks, row_of, specials

EXAMPLES = 4
CODE_EXAMPLES = 16


@dataclass(frozen=True)
class Lacking:
    """Values of one format that the other lacks, of one kind.

    Args:
        kind: "beyond its range", "nearer to zero than its smallest", "between its values" or "zero".
        count: how many, both signs together. both_signs: whether each stands for itself and its negative.
        low, high: ends (of the magnitudes, if both_signs); None where they were not looked for.
        examples: a few of them.
    """

    kind: str
    count: int
    both_signs: bool
    low: float | None
    high: float | None
    examples: tuple[float, ...]


@dataclass(frozen=True)
class PrecisionStep:
    """Binades low to high with the significand bits that each format has in the first and the last.

    Those are None where it has no values, and 0 where its values are not evenly spaced.
    """

    low: int
    high: int
    a: tuple[int, int] | None
    b: tuple[int, int] | None


@dataclass(frozen=True)
class Comparison:
    """Where the formats a and b differ.

    Args:
        a, b: their numbers.
        record: (what, of a, of b) for each number that differs.
        counts: finite values of a, of b, common to both. None for block formats, whose values depend on the scale.
        only_a, only_b: values that the other lacks, by kind.
        codes: number of codes with another value; None where widths differ or are above 16 bits.
        code_examples: the first of them, as rows of a and b; of wider formats those among the landmarks of a.
        precision: bands of magnitudes in which the precision differs.
        identical: whether the same numbers, infinities, NaN and zeros can be held; None for block formats.
        parts: what differs in element and scale, for two block formats.
    """

    a: Facts
    b: Facts
    record: tuple[tuple[str, Any, Any], ...]
    counts: tuple[int, int, int] | None = None
    only_a: tuple[Lacking, ...] = ()
    only_b: tuple[Lacking, ...] = ()
    codes: int | None = None
    code_examples: tuple[tuple[Row, Row], ...] = ()
    precision: tuple[PrecisionStep, ...] = ()
    identical: bool | None = None
    parts: tuple[Comparison, ...] = ()


def compare(a: Format, b: Format) -> Comparison:
    """Return where two formats differ. Exact."""
    of_a, of_b = facts_of(a), facts_of(b)
    record = tuple(_record(of_a, of_b))
    if a.has_blocks or b.has_blocks:
        parts: tuple[Comparison, ...] = ()
        if a.has_blocks and b.has_blocks:
            pairs = [(getattr(a, part), getattr(b, part)) for part in ("element", "scale")]
            parts = tuple(compare(one, other) for one, other in pairs if one != other)
        return Comparison(of_a, of_b, record, parts=parts)
    common = _common(a, b)
    only_a, only_b = tuple(_lacking(a, b, common)), tuple(_lacking(b, a, common))
    codes = _codes(a, b)
    return Comparison(
        of_a,
        of_b,
        record,
        counts=(_count(a), _count(b), common),
        only_a=only_a,
        only_b=only_b,
        codes=len(codes) if a.bits == b.bits and _enumerable(a) else None,
        code_examples=tuple((row_of(a, code), row_of(b, code)) for code in codes[:CODE_EXAMPLES]),
        precision=tuple(_precision(a, b)),
        identical=not only_a and not only_b and _special_kinds(a) == _special_kinds(b),
    )


def _record(a: Facts, b: Facts) -> Iterator[tuple[str, Any, Any]]:
    for what in ("bits", "precision", "max", "min", "smallest_normal", "smallest_subnormal", "default_overflow"):
        one, other = getattr(a, what), getattr(b, what)
        if one != other:
            yield what, one, other
    if a.specials != b.specials:
        yield "specials", a.specials, b.specials
    for what in dict.fromkeys([*a.details, *b.details]):
        one, other = a.details.get(what), b.details.get(what)
        if one != other and what in a.details and what in b.details:
            yield what, one, other
    if a.family != b.family:
        yield "family", a.family.key, b.family.key


def _special_kinds(fmt: Format) -> tuple[bool, bool, bool]:
    found = specials(fmt)
    return bool(found.infinities), bool(found.nans), found.negative_zero is not None


# --- values ---------------------------------------------------------------------------------------------------------


def _enumerable(fmt: Format) -> bool:
    return fmt.bits <= ENUMERATED_BITS


def _count(fmt: Format) -> int:
    """Return the number of finite values; both zeros are one."""
    if _enumerable(fmt):
        return len(finite_values(fmt))
    return sum(binade.count for sign in (1, -1) for binade in binades(fmt, sign)) + contains(fmt, 0.0)


def _common(a: Format, b: Format) -> int:
    """Return how many finite values two formats share."""
    if not _enumerable(a) and not _enumerable(b):
        shared = sum(
            _shared(one, {binade.exponent: binade for binade in binades(b, sign)})
            for sign in (1, -1)
            for one in binades(a, sign)
        )
        return shared + (contains(a, 0.0) and contains(b, 0.0))
    return len(_held(*((a, b) if _enumerable(a) else (b, a))))


@functools.lru_cache(maxsize=4)
def _held(fmt: Format, by: Format) -> frozenset[float]:
    """Return the values of an enumerable format that another one holds."""
    values = finite_values(fmt).tolist()
    if _enumerable(by):
        return frozenset(values) & frozenset(finite_values(by).tolist())
    return frozenset(value for value in values if contains(by, value))


def _shared(one: Binade, others: dict[int, Binade]) -> int:
    """Return how many values two formats of even spacing share in a binade.

    Spacings are powers of two and every value is a multiple of its spacing, or the only one of its binade.
    """
    other = others.get(one.exponent)
    if other is None:
        return 0
    step = max(_step(one), _step(other))
    low, high = max(one.first, other.first), min(one.last, other.last)
    return max(0, int(Fraction(high) // step - -(-Fraction(low) // step)) + 1)


def _step(binade: Binade) -> Fraction:
    return Fraction(binade.gaps[0] if binade.count > 1 and binade.gaps else binade.first)


def _lacking(fmt: Format, other: Format, common: int) -> Iterator[Lacking]:
    """Yield the values of fmt that the other format lacks."""
    if _count(fmt) == common:
        return
    if _enumerable(fmt):
        held = _held(fmt, other)
        values = [value for value in finite_values(fmt).tolist() if value not in held]
        kinds: dict[str, list[float]] = {}
        for value in values:
            kinds.setdefault(_kind(value, other), []).append(value)
        for kind, found in kinds.items():
            both = kind != "zero" and found == [-value for value in reversed(found)]
            shown = found[len(found) // 2 :] if both else found
            yield Lacking(kind, len(found), both, shown[0], shown[-1], tuple(shown[:EXAMPLES]))
        return
    yield from _lacking_of_wide(fmt, other, common)


def _kind(value: float, other: Format) -> str:
    if value == 0:
        return "zero"
    if not lowest(other) <= value <= other.max:
        return "beyond its range"
    return "nearer to zero than its smallest" if abs(value) < other.smallest_subnormal else "between its values"


def _lacking_of_wide(fmt: Format, other: Format, common: int) -> Iterator[Lacking]:
    """The same for a format too wide to list: counts from the binades, examples from the ends."""
    ends = {1: other.max, -1: max(-lowest(other), 0.0)}
    beyond = {sign: _count_above(fmt, sign, ends[sign]) for sign in ends}
    near = {
        sign: sum(b.count for b in binades(fmt, sign)) - _count_above(fmt, sign, _before(other.smallest_subnormal))
        if ends[sign]
        else 0
        for sign in ends
    }
    zero = int(contains(fmt, 0.0) and not contains(other, 0.0))
    between = _count(fmt) - common - sum(beyond.values()) - sum(near.values()) - zero
    both = lowest(fmt) == -fmt.max and lowest(other) == -other.max
    if sum(near.values()):
        yield _wide("nearer to zero than its smallest", near, both, fmt, 0.0, other.smallest_subnormal)
    if zero:
        yield Lacking("zero", 1, False, 0.0, 0.0, (0.0,))
    if between:
        examples = tuple(itertools.islice(_between(fmt, other), EXAMPLES))
        yield Lacking("between its values", between, both, None, None, examples)
    if sum(beyond.values()):
        yield _wide("beyond its range", beyond, both, fmt, other.max if beyond[1] else ends[-1], math.inf)


def _wide(kind: str, counts: dict[int, int], both: bool, fmt: Format, above: float, below: float) -> Lacking:
    sign = 1 if counts[1] else -1
    found: list[float] = []
    magnitude = next_magnitude(fmt, above, sign)
    while magnitude is not None and magnitude < below and len(found) < EXAMPLES:
        found.append(sign * magnitude)
        magnitude = next_magnitude(fmt, magnitude, sign)
    last = max(b.last for b in binades(fmt, sign)) if below == math.inf else _largest_below(fmt, sign, below)
    return Lacking(kind, sum(counts.values()), both, found[0], sign * last, tuple(found))


def _between(fmt: Format, other: Format) -> Iterator[float]:
    """Yield positive values of fmt, one a binade, that lie between values of the other format, from 1 upwards first."""
    order = sorted(binades(fmt), key=lambda binade: (binade.exponent < 0, abs(binade.exponent)))
    for binade in order:
        for value in (binade.first, next_magnitude(fmt, binade.first), binade.last):
            if value is not None and _kind(value, other) == "between its values" and not contains(other, value):
                yield value
                break


def _before(value: float) -> float:
    return math.nextafter(value, 0.0)


def _largest_below(fmt: Format, sign: int, limit: float) -> float:
    return max(_last_below(binade, limit) for binade in binades(fmt, sign) if binade.first < limit)


def _last_below(binade: Binade, limit: float) -> float:
    if binade.last < limit:
        return binade.last
    steps = math.ceil((Fraction(limit) - Fraction(binade.first)) / _step(binade)) - 1
    return float(Fraction(binade.first) + steps * _step(binade))


def _count_above(fmt: Format, sign: int, limit: float) -> int:
    """Return how many magnitudes of a sign exceed a number."""
    total = 0
    for binade in binades(fmt, sign):
        if binade.first > limit:
            total += binade.count
        elif binade.last > limit:
            total += math.floor((Fraction(binade.last) - Fraction(limit)) / _step(binade))
            total += (Fraction(binade.last) - Fraction(limit)) % _step(binade) != 0
    return total


# --- codes and precision --------------------------------------------------------------------------------------------


def _codes(a: Format, b: Format) -> list[int]:
    """Return the codes whose values differ; NaN equals NaN, and +0 differs from -0. Of wide formats, landmarks only."""
    if a.bits != b.bits:
        return []
    codes = range(min(code_count(a), code_count(b))) if _enumerable(a) else [row.code for row in landmarks(a)]
    return [code for code in codes if not _same(a.value_of(code), b.value_of(code))]


def _same(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other and math.copysign(1.0, one) == math.copysign(1.0, other)


def _precision(a: Format, b: Format) -> list[PrecisionStep]:
    """Return the bands of magnitudes, cut where either format begins a band, in which the precision differs."""
    of = [{binade.exponent: binade.precision for binade in binades(fmt)} for fmt in (a, b)]
    found = [band for fmt in (a, b) for band in bands(fmt)]
    cuts = {band.low for band in found} | {band.high + 1 for band in found}
    steps: list[PrecisionStep] = []
    for low, end in itertools.pairwise(sorted(cuts)):
        one, other = (_ends_of(precision, low, end - 1) for precision in of)
        if one == other:
            continue
        before = steps[-1] if steps else None
        even = all(ends is None or ends[0] == ends[1] for ends in (one, other))
        if before and even and (before.high + 1, before.a, before.b) == (low, one, other):
            steps[-1] = PrecisionStep(before.low, end - 1, one, other)
        else:
            steps.append(PrecisionStep(low, end - 1, one, other))
    return steps


def _ends_of(precision: dict[int, int | None], low: int, high: int) -> tuple[int, int] | None:
    found = [precision[exponent] or 0 for exponent in range(low, high + 1) if exponent in precision]
    known = [bits for bits in found if bits] or found
    return (known[0], known[-1]) if known else None
