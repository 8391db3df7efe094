"""Sums of exact products, and the one rounding of them: the arithmetic of the definition, in Python integers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from formats import Use, dyadic
from formats.rounding import Rounding, parse_rounding, round_magnitude

if TYPE_CHECKING:
    from .run import Run

Term = tuple[float, ...]  # the product of its factors: two of a product, one of a value
Dyadic = tuple[int, int]


def rounded_sum(use: Use, terms: Sequence[Term], run: Run | None = None, random: int = 0) -> float:
    """Return R(sum of the terms), each the product of its factors, in one rounding.

    Args:
        use: format, rounding and overflow of R. random: word of a stochastic rounding.
        run: whose counts note an overflow or underflow.
    """
    special = special_sum(terms)
    if special is not None:
        return project_special(use, special, run)
    total = exact_sum(terms)
    if total[0] == 0:
        return use.format.project_special(_zero_sum([special_product(term) for term in terms], use.mode), use.overflow)
    return project(use, total, run, random)


def _zero_sum(products: Sequence[float], mode: Rounding) -> float:
    """Return an exact zero: +0, under rd -0, unless all terms are zeros of the other sign (IEEE 754, 6.3)."""
    usual = -0.0 if mode.mode == "rd" else 0.0
    opposite = all(p == 0.0 and math.copysign(1.0, p) != math.copysign(1.0, usual) for p in products)
    return -usual if opposite else usual


def project(use: Use, total: Dyadic, run: Run | None, random: int) -> float:
    """Return R of an exact sum, and count what it met; an exact zero is +0."""
    if total[0] == 0:
        return use.format.project_special(0.0, use.overflow)
    value = use.format.project_finite(*total, use.mode, use.overflow, random)
    if run is not None:
        run.overflows += use.format.overflows(*total, use.mode, random)
        run.underflows += value == 0.0
    return value


def project_special(use: Use, special: float, run: Run | None) -> float:
    """Return what NaN and infinities become; arithmetic modulo 2^N has no infinity, and NaN says so."""
    if math.isnan(special):
        return math.nan
    if run is not None:
        run.overflows += 1
    return math.nan if use.overflow == "wrap" else use.format.project_special(special, use.overflow)


def special_sum(terms: Sequence[Term]) -> float | None:
    """Return the sum if it is no finite number, else None."""
    products = [special_product(term) for term in terms]
    if any(math.isnan(p) for p in products) or (math.inf in products and -math.inf in products):
        return math.nan
    return next((p for p in products if math.isinf(p)), None)


def special_product(term: Term) -> float:
    """Return the product of the factors as far as zeros, signs and specials go; a finite one but 0 becomes +-1."""
    if any(math.isnan(f) for f in term):
        return math.nan
    sign = math.prod(math.copysign(1.0, f) for f in term)
    zero, infinite = any(f == 0.0 for f in term), any(math.isinf(f) for f in term)
    if zero and infinite:
        return math.nan
    return math.copysign(0.0 if zero else math.inf if infinite else 1.0, sign)


def exact_sum(terms: Sequence[Term]) -> Dyadic:
    """Return the sum of finite terms, each the product of its factors."""
    return total_of(_product(term) for term in terms)


def _product(term: Term) -> Dyadic:
    product = (1, 0)
    for factor in term:
        product = dyadic.multiply(product, dyadic.from_float(factor))
    return product


def total_of(values: Iterable[Dyadic]) -> Dyadic:
    """Return the sum of exact values."""
    total = (0, 0)
    for value in values:
        total = dyadic.add(total, value)
    return total


def exponent_of(value: Dyadic) -> int:
    """Return floor(log2|value|) of a value that is not zero."""
    return abs(value[0]).bit_length() - 1 + value[1]


def rounded_down(value: Dyadic, top: int, frac: int | None) -> Dyadic:
    """Round down, `frac` bits below 2**top being kept; None keeps all."""
    return value if frac is None else cut(value, top - frac, parse_rounding("rd"))


def cut(value: Dyadic, last: int, rounding: Rounding) -> Dyadic:
    """Round to a multiple of 2**last."""
    integer, exponent = value
    if exponent >= last:
        return value
    magnitude = round_magnitude(abs(integer), last - exponent, rounding, integer < 0)
    return (-magnitude if integer < 0 else magnitude), last
