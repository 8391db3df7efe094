"""Every accumulator once more, from its text alone: on lists of Fractions, level by level, no state machine.

Only the records of an accumulator are the project's. A sum is a Fraction; it reaches a format by rounding to odd into
float64, whose 53 bits the formats here stay well below, and then by the oracle of the format (tests/oracles/rules.py):
rounding to odd first changes no deterministic rounding (Boldo and Melquiond, 2008). Stochastic roundings are not here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from formats import Use
from simulator.arithmetic import accumulators as records
from simulator.arithmetic.spec import MacSpec

from .float_rules import FixedRules, FloatRules
from .rules import Rules, rules_of

Term = tuple[float, ...]  # a product of two operands, or one value
TWO = Fraction(2)


@functools.cache
def _rules(name: str) -> Rules:
    return rules_of(name)


@functools.lru_cache(1 << 16)
def _by_bits(name: str, mode: str, overflow: str, x: str) -> float:
    return float(_rules(name).quantized(np.array([float.fromhex(x)]), mode, overflow)[0])


def _scalar(use: Use, x: float) -> float:
    return _by_bits(use.format.name, use.rounding, use.overflow, x.hex())


def floor_log2(x: Fraction) -> int:
    """floor(log2|x|) of a Fraction that is not zero."""
    e = abs(x.numerator).bit_length() - x.denominator.bit_length()
    return e if abs(x) >= TWO**e else e - 1


def to_odd(x: Fraction) -> float:
    """A float64 that any coarser rounding takes for x: cut, with the last bit set where something was lost."""
    last = max(floor_log2(x) - 52, -1074)
    quotient = abs(x) / TWO**last
    kept = math.floor(quotient)
    kept |= kept != quotient
    return math.copysign(math.ldexp(kept, last), x)


def round_fraction(use: Use, x: Fraction) -> float:
    """R(x), x not zero."""
    rules = _rules(use.format.name)
    if isinstance(rules, FixedRules) and use.overflow == "wrap":
        span = TWO ** (rules.bits - rules.fraction_bits)  # 2^bits quanta
        reduced = abs(x) % span * (1 if x > 0 else -1)
        return _scalar(use, to_odd(reduced)) if reduced else 0.0
    if abs(x) >= TWO**1000:
        return _scalar(use, math.copysign(2.0**1000, x))  # beyond the largest of every format here
    return _scalar(use, to_odd(x))


def multiply(term: Term) -> Fraction | float:
    """The exact product; a float if it is NaN, infinite or a zero with its sign."""
    if any(math.isnan(f) for f in term) or (math.inf in map(abs, term) and 0.0 in term):
        return math.nan
    negative = sum(math.copysign(1.0, f) < 0 for f in term) % 2 == 1
    if any(math.isinf(f) for f in term):
        return -math.inf if negative else math.inf
    if 0.0 in term:
        return -0.0 if negative else 0.0
    return math.prod((Fraction(f) for f in term), start=Fraction(1))


def special_of(values: Sequence[Fraction | float]) -> float | None:
    """NaN or the infinity that a sum with such terms is; None if it is a number."""
    specials = {v for v in values if isinstance(v, float) and math.isinf(v)}
    if any(isinstance(v, float) and math.isnan(v) for v in values) or len(specials) == 2:
        return math.nan
    return specials.pop() if specials else None


def round_special(use: Use, x: float) -> float:
    """What NaN, infinities and zeros become."""
    if math.isnan(x) or (math.isinf(x) and use.overflow == "wrap"):
        return math.nan
    return _scalar(use, x)


def r(use: Use, *terms: Term) -> float:
    """R(the exact sum of the terms)."""
    values = [multiply(term) for term in terms]
    special = special_of(values)
    if special is not None:
        return round_special(use, special)
    total = sum((v for v in values if isinstance(v, Fraction)), Fraction(0))
    if total:
        return round_fraction(use, total)
    down = use.mode.mode == "rd"
    agree = {math.copysign(1.0, v) if isinstance(v, float) else 0.0 for v in values}
    minus = agree == {-1.0} or (down and agree != {1.0})
    return round_special(use, -0.0 if minus else 0.0)


def dot(spec: MacSpec, a: Sequence[float], b: Sequence[float], c: float | None = None) -> float:
    """The inner product of operands, plus c, as a MAC spec without stochastic roundings says."""
    if spec.operands:
        a, b = ([float(v) for v in use.quantize(np.array(x))] for use, x in zip(spec.operands, (a, b), strict=True))
    accumulator, late = spec.accumulator, False
    if isinstance(accumulator, records.Late):
        accumulator, late = accumulator.inner, True
    last = accumulator
    while isinstance(last, records.Chunk | records.Interleave | records.Reverse):
        last = getattr(last, {records.Chunk: "outer", records.Interleave: "join", records.Reverse: "inner"}[type(last)])
    late |= isinstance(last, records.Tree)
    products: list[Term] = list(zip(a, b, strict=True))
    result = total(accumulator, products, None if late else c, spec)
    output = spec.output or last.sum
    if late and c is not None:
        return r(output, (result,), (r(output, (c,)),))
    return r(output, (result,)) if spec.output else result


def total(acc: records.Accumulator, terms: Sequence[Term], c: float | None, spec: MacSpec) -> float:
    """What one accumulator makes of its terms, products or values, and of c."""
    if isinstance(acc, records.Chunk):
        runs = [terms[i : i + acc.length] for i in range(0, len(terms), acc.length)]
        return total(acc.outer, [(total(acc.inner, run, None, spec),) for run in runs], c, spec)
    if isinstance(acc, records.Interleave):
        lanes = [terms[lane :: acc.ways] for lane in range(acc.ways)]
        return total(acc.join, [(total(acc.inner, lane, None, spec),) for lane in lanes], c, spec)
    if isinstance(acc, records.Reverse):
        backwards = [terms[i : i + acc.length][::-1] for i in range(0, len(terms), acc.length)]
        return total(acc.inner, [term for run in backwards for term in run], c, spec)
    if isinstance(acc, records.Exact):
        return r(acc.sum, (0.0 if c is None else c,), *terms)
    s = 0.0 if c is None else r(acc.sum, (c,))
    match acc:
        case records.Fma():
            for i in range(0, len(terms), acc.products):
                s = r(acc.sum, (s,), *terms[i : i + acc.products])
            return s
        case records.Seq():
            for term in terms:
                s = r(acc.sum, (s,), (rounded(acc.product, term),))
            return s
        case records.Tree():
            return tree(acc, terms)
        case records.Kahan():
            e = 0.0
            for term in terms:
                t = rounded(acc.sum, term)
                y = r(acc.sum, (t,), (-e,))
                z = r(acc.sum, (s,), (y,))
                e = r(acc.sum, (r(acc.sum, (z,), (-s,)),), (-y,))
                s = z
            return s
        case records.Neumaier():
            e = 0.0
            for term in terms:
                t = rounded(acc.sum, term)
                z = r(acc.sum, (s,), (t,))
                big, small = (s, t) if abs(s) >= abs(t) else (t, s)
                e = r(acc.sum, (e,), (r(acc.sum, (r(acc.sum, (big,), (-z,)),), (small,)),))
                s = z
            return r(acc.sum, (s,), (e,))
        case records.Fixed():
            return fixed(acc, terms, s)
        case records.Aligned():
            size = acc.n * (2 if acc.order == "two_of_four" else 1)
            for i in range(0, len(terms), size):
                step = [*terms[i : i + size], *[(0.0, 0.0)] * (size - len(terms[i : i + size]))]
                if acc.order == "two_of_four":
                    first = [step[k] for k in range(size) if k % 4 in (0, 1)]
                    step = first + [step[k] for k in range(size) if k % 4 in (2, 3)]
                for j in range(0, size, acc.n):
                    s = aligned(acc, step[j : j + acc.n], s, spec)
            return s
    raise TypeError(acc)


def rounded(use: Use, term: Term) -> float:
    """A product rounded; a value as it is."""
    return r(use, term) if len(term) == 2 else term[0]


def tree(acc: records.Tree, terms: Sequence[Term]) -> float:
    level = list(terms) if acc.leaves == "exact" else [(rounded(acc.sum, term),) for term in terms]
    while len(level) > 1:
        groups = [level[i : i + acc.radix] for i in range(0, len(level), acc.radix)]
        level = [group[0] if len(group) == 1 else (r(acc.sum, *group),) for group in groups]
    return rounded(acc.sum, level[0]) if level else 0.0


def fixed(acc: records.Fixed, terms: Sequence[Term], s: float) -> float:
    """Plain Python integers; a NaN stays, an infinity becomes an end of the range, or NaN where sums wrap."""
    bits = 53 if acc.mode == "track" else acc.bits
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    for term in terms:
        special = special_of([s, multiply(term)])
        if special is not None:
            end = high if special > 0 else low
            s = math.nan if math.isnan(special) or acc.mode == "wrap" else math.ldexp(end, -acc.frac)
            continue
        t = integer_near(multiply(term) * TWO**acc.frac, acc.rounding)  # type: ignore[operator]
        total = int(Fraction(s) * TWO**acc.frac) + t
        if acc.mode == "wrap":
            total = (total - low) % (1 << bits) + low
        s = math.ldexp(min(max(total, low), high), -acc.frac)
    return s


def integer_near(x: Fraction | float, mode: str) -> int:
    """x rounded to an integer."""
    x = Fraction(x)
    down = math.floor(x)
    if x == down:
        return down
    inward, outward = (down, down + 1) if x > 0 else (down + 1, down)
    part = abs(x - inward)
    even = inward if inward % 2 == 0 else outward
    nearest = inward if part < Fraction(1, 2) else outward
    return {
        "rz": inward, "rd": down, "ru": down + 1, "odd": inward + outward - even,
        "rne": even if part == Fraction(1, 2) else nearest, "rna": nearest,
        "rnz": inward if part == Fraction(1, 2) else nearest,
    }[mode]  # fmt: skip


def aligned(acc: records.Aligned, products: Sequence[Term], s: float, spec: MacSpec) -> float:
    """One step: section 3 of the text, and the options as the record's docstring has them."""
    special = special_of([s, *map(multiply, products)])
    if special is not None:
        return round_special(acc.out, special)
    c = Fraction(s)
    c_exponent = max(floor_log2(c), -126) if c else None
    sums, tops = [], []
    for part in range(acc.parts):
        terms = parts_of(acc, products[part :: acc.parts], spec)
        if acc.c == "early" and c_exponent is not None:
            terms.append((c, c_exponent))
        exponents = [e for _, e in terms] + ([acc.e_min] if acc.e_min is not None else [])
        if exponents:
            tops.append(max(exponents))
            quantum = TWO ** (tops[-1] - acc.frac)
            sums.append(sum((integer_near(v / quantum, acc.align) * quantum for v, _ in terms), Fraction(0)))
    if acc.part_frac is not None and tops:
        quantum = TWO ** (max(tops) - acc.part_frac)
        sums = [math.floor(x / quantum) * quantum for x in sums]
    if acc.c == "late":
        highest = max([*tops, *([] if c_exponent is None else [c_exponent])], default=0)

        def down(x: Fraction, fraction: int | None) -> Fraction:
            quantum = TWO ** (highest - (fraction or 0))
            return x if fraction is None else math.floor(x / quantum) * quantum

        sums = [down(x, acc.sum_frac) for x in sums]
        reached = acc.c_reach is None or not tops or c_exponent is None or c_exponent >= max(tops) - acc.c_reach
        if reached:
            sums.append(down(c, acc.c_frac))
    result = sum(sums, Fraction(0))
    if not result:
        return round_special(acc.out, 0.0)
    largest = beyond_largest(acc.out, result)
    return round_special(acc.out, math.copysign(math.inf, result)) if largest else round_fraction(acc.out, result)


def beyond_largest(use: Use, x: Fraction) -> bool:
    """Whether x, rounded as if the range had no end, lies beyond the largest value."""
    rules = _rules(use.format.name)
    if isinstance(rules, FixedRules):
        quanta = integer_near(x * TWO**rules.fraction_bits, use.rounding)
        low = -(1 << (rules.bits - 1)) if rules.signed else 0
        return not low <= quanta < low + (1 << rules.bits)
    assert isinstance(rules, FloatRules)
    quantum = TWO ** (max(floor_log2(x), rules.emin) - rules.precision + 1)
    return abs(integer_near(x / quantum, use.rounding) * quantum) > Fraction(rules.largest)


def parts_of(acc: records.Aligned, products: Sequence[Term], spec: MacSpec) -> list[tuple[Fraction, int]]:
    """(value, exponent) of the terms that have an exponent."""
    found = []
    for i in range(0, len(products), acc.group):
        value = sum((Fraction(multiply(t)) for t in products[i : i + acc.group]), Fraction(0))
        if acc.group > 1:
            exponent = floor_log2(value) if value else None
        elif len(products[i]) == 1:
            exponent = max(floor_log2(value), -126) if value else None
        else:
            exponent = nominal(products[i], spec) if value or acc.zero == "keep" else None
        if exponent is not None:
            found.append((value, exponent))
    return found


def nominal(term: Term, spec: MacSpec) -> int | None:
    """Sum of the operands' exponents, each at least that of the smallest normal of its format."""
    exponents = []
    for x, use in zip(term, spec.operands or (None, None), strict=True):
        candidates = [floor_log2(Fraction(x))] if x else []
        if use is not None:
            rules = _rules(use.format.name)
            assert isinstance(rules, FloatRules)
            candidates.append(rules.emin)
        if not candidates:
            return None
        exponents.append(max(candidates))
    return sum(exponents)
