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
6. A posit of at most p bits is a multiple of minpos, and what decides between two neighbours has at most p + 1 bits. So
   a sum rounded to odd at W >= p + 2 bits goes where the sum itself would, near minpos and maxpos too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from formats import FloatFormat, PositFormat, Use, dyadic
from native.matmul import Join, Node, Profile

from .lowering import Lowered

TWO = Fraction(2)


class Clause(NamedTuple):
    """One part of a kernel's condition, with its numbers."""

    text: str
    holds: bool


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


def _sum_bound(fmt: FloatFormat, start: Fraction, terms: int, largest: Fraction) -> Fraction:
    """Fact 4, and the largest finite value: no finite state exceeds this."""
    return min(Fraction(fmt.max), start + 2 * terms * largest)


class _Conditions:
    """Collects the clauses of one lane kernel."""

    def __init__(self, lane: Lane, situation: Situation) -> None:
        self.lane, self.situation = lane, situation
        self.clauses: list[Clause] = []
        s = situation
        self.need(s.lowered.joins is not None, "the accumulator is a leaf with runs of runs")
        if lane is FLOAT32:
            self.need(not s.wide_operands, "operands are float32 values")
        self.need(
            s.product_bits <= lane.precision and s.product_last >= lane.last and s.product_high <= lane.top,
            f"product exact: {s.product_bits} bits <= {lane.precision}, last bit 2^{s.product_last} >= 2^{lane.last}, "
            f"below 2^{s.product_high} <= 2^{lane.top}",
        )

    def need(self, holds: bool, text: str) -> None:
        self.clauses.append(Clause(text, bool(holds)))

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

    def single_rounding(
        self, use: Use, bits: int, last: int, bound: Fraction, start_last: int | None, odd: bool
    ) -> None:
        """s + t reaches the format with one rounding: t has `bits` bits, the last at 2^last; |s + t| <= bound."""
        fmt, lane = _float(use), self.lane
        w, p = lane.precision, fmt.precision
        if odd:
            self.need(w >= p + 2, f"sum rounded to odd first: {w} >= {p} + 2")
            return
        # s is a sum of terms, each rounded at the format's quantum or above.
        state_last = max(_quantum(fmt), last if start_last is None else min(last, start_last))
        lowest, highest = min(last, state_last), _log2_ceiling(bound)
        exact = highest - lowest <= w
        innocuous = w >= 2 * p + 2 and bits <= p and fmt.min_exponent - lowest <= w
        text = (
            f"sum exact: 2^{highest} down to 2^{lowest} is {highest - lowest} bits <= {w}"
            if exact or not innocuous
            else f"double rounding innocuous: term fits, {bits} <= p = {p}; {w} >= 2*{p} + 2; "
            f"subnormal sums exact: {fmt.min_exponent} - ({lowest}) <= {w}"
        )
        if not exact and not innocuous:
            text += f"; or term fits, {bits} <= p = {p}, and {w} >= 2*{p} + 2"
        self.need(exact or innocuous, text)

    def joins(self, joins: Sequence[Join], run_bound: Fraction, start: Fraction) -> None:
        """Runs are joined with sums rounded to odd first."""
        terms = self.situation.k
        for level, join in enumerate(joins):
            self.representable(join.sum)
            runs = -(-terms // join.length)
            begin = start if level == len(joins) - 1 else Fraction(0)
            bound = _sum_bound(_float(join.sum), begin, runs, run_bound)
            self.roundable(join.sum, bound + 2 * run_bound, f"joined runs of {join.length}")
            run_bound = bound


def _lane_kernel(lane: Lane, odd: bool, situation: Situation) -> list[Clause]:
    c = _Conditions(lane, situation)
    s, leaf = situation, situation.leaf
    assert leaf.sum is not None
    total = _float(leaf.sum)
    c.representable(leaf.sum)
    bits, last, largest = s.product_bits, s.product_last, TWO**s.product_high
    if leaf.kind == "seq":
        assert leaf.product is not None
        product = _float(leaf.product)
        c.representable(leaf.product)
        c.roundable(leaf.product, largest, "product")
        bits, last = min(bits, product.precision), max(last, _quantum(product))
        if largest > product.max and math.isfinite(product.overflowed(leaf.product.overflow)):
            # A product that saturates becomes the largest value, which has bits of its own.
            top, top_last = dyadic.from_float(product.max)
            bits, last = max(bits, top.bit_length()), min(last, top_last)
    start_here = not s.lowered.joins
    start = s.addend if start_here else Fraction(0)
    bound = _sum_bound(total, start, s.k, largest)
    # An exact product stays below `largest`; a rounded one may reach it.
    c.roundable(leaf.sum, bound + (2 * largest if leaf.kind == "seq" else largest), "sum")
    start_last = s.c.min_last_bit if start_here and s.c and s.c.nonzero else None
    c.single_rounding(leaf.sum, bits, last, bound + largest, start_last, odd)
    c.joins(s.lowered.joins or (), bound, s.addend)
    return c.clauses


def _integer_any(situation: Situation) -> list[Clause]:
    uses = [use for node in situation.lowered.nodes for use in (node.product, node.sum) if use]
    strange = [str(use) for use in uses if use.format.family == "formats.codebook.CodebookFormat"]
    text = "every rounding is into a float, posit, takum or fixed point"
    return [Clause(text + (f"; {strange[0]} is none" if strange else ""), not strange)]


def _posit_kernel(lane: Lane, situation: Situation) -> list[Clause]:
    """Fact 6. The state saturates or becomes NaR, so that no bound depends on K."""
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


def _float64_exact(situation: Situation) -> list[Clause]:
    s = situation
    c = _Conditions(FLOAT64, s)
    c.need(not s.lowered.leaf, "the sum is exact as a whole, not part by part")
    last = min([s.product_last] + ([s.c.min_last_bit] if s.c and s.c.nonzero else []))
    high = _log2_ceiling(s.addend + s.k * TWO**s.product_high)
    exact = high - last <= 53 and high <= FLOAT64.top
    text = f"2^{high} down to 2^{last} is {high - last} bits <= 53, below 2^{FLOAT64.top}"
    c.need(exact, f"all partial sums exact: {text}")
    return c.clauses


@dataclass(frozen=True)
class Kernel:
    """A kernel of the engine with its condition.

    Args:
        name: as in native/src/kernels.def, or "definition": the Python reference, element by element.
        leaf: kind of leaf it runs, or None for any.
        rounds: whether its results are values of the accumulator's use; if not, they are exact and still to be rounded.
        counts: whether it counts what roundings meet, beyond flags of overflow.
    """

    name: str
    leaf: str | None
    rounds: bool = True
    counts: bool = False

    def condition(self, situation: Situation) -> list[Clause]:
        """Return the clauses of the condition; the kernel equals the definition if all hold."""
        if self.name == "definition":
            return [Clause("the definition itself: always", True)]
        if self.name == "integer_any":
            return _integer_any(situation)
        kind = situation.leaf.kind
        if kind != self.leaf:
            return [Clause(f"this kernel runs {self.leaf}, and the accumulator's leaf is {kind}", False)]
        if situation.leaf.kind == "fma" and situation.leaf.length > 1:
            return [Clause(f"this kernel takes one product a step, and the accumulator {situation.leaf.length}", False)]
        if self.name == "float64_exact":
            return _float64_exact(situation)
        lane = FLOAT32 if self.name.startswith("float32") else FLOAT64
        posits = "posit" in self.name
        family = PositFormat if posits else FloatFormat
        strange = [str(use) for use in _uses(situation) if not isinstance(use.format, family)]
        if strange:
            return [Clause(f"sums are {'posits' if posits else 'floats'}; {strange[0]} is none", False)]
        if posits:
            return _posit_kernel(lane, situation)
        return _lane_kernel(lane, self.name.endswith("odd"), situation)


# Cheapest first.
KERNELS = (
    Kernel("float32_fma", "fma"),
    Kernel("float32_seq", "seq"),
    Kernel("float32_fma_odd", "fma"),
    Kernel("float32_posit_fma_odd", "fma"),
    Kernel("float32_posit_seq_odd", "seq"),
    Kernel("float64_exact", "exact", rounds=False),
    Kernel("float64_fma", "fma"),
    Kernel("float64_seq", "seq"),
    Kernel("float64_fma_odd", "fma"),
    Kernel("float64_seq_odd", "seq"),
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
        if counts and not kernel.counts:
            continue
        clauses = kernel.condition(situation)
        tried.append((kernel, clauses))
        if all(clause.holds for clause in clauses):
            return kernel, tried
    raise AssertionError("the definition holds always")
