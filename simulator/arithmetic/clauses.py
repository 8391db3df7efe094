"""Clauses that several conditions are made of: what a lane has to hold, what rounds once, what stays exact.

The facts that they cite have their numbers in conditions.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from formats import FixedFormat, FloatFormat, Use, dyadic
from native.matmul import Join, Node

from .situation import FLOAT32, TWO, Clause, Lane, Situation, float_of, log2_ceiling, quantum

IN_ORDER = "products come in order, in runs that are joined by single sums if at all"
TAPERED = ("formats.posit.PositFormat", "formats.takum.TakumFormat")


class Term(NamedTuple):
    """What a leaf adds: at most `bits` significant bits, the last at 2**last or above, at most `largest`."""

    bits: int
    last: int
    largest: Fraction


def term_of(s: Situation) -> Term:
    """Return what a leaf of fma or seq adds: products, rounded if it is a seq."""
    bits, last = s.product_bits, s.product_last
    if s.leaf.kind == "seq":
        assert s.leaf.product is not None
        product = float_of(s.leaf.product)
        bits, last = min(bits, product.precision), max(last, quantum(product))
        if s.largest > product.max and math.isfinite(product.overflowed(s.leaf.product.overflow)):
            # A product that saturates becomes the largest value, which has bits of its own.
            top, top_last = dyadic.from_float(product.max)
            bits, last = max(bits, top.bit_length()), min(last, top_last)
    return Term(bits, last, min(s.largest, s.total) if s.k else s.largest)


class Clauses:
    """The clauses of one lane kernel as they are collected, first those that all of them have.

    Args:
        linear: whether the kernel takes a leaf with runs of runs only.
    """

    def __init__(self, lane: Lane, situation: Situation, linear: bool = True) -> None:
        self.lane, self.situation = lane, situation
        self.clauses: list[Clause] = []
        s = situation
        if linear:
            self.need(s.lowered.joins is not None, IN_ORDER)
        if lane is FLOAT32:
            self.need(not s.wide_operands, "operands are float32 values")
        self.need(
            s.product_bits <= lane.precision and s.product_last >= lane.last and s.product_high <= lane.top,
            f"product exact: {s.product_bits} bits <= {lane.precision}, last bit 2^{s.product_last} >= 2^{lane.last}, "
            f"below 2^{s.product_high} <= 2^{lane.top}",
        )

    def need(self, holds: bool, text: str) -> None:
        """Add a clause."""
        self.clauses.append(Clause(text, bool(holds)))

    def exact_group(self, node: Node, index: int) -> None:
        """The products that a node takes at once, with the addend of an exact sum, have an exact sum."""
        s, cut = self.situation, None
        self.zeros(node)
        if node.kind == "exact":
            (high, last), cut = exact_range(s, index == 0), split(s)
            text = f"all sums exact: 2^{high} down to 2^{last} within 53 bits"
        else:
            count = min(node.length, s.k)
            high, last = log2_ceiling(count * s.largest), s.product_last
            text = f"{count} products sum up exactly: 2^{high} down to 2^{last} within 53 bits"
        self.need(high <= self.lane.top - 2, f"what is added at once stays below 2^{high} <= 2^{self.lane.top - 2}")
        if cut is None:
            self.need(high - last <= 53, text)
        else:
            finite = s.finite and not (s.c and s.c.minus_zero)
            bits = cut - 1 + s.k.bit_length() - last
            self.need(finite and bits <= 53, f"{text}; or finite, and below 2^{cut} apart: {bits} bits <= 53")

    def zeros(self, node: Node) -> None:
        """Sums of several products have the sign of a zero that rounding to nearest gives them."""
        assert node.sum is not None
        self.need(node.sum.mode.mode != "rd", f"{node.sum} gives no negative zero for a sum that cancels")

    def fixed_sum(self, node: Node) -> None:
        """Integers below 2^53 are added exactly, and what is added is rounded to one once."""
        s, use = self.situation, node.sum
        assert use is not None and isinstance(use.format, FixedFormat)
        most = 53 if dict(node.fields)["tracks"] else 51
        quanta = s.product_high + use.format.fraction_bits
        self.need(s.finite, "operands and addend are finite")
        self.need(use.format.bits <= most, f"{use} has at most {most} bits")
        self.need(use.format.fraction_bits <= 1000, f"{use}: {use.format.fraction_bits} fraction bits <= 1000")
        self.need(quanta <= 51, f"products stay below 2^{quanta} <= 2^51 quanta")

    def rounds_from_odd(self, use: Use) -> None:
        """A sum rounded to odd at W bits is rounded once into the use, with random bits to spare where it is random."""
        fmt, bits = use.format, use.format.bits
        match fmt:
            case FloatFormat():
                bits = fmt.precision
                inside = self.lane.lowest_normal <= fmt.min_exponent <= 900 and Fraction(fmt.max) <= TWO**1022
                self.need(inside, f"{fmt.name} lies within 2^{fmt.min_exponent} .. 2^1022")
            case FixedFormat():
                self.need(use.overflow != "wrap", f"{use} does not wrap around")
                self.need(fmt.fraction_bits <= 1000, f"{fmt.name}: {fmt.fraction_bits} fraction bits <= 1000")
            case _:
                self.need(fmt.family in TAPERED, f"{use} is a float, posit, takum or fixed point")
        spare, w, random_bits = bits + use.mode.random_bits + 2, self.lane.precision, use.mode.random_bits
        random = f" + {random_bits} random" if random_bits else ""
        self.need(spare <= w, f"{use} from a sum rounded to odd: {bits}{random} + 2 bits <= {w}")

    def representable(self, use: Use) -> None:
        """The lane holds the format with two bits to spare, and zero signs and subnormals as IEEE has them."""
        fmt, lane = float_of(use), self.lane
        # With a single significand bit the parity of the code decides ties, which the rounding constant cannot see.
        ieee_like = fmt.rules.signed and fmt.rules.field_zero == "subnormal" and fmt.precision > 1
        self.need(
            ieee_like and fmt.subnormals and fmt.has_negative_zero,
            f"{fmt.name} keeps a sign, subnormals and -0, p >= 2",
        )
        self.need(use.rounding == "rne", f"{use} rounds to nearest, ties to even")
        same = math.isnan(fmt.infinite(use.overflow)) or fmt.infinite(use.overflow) == fmt.overflowed(use.overflow)
        self.need(same, f"{use} treats infinities as overflow")
        limit = lane.top - lane.precision + fmt.precision  # fact 5
        self.need(
            fmt.precision <= lane.precision - 2
            and quantum(fmt) >= lane.last
            and lane.lowest_normal <= fmt.min_exponent < limit
            and Fraction(fmt.max) < TWO**lane.top,
            f"{fmt.name} in a {lane.name} lane: p = {fmt.precision} <= {lane.precision - 2}, "
            f"subnormals from 2^{quantum(fmt)} >= 2^{lane.last}, normals from 2^{fmt.min_exponent} < 2^{limit}, "
            f"largest {fmt.max:g} < 2^{lane.top}",
        )

    def roundable(self, use: Use, bound: Fraction, what: str) -> None:
        """Fact 5, for |x| < bound."""
        limit = self.lane.top - self.lane.precision + float_of(use).precision
        exponent = log2_ceiling(bound)
        self.need(exponent <= limit, f"{what} below 2^{exponent} <= 2^{limit}, where the rounding constant works")

    def sum_bound(self, use: Use, start: Fraction, total: Fraction, finite: bool) -> Fraction:
        """Fact 4, and the largest finite value, to which infinities may saturate: no finite state exceeds this.

        Args:
            finite: whether no term is infinite.
        """
        top = Fraction(float_of(use).max)
        saturates = math.isfinite(float_of(use).overflowed(use.overflow))
        return top if saturates and not finite else min(top, start + 2 * total)

    def finite_sums(self, use: Use, start: Fraction, total: Fraction, finite: bool) -> bool:
        """Whether no state is infinite; arguments as for sum_bound."""
        fits = finite and start + 2 * total <= Fraction(float_of(use).max)
        return fits or not math.isinf(float_of(use).overflowed(use.overflow))

    def finite_terms(self) -> bool:
        """Whether no term of the leaf is infinite: no product is, before or after its rounding."""
        s, product = self.situation, self.situation.leaf.product
        if s.leaf.kind != "seq" or product is None or not math.isinf(float_of(product).overflowed(product.overflow)):
            return s.finite
        return s.finite and s.largest <= Fraction(float_of(product).max)

    def single_rounding(self, use: Use, term: Term, bound: Fraction, start_last: int | None, odd: bool) -> None:
        """s + t reaches the format with one rounding; |s + t| <= bound."""
        fmt, lane, bits, last = float_of(use), self.lane, term.bits, term.last
        w, p = lane.precision, fmt.precision
        if odd:
            self.need(w >= p + 2, f"sum rounded to odd first: {w} >= {p} + 2")
            return
        # s is a sum of terms, each rounded at the format's quantum or above.
        state_last = max(quantum(fmt), last if start_last is None else min(last, start_last))
        lowest, highest = min(last, state_last), log2_ceiling(bound)
        exact = highest - lowest <= w
        innocuous = w >= 2 * p + 2 and bits <= p and fmt.min_exponent - lowest <= w
        reach = log2_ceiling(term.largest)
        apart = w >= bits + p + 1 and reach - state_last < w
        text = f"sum exact: 2^{highest} down to 2^{lowest} is {highest - lowest} bits <= {w}"
        fitting = (
            f"term fits, {bits} <= p = {p}, and {w} >= 2*{p} + 2; "
            f"subnormal sums exact: {fmt.min_exponent} - ({lowest}) <= {w}"
        )
        hidden = f"terms up to 2^{reach} hide no state from 2^{state_last}: {reach - state_last} < {w}"
        apart_text = f"{w} >= {bits} + {p} + 1; {hidden}"
        if not exact and not innocuous and not apart:
            text += f"; or {fitting}; or {apart_text}"
        elif not exact:
            text = f"double rounding innocuous: {fitting if innocuous else apart_text}"
        self.need(exact or innocuous or apart, text)

    def joins(
        self, joins: Sequence[Join], run_bound: Fraction, start: Fraction, finite_terms: bool, finite_runs: bool
    ) -> None:
        """Runs are joined with sums rounded to odd first.

        Args:
            run_bound: no finite state of the leaf exceeds this. start: |c|, of the last join.
            finite_terms, finite_runs: whether no term, and no state, of the leaf is infinite.
        """
        products, total = self.situation.k, self.situation.total
        for level, join in enumerate(joins):
            self.representable(join.sum)
            runs, total = -(-products // join.length), 2 * total
            begin = start if level == len(joins) - 1 else Fraction(0)
            # Where infinities saturate, finite products do not bound the states.
            added = min(runs * run_bound, total) if finite_terms else runs * run_bound
            finite_terms, added_finite = finite_terms and finite_runs, finite_runs and self.situation.finite
            bound = self.sum_bound(join.sum, begin, added, added_finite)
            self.roundable(join.sum, bound + 2 * run_bound, f"joined runs of {join.length}")
            run_bound, finite_runs = bound, self.finite_sums(join.sum, begin, added, added_finite)


def exact_range(s: Situation, whole: bool) -> tuple[int, int]:
    """Return (high, last): exact sums of products, of the addend too if they are the whole, stay below 2^high and are
    multiples of 2^last."""
    start = s.c if whole and s.c and s.c.nonzero else None
    last = min(s.product_last, start.min_last_bit) if start else s.product_last
    return log2_ceiling(s.k * s.largest + (s.addend if start else 0)), last


def split(situation: Situation) -> int | None:
    """Return the g at which exact sums in lanes are split in two, None if one holds them.

    The upper parts are multiples of 2^g and their sum stays below 2^high, high - g <= 53; the lower ones are at most
    2^(g - 1), so that the sum of K + 1 of them has at most g - 1 + bits(K) - last bits. A term has to stay below
    2^(g + 51) for the cut by a constant.
    """
    s = situation
    if s.leaf.kind != "exact":
        return None
    high, last = exact_range(s, s.lowered.leaf == 0)
    largest = max(s.product_high, log2_ceiling(s.addend))
    return None if high - last <= 53 else max(high - 53, largest - 51)
