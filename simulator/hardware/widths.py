"""Widths in bits: of sums, of the adders that form them, of significands, and of what is stored."""

from __future__ import annotations

from fractions import Fraction

from formats import FixedFormat, FloatFormat, Format
from formats.block import BlockFormat
from formats.codebook import CodebookFormat
from simulator.arithmetic.accumulators import (
    Accumulator,
    Aligned,
    Exact,
    Fma,
    Kahan,
    Neumaier,
    innermost,
    outermost,
    result_use,
)

# An exact (fixed-point) accumulator has room for sums of 2**16 products.
GUARD_BITS = 16


def state_bits(accumulator: Accumulator, operands: tuple[Format, Format]) -> int:
    """Return the width of the state to which each product is added, compensation included."""
    return _own_bits(innermost(accumulator), operands)


def partial_sum_bits(accumulator: Accumulator, operands: tuple[Format, Format]) -> int:
    """Return the width of the sums kept between runs, or of the state where there are none."""
    return _own_bits(outermost(accumulator), operands)


def _own_bits(state: Accumulator, operands: tuple[Format, Format]) -> int:
    if isinstance(state, Exact):
        return exact_product_bits(*operands) + GUARD_BITS
    bits = result_use(state).format.bits
    return 2 * bits if isinstance(state, Kahan | Neumaier) else bits


def adder_bits(state: Accumulator, operands: tuple[Format, Format]) -> int | None:
    """Return the width of the fixed-point adder that takes aligned terms; None where sums are floats' or integers'.

    An aligned step holds F bits below 2^E, the two bits above it and the carries of its n products and the state; a
    fused step of several products is counted as if it kept two bits more than its result.
    """
    match state:
        case Exact():
            return exact_product_bits(*operands) + GUARD_BITS
        case Aligned(n, frac):
            return frac + 3 + n.bit_length()
        case Fma(total, products) if products > 1 and hasattr(total.format, "precision"):
            return int(total.format.precision) + 5 + products.bit_length()
    return None


def exact_product_bits(a: Format, b: Format) -> int:
    """Return the bits of a two's complement fixed-point number that holds every product of two formats. Exact."""
    unit = Fraction(a.smallest_subnormal) * Fraction(b.smallest_subnormal)
    return (_largest_magnitude(a) * _largest_magnitude(b) // unit).bit_length() + 1


def _largest_magnitude(fmt: Format) -> Fraction:
    """Return the largest magnitude of a value, which in two's complement is that of the least one."""
    lowest = Fraction(fmt.min) if isinstance(fmt, FixedFormat | CodebookFormat) else Fraction(0)
    return max(Fraction(fmt.max), -lowest)


def significand_bits(fmt: Format) -> int | None:
    """Return the bits that a multiplier of a format's values takes; None for a format that is no float or integer."""
    if isinstance(fmt, FixedFormat):
        return fmt.bits
    return int(fmt.precision) if isinstance(fmt, FloatFormat) else None


def stored_bits(fmt: Format) -> int | Fraction:
    """Return the bits of an element in memory, with its share of the scale of a block, which takes whole bytes."""
    if not isinstance(fmt, BlockFormat):
        return fmt.bits
    bits = fmt.bits + Fraction(8 * fmt.scale.code_dtype.itemsize, fmt.size)
    return bits.numerator if bits.denominator == 1 else bits
