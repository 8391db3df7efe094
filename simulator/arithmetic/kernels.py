"""Which kernel may run: each fast kernel's condition, checked against the accumulator and the operands at hand.

A kernel equals the definition only under its condition. `choose` takes the first kernel, in order of cost, whose
clauses all hold; the integer kernel holds for nearly everything, the definition itself always. The clauses keep their
numbers, which are the proof.

Notation: W lane precision, p precision of a use, q exponent of its smallest subnormal, e_min that of its smallest
normal; a product a*b has at most n_ab significant bits, its last at 2^l_ab or above, and |a*b| < 2^h_ab.

Facts used
1. A sum that is exact in a lane is rounded once, by the constant alone.
2. Two numbers of at most p bits, rounded to nearest at W >= 2p + 2 bits and then at p, give the same as one rounding
   (Figueroa, 1995); below e_min the same holds if the sum is exact, that is if e_min - (last bit) <= W.
3. A sum rounded to odd at W >= p + 2 bits and then to nearest at p gives the same as one rounding (Boldo and
   Melquiond, 2008).
4. Rounding to nearest moves s + t by at most |t|, since s is representable: |R(s + t)| <= |s| + 2|t|. So K steps from c
   stay below |c| + 2K max|t|.
5. Adding and subtracting 1.5 * 2^(max(e, e_min) + W - p), e the exponent of x, rounds to p bits as long as that
   constant is finite: |x| < 2^(E - W + p) and e_min < E - W + p, 2^E the lane's overflow bound.
6. The sum of |a_k b_k| over k is at most |row of a| |column of b| (Cauchy and Schwarz), and a rounded product at most
   2|a*b|. Where that beats K max|t| it takes its place in fact 4.
7. Let t have n bits, |t| <= 2^h, and s be a multiple of 2^l. If W >= n + p + 1 and h - l < W, then s + t rounded to
   nearest at W bits and then at p gives the same as one rounding. For let e be the exponent of an s + t that W bits do
   not hold. If t ends below 2^(e - W + 1), then |t| < 2^(e - W + n) <= 2^(e - p - 1): s lies on the grid of p bits at
   s + t, less than a quarter of its spacing away, and both ways give s. Else s ends below: |s| < 2^(e - W + p), so
   2^(e - 1) < |t| and e <= h; but s is a multiple of 2^l and l >= h - W + 1.
8. If all terms and the start are multiples of the subnormals' quantum, so are all sums; those below 2^e_min are exact.
   No sum underflows to a zero, so a state is -0 only if it started there.
9. A posit of at most p bits is a multiple of minpos, and what decides between two neighbours has at most p + 1 bits. So
   a sum rounded to odd at W >= p + 2 bits goes where the sum itself would, near minpos and maxpos too.

What holds besides allows a kernel to leave work out of each step (`Shortcuts`); it changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from formats import FixedFormat, FloatFormat, PositFormat, Use, dyadic
from native.matmul import Join, Node, Profile

from .lowering import Lowered

TWO = Fraction(2)
RZ = 3  # as engine.h numbers the roundings
IN_ORDER = "products come in order, in runs that are joined by single sums if at all"
TAPERED = ("formats.posit.PositFormat", "formats.takum.TakumFormat")
MAX_COUNTED = 1 << 29  # products of an output whose roundings, of the runs too, lanes of 32 bits can count
MAX_SLOTS = 1 << 16  # products of an output that the aligned kernel packs at once


class Clause(NamedTuple):
    """One part of a kernel's condition, with its numbers."""

    text: str
    holds: bool


class Shortcuts(NamedTuple):
    """What a lane kernel may leave out of each step.

    Args:
        bounded: no sum overflows; else tiles are watched, and done again if they come near.
        sums_on_grid: sums are multiples of their subnormals' quantum, and no state is -0.
        products_on_grid: the same of products.
    """

    bounded: Clause
    sums_on_grid: Clause
    products_on_grid: Clause

    @property
    def on_grid(self) -> int:
        """As the engine wants it: 0, 1 for sums, 2 for sums and products."""
        return int(self.sums_on_grid.holds) + int(self.sums_on_grid.holds and self.products_on_grid.holds)


@dataclass(frozen=True)
class Situation:
    """What a kernel is asked to do.

    Args:
        lowered: the accumulator.
        a, b: profiles of the operands as the engine will see them.
        c: profile of the addend in the state's format, or None.
        k: inner length.
        wide_operands: whether an operand needs float64 storage.
    """

    lowered: Lowered
    a: Profile
    b: Profile
    c: Profile | None
    k: int
    wide_operands: bool

    @property
    def leaf(self) -> Node:
        return self.lowered.nodes[self.lowered.leaf]

    @property
    def product_bits(self) -> int:
        return self.a.significant_bits + self.b.significant_bits

    @property
    def product_last(self) -> int:
        return self.a.min_last_bit + self.b.min_last_bit

    @property
    def product_high(self) -> int:
        """|a*b| < 2**product_high."""
        return self.a.max_exponent + self.b.max_exponent + 2

    @property
    def finite(self) -> bool:
        """Whether operands and addend hold neither infinities nor NaNs."""
        return self.a.finite and self.b.finite and (self.c is None or self.c.finite)

    @property
    def largest(self) -> Fraction:
        """No finite product, rounded to nearest or not, exceeds this."""
        return TWO**self.product_high

    @cached_property
    def total(self) -> Fraction:
        """The magnitudes of an output's finite products, rounded if its leaf rounds them, sum up to at most this."""
        largest = self.k * self.largest
        if math.isinf(self.a.square) or math.isinf(self.b.square):
            return largest
        norms = _root_above(Fraction(self.a.square) * Fraction(self.b.square))
        return min(largest, 2 * norms if self.leaf.kind == "seq" else norms)

    @property
    def starts_in_leaf(self) -> bool:
        """Whether the addend is where the leaf starts, and not a level of joins."""
        return not self.lowered.joins

    @property
    def addend(self) -> Fraction:
        """|c| < this."""
        return TWO ** (self.c.max_exponent + 1) if self.c and self.c.nonzero else Fraction(0)


@dataclass(frozen=True)
class Lane:
    """A SIMD lane as a number format: precision W, overflow bound 2**top, last representable bit 2**last."""

    name: str
    precision: int
    top: int
    last: int
    lowest_normal: int


FLOAT32 = Lane("float32", 24, 128, -149, -126)
FLOAT64 = Lane("float64", 53, 1024, -1074, -1022)


def _float(use: Use) -> FloatFormat:
    assert isinstance(use.format, FloatFormat)
    return use.format


def _uses(situation: Situation) -> list[Use]:
    """Every use in which a leaf with runs of runs rounds."""
    joins = situation.lowered.joins or ()
    return [use for use in (situation.leaf.product, situation.leaf.sum, *(join.sum for join in joins)) if use]


def _posit(use: Use) -> PositFormat:
    assert isinstance(use.format, PositFormat)
    return use.format


def _quantum(fmt: FloatFormat) -> int:
    return fmt.min_exponent - fmt.fraction_bits


def _log2_ceiling(x: Fraction) -> int:
    """Smallest e with x <= 2**e."""
    if x <= 0:
        return -4096
    estimate = x.numerator.bit_length() - x.denominator.bit_length()
    return next(e for e in (estimate - 1, estimate, estimate + 1) if x <= TWO**e)


def _root_above(x: Fraction) -> Fraction:
    """At least the square root of x, by 2^-30 of it at most where x is not tiny."""
    shift = 60 + max(x.denominator.bit_length() - x.numerator.bit_length(), 0)
    return Fraction(math.isqrt(math.ceil(x * 4**shift)) + 1, 2**shift)


class Term(NamedTuple):
    """What a leaf adds: at most `bits` significant bits, the last at 2**last or above, at most `largest`."""

    bits: int
    last: int
    largest: Fraction


def _term(s: Situation) -> Term:
    bits, last = s.product_bits, s.product_last
    if s.leaf.kind == "seq":
        assert s.leaf.product is not None
        product = _float(s.leaf.product)
        bits, last = min(bits, product.precision), max(last, _quantum(product))
        if s.largest > product.max and math.isfinite(product.overflowed(s.leaf.product.overflow)):
            # A product that saturates becomes the largest value, which has bits of its own.
            top, top_last = dyadic.from_float(product.max)
            bits, last = max(bits, top.bit_length()), min(last, top_last)
    return Term(bits, last, min(s.largest, s.total) if s.k else s.largest)


def _shortcuts(s: Situation) -> Shortcuts:
    leaf = s.leaf
    assert leaf.sum is not None
    sums = _float(leaf.sum)
    bound = (s.addend if s.starts_in_leaf else 0) + 2 * s.total
    fits = s.finite and bound <= sums.max
    text = f"no sum overflows: |c| + 2 sum|a*b| <= {float(bound):.6g} <= {sums.max:g}, all finite"
    grid = _quantum(sums)
    last = _term(s).last
    starts_at_zero = s.c is None or not s.starts_in_leaf or not s.c.minus_zero
    on_grid = last >= grid and starts_at_zero
    products = True
    products_text = "products are not rounded"
    if leaf.kind == "seq":
        assert leaf.product is not None
        product = _float(leaf.product)
        fits &= _term(s).largest <= product.max
        text += f"; no product: {float(_term(s).largest):.6g} <= {product.max:g}"
        products = s.product_last >= _quantum(product)
        products_text = f"products do not underflow: last bit 2^{s.product_last} >= 2^{_quantum(product)}"
    return Shortcuts(
        Clause(text, bool(fits)),
        Clause(f"sums do not underflow: terms end at 2^{last} >= 2^{grid}, and no state starts at -0", on_grid),
        Clause(products_text, products),
    )


class _Conditions:
    """Collects the clauses of one lane kernel."""

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
        self.clauses.append(Clause(text, bool(holds)))

    def exact_group(self, node: Node, index: int) -> None:
        """The products that a node takes at once, with the addend of an exact sum, have an exact sum."""
        s = self.situation
        self.zeros(node)
        if node.kind == "exact":
            high, last = _exact_range(s, index == 0)
            text, cut = f"all sums exact: 2^{high} down to 2^{last} within 53 bits", split(s)
            if cut is None:
                self.need(True, text)
            else:
                finite = s.finite and not (s.c and s.c.minus_zero)
                bits = cut - 1 + s.k.bit_length() - last
                self.need(finite and bits <= 53, f"{text}; or finite, and below 2^{cut} apart: {bits} bits <= 53")
        else:
            count = min(node.length, s.k)
            high, last = _log2_ceiling(count * s.largest), s.product_last
            self.need(high - last <= 53, f"{count} products sum up exactly: 2^{high} down to 2^{last} within 53 bits")

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
        fmt, lane = _float(use), self.lane
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
            and _quantum(fmt) >= lane.last
            and lane.lowest_normal <= fmt.min_exponent < limit
            and Fraction(fmt.max) < TWO**lane.top,
            f"{fmt.name} in a {lane.name} lane: p = {fmt.precision} <= {lane.precision - 2}, "
            f"subnormals from 2^{_quantum(fmt)} >= 2^{lane.last}, normals from 2^{fmt.min_exponent} < 2^{limit}, "
            f"largest {fmt.max:g} < 2^{lane.top}",
        )

    def roundable(self, use: Use, bound: Fraction, what: str) -> None:
        """Fact 5, for |x| < bound."""
        limit = self.lane.top - self.lane.precision + _float(use).precision
        exponent = _log2_ceiling(bound)
        self.need(exponent <= limit, f"{what} below 2^{exponent} <= 2^{limit}, where the rounding constant works")

    def sum_bound(self, use: Use, start: Fraction, total: Fraction) -> Fraction:
        """Fact 4, and the largest finite value, to which infinities may saturate: no finite state exceeds this."""
        top = Fraction(_float(use).max)
        saturates = math.isfinite(_float(use).overflowed(use.overflow))
        return top if saturates and not self.situation.finite else min(top, start + 2 * total)

    def single_rounding(self, use: Use, term: Term, bound: Fraction, start_last: int | None, odd: bool) -> None:
        """s + t reaches the format with one rounding; |s + t| <= bound."""
        fmt, lane, bits, last = _float(use), self.lane, term.bits, term.last
        w, p = lane.precision, fmt.precision
        if odd:
            self.need(w >= p + 2, f"sum rounded to odd first: {w} >= {p} + 2")
            return
        # s is a sum of terms, each rounded at the format's quantum or above.
        state_last = max(_quantum(fmt), last if start_last is None else min(last, start_last))
        lowest, highest = min(last, state_last), _log2_ceiling(bound)
        exact = highest - lowest <= w
        innocuous = w >= 2 * p + 2 and bits <= p and fmt.min_exponent - lowest <= w
        reach = _log2_ceiling(term.largest)
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

    def joins(self, joins: Sequence[Join], run_bound: Fraction, start: Fraction) -> None:
        """Runs are joined with sums rounded to odd first."""
        terms, total = self.situation.k, self.situation.total
        for level, join in enumerate(joins):
            self.representable(join.sum)
            runs, total = -(-terms // join.length), 2 * total
            begin = start if level == len(joins) - 1 else Fraction(0)
            bound = self.sum_bound(join.sum, begin, min(runs * run_bound, total))
            self.roundable(join.sum, bound + 2 * run_bound, f"joined runs of {join.length}")
            run_bound = bound


def _lane_kernel(lane: Lane, step: str, odd: bool, situation: Situation) -> list[Clause]:
    c = _Conditions(lane, situation)
    s, leaf, term = situation, situation.leaf, _term(situation)
    assert leaf.sum is not None
    c.representable(leaf.sum)
    if leaf.kind == "seq":
        assert leaf.product is not None
        c.representable(leaf.product)
        if step == "seq":
            c.roundable(leaf.product, s.largest, "product")
        else:
            product = _float(leaf.product)
            c.need(
                s.product_bits <= product.precision
                and s.product_last >= _quantum(product)
                and s.largest <= product.max
                and s.finite,
                f"products are values of {product.name}, all finite: {s.product_bits} bits <= {product.precision}, "
                f"last bit 2^{s.product_last} >= 2^{_quantum(product)}, below 2^{s.product_high} <= {product.max:g}",
            )
    start = s.addend if s.starts_in_leaf else Fraction(0)
    bound = c.sum_bound(leaf.sum, start, s.total)
    # An exact product stays below `largest`; a rounded one may reach it.
    c.roundable(leaf.sum, bound + (2 * s.largest if leaf.kind == "seq" else s.largest), "sum")
    start_last = s.c.min_last_bit if s.starts_in_leaf and s.c and s.c.nonzero else None
    c.single_rounding(leaf.sum, term, bound + term.largest, start_last, odd)
    c.joins(s.lowered.joins or (), bound, s.addend)
    return c.clauses


def _integer_any(situation: Situation) -> list[Clause]:
    uses = [use for node in situation.lowered.nodes for use in (node.product, node.sum) if use]
    strange = [str(use) for use in uses if use.format.family == "formats.codebook.CodebookFormat"]
    text = "every rounding is into a float, posit, takum or fixed point"
    return [Clause(text + (f"; {strange[0]} is none" if strange else ""), not strange)]


def _posit_kernel(lane: Lane, situation: Situation) -> list[Clause]:
    """Fact 9. The state saturates or becomes NaR, so that no bound depends on K."""
    c = _Conditions(lane, situation)
    s = situation
    # A product below 2^(top - 1) and a state of at most 2^(top - 2) have a sum in the lane's range.
    c.need(
        s.product_high < lane.top and s.product_last >= lane.lowest_normal,
        f"sums with products are normal: below 2^{s.product_high} <= 2^{lane.top - 1}, "
        f"last bit 2^{s.product_last} >= 2^{lane.lowest_normal}",
    )
    for use in _uses(situation):
        fmt = _posit(use)
        w, p, largest = lane.precision, fmt.precision, (fmt.n - 2) << fmt.es
        c.need(use.rounding == "rne", f"{use} rounds to nearest, ties to even")
        c.need(w >= p + 2, f"sum rounded to odd first: {w} >= {p} + 2")
        c.need(
            fmt.n > 2 and largest <= min(lane.top - 2, -lane.lowest_normal),
            f"{fmt.name} in a {lane.name} lane: n >= 3, from 2^{-largest} >= 2^{lane.lowest_normal} "
            f"to 2^{largest} <= 2^{lane.top - 2}",
        )
    return c.clauses


def _exact_lanes(lane: Lane, situation: Situation) -> list[Clause]:
    s = situation
    c = _Conditions(lane, s)
    c.need(not s.lowered.leaf, "the sum is exact as a whole, not part by part")
    if s.leaf.kind == "exact":
        c.zeros(s.leaf)
    if s.leaf.kind == "fixed_point":
        assert s.leaf.product is not None and isinstance(s.leaf.product.format, FixedFormat)
        ends = s.leaf.product.format
        c.need(s.finite, "operands and addend are finite")
        c.need(s.product_last >= -ends.fraction_bits, f"products end at 2^{s.product_last} >= 2^-{ends.fraction_bits}")
        bound = s.addend + s.total
        c.need(bound <= Fraction(ends.max), f"no sum leaves the range: {float(bound):.6g} <= {ends.max:g}")
    last = min([s.product_last] + ([s.c.min_last_bit] if s.c and s.c.nonzero else []))
    high = _log2_ceiling(s.addend + s.total)
    exact = high - last <= lane.precision and high <= lane.top and last >= lane.last
    text = f"2^{high} down to 2^{last} is {high - last} bits <= {lane.precision}, below 2^{lane.top}"
    c.need(exact, f"all partial sums exact: {text}")
    return c.clauses


def _aligned_lanes(situation: Situation) -> list[Clause]:
    """The aligned step in float32 lanes: products and their sums are exact, and E - F stays in the lane's range."""
    s, leaf = situation, situation.leaf
    assert leaf.sum is not None
    c = _Conditions(FLOAT32, s)
    words = dict(leaf.fields)
    plain = not any((words["keeps_zeros"], words["group"] > 1, words["parts"] > 1))
    c.need(plain and words["align"] == RZ, "products are cut toward zero one by one, in one part, zeros dropped")
    c.need(s.finite, "operands and addend are finite")
    for name, profile in (("a", s.a), ("b", s.b)):
        least = words[f"{name}_min_exponent"]
        known = least >= FLOAT32.lowest_normal or profile.min_last_bit >= FLOAT32.lowest_normal
        c.need(known, f"exponents of {name} are those of normal float32s, or not below those of its format")
    fraction = words["fraction"]
    c.need(
        leaf.length << (fraction + 2) <= 1 << 31,
        f"{leaf.length} products below 2^{fraction + 2} sum up to at most 2^31",
    )
    lowest = 2 * fraction + FLOAT32.lowest_normal
    start = s.c.min_last_bit if s.c and s.c.nonzero and s.starts_in_leaf and not words["late"] else 0
    c.need(
        s.product_last >= lowest and start >= fraction + FLOAT32.lowest_normal,
        f"scaling by 2^(F - E) stays in range: products end at 2^{s.product_last} >= 2^{lowest}, "
        f"the addend at 2^{start} >= 2^{fraction + FLOAT32.lowest_normal}",
    )
    nominal = sum(
        max(profile.max_exponent, words[f"{name}_min_exponent"]) for name, profile in (("a", s.a), ("b", s.b))
    )
    # A state's exponent is at most 127, and F at least 1.
    highest, most = max(nominal, words["min_exponent"]), fraction - FLOAT32.lowest_normal
    c.need(highest <= most, f"2^(F - E) is a normal float32: E is at most {highest} <= {most}")
    c.need(leaf.sum.rounding in ("rz", "rne"), f"{leaf.sum} rounds toward zero, or to nearest even")
    out = leaf.sum.format
    held = isinstance(out, FloatFormat) and out.rules.signed and out.rules.field_zero == "subnormal" and out.subnormals
    held = held and out.has_negative_zero and 2 <= out.precision <= 24 and _quantum(out) >= FLOAT32.last  # type: ignore
    c.need(held and out.max < TWO**128, f"{out.name} keeps a sign, subnormals and -0, 2 <= p <= 24, within float32")
    for join in s.lowered.joins or ():
        fixed = not join.sum.mode.stochastic and join.sum.format.family != "formats.codebook.CodebookFormat"
        c.need(fixed, f"{join.sum} joins runs without random words, and not by a codebook")
    slots = _slots(s, leaf.length * (2 if words["two_of_four"] else 1))
    c.need(slots <= MAX_SLOTS, f"{slots} products, zeros filled in, <= {MAX_SLOTS}")
    return c.clauses


# Kinds of nodes that lanes run; of trees those of pairs.
LANE_NODES = ("fma", "seq", "tree", "interleave", "chunk", "kahan", "neumaier", "exact", "fixed_point")


def _any_lanes(situation: Situation) -> list[Clause]:
    """Every sum is rounded to odd in float64, then into its use (fact 3, and fact 9 for tapered formats)."""
    s, lane = situation, FLOAT64
    c = _Conditions(lane, s, linear=False)
    c.need(s.product_high <= lane.top - 2, f"products stay below 2^{s.product_high} <= 2^{lane.top - 2}")
    for index, node in enumerate(s.lowered.nodes):
        c.need(node.kind in LANE_NODES, f"lanes run {node.kind} steps")
        if node.kind == "tree":
            c.need(node.length == 2, f"the tree sums pairs, not groups of {node.length}")
        several = node.kind == "exact" or (node.kind == "fma" and node.length > 1)
        if several or node.kind == "fixed_point":
            c.need(index == s.lowered.leaf, f"the {node.kind} takes the products themselves")
        if several:
            c.exact_group(node, index)
        if node.kind == "fixed_point":
            c.fixed_sum(node)
            continue
        for use in (node.product, node.sum):
            if use:
                c.rounds_from_odd(use)
    return c.clauses


def _exact_range(s: Situation, whole: bool) -> tuple[int, int]:
    """Return (high, last): exact sums of products, of the addend too if they are the whole, stay below 2^high and are
    multiples of 2^last."""
    start = s.c if whole and s.c and s.c.nonzero else None
    last = min(s.product_last, start.min_last_bit) if start else s.product_last
    return _log2_ceiling(s.k * s.largest + (s.addend if start else 0)), last


def split(situation: Situation) -> int | None:
    """Return the g at which exact sums in lanes are split in two, None if one holds them.

    The upper parts are multiples of 2^g and their sum stays below 2^high, high - g <= 53; the lower ones are at most
    2^(g - 1), so that the sum of K + 1 of them has at most g - 1 + bits(K) - last bits. A term has to stay below
    2^(g + 51) for the cut by a constant.
    """
    s = situation
    if s.leaf.kind != "exact":
        return None
    high, last = _exact_range(s, s.lowered.leaf == 0)
    largest = max(s.product_high, _log2_ceiling(s.addend))
    return None if high - last <= 53 else max(high - 53, largest - 51)


def _slots(s: Situation, length: int) -> int:
    """At most so many products are taken, with the zeros that fill the last step of each run."""
    lengths = [join.length for join in s.lowered.joins or ()] or [max(s.k, 1)]
    runs = sum(-(-s.k // one) for one in lengths)
    return runs * -(-min(lengths[0], max(s.k, 1)) // length) * length


@dataclass(frozen=True)
class Kernel:
    """A kernel of the engine with its condition.

    Args:
        name: as in native/src/kernels.def, or "definition": the Python reference, element by element.
        leaf: kind of leaf it runs, or None for any; "fma" also runs a seq whose products need no rounding, "exact"
            a fixed-point sum that provably stays exact and in range.
        rounds: whether its results are values of the accumulator's use; if not, they are exact and still to be rounded.
        counts: whether it counts what roundings meet, beyond flags of overflow.
    """

    name: str
    leaf: str | None
    rounds: bool = True
    counts: bool = False

    def runs(self, kind: str) -> bool:
        """Whether this kernel may run leaves of this kind."""
        also = (("fma", "seq"), ("exact", "fixed_point"))
        return self.leaf in (None, kind) or ((self.leaf, kind) in also and not self.posits)

    def condition(self, situation: Situation) -> list[Clause]:
        """Return the clauses of the condition; the kernel equals the definition if all hold."""
        if self.name == "definition":
            return [Clause("the definition itself: always", True)]
        if self.name == "integer_any":
            return _integer_any(situation)
        if self.name == "float64_any":
            return _any_lanes(situation)
        kind = situation.leaf.kind
        if not self.runs(kind):
            return [Clause(f"this kernel runs {self.leaf}, and the accumulator's leaf is {kind}", False)]
        if situation.leaf.kind == "fma" and situation.leaf.length > 1:
            return [Clause(f"this kernel takes one product a step, and the accumulator {situation.leaf.length}", False)]
        lane = FLOAT32 if self.name.startswith("float32") else FLOAT64
        if self.leaf == "exact":
            return _exact_lanes(lane, situation)
        if self.leaf == "aligned":
            return _aligned_lanes(situation)
        family = PositFormat if self.posits else FloatFormat
        strange = [str(use) for use in _uses(situation) if not isinstance(use.format, family)]
        if strange:
            return [Clause(f"sums are {'posits' if self.posits else 'floats'}; {strange[0]} is none", False)]
        if self.posits:
            return _posit_kernel(lane, situation)
        assert self.leaf is not None
        return _lane_kernel(lane, self.leaf, self.name.endswith("odd"), situation)

    @property
    def posits(self) -> bool:
        """Whether its roundings are into posits."""
        return "posit" in self.name

    def can_count(self, k: int) -> bool:
        """Whether it counts what the roundings of inner products of length k meet."""
        return self.counts and (k <= MAX_COUNTED or not self.name.startswith("float32"))

    def shortcuts(self, situation: Situation) -> Shortcuts | None:
        """Return what may be left out of each step, or None for a kernel whose steps leave nothing out."""
        if self.leaf in ("fma", "seq") and not self.posits:
            return _shortcuts(situation)
        return None


# Cheapest first.
KERNELS = (
    Kernel("float32_fma", "fma", counts=True),
    Kernel("float32_seq", "seq", counts=True),
    Kernel("float32_fma_odd", "fma", counts=True),
    Kernel("float32_posit_fma_odd", "fma", counts=True),
    Kernel("float32_posit_seq_odd", "seq", counts=True),
    Kernel("float32_aligned", "aligned"),
    Kernel("float32_exact", "exact", rounds=False),
    Kernel("float64_exact", "exact", rounds=False),
    Kernel("float64_fma", "fma", counts=True),
    Kernel("float64_seq", "seq", counts=True),
    Kernel("float64_fma_odd", "fma", counts=True),
    Kernel("float64_seq_odd", "seq", counts=True),
    Kernel("float64_any", None),
    Kernel("integer_any", None, counts=True),
    Kernel("definition", None, counts=True),
)


def kernel_named(name: str) -> Kernel:
    """Return a kernel by its name."""
    return next(kernel for kernel in KERNELS if kernel.name == name)


def choose(situation: Situation, counts: bool = False) -> tuple[Kernel, list[tuple[Kernel, list[Clause]]]]:
    """Return the cheapest kernel whose condition holds, and every kernel up to it with its clauses.

    Args:
        counts: only of the kernels that count.
    """
    tried: list[tuple[Kernel, list[Clause]]] = []
    for kernel in KERNELS:
        if counts and not kernel.can_count(situation.k):
            continue
        clauses = kernel.condition(situation)
        tried.append((kernel, clauses))
        if all(clause.holds for clause in clauses):
            return kernel, tried
    raise AssertionError("the definition holds always")
