"""The meaning of a MacSpec: inner products in exact Python integers, one rounding where the spec has one.

Slow and obvious on purpose. Kernels only have to agree with it, bit for bit.

Rules that hold for every accumulator: NaN in, NaN out; +Inf and -Inf together, and 0 * Inf, give NaN; other infinities
stay, as far as the use of the state lets them; an exact zero sum is +0 unless every term is -0, and under rd -0 unless
every term is +0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from formats import Use, dyadic
from formats.philox import word
from formats.rounding import Rounding, parse_rounding, round_magnitude

from .accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fixed,
    Fma,
    Interleave,
    Kahan,
    Late,
    Neumaier,
    Reverse,
    Seq,
    Tree,
    joins_late,
    numbered,
)
from .places import OUTPUT, PRODUCT, SUM, A, B, C, Place, site_of
from .spec import MacSpec

Term = tuple[float, ...]  # the product of its factors: two of a product, one of a value
Dyadic = tuple[int, int]

STATE_MIN_EXPONENT = -126  # the least exponent of a state in an aligned step


def dot(
    spec: MacSpec, a: Sequence[float], b: Sequence[float], c: float | None = None, place: Place | None = None
) -> tuple[float, bool]:
    """Accumulate one inner product as a MacSpec prescribes.

    Args:
        a, b: K operands each, quantised to the operand formats first if the spec names any.
        c: addend, or None.
        place: of the output, for stochastic roundings; None for output 0 of a 1 x 1 result with seed 0.
    Returns:
        (value, whether a rounding on the way met a result beyond the largest finite value of its format,
        the conversions of a, b and c not counted). Exact definition.
    """
    run = Run(place or Place(), spec)
    if spec.operands:
        a = _quantized(spec.operands[0], a, run.place, A, run.place.row * len(a), 1)
        first_b = run.place.matrix * len(b) * run.place.columns + run.place.column
        b = _quantized(spec.operands[1], b, run.place, B, first_b, run.place.columns)
    late = joins_late(spec.accumulator)
    result = accumulate(a, b, None if late else c, run)
    final = run.word(OUTPUT, SUM) if spec.result.mode.stochastic else 0
    if late and c is not None:
        result = rounded_sum(spec.result, [(result,), (run.addend(spec.result, c),)], run, final)
    elif spec.output:
        result = rounded_sum(spec.output, [(result,)], run, final)
    return result, run.overflows > 0


def accumulate(a: Sequence[float], b: Sequence[float], c: float | None, run: Run) -> float:
    """Return the final state of the accumulator of `run.spec`, without its Late and before the output, and count.

    Args:
        a, b: K operands each, as the unit takes them. c: addend that starts the state, or None.
    """
    accumulator = run.spec.accumulator
    state = _state(accumulator.inner if isinstance(accumulator, Late) else accumulator, c, run)
    for x, y in zip(a, b, strict=True):
        state.push((x, y))
    return state.finish()


@dataclass
class Run:
    """What one inner product leaves behind beside its value.

    Args:
        place: of the output. spec: of the MAC.
        overflows: roundings that met a value beyond the largest finite one. underflows: finite values other than zero
            that were rounded to zero. swamped: additions of something, not overflowing, that left the sum as it was; in
            an aligned step terms cut to zero, in a group of a tree sums equal to the largest of several terms.
        largest: largest finite magnitude of a sum.
        used: random words used, by node and kind of rounding.
    """

    place: Place
    spec: MacSpec
    overflows: int = 0
    underflows: int = 0
    swamped: int = 0
    largest: float = 0.0
    used: dict[tuple[int, int], int] = field(default_factory=dict)

    def word(self, node: int, which: int) -> int:
        """Return the random word of the next rounding of a kind in a node."""
        k = self.used.get((node, which), 0)
        self.used[node, which] = k + 1
        p = self.place
        return word(p.seed, p.index, k & 0xFFFFFFFF, site_of(node, p.site), which, p.step)

    def addend(self, use: Use, c: float) -> float:
        """Return the addend in the format that it joins; not counted as an overflow."""
        random = self.word(C, SUM) if use.mode.stochastic else 0
        return rounded_sum(use, [(c,)], None, random)

    def held(self, value: float, unchanged: bool) -> float:
        """Note a sum that is held, and whether what was added left it unchanged."""
        self.swamped += unchanged
        if math.isfinite(value):
            self.largest = max(self.largest, abs(value))
        return value


def _quantized(use: Use, values: Sequence[float], place: Place, node: int, first: int, stride: int) -> list[float]:
    """Round operands by the definition of the format, not by its fast twin."""
    if use.format.has_blocks:
        return use.quantize(list(values)).tolist()  # a block's values depend on each other
    if not use.format.has_nan and any(math.isnan(x) for x in values):
        raise ValueError(f"{use.format.name} has no NaN, and an operand holds one")

    def random(i: int) -> int:
        index = first + i * stride
        return word(place.seed, index, 0, site_of(node, place.site), 0, place.step) if use.mode.stochastic else 0

    return [use.format.project(float(x), use.mode, use.overflow, random(i)) for i, x in enumerate(values)]


# --- states ----------------------------------------------------------------------------------------------------------


def _state(accumulator: Accumulator, c: float | None, run: Run, node: int = 0) -> _State:
    """Return the state of an accumulator, whose number in the order of `numbered` is `node`."""
    return _STATES[type(accumulator)](accumulator, c, run, node)


class _State(ABC):
    """What a unit holds for one output while products, or values of an inner accumulator, come in."""

    def __init__(self, accumulator: Accumulator, c: float | None, run: Run, node: int) -> None:
        self.accumulator, self.run, self.node = accumulator, run, node
        self.start(c)

    def start(self, c: float | None) -> None:
        """Hold the addend, converted to the state's format; +0 without one."""
        use = self.accumulator.sum  # type: ignore[union-attr]
        self.value = 0.0 if c is None else self.run.addend(use, c)

    @abstractmethod
    def push(self, term: Term) -> None:
        """Take one more product (two factors) or value (one factor)."""

    def finish(self) -> float:
        """Return the accumulated value."""
        return self.value

    def rounded(self, use: Use, terms: Sequence[Term], which: int) -> float:
        """Return one rounding of the sum of terms, with this node's next random word."""
        random = self.run.word(self.node, which) if use.mode.stochastic else 0
        return rounded_sum(use, terms, self.run, random)

    def step(self, use: Use, s: float, terms: Sequence[Term]) -> float:
        """Return R(s + terms), the next value of a sum."""
        overflows = self.run.overflows
        value = self.rounded(use, [(s,), *terms], SUM)
        added = any(_special(term) != 0.0 for term in terms)
        return self.run.held(value, value == s and added and self.run.overflows == overflows)

    def rounded_product(self, use: Use, term: Term) -> Term:
        """Return a product rounded; a value is none and stays."""
        return (self.rounded(use, [term], PRODUCT),) if len(term) == 2 else term


class _Fma(_State):
    accumulator: Fma

    def start(self, c: float | None) -> None:
        super().start(c)
        self.terms: list[Term] = []

    def push(self, term: Term) -> None:
        self.terms.append(term)
        if len(self.terms) == self.accumulator.products:
            self.end_step()

    def end_step(self) -> None:
        self.value = self.step(self.accumulator.sum, self.value, self.terms)
        self.terms = []

    def finish(self) -> float:
        if self.terms:
            self.end_step()
        return self.value


class _Seq(_State):
    accumulator: Seq

    def push(self, term: Term) -> None:
        term = self.rounded_product(self.accumulator.product, term)
        self.value = self.step(self.accumulator.sum, self.value, [term])


class _Kahan(_State):
    accumulator: Kahan

    def start(self, c: float | None) -> None:
        super().start(c)
        self.error = 0.0

    def push(self, term: Term) -> None:
        use, s = self.accumulator.sum, self.value
        (t,) = self.rounded_product(use, term)
        y = self.rounded(use, [(t,), (-self.error,)], SUM)
        z = self.step(use, s, [(y,)])
        moved = self.rounded(use, [(z,), (-s,)], SUM)
        self.error = self.rounded(use, [(moved,), (-y,)], SUM)
        self.value = z


class _Neumaier(_State):
    accumulator: Neumaier

    def start(self, c: float | None) -> None:
        super().start(c)
        self.error = 0.0

    def push(self, term: Term) -> None:
        use, s = self.accumulator.sum, self.value
        (t,) = self.rounded_product(use, term)
        z = self.step(use, s, [(t,)])
        larger, smaller = (s, t) if abs(s) >= abs(t) else (t, s)
        lost = self.rounded(use, [(larger,), (-z,)], SUM)
        lost = self.rounded(use, [(lost,), (smaller,)], SUM)
        self.error = self.rounded(use, [(self.error,), (lost,)], SUM)
        self.value = z

    def finish(self) -> float:
        return self.rounded(self.accumulator.sum, [(self.value,), (self.error,)], SUM)


class _Exact(_State):
    accumulator: Exact

    def start(self, c: float | None) -> None:
        # Without an addend the state starts at +0, as everywhere.
        self.terms: list[Term] = [(0.0 if c is None else c,)]

    def push(self, term: Term) -> None:
        self.terms.append(term)

    def finish(self) -> float:
        return self.run.held(self.rounded(self.accumulator.sum, self.terms, SUM), False)


class _Fixed(_State):
    accumulator: Fixed

    def push(self, term: Term) -> None:
        accumulator, use = self.accumulator, self.accumulator.sum
        special = _special_sum([(self.value,), term])
        random = self.run.word(self.node, PRODUCT) if use.mode.stochastic else 0
        if special is not None:
            self.value = _project_special(use, special, self.run)
            return
        integer, exponent = _exact_sum([term])
        t = use.format.round_unbounded(integer, exponent, use.mode, random)  # type: ignore[attr-defined]
        total = dyadic.add(dyadic.from_float(self.value), (t, -accumulator.frac))
        before, self.value = self.value, _project(use, total, None, 0)
        overflowed = total[0] != 0 and accumulator.range.overflows(*total, use.mode)
        self.run.overflows += overflowed
        self.run.underflows += integer != 0 and t == 0
        self.run.held(self.value, integer != 0 and self.value == before and not overflowed)


class _Chunk(_State):
    accumulator: Chunk

    def start(self, c: float | None) -> None:
        inner = self.accumulator.inner
        self.outer = _state(self.accumulator.outer, c, self.run, self.node + 1 + len(numbered(inner)))
        self.start_run()

    def start_run(self) -> None:
        self.inner = _state(self.accumulator.inner, None, self.run, self.node + 1)
        self.count = 0

    def push(self, term: Term) -> None:
        self.inner.push(term)
        self.count += 1
        if self.count == self.accumulator.length:
            self.end_run()

    def end_run(self) -> None:
        self.outer.push((self.inner.finish(),))
        self.start_run()

    def finish(self) -> float:
        if self.count:
            self.end_run()
        return self.outer.finish()


class _Interleave(_State):
    accumulator: Interleave

    def start(self, c: float | None) -> None:
        inner = self.accumulator.inner
        self.join = _state(self.accumulator.join, c, self.run, self.node + 1 + len(numbered(inner)))
        self.start_lanes()

    def start_lanes(self) -> None:
        self.lanes = [
            _state(self.accumulator.inner, None, self.run, self.node + 1) for _ in range(self.accumulator.ways)
        ]
        self.count = 0

    def push(self, term: Term) -> None:
        self.lanes[self.count % self.accumulator.ways].push(term)
        self.count += 1

    def finish(self) -> float:
        for lane in self.lanes:
            self.join.push((lane.finish(),))
        return self.join.finish()


class _Reverse(_State):
    accumulator: Reverse

    def start(self, c: float | None) -> None:
        self.inner = _state(self.accumulator.inner, c, self.run, self.node)
        self.terms: list[Term] = []

    def push(self, term: Term) -> None:
        self.terms.append(term)
        if len(self.terms) == self.accumulator.length:
            self.end_run()

    def end_run(self) -> None:
        for term in reversed(self.terms):
            self.inner.push(term)
        self.terms = []

    def finish(self) -> float:
        self.end_run()
        return self.inner.finish()


class _Tree(_State):
    accumulator: Tree

    def start(self, c: float | None) -> None:
        assert c is None, "the addend of a tree joins late"
        self.levels: list[list[Term]] = [[]]  # of each the group that is not complete

    def push(self, term: Term) -> None:
        if self.accumulator.leaves == "rounded":
            term = self.rounded_product(self.accumulator.sum, term)
        self.enter(term, 0)

    def enter(self, term: Term, level: int) -> None:
        """Take a term of a level; a group is summed as soon as it is complete."""
        if level == len(self.levels):
            self.levels.append([])
        self.levels[level].append(term)
        if len(self.levels[level]) == self.accumulator.radix:
            self.close(level)

    def close(self, level: int) -> None:
        group, self.levels[level] = self.levels[level], []
        self.enter(group[0] if len(group) == 1 else (self.group_sum(group),), level + 1)

    def finish(self) -> float:
        """Sum what is left, lowest level first; a term that is alone goes up as it is."""
        level = 0
        while level < len(self.levels):
            if len(self.levels[level]) == 1 and not any(self.levels[level + 1 :]):
                (last,) = self.levels[level]
                return last[0] if len(last) == 1 else self.group_sum([last])
            if self.levels[level]:
                self.close(level)
            level += 1
        return 0.0  # no products

    def group_sum(self, group: list[Term]) -> float:
        """Return R(the exact sum); it swamps the others if it equals the largest of several terms."""
        overflows = self.run.overflows
        value = self.rounded(self.accumulator.sum, group, SUM)
        nearly = [math.prod(term) for term in group]  # a product that is no float64 is not equal to the sum either
        largest = max(nearly, key=abs)
        swamps = sum(_special(term) != 0.0 for term in group) > 1 and value == largest
        return self.run.held(value, swamps and self.run.overflows == overflows)


class _Aligned(_State):
    accumulator: Aligned

    def start(self, c: float | None) -> None:
        super().start(c)
        self.terms: list[Term] = []

    def push(self, term: Term) -> None:
        self.terms.append(term)
        if len(self.terms) == self.accumulator.n * (2 if self.accumulator.order == "two_of_four" else 1):
            self.steps()

    def finish(self) -> float:
        if self.terms:
            self.steps()
        return self.value

    def steps(self) -> None:
        n, terms = self.accumulator.n, self.terms
        self.terms = []
        if self.accumulator.order == "two_of_four":
            terms = terms + [(0.0, 0.0)] * (2 * n - len(terms))
            terms = [terms[k] for k in range(2 * n) if k % 4 < 2] + [terms[k] for k in range(2 * n) if k % 4 >= 2]
            self.instruction(terms[:n])
            self.instruction(terms[n:])
        else:
            self.instruction(terms + [(0.0, 0.0)] * (n - len(terms)))

    def instruction(self, products: list[Term]) -> None:
        """Take one step: n products and the state."""
        spec = self.accumulator
        random = self.run.word(self.node, SUM) if spec.out.mode.stochastic else 0
        special = _special_sum([(self.value,), *products])
        if special is not None:
            self.value = _project_special(spec.out, special, self.run)
            return
        c = dyadic.from_float(self.value)
        state = [(c, max(_exponent(c), STATE_MIN_EXPONENT))] if c[0] else []  # a zero state is no term
        early, late = (state, []) if spec.c == "early" else ([], state)
        floor = [] if spec.e_min is None else [spec.e_min]
        sums, exponents = [], []
        for part in range(spec.parts):
            terms = [*self.product_terms(products[part :: spec.parts]), *early]
            exponent = max([e for _, e in terms] + floor, default=None)
            if exponent is not None:
                exponents.append(exponent)
                kept = [_cut(v, exponent - spec.frac, parse_rounding(spec.align)) for v, _ in terms]
                self.run.swamped += sum(v[0] != 0 and k[0] == 0 for (v, _), k in zip(terms, kept, strict=True))
                sums.append(_total(kept))
        sums = [_rounded_down(s, max(exponents), spec.part_frac) for s in sums]
        top = max([*exponents, *(e for _, e in late)], default=0)  # without any there are no sums
        sums = [_rounded_down(s, top, spec.sum_frac) for s in sums]
        for _, exponent in late:
            if spec.c_reach is None or not exponents or exponent >= max(exponents) - spec.c_reach:
                sums.append(_rounded_down(c, top, spec.c_frac))
        self.value = self.result(_total(sums), random)

    def product_terms(self, products: Sequence[Term]) -> Iterable[tuple[Dyadic, int]]:
        """Yield (value, exponent) of each term of a part that has an exponent."""
        spec = self.accumulator
        for first in range(0, len(products), spec.group):
            group = products[first : first + spec.group]
            value = _exact_sum(group)
            if spec.group > 1:
                if value[0]:
                    yield value, _exponent(value)
                continue
            exponent = self.nominal_exponent(group[0])
            if exponent is not None and (value[0] or spec.zero == "keep"):
                yield value, exponent

    def nominal_exponent(self, term: Term) -> int | None:
        """Return the exponent of a product as the sum of its operands', None for a zero operand without format."""
        if len(term) == 1:  # a value
            return max(_exponent(dyadic.from_float(term[0])), STATE_MIN_EXPONENT) if term[0] else None
        total = 0
        for x, use in zip(term, self.run.spec.operands or (None, None), strict=True):
            least = None if use is None else _exponent(dyadic.from_float(use.format.smallest_normal))
            if x == 0.0 and least is None:
                return None
            own = [] if x == 0.0 else [_exponent(dyadic.from_float(x))]
            total += max(own + ([] if least is None else [least]))
        return total

    def result(self, total: Dyadic, random: int) -> float:
        """Round into the state; what overflows becomes what an infinity becomes, whatever the rounding."""
        use = self.accumulator.out
        if total[0] == 0:
            return use.format.project_special(0.0, use.overflow)
        if use.format.overflows(*total, use.mode, random):
            value = _project_special(use, math.inf if total[0] > 0 else -math.inf, self.run)
        else:
            value = use.format.project_finite(*total, use.mode, use.overflow, random)
        self.run.underflows += value == 0.0
        return self.run.held(value, False)


_STATES: dict[type, type[_State]] = {
    Fma: _Fma,
    Seq: _Seq,
    Tree: _Tree,
    Interleave: _Interleave,
    Chunk: _Chunk,
    Reverse: _Reverse,
    Kahan: _Kahan,
    Neumaier: _Neumaier,
    Aligned: _Aligned,
    Exact: _Exact,
    Fixed: _Fixed,
}


# --- arithmetic ------------------------------------------------------------------------------------------------------


def rounded_sum(use: Use, terms: Sequence[Term], run: Run | None = None, random: int = 0) -> float:
    """Return R(sum of the terms), each the product of its factors, in one rounding.

    Args:
        use: format, rounding and overflow of R. random: word of a stochastic rounding.
        run: whose counts note an overflow or underflow.
    """
    special = _special_sum(terms)
    if special is not None:
        return _project_special(use, special, run)
    total = _exact_sum(terms)
    if total[0] == 0:
        return use.format.project_special(_zero_sum([_special(term) for term in terms], use.mode), use.overflow)
    return _project(use, total, run, random)


def _zero_sum(products: Sequence[float], mode: Rounding) -> float:
    """A sum that is exactly zero: +0, under rd -0, unless all terms are zeros of the other sign (IEEE 754, 6.3)."""
    usual = -0.0 if mode.mode == "rd" else 0.0
    opposite = all(p == 0.0 and math.copysign(1.0, p) != math.copysign(1.0, usual) for p in products)
    return -usual if opposite else usual


def _project(use: Use, total: Dyadic, run: Run | None, random: int) -> float:
    if total[0] == 0:
        return use.format.project_special(0.0, use.overflow)
    value = use.format.project_finite(*total, use.mode, use.overflow, random)
    if run is not None:
        run.overflows += use.format.overflows(*total, use.mode, random)
        run.underflows += value == 0.0
    return value


def _project_special(use: Use, special: float, run: Run | None) -> float:
    """What NaN and infinities become; arithmetic modulo 2^N has no infinity, and NaN says so."""
    if math.isnan(special):
        return math.nan
    if run is not None:
        run.overflows += 1
    return math.nan if use.overflow == "wrap" else use.format.project_special(special, use.overflow)


def _special_sum(terms: Sequence[Term]) -> float | None:
    """The sum if it is no finite number, else None."""
    products = [_special(term) for term in terms]
    if any(math.isnan(p) for p in products) or (math.inf in products and -math.inf in products):
        return math.nan
    return next((p for p in products if math.isinf(p)), None)


def _special(term: Term) -> float:
    """The product of the factors as far as zeros, signs and specials go; a finite non-zero product becomes +-1."""
    if any(math.isnan(f) for f in term):
        return math.nan
    sign = math.prod(math.copysign(1.0, f) for f in term)
    zero, infinite = any(f == 0.0 for f in term), any(math.isinf(f) for f in term)
    if zero and infinite:
        return math.nan
    return math.copysign(0.0 if zero else math.inf if infinite else 1.0, sign)


def _exact_sum(terms: Sequence[Term]) -> Dyadic:
    return _total(_product(term) for term in terms)


def _product(term: Term) -> Dyadic:
    product = (1, 0)
    for factor in term:
        product = dyadic.multiply(product, dyadic.from_float(factor))
    return product


def _total(values: Iterable[Dyadic]) -> Dyadic:
    total = (0, 0)
    for value in values:
        total = dyadic.add(total, value)
    return total


def _exponent(value: Dyadic) -> int:
    """floor(log2|value|) of a value that is not zero."""
    return abs(value[0]).bit_length() - 1 + value[1]


def _rounded_down(value: Dyadic, top: int, frac: int | None) -> Dyadic:
    """Round down, `frac` bits below 2**top being kept; None keeps all."""
    return value if frac is None else _cut(value, top - frac, parse_rounding("rd"))


def _cut(value: Dyadic, last: int, rounding: Rounding) -> Dyadic:
    """Round to a multiple of 2**last."""
    integer, exponent = value
    if exponent >= last:
        return value
    magnitude = round_magnitude(abs(integer), last - exponent, rounding, integer < 0)
    return (-magnitude if integer < 0 else magnitude), last
