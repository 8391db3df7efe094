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

from fractions import Fraction
from typing import NamedTuple

from formats import FixedFormat, FloatFormat
from native import lib
from native.uses import CODEBOOKS

from .clauses import Clauses, term_of
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


def shortcuts(s: Situation) -> Shortcuts:
    """Return what a step of fma or seq into floats may leave out, each with its numbers, whether it holds or not."""
    leaf = s.leaf
    assert leaf.sum is not None
    sums = float_of(leaf.sum)
    bound = (s.addend if s.starts_in_leaf else 0) + 2 * s.total
    fits = s.finite and bound <= sums.max
    text = f"no sum overflows: |c| + 2 sum|a*b| <= {decimal(bound)} <= {sums.max:g}, all finite"
    grid = quantum(sums)
    last = term_of(s).last
    starts_at_zero = s.c is None or not s.starts_in_leaf or not s.c.minus_zero
    on_grid = last >= grid and starts_at_zero
    products = True
    products_text = "products are not rounded"
    if leaf.kind == "seq":
        assert leaf.product is not None
        product = float_of(leaf.product)
        fits &= term_of(s).largest <= product.max
        text += f"; no product: {decimal(term_of(s).largest)} <= {product.max:g}"
        products = s.product_last >= quantum(product)
        products_text = f"products do not underflow: last bit 2^{s.product_last} >= 2^{quantum(product)}"
    return Shortcuts(
        Clause(text, bool(fits)),
        Clause(f"sums do not underflow: terms end at 2^{last} >= 2^{grid}, and no state starts at -0", on_grid),
        Clause(products_text, products),
    )


def float_lanes(lane: Lane, step: str, odd: bool, situation: Situation) -> list[Clause]:
    """Steps of fma or seq into floats (facts 1 to 7).

    Args:
        step: "fma" or "seq", what the kernel runs. odd: whether it rounds sums to odd first.
    """
    c = Clauses(lane, situation)
    s, leaf, term = situation, situation.leaf, term_of(situation)
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
    c = Clauses(lane, situation)
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
    c = Clauses(lane, s)
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
    c = Clauses(FLOAT32, s)
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
    c = Clauses(lane, s, linear=False)
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


def _slots(s: Situation, length: int) -> int:
    """At most so many products are taken, with the zeros that fill the last step of each run."""
    lengths = [join.length for join in s.lowered.joins or ()] or [max(s.k, 1)]
    runs = sum(-(-s.k // one) for one in lengths)
    return runs * -(-min(lengths[0], max(s.k, 1)) // length) * length
