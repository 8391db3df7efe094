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


def sum_bound(spec: MacSpec, products: int, roundings: Roundings, smallest: float = 0.0) -> SumBound:
    """Return the model of a MAC unit for sums of so many products. Upper bound.

    Args:
        smallest: largest magnitude that the exponent of a subnormal or zero factor stands for in an aligned step.
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
        found = _bound(accumulator, max(1, products), roundings, smallest, values=False)
    if late:
        last = roundings(spec.result)  # in which the addend is rounded, and then added
        found = replace(
            found, addend=last.u, floor=found.floor + last.eta, largest=min(found.largest, last.largest),
            results=(*found.results, last),
        )  # fmt: skip
    if spec.output is not None:
        found = replace(found, results=(*found.results, roundings(spec.output)))
    return found


def of_any_order(r: Rounding, products: int) -> SumBound:
    """Return the model of products that are summed in an unknown order, fused or not, (B2): that of torch."""
    factor, n = factor_of(r, products + 1), products + 1
    return SumBound(factor, factor, 2 * n * r.eta * (1.0 + factor) * _UP, r.largest)


def _bound(acc: Accumulator, n: int, roundings: Roundings, smallest: float, values: bool) -> SumBound:
    """Return the model for n products, or n values of an inner accumulator, the addend being where the state starts."""
    match acc:
        case Fma():
            r, steps = roundings(acc.sum), -(-n // acc.products)
            return _sequential(r, roundings(acc.sum), steps, 0)
        case Seq():
            r, product = roundings(acc.sum), roundings(acc.product)
            return _sequential(r, product, n, 0 if values else 1)
        case Tree():
            r = roundings(acc.sum)
            rounded = 0 if values or acc.leaves == "exact" else 1
            h = _levels(n, acc.radix) + rounded
            if n == 1 and not values:
                h = 1  # a product that is alone is rounded, an exact leaf too
            return SumBound(factor_of(r, h), 0.0, _UP * r.eta * 2 * n * (1.0 + factor_of(r, h)), r.largest)
        case Interleave():
            lanes = _bound(acc.inner, -(-n // acc.ways), roundings, smallest, values)
            return _nested(lanes, min(n, acc.ways), _bound(acc.join, acc.ways, roundings, smallest, values=True))
        case Chunk():
            runs = -(-n // acc.length)
            inner = _bound(acc.inner, min(n, acc.length), roundings, smallest, values)
            return _nested(inner, runs, _bound(acc.outer, runs, roundings, smallest, values=True))
        case Reverse() | Late():
            return _bound(acc.inner, n, roundings, smallest, values)
        case Exact():
            r = roundings(acc.sum)
            return SumBound(r.u, r.u, r.eta, r.largest)
        case Aligned():
            return _aligned(acc, n, roundings(acc.out), smallest)
        case Fixed():
            return _fixed(acc, n)
    raise InputError(
        f"bounds: {acc}: no rule bounds its error; expected sums such as fma, seq, chunk, tree, interleave, aligned, "
        "exact or fixed; take one of these"
    )


def _sequential(r: Rounding, product: Rounding, steps: int, rounded_products: int) -> SumBound:
    """Return (B2) or (B3) of a state that starts from a rounded addend and takes terms one after the other."""
    terms = steps + 1
    longest = _both(factor_of(product, rounded_products), factor_of(r, steps))
    if r.nearest and product.nearest and (not rounded_products or product.u == r.u):
        any_order = terms * r.u
    elif r.nearest:
        any_order = _both(product.u, terms * r.u)
    else:
        any_order = math.inf
    factor = min(longest, any_order) * _UP
    floor = steps * (r.eta + rounded_products * product.eta) + r.eta
    addend = min(factor_of(r, steps + 1), _both(r.u, any_order)) * _UP
    return SumBound(factor, addend, floor * (1.0 + factor) * _UP, min(r.largest, product.largest))


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
    return p + q + p * q


def factor_of(r: Rounding, h: int) -> float:
    """Return (B2): by how much h roundings change a value at most, relative to it."""
    return float(math.expm1(h * math.log1p(r.u))) * _UP


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
