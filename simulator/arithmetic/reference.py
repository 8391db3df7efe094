"""The meaning of a MacSpec: inner products in exact Python integers, one rounding where the spec has one.

Slow and obvious on purpose. Kernels only have to agree with it, bit for bit.

Rules that hold for every accumulator: NaN in, NaN out; +Inf and -Inf together, and 0 * Inf, give NaN; other infinities
stay, as far as the use of the state lets them; an exact zero sum is +0 unless every term is -0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from formats import Use, dyadic

from .accumulators import Accumulator, Chunk, Exact, Fma, Late, Seq
from .spec import MacSpec

Term = tuple[float, ...]  # the product of its factors


def dot(spec: MacSpec, a: Sequence[float], b: Sequence[float], c: float | None = None) -> tuple[float, bool]:
    """Accumulate one inner product as a MacSpec prescribes.

    Args:
        a, b: K operands each, quantised to the operand formats first if the spec names any.
        c: addend, or None.
    Returns:
        (value, whether a rounding on the way met a result beyond the largest finite value of its format,
        the conversions of a, b and c not counted). Exact definition.
    """
    if spec.operands:
        a, b = (_quantized(use, values) for use, values in zip(spec.operands, (a, b), strict=True))
    overflowed = [False]
    accumulator = spec.accumulator
    late = isinstance(accumulator, Late)
    state = _State(accumulator.inner if isinstance(accumulator, Late) else accumulator, None if late else c, overflowed)
    for x, y in zip(a, b, strict=True):
        state.push((x, y))
    result = state.finish()
    if late and c is not None:
        result = rounded_sum(spec.result, [(result,), (rounded_sum(spec.result, [(c,)]),)], overflowed)
    elif spec.output:
        result = rounded_sum(spec.output, [(result,)], overflowed)
    return result, overflowed[0]


def _quantized(use: Use, values: Sequence[float]) -> list[float]:
    """Round operands by the definition of the format, not by its fast twin."""
    if use.format.has_blocks:
        return use.quantize(list(values)).tolist()  # a block's values depend on each other
    if not use.format.has_nan and any(math.isnan(x) for x in values):
        raise ValueError(f"{use.format.name} has no NaN, and an operand holds one")
    return [use.format.project(float(x), use.mode, use.overflow) for x in values]


class _State:
    """What a unit holds for one output while products, or values of an inner accumulator, come in."""

    def __init__(self, accumulator: Accumulator, c: float | None, overflowed: list[bool]) -> None:
        self.accumulator, self.overflowed = accumulator, overflowed
        match accumulator:
            case Chunk():
                self.outer = _State(accumulator.outer, c, overflowed)
                self._start_run()
            case Exact():
                # Without an addend the state starts at +0, as everywhere.
                self.terms: list[Term] = [(0.0 if c is None else c,)]
            case Fma() | Seq():
                self.value = 0.0 if c is None else rounded_sum(accumulator.sum, [(c,)])

    def push(self, term: Term) -> None:
        """Take one more product (two factors) or value (one factor)."""
        match self.accumulator:
            case Fma(total):
                self.value = rounded_sum(total, [(self.value,), term], self.overflowed)
            case Seq(product, total):
                if len(term) == 2:
                    term = (rounded_sum(product, [term], self.overflowed),)
                self.value = rounded_sum(total, [(self.value,), term], self.overflowed)
            case Exact():
                self.terms.append(term)
            case Chunk(length):
                self.inner.push(term)
                self.count += 1
                if self.count == length:
                    self.outer.push((self.inner.finish(),))
                    self._start_run()

    def finish(self) -> float:
        """Return the accumulated value."""
        match self.accumulator:
            case Exact(total):
                return rounded_sum(total, self.terms, self.overflowed)
            case Chunk():
                if self.count:
                    self.outer.push((self.inner.finish(),))
                    self._start_run()
                return self.outer.finish()
            case _:
                return self.value

    def _start_run(self) -> None:
        self.inner = _State(self.accumulator.inner, None, self.overflowed)  # type: ignore[union-attr]
        self.count = 0


def rounded_sum(use: Use, terms: Sequence[Term], overflowed: list[bool] | None = None) -> float:
    """Return R(sum of the terms), each the product of its factors, in one rounding.

    Args:
        use: format, rounding and overflow of R.
        overflowed: set to [True] if the rounded sum is beyond the largest finite value.
    """
    products = [_special(term) for term in terms]
    if any(math.isnan(p) for p in products) or (math.inf in products and -math.inf in products):
        return math.nan
    infinite = next((p for p in products if math.isinf(p)), None)
    if infinite is not None:
        if overflowed is not None:
            overflowed[0] = True
        return use.format.project_special(infinite, use.overflow)
    total = (0, 0)
    for term in terms:
        product = (1, 0)
        for factor in term:
            product = dyadic.multiply(product, dyadic.from_float(factor))
        total = dyadic.add(total, product)
    if total[0] == 0:
        zero = -0.0 if all(math.copysign(1.0, p) < 0 and p == 0 for p in products) else 0.0
        return use.format.project_special(zero, use.overflow)
    if overflowed is not None and use.format.overflows(*total, use.mode):
        overflowed[0] = True
    return use.format.project_finite(*total, use.mode, use.overflow)


def _special(term: Term) -> float:
    """The product of the factors as far as zeros, signs and specials go; a finite non-zero product becomes +-1."""
    if any(math.isnan(f) for f in term):
        return math.nan
    sign = math.prod(math.copysign(1.0, f) for f in term)
    zero, infinite = any(f == 0.0 for f in term), any(math.isinf(f) for f in term)
    if zero and infinite:
        return math.nan
    return math.copysign(0.0 if zero else math.inf if infinite else 1.0, sign)
