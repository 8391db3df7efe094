"""The conditions under which kernels equal the definition, as clauses that keep their numbers: the proof.

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
from fractions import Fraction
from typing import NamedTuple

from formats import FixedFormat, FloatFormat, Use, dyadic
from native import lib
from native.matmul import Join, Node
from native.uses import CODEBOOKS

from .situation import (
    FLOAT32,
    FLOAT64,
    TWO,
    Clause,
    Lane,
    Situation,
    decimal,
    float_of,
    log2_ceiling,
    posit_of,
    quantum,
    uses_of,
)

IN_ORDER = "products come in order, in runs that are joined by single sums if at all"
TAPERED = ("formats.posit.PositFormat", "formats.takum.TakumFormat")
MAX_SLOTS = 1 << 18  # products of an output that the aligned kernel packs at once


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


class Term(NamedTuple):
    """What a leaf adds: at most `bits` significant bits, the last at 2**last or above, at most `largest`."""

    bits: int
    last: int
    largest: Fraction


def _term(s: Situation) -> Term:
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


def shortcuts(s: Situation) -> Shortcuts:
    """Return what a step of fma or seq into floats may leave out, each with its numbers, whether it holds or not."""
    leaf = s.leaf
    assert leaf.sum is not None
    sums = float_of(leaf.sum)
    bound = (s.addend if s.starts_in_leaf else 0) + 2 * s.total
    fits = s.finite and bound <= sums.max
    text = f"no sum overflows: |c| + 2 sum|a*b| <= {decimal(bound)} <= {sums.max:g}, all finite"
    grid = quantum(sums)
    last = _term(s).last
    starts_at_zero = s.c is None or not s.starts_in_leaf or not s.c.minus_zero
    on_grid = last >= grid and starts_at_zero
    products = True
    products_text = "products are not rounded"
    if leaf.kind == "seq":
        assert leaf.product is not None
        product = float_of(leaf.product)
        fits &= _term(s).largest <= product.max
        text += f"; no product: {decimal(_term(s).largest)} <= {product.max:g}"
        products = s.product_last >= quantum(product)
        products_text = f"products do not underflow: last bit 2^{s.product_last} >= 2^{quantum(product)}"
    return Shortcuts(
        Clause(text, bool(fits)),
        Clause(f"sums do not underflow: terms end at 2^{last} >= 2^{grid}, and no state starts at -0", on_grid),
        Clause(products_text, products),
    )


class _Conditions:
    """Collects the clauses of one lane kernel, first those that all of them have.

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
        self.clauses.append(Clause(text, bool(holds)))

    def exact_group(self, node: Node, index: int) -> None:
        """The products that a node takes at once, with the addend of an exact sum, have an exact sum."""
        s, cut = self.situation, None
        self.zeros(node)
        if node.kind == "exact":
            (high, last), cut = _exact_range(s, index == 0), split(s)
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


def float_lanes(lane: Lane, step: str, odd: bool, situation: Situation) -> list[Clause]:
    """Steps of fma or seq into floats (facts 1 to 7).

    Args:
        step: "fma" or "seq", what the kernel runs. odd: whether it rounds sums to odd first.
    """
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
            product = float_of(leaf.product)
            c.need(
                s.product_bits <= product.precision
                and s.product_last >= quantum(product)
                and s.largest <= product.max
                and s.finite,
                f"products are values of {product.name}, all finite: {s.product_bits} bits <= {product.precision}, "
                f"last bit 2^{s.product_last} >= 2^{quantum(product)}, below 2^{s.product_high} <= {product.max:g}",
            )
    start = s.addend if s.starts_in_leaf else Fraction(0)
    terms = c.finite_terms()
    bound = c.sum_bound(leaf.sum, start, s.total, terms)
    # An exact product stays below `largest`; a rounded one may reach it.
    c.roundable(leaf.sum, bound + (2 * s.largest if leaf.kind == "seq" else s.largest), "sum")
    start_last = s.c.min_last_bit if s.starts_in_leaf and s.c and s.c.nonzero else None
    c.single_rounding(leaf.sum, term, bound + term.largest, start_last, odd)
    c.joins(s.lowered.joins or (), bound, s.addend, terms, c.finite_sums(leaf.sum, start, s.total, terms))
    return c.clauses


def integers(situation: Situation) -> list[Clause]:
    """The integer kernel, whose sums are exact: it only has to know the families of the uses."""
    uses = [use for node in situation.lowered.nodes for use in (node.product, node.sum) if use]
    strange = [str(use) for use in uses if use.format.family == CODEBOOKS]
    text = "every rounding is into a float, posit, takum or fixed point"
    return [Clause(text + (f"; {strange[0]} is none" if strange else ""), not strange)]


def posit_lanes(lane: Lane, situation: Situation) -> list[Clause]:
    """Fact 9. The state saturates or becomes NaR, so that no bound depends on K."""
    c = _Conditions(lane, situation)
    s = situation
    # A product below 2^(top - 1) and a state of at most 2^(top - 2) have a sum in the lane's range.
    c.need(
        s.product_high < lane.top and s.product_last >= lane.lowest_normal,
        f"sums with products are normal: below 2^{s.product_high} <= 2^{lane.top - 1}, "
        f"last bit 2^{s.product_last} >= 2^{lane.lowest_normal}",
    )
    for use in uses_of(situation):
        fmt = posit_of(use)
        w, p, largest = lane.precision, fmt.precision, (fmt.n - 2) << fmt.es
        c.need(use.rounding == "rne", f"{use} rounds to nearest, ties to even")
        c.need(w >= p + 2, f"sum rounded to odd first: {w} >= {p} + 2")
        c.need(
            fmt.n > 2 and largest <= min(lane.top - 2, -lane.lowest_normal),
            f"{fmt.name} in a {lane.name} lane: n >= 3, from 2^{-largest} >= 2^{lane.lowest_normal} "
            f"to 2^{largest} <= 2^{lane.top - 2}",
        )
    return c.clauses


def exact_lanes(lane: Lane, situation: Situation) -> list[Clause]:
    """Sums of products that the lane holds, rounded behind the kernel: exact, or fixed point that stays in range."""
    s = situation
    c = _Conditions(lane, s)
    if s.leaf.kind == "exact":
        c.need(not s.lowered.leaf, "the sum is exact as a whole, not part by part")
        c.zeros(s.leaf)
    if s.leaf.kind == "fixed_point":
        assert s.leaf.product is not None
        uses = [s.leaf.product, *(join.sum for join in s.lowered.joins or ())]
        formats = [use.format for use in uses if isinstance(use.format, FixedFormat)]
        c.need(len(formats) == len(uses), "sums of runs are fixed point too")
        c.need(s.finite, "operands and addend are finite")
        fraction = min(fmt.fraction_bits for fmt in formats)
        c.need(s.product_last >= -fraction, f"products end at 2^{s.product_last} >= 2^{-fraction}")
        bound, largest = s.addend + s.total, min(fmt.max for fmt in formats)
        c.need(bound <= Fraction(largest), f"no sum leaves the range: {decimal(bound)} <= {largest:g}")
    last = min([s.product_last] + ([s.c.min_last_bit] if s.c and s.c.nonzero else []))
    high = log2_ceiling(s.addend + s.total)
    exact = high - last <= lane.precision and high <= lane.top and last >= lane.last
    text = f"2^{high} down to 2^{last} is {high - last} bits <= {lane.precision}, below 2^{lane.top}"
    c.need(exact, f"all partial sums exact: {text}")
    return c.clauses


def aligned_lanes(situation: Situation) -> list[Clause]:
    """The aligned step in float32 lanes: products and their sums are exact, and E - F stays in the lane's range."""
    s, leaf = situation, situation.leaf
    assert leaf.sum is not None
    c = _Conditions(FLOAT32, s)
    words = dict(leaf.fields)
    plain = not any((words["keeps_zeros"], words["group"] > 1, words["parts"] > 1))
    plain = plain and words["align"] == lib.ULP_RZ
    c.need(plain, "products are cut toward zero one by one, in one part, zeros dropped")
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
    held = held and out.has_negative_zero and 2 <= out.precision <= 24 and quantum(out) >= FLOAT32.last  # type: ignore
    c.need(held and out.max < TWO**128, f"{out.name} keeps a sign, subnormals and -0, 2 <= p <= 24, within float32")
    for join in s.lowered.joins or ():
        fixed = not join.sum.mode.stochastic and join.sum.format.family != CODEBOOKS
        c.need(fixed, f"{join.sum} joins runs without random words, and not by a codebook")
    slots = _slots(s, leaf.length * (2 if words["two_of_four"] else 1))
    c.need(slots <= MAX_SLOTS, f"{slots} products, zeros filled in, <= {MAX_SLOTS}")
    return c.clauses


# Kinds of nodes that lanes run; of trees those of pairs.
LANE_NODES = ("fma", "seq", "tree", "interleave", "chunk", "kahan", "neumaier", "exact", "fixed_point")


def any_lanes(situation: Situation) -> list[Clause]:
    """Every sum is rounded to odd in float64, then into its use (fact 3, and fact 9 for tapered formats)."""
    s, lane = situation, FLOAT64
    c = _Conditions(lane, s, linear=False)
    c.need(s.product_high <= lane.top - 2, f"products stay below 2^{s.product_high} <= 2^{lane.top - 2}")
    for index, node in enumerate(s.lowered.nodes):
        c.need(node.kind in LANE_NODES, f"lanes run {node.kind} steps")
        if node.kind == "tree":
            c.need(node.length == 2, f"groups of the tree are pairs: {node.length} = 2")
        several = node.kind == "exact" or (node.kind == "fma" and node.length > 1)
        if several or node.kind == "fixed_point":
            c.need(index == s.lowered.leaf, f"{node.kind} takes the products themselves")
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
    high, last = _exact_range(s, s.lowered.leaf == 0)
    largest = max(s.product_high, log2_ceiling(s.addend))
    return None if high - last <= 53 else max(high - 53, largest - 51)


def _slots(s: Situation, length: int) -> int:
    """At most so many products are taken, with the zeros that fill the last step of each run."""
    lengths = [join.length for join in s.lowered.joins or ()] or [max(s.k, 1)]
    runs = sum(-(-s.k // one) for one in lengths)
    return runs * -(-min(lengths[0], max(s.k, 1)) // length) * length
