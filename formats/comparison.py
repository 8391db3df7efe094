"""Where two formats differ: in their numbers, their values, their codes, and their precision by magnitude."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .binades import ENUMERATED_BITS, Binade, bands, binades, enumerable, finite_values
from .exact import Number, contains, ends, exponent_of, next_magnitude, scaled, significand_of, value_of
from .facts import Facts, facts_of
from .format import Format
from .table import Row, landmarks, row_of, specials

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
    low: Number | None
    high: Number | None
    examples: tuple[Number, ...]


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
        codes=len(codes) if a.bits == b.bits <= ENUMERATED_BITS else None,
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


def _count(fmt: Format) -> int:
    """Return the number of finite values; both zeros are one."""
    if enumerable(fmt):
        return len(finite_values(fmt))
    return sum(binade.count for sign in (1, -1) for binade in binades(fmt, sign)) + contains(fmt, 0.0)


def _common(a: Format, b: Format) -> int:
    """Return how many finite values two formats share."""
    if not enumerable(a) and not enumerable(b):
        shared = int(contains(a, 0.0) and contains(b, 0.0))
        for sign in (1, -1):
            others = {binade.exponent: binade for binade in binades(b, sign)}
            shared += sum(_shared(one, others[one.exponent]) for one in binades(a, sign) if one.exponent in others)
        return shared
    return len(_held(*((a, b) if enumerable(a) else (b, a))))


@functools.lru_cache(maxsize=4)
def _held(fmt: Format, by: Format) -> frozenset[float]:
    """Return the values of an enumerable format that another one holds."""
    values = finite_values(fmt).tolist()
    if enumerable(by):
        return frozenset(values) & frozenset(finite_values(by).tolist())
    return frozenset(value for value in values if contains(by, value))


def _shared(one: Binade, other: Binade) -> int:
    """Return how many values two formats of even spacing share in a binade.

    Spacings are powers of two and every value is a multiple of its spacing, or the only one of its binade.
    """
    step = max(_step(one), _step(other))
    low, high = max(one.low, other.low), min(one.high, other.high)
    return max(0, high // step - -(-low // step) + 1)


def _step(binade: Binade) -> Fraction:
    return binade.steps[0] if binade.count > 1 and binade.steps else binade.low


def _lacking(fmt: Format, other: Format, common: int) -> Iterator[Lacking]:
    """Yield the values of fmt that the other format lacks."""
    if _count(fmt) == common:
        return
    if enumerable(fmt):
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


def _kind(value: Number, other: Format) -> str:
    if value == 0:
        return "zero"
    found = ends(other)
    if not found.lowest <= value <= found.largest:
        return "beyond its range"
    return "nearer to zero than its smallest" if -found.smallest < value < found.smallest else "between its values"


def _lacking_of_wide(fmt: Format, other: Format, common: int) -> Iterator[Lacking]:
    """The same for a format too wide to list: counts from the binades, examples from the ends."""
    own, found = ends(fmt), ends(other)
    tops = {1: found.largest, -1: max(-found.lowest, 0.0)}
    beyond = {sign: _count_above(fmt, sign, top) for sign, top in tops.items()}
    near = {sign: _count_below(fmt, sign, found.smallest) if top else 0 for sign, top in tops.items()}
    zero = int(contains(fmt, 0.0) and not contains(other, 0.0))
    between = _count(fmt) - common - sum(beyond.values()) - sum(near.values()) - zero
    both = own.lowest == -own.largest and found.lowest == -found.largest
    if sum(near.values()):
        yield _wide("nearer to zero than its smallest", near, both, fmt, 0.0, found.smallest)
    if zero:
        yield Lacking("zero", 1, False, 0.0, 0.0, (0.0,))
    if between:
        examples = tuple(itertools.islice(_between(fmt, other), EXAMPLES))
        yield Lacking("between its values", between, both, None, None, examples)
    if sum(beyond.values()):
        yield _wide("beyond its range", beyond, both, fmt, tops[1 if beyond[1] else -1], math.inf)


def _wide(kind: str, counts: dict[int, int], both: bool, fmt: Format, above: Number, below: Number) -> Lacking:
    sign = 1 if counts[1] else -1
    found: list[Number] = []
    magnitude = next_magnitude(fmt, above, sign)
    while magnitude is not None and magnitude < below and len(found) < EXAMPLES:
        found.append(sign * magnitude)
        magnitude = next_magnitude(fmt, magnitude, sign)
    last = binades(fmt, sign)[-1].last if below == math.inf else _largest_below(fmt, sign, below)
    return Lacking(kind, sum(counts.values()), both, found[0], sign * last, tuple(found))


def _between(fmt: Format, other: Format) -> Iterator[Number]:
    """Yield positive values of fmt, one a binade, that lie between values of the other format, from 1 upwards first."""
    order = sorted(binades(fmt), key=lambda binade: (binade.exponent < 0, abs(binade.exponent)))
    for binade in order:
        for value in (binade.first, next_magnitude(fmt, binade.first), binade.last):
            if value is not None and _kind(value, other) == "between its values" and not contains(other, value):
                yield value
                break


def _place(magnitude: Number) -> tuple[float, Fraction]:
    """Return (exponent, significand) of a magnitude: as tuples they are in the order of the magnitudes."""
    return (exponent_of(magnitude), significand_of(magnitude)) if magnitude else (-math.inf, Fraction(0))


def _largest_below(fmt: Format, sign: int, limit: Number) -> Number:
    """Return the largest magnitude of a sign that is less than a number; there is one."""
    place = _place(limit)
    binade = [binade for binade in binades(fmt, sign) if (binade.exponent, binade.low) < place][-1]
    if (binade.exponent, binade.high) < place:
        return binade.last
    steps = math.ceil((place[1] - binade.low) / _step(binade)) - 1
    return scaled(binade.low + steps * _step(binade), binade.exponent)


def _count_below(fmt: Format, sign: int, limit: Number) -> int:
    """Return how many magnitudes of a sign are less than a number."""
    place, total = _place(limit), 0
    for binade in binades(fmt, sign):
        if (binade.exponent, binade.high) < place:
            total += binade.count
        elif (binade.exponent, binade.low) < place:
            total += math.ceil((place[1] - binade.low) / _step(binade))
    return total


def _count_above(fmt: Format, sign: int, limit: Number) -> int:
    """Return how many magnitudes of a sign exceed a number."""
    place, total = _place(limit), 0
    for binade in binades(fmt, sign):
        if (binade.exponent, binade.low) > place:
            total += binade.count
        elif (binade.exponent, binade.high) > place:
            total += math.ceil((binade.high - place[1]) / _step(binade))
    return total


# --- codes and precision --------------------------------------------------------------------------------------------


def _codes(a: Format, b: Format) -> list[int]:
    """Return the codes whose values differ; NaN equals NaN, and +0 differs from -0. Of wide formats, landmarks only."""
    if a.bits != b.bits:
        return []
    listed = a.bits <= ENUMERATED_BITS
    codes = range(min(a.code_count, b.code_count)) if listed else [row.code for row in landmarks(a)]
    return [code for code in codes if not _same(value_of(a, code), value_of(b, code))]


def _same(one: Number, other: Number) -> bool:
    if one == 0 and other == 0:
        return math.copysign(1.0, float(one)) == math.copysign(1.0, float(other))
    return one == other or (one != one and other != other)


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
