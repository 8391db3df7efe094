"""What accumulators do to a sum of products: bounds from the record of the MAC unit, order and formats and all.

With computed factors p_k (exact products of what the unit holds), S = sum |p_k| and the addend c, every model is
|result - (sum p_k + c)| <= products * S + addend * |c| + floor, while no state can overflow. Rules:

(B2) A value that is rounded h times on its way is multiplied by that many factors 1 + t, |t| <= u: (1 + u)**h - 1.
(B3) To nearest, sums of N terms one after the other, products rounded, fused or exact: N u, N counting the addend; no
     second-order term (Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34, 2013). Of B2 and B3 the smaller one counts.
     Of an unknown order, with products fused in some places, B2 alone: n + 1 roundings, as many as there can be.
(B4) A run within a sum: its bound first, then that of what its result goes through: (1 + P)(1 + Q) - 1.
(B5) An aligned step cuts n + 1 terms at 2**(E - F), 2**E at most the largest magnitude among them or the exponent of
     the smallest normals; then rounds once what was cut. So each of its steps is off by at most q = (1 + cut)(1 + u) -
     1 of what it holds, cut = (n + 1) 2**-F + ..., and all by (1 + q)**steps - 1. Steps of two_of_four come in pairs.
(B6) Each rounding may underflow: eta, times what is done to it later. Counted for sums too, whose terms may be finer
     than the state.
(B7') Statistical, and never part of a proof: roundings that are independent with mean zero give
     exp((l sqrt(h) u + h u**2) / (1 - u)) - 1 in place of (1 + u)**h - 1, but for a probability of 2 exp(-l**2 / 2) for
     each product (Higham and Mary, SIAM J. Sci. Comput. 41, 2019). Stochastic rounding is so; to nearest it is a model,
     false where sums stagnate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from formats import FloatFormat
from simulator.arithmetic.accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fixed,
    Fma,
    Interleave,
    Late,
    Reverse,
    Seq,
    Tree,
    joins_late,
)
from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError

from .roundings import Rounding, Roundings

# What the factors of a bound, of a few operations in float64, grow by.
_UP = 1.0 + 2.0**-40


@dataclass(frozen=True)
class SumBound:
    """A model of an accumulator for so many products, see above.

    Args:
        products, addend, floor: of the bound. largest: what the smallest state on the way holds.
        results: what then rounds the result itself, one after the other.
    """

    products: float
    addend: float
    floor: float
    largest: float
    results: tuple[Rounding, ...] = ()


def sum_bound(
    spec: MacSpec, products: int, roundings: Roundings, smallest: float = 0.0, spread: float | None = None
) -> SumBound:
    """Return the model of a MAC unit for sums of so many products. Upper bound; with a spread statistical.

    Args:
        smallest: largest magnitude that the exponent of a subnormal or zero factor stands for in an aligned step.
        spread: l of (B7'), in place of the worst case of sequential and tree-like sums.
    Raises:
        InputError: an accumulator of which no rule is known.
    """
    accumulator = spec.accumulator
    late = joins_late(accumulator)
    if isinstance(accumulator, Late):
        accumulator = accumulator.inner
    if isinstance(accumulator, Exact) and not late:  # rounds its result, and nothing before
        found = SumBound(0.0, 0.0, 0.0, math.inf, (roundings(accumulator.sum),))
    else:
        found = _bound(accumulator, max(1, products), _Settings(roundings, smallest, spread), values=False)
    if late:
        last = roundings(spec.result)  # in which the addend is rounded, and then added
        found = replace(
            found, addend=last.u, floor=found.floor + last.eta, largest=min(found.largest, last.largest),
            results=(*found.results, last),
        )  # fmt: skip
    if spec.output is not None:
        found = replace(found, results=(*found.results, roundings(spec.output)))
    return found


@dataclass(frozen=True)
class _Settings:
    roundings: Roundings
    smallest: float
    spread: float | None

    def factor(self, h: int, *rs: Rounding) -> float:
        """Return what h roundings of one kind, and one more of each of the others, multiply a value by, less 1."""
        r, *others = rs
        if self.spread is not None:
            squares = h * r.u**2 + sum(other.u**2 for other in others)
            most = max(one.u for one in rs)
            exponent = (self.spread * math.sqrt(squares) + squares) / (1.0 - most)
            return math.expm1(exponent) * _UP if exponent < 700.0 else math.inf
        found = factor_of(r, h)
        for other in others:
            found = _both(found, other.u) * _UP
        return found


def of_any_order(r: Rounding, products: int) -> SumBound:
    """Return the model of products that are summed in an unknown order, fused or not, (B2): that of torch."""
    factor, n = factor_of(r, products + 1), products + 1
    return SumBound(factor, factor, 2 * n * r.eta * (1.0 + factor) * _UP, r.largest)


def _bound(acc: Accumulator, n: int, given: _Settings, values: bool) -> SumBound:
    """Return the model for n products, or n values of an inner accumulator, the addend being where the state starts."""
    roundings = given.roundings
    match acc:
        case Fma():
            return _sequential(given, roundings(acc.sum), None, -(-n // acc.products))
        case Seq():
            return _sequential(given, roundings(acc.sum), None if values else roundings(acc.product), n)
        case Tree():
            r = roundings(acc.sum)
            rounded = 0 if values or acc.leaves == "exact" else 1
            h = _levels(n, acc.radix) + rounded
            if n == 1 and not values:
                h = 1  # a product that is alone is rounded, an exact leaf too
            factor = given.factor(h, r)
            return SumBound(factor, 0.0, _UP * r.eta * 2 * n * (1.0 + factor), r.largest)
        case Interleave():
            lanes = _bound(acc.inner, -(-n // acc.ways), given, values)
            return _nested(lanes, min(n, acc.ways), _bound(acc.join, acc.ways, given, values=True))
        case Chunk():
            runs = -(-n // acc.length)
            inner = _bound(acc.inner, min(n, acc.length), given, values)
            return _nested(inner, runs, _bound(acc.outer, runs, given, values=True))
        case Reverse() | Late():
            return _bound(acc.inner, n, given, values)
        case Exact():
            r = roundings(acc.sum)
            return SumBound(r.u, r.u, r.eta, r.largest)
        case Aligned():
            return _aligned(acc, n, roundings(acc.out), given.smallest)
        case Fixed():
            return _fixed(acc, n)
    raise InputError(
        f"bounds: {acc}: no rule bounds its error; expected sums such as fma, seq, chunk, tree, interleave, aligned, "
        "exact or fixed; take one of these"
    )


def _sequential(given: _Settings, r: Rounding, product: Rounding | None, steps: int) -> SumBound:
    """Return (B2) or (B3) of a state that starts from a rounded addend and takes terms one after the other.

    Args:
        product: what rounds each term first; None: nothing does.
    """
    terms, first = steps + 1, () if product is None else (product,)
    any_order = math.inf
    if given.spread is None and r.nearest:
        same = all(one.nearest and one.u == r.u for one in first)
        any_order = terms * r.u if same else _both(sum(one.u for one in first), terms * r.u)
    factor = min(given.factor(steps, r, *first), any_order * _UP)
    addend = min(given.factor(steps + 1, r), _both(r.u, any_order) * _UP)
    floor = steps * (r.eta + sum(one.eta for one in first)) + r.eta
    largest = min(one.largest for one in (r, *first))
    return SumBound(factor, addend, floor * (1.0 + factor) * _UP, largest)


def _nested(inner: SumBound, runs: int, outer: SumBound) -> SumBound:
    """Return (B4): runs of an inner accumulator whose results go through an outer one, in which an addend starts."""
    return SumBound(
        _both(inner.products, outer.products) * _UP,
        outer.addend,
        (runs * inner.floor * (1.0 + outer.products) + outer.floor) * _UP,
        min(inner.largest, outer.largest),
    )


def _both(p: float, q: float) -> float:
    """Return (1 + p)(1 + q) - 1, without the digits that this form loses."""
    return p + q + p * q if max(p, q) < math.inf else math.inf


def factor_of(r: Rounding, h: int) -> float:
    """Return (B2): by how much h roundings change a value at most, relative to it."""
    exponent = h * math.log1p(r.u)
    return float(math.expm1(exponent)) * _UP if exponent < 700.0 else math.inf


def _levels(n: int, radix: int) -> int:
    levels = 0
    while n > 1:
        n, levels = -(-n // radix), levels + 1
    return levels


def _aligned(acc: Aligned, n: int, r: Rounding, smallest: float) -> SumBound:
    """Return (B5)."""
    assert isinstance(acc.out.format, FloatFormat)
    cut = (acc.n + 1) * 2.0**-acc.frac
    # A late addend is aligned anew with the sums of the parts, and dropped below c_reach.
    cut += sum(2.0 * 2.0**-bits for bits in (acc.part_frac, acc.sum_frac, acc.c_frac, acc.c_reach) if bits is not None)
    together = 2 if acc.order == "two_of_four" else 1
    q, steps = _both(cut, r.u), together * -(-n // (together * acc.n))
    factor = float(math.expm1(steps * math.log1p(q))) * _UP
    least = max(smallest, 2.0**-126, 0.0 if acc.e_min is None else 2.0**acc.e_min)
    addend = _both(r.u, factor) * _UP
    return SumBound(factor, addend, (factor * least + (steps + 1) * r.eta * (1.0 + factor)) * _UP, r.largest)


def _fixed(acc: Fixed, n: int) -> SumBound:
    """Return that of integers: sums are exact while they stay in range, products are off by their last bit."""
    last = math.ldexp(1.0, -acc.frac)
    half = 0.5 if acc.rounding in ("rne", "rna", "rnz") else 1.0
    largest = math.ldexp(1.0, acc.bits - 1 - acc.frac) - last
    return SumBound(0.0, 0.0, half * last * (n + 1) * _UP, largest)
