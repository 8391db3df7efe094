"""The order of summation that follows from the array, and the width of the sums.

What one PE does is written in the file, as a plain `fma` or `seq` or as any other accumulator. A weight- or
input-stationary array chains R rows of `rate` MACs, then adds the result to a partial sum: `chunk(R*rate, A, seq(F))`.
An output-stationary array keeps the sum in the PE: `A`. An `exact` accumulator has no order.
"""

from __future__ import annotations

from fractions import Fraction

from formats import Format
from simulator.arithmetic.accumulators import (
    Accumulator,
    Aligned,
    Chunk,
    Exact,
    Fma,
    Kahan,
    Late,
    Neumaier,
    Seq,
    innermost,
    outermost,
    result_use,
)

# An exact (fixed-point) accumulator has room for sums of 2**16 products.
GUARD_BITS = 16


def array_order(written: Accumulator, dataflow: str, rows: int, rate: int) -> Accumulator:
    """Return the accumulator with the order of the array worked in.

    Args:
        written: as the file has it. dataflow: ws | is | os | best. rows: R. rate: MACs per PE and cycle.
    Raises:
        ValueError: a composition that the array does not perform; the message names the keys of the array.
    """
    match written:
        case Late():
            return Late(array_order(written.inner, dataflow, rows, rate))
        case Exact():
            return written
    if dataflow == "best":
        raise ValueError(
            f"got {written}, whose order of summation would change with the dataflow that array.dataflow: best picks "
            "for each operation; expected an accumulator without order; set array.dataflow to ws, is or os, or write "
            "exact(FORMAT)"
        )
    if dataflow == "os":
        return written
    if isinstance(written, Chunk):
        if written.length != rows * rate:
            raise ValueError(
                f"got runs of {written.length}; expected {rows * rate} = array.rows ({rows}) times rate ({rate}); "
                f"write {written.inner} and let the order follow from the array, change array.rows or rate, or set "
                "array.dataflow to os"
            )
        return written
    step = _step(innermost(written))
    if rows * rate % step:
        raise ValueError(
            f"got steps of {step} products, which do not fill the runs of {rows * rate} = array.rows ({rows}) times "
            f"rate ({rate}) of this array; make that a multiple of {step}, or set array.dataflow to os"
        )
    total = result_use(written)
    return Chunk(rows * rate, written, Seq(total, total))


def _step(state: Accumulator) -> int:
    """Return how many products a state takes together."""
    match state:
        case Aligned(n):
            return n
        case Fma(_, products):
            return products
    return 1


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
    return (Fraction(a.max) * Fraction(b.max) // unit).bit_length() + 1
